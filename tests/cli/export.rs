//! `pipeline export`: a folder for others.

use std::process::Command;

use serde_json::Value;

use crate::support::{Sandbox, names, skipped, walk};

const EXPERIMENT: &str = r#"
[experiment]
name = "handed-on"

[stages.text]
kind = "command"
shell = "echo text > $PIPELINE_OUTPUT/text"

[stages.score]
kind = "command"
output = "metrics"
inputs.text = "text"
shell = '''
echo '{"accuracy": 0.75, "auc": NaN}' > "$PIPELINE_OUTPUT/metrics.json"
mkdir "$PIPELINE_OUTPUT/more" && echo a,b > "$PIPELINE_OUTPUT/more/a b.csv"
'''
"#;

/// What is described as `kind`.
fn described<'a>(metadata: &'a Value, kind: &str) -> Vec<&'a Value> {
    let graph = metadata["@graph"].as_array().expect("a list");
    graph.iter().filter(|entity| entity["@type"] == kind).collect()
}

#[test]
fn an_experiment_is_a_crate() {
    let project = Sandbox::new(EXPERIMENT);
    let nothing = project.pipeline("export experiment.toml out");
    assert_eq!(nothing.code(), Some(2), "{nothing}");
    assert!(nothing.stderr.contains("none of these stages has a result"), "{nothing}");
    project.pipeline("run experiment.toml").success();
    project.write("full/file", "");
    for (arguments, words) in [
        ("experiment.toml full", "full is not empty: name a new folder"),
        ("experiment.toml experiment.toml", "cannot be a new folder"),
        ("experiment.txt out", "the first argument is the manifest"),
    ] {
        let refused = project.pipeline(&format!("export {arguments}"));
        assert_eq!(refused.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains(words), "{refused}");
    }
    std::fs::create_dir(project.path("out")).expect("a folder");
    let ended = project.pipeline("export experiment.toml out");
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_eq!(ended.stdout, "out: 2 stages, the artifacts of 1 of them\n");
    assert_eq!(project.read("out/manifest/experiment.toml"), EXPERIMENT);
    assert_eq!(names(&project.path("out/artifacts")), ["score"]);
    assert_eq!(project.read("out/artifacts/score/more/a b.csv"), "a,b\n");
    let metadata: Value =
        serde_json::from_str(&project.read("out/ro-crate-metadata.json")).expect("JSON");
    let runs = described(&metadata, "CreateAction");
    assert_eq!(runs.len(), 2);
    let score = runs.iter().find(|run| run["name"] == "Run of score").expect("a run");
    assert_eq!(score["result"][0]["@id"], "artifacts/score/");
    assert!(score["instrument"]["@id"] == "#kind-command-1", "{score}");
    assert!(score["startTime"].as_str() <= score["endTime"].as_str(), "{score}");
    // Nothing half-written stays behind.
    assert!(!names(&project.folder()).iter().any(|name| name.starts_with(".out")));

    let all = project.pipeline("export experiment.toml all --all --license CC-BY-4.0");
    assert_eq!(all.stdout, "all: 2 stages, the artifacts of 2 of them\n", "{all}");
    assert_eq!(project.read("all/artifacts/text/text"), "text\n");
    assert!(project.read("all/ro-crate-metadata.json").contains("\"license\": \"CC-BY-4.0\""));
    // The copies are the user's own.
    std::fs::remove_dir_all(project.path("all")).expect("it can be removed");

    let artifact = project.artifact("score");
    project.unprotect(&artifact);
    std::fs::write(artifact.join("metrics.json"), "{}").expect("writable");
    let damaged = project.pipeline("export experiment.toml damaged");
    assert_eq!(damaged.code(), Some(2), "{damaged}");
    assert!(damaged.stderr.contains("artifact of score does not match its record"), "{damaged}");
    assert!(!project.path("damaged").exists());
    assert!(
        !walk(&project.folder()).iter().any(|path| path.to_string_lossy().contains(".damaged"))
    );
}

