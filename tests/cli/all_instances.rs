//! A program that reads all instances of a stage.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::support::{MANIFEST, Sandbox};

const SWEEP: &str = r#"
[experiment]
name = "sweep"

[matrix]
rate = [0.5, 0.9]
seed = [1, 2]

[stages.score]
kind = "command"
shell = 'echo "{\"score\": $RATE$SEED}" > "$PIPELINE_OUTPUT/metrics.json"'
environment = { RATE = "${rate}", SEED = "${seed}" }
output = "metrics"

[stages.total]
kind = "command"
inputs = { scores = "score@*" }
run = ["cp", "{inputs.scores}/instances.json", "{output}/all.json"]

[stages.per-rate]
kind = "command"
inputs = { scores = "score@seed=*" }
shell = 'cp "$PIPELINE_INPUT_SCORES/instances.json" "$PIPELINE_OUTPUT/all.json"'
"#;

/// The points in the file that a stage has copied; each path is a folder with a result.
fn points(sandbox: &Sandbox, stage: &str) -> Vec<String> {
    let text = fs::read_to_string(sandbox.artifact(stage).join("all.json")).expect("it was copied");
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let point = |instance: &serde_json::Value| {
        let path = instance["path"].as_str().expect("a path");
        let metrics = fs::read_to_string(format!("{path}/metrics.json")).expect("metrics");
        let score: serde_json::Value = serde_json::from_str(&metrics).expect("JSON");
        format!("{} {}", instance["point"], score["score"])
    };
    all.iter().map(point).collect()
}

#[test]
fn a_program_gets_a_list_of_points_and_folders() {
    let sandbox = Sandbox::new(SWEEP);
    sandbox.pipeline("run experiment.toml").success();
    assert_eq!(
        points(&sandbox, "total"),
        [
            r#"{"rate":0.5,"seed":1} 0.51"#,
            r#"{"rate":0.5,"seed":2} 0.52"#,
            r#"{"rate":0.9,"seed":1} 0.91"#,
            r#"{"rate":0.9,"seed":2} 0.92"#,
        ]
    );
    assert_eq!(
        points(&sandbox, "per-rate@rate=0.9"),
        [r#"{"rate":0.9,"seed":1} 0.91"#, r#"{"rate":0.9,"seed":2} 0.92"#]
    );
    // Another seed: what is new runs, and what reads all.
    let text = sandbox.pipeline("plan experiment.toml --set matrix.seed=[1,2,3]").printed();
    assert!(text.contains("score              6: 4 fresh, 2 to run"), "{text}");
    assert!(text.contains("input 'inputs.scores@rate=0.5,seed=3' is new"), "{text}");
    assert!(text.contains("5 would run, 4 are fresh"), "{text}");
    let text = sandbox.pipeline("plan experiment.toml --set matrix.seed=[2]").printed();
    assert!(text.contains("input 'inputs.scores@rate=0.5,seed=1' was removed"), "{text}");
    assert!(text.contains("3 would run, 2 are fresh"), "{text}");
}

#[test]
fn a_program_gets_the_bytes_of_folders_whose_name_is_not_text() {
    let sandbox = Sandbox::new("");
    let folder = sandbox.folder().join(OsStr::from_bytes(b"nu\xe9"));
    fs::create_dir(&folder).expect("ours");
    fs::write(folder.join(MANIFEST), SWEEP).expect("ours");
    let mut command = sandbox.command("run experiment.toml total --cache cache");
    command.current_dir(&folder);
    sandbox.start_command(command).wait().success();
    let text = fs::read(folder.join("cache/latest/sweep/total/all.json")).expect("it was copied");
    let all: Vec<serde_json::Value> = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(all.len(), 4);
    for instance in all {
        let bytes: Vec<u8> = serde_json::from_value(instance["path"].clone()).expect("bytes");
        assert!(Path::new(OsStr::from_bytes(&bytes)).join("metrics.json").is_file(), "{instance}");
    }
}