#[test]
fn the_same_artifact_is_copied_once_and_every_stage_is_named() {
    let shell = "kind = \"command\"\noutput = \"metrics\"\nshell = \"echo '{\\\"x\\\": 1}' > $PIPELINE_OUTPUT/metrics.json";
    let project = Sandbox::new(&format!(
        "[experiment]\nname = \"same\"\n[stages.a]\n{shell}; true\"\n[stages.b]\n{shell}\"\n[stages.c]\n{shell}\"\n"
    ));
    project.pipeline("run experiment.toml").success();
    let ended = project.pipeline("export experiment.toml out");
    assert_eq!(ended.stdout, "out: 3 stages, the artifacts of 3 of them\n", "{ended}");
    assert_eq!(names(&project.path("out/artifacts")), ["a"]);
    let metadata: Value =
        serde_json::from_str(&project.read("out/ro-crate-metadata.json")).expect("JSON");
    let runs = described(&metadata, "CreateAction");
    let named: Vec<&str> = runs.iter().filter_map(|run| run["name"].as_str()).collect();
    assert_eq!(named, ["Run of a", "Run of b, c"]);
    for run in runs {
        assert_eq!(run["result"][0]["@id"], "artifacts/a/");
    }
    let root = described(&metadata, "Dataset").into_iter().find(|one| one["@id"] == "./");
    assert_eq!(root.expect("the crate")["mentions"].as_array().map(Vec::len), Some(2));
}

#[test]
fn links_that_lead_out_are_left_out() {
    let project = Sandbox::new(
        "[experiment]\nname = \"links\"\n[stages.text]\nkind = \"command\"\nshell = '''\ncd $PIPELINE_OUTPUT; mkdir d; echo x > d/file\n\
         ln -s d/file inside; ln -s ../inside d/up; ln -s missing dangling; ln -s /etc/passwd absolute; ln -s ../../x d/above\n\
         mkdir -p p/q; ln -s ../../ p/q/top; ln -s p/q/top/../../../secret.txt through; ln -s p/q/top/d/file around\n\
         ln -s \"$(printf %0256d 0)\" long\n'''\n",
    );
    project.pipeline("run experiment.toml").success();
    let ended = project.pipeline("export experiment.toml out --all");
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(
        ended.stderr.contains(
            "left out, because they lead out of their artifact: artifacts/text/absolute, artifacts/text/d/above, artifacts/text/through"
        ),
        "{ended}"
    );
    assert_eq!(ended.stdout, "out: 1 stage, with its artifact\n");
    assert_eq!(
        names(&project.path("out/artifacts/text")),
        ["around", "d", "dangling", "inside", "long", "p"]
    );
    assert_eq!(names(&project.path("out/artifacts/text/d")), ["file", "up"]);
    assert_eq!(project.read("out/artifacts/text/d/up"), "x\n");
    // Found before anything is copied.
    std::fs::create_dir(project.path("empty")).expect("a folder");
    for (name, target) in [("link", "empty"), ("nowhere", "missing")] {
        std::os::unix::fs::symlink(target, project.path(name)).expect("a link");
        for slash in ["", "/"] {
            let refused = project.pipeline(&format!("export experiment.toml {name}{slash}"));
            assert_eq!(refused.code(), Some(2), "{refused}");
            assert!(refused.stderr.contains("is a link: name a new folder"), "{refused}");
        }
    }
}

/// `PIPELINE_ROCRATE_VALIDATOR` names the program of PyPI's `roc-validator`, which needs the web.
#[test]
fn a_crate_is_what_its_validator_accepts() {
    let project = Sandbox::new(EXPERIMENT);
    project.pipeline("run experiment.toml").success();
    project.pipeline("export experiment.toml out");
    let program = std::env::var("PIPELINE_ROCRATE_VALIDATOR");
    let program = program.unwrap_or("rocrate-validator".to_owned());
    for profile in ["ro-crate-1.1", "process-run-crate-0.5"] {
        let mut validator = Command::new(&program);
        validator.args([
            "-y",
            "--disable-color",
            "validate",
            "--no-paging",
            "-l",
            "REQUIRED",
            "-p",
        ]);
        let Ok(ended) = validator.arg(profile).arg(project.path("out")).output() else {
            skipped("rocrate-validator is not installed, so it did not read the crate");
            return;
        };
        let text = [ended.stdout, ended.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        if text.contains("URLError") || text.contains("Name or service") {
            skipped("rocrate-validator did not reach the web, so it did not read the crate");
            return;
        }
        assert!(ended.status.success(), "{profile}: {text}");
    }
}
