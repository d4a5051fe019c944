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
        ("experiment.txt out", "no manifest is named"),
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

const ENCODER: &str = r#"
[experiment]
name = "encoder"

[stages.encoder]
kind = "import-weights"
path = "encoder.pth.tar"
architecture = "resnet8"
normalise = "none"

[stages.text]
kind = "command"
shell = "echo text > $PIPELINE_OUTPUT/text; echo 'true' > $PIPELINE_OUTPUT/run.sh; chmod +x $PIPELINE_OUTPUT/run.sh"
"#;

/// A project with an encoder that PyTorch has written.
fn encoder() -> Sandbox {
    let project = Sandbox::new(ENCODER);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let checkpoint = folder.join("tests/reference/import/checkpoints/simclr.pth.tar");
    project.write("encoder.pth.tar", std::fs::read(checkpoint).expect("it exists"));
    project
}

#[test]
fn the_artifact_of_a_stage_becomes_ordinary_files() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let project = encoder();
    let early = project.pipeline("export experiment.toml text out");
    assert!(
        early
            .stderr
            .contains("text does not have a result: `pipeline run experiment.toml text` makes"),
        "{early}"
    );
    project.pipeline("run experiment.toml").success();
    project.write("full/file", "");
    for (arguments, words) in [
        ("text full", "full is not empty: name a new folder"),
        (
            "text out --format torch",
            "text produces directory; --format torch is for weights and models",
        ),
        ("out --format files", "pipeline export [MANIFEST] STAGE DIR"),
        ("txet out --format files", "did you mean 'text'?"),
        ("txet out", "has no stage 'txet'; did you mean 'text'?"),
        ("made txet", "has no stage 'txet'; did you mean 'text'?"),
        ("text.d txet", "has no stage 'txet'; did you mean 'text'?"),
    ] {
        let refused = project.pipeline(&format!("export experiment.toml {arguments}"));
        assert_eq!(refused.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains(words), "{refused}");
    }
    assert_eq!(
        project.pipeline("export experiment.toml text out").printed(),
        "out: text, directory\n"
    );
    assert_eq!(names(&project.path("out")), ["run.sh", "text"]);
    let file = project.path("out/text").metadata().expect("it exists");
    let original = project.artifact("text").join("text").metadata().expect("it exists");
    assert!(file.permissions().mode() & 0o200 != 0 && file.nlink() == 1);
    assert_ne!((file.dev(), file.ino()), (original.dev(), original.ino()));
    let program = project.path("out/run.sh").metadata().expect("it exists");
    assert!(program.permissions().mode() & 0o100 != 0);
    // Nothing that is done to them reaches the cache.
    project.write("out/text", "mine\n");
    std::fs::remove_file(project.path("out/run.sh")).expect("the folder is ours too");
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(0));
    // The words of a crate mean what they meant.
    let of_a_crate = project.pipeline("export experiment.toml made text");
    assert_eq!(of_a_crate.stdout, "made: 1 stage, without its artifact\n", "{of_a_crate}");
    let into_a_folder = project.pipeline("export experiment.toml encoder text");
    assert!(project.path("encoder/ro-crate-metadata.json").exists(), "{into_a_folder}");
    assert!(!names(&project.folder()).iter().any(|name| name.starts_with(".out")));

    let damaged = project.artifact("text");
    project.unprotect(&damaged);
    std::fs::write(damaged.join("text"), "harm\n").expect("writable");
    let refused = project.pipeline("export experiment.toml text again");
    assert!(refused.stderr.contains("does not match its record"), "{refused}");
    assert!(!project.path("again").exists());
}

/// Compares what PyTorch loads with the bytes of the safetensors file.
const LOAD: &str = r#"
import json, struct, torch
raw = open("files/weights.safetensors", "rb").read()
start = 8 + struct.unpack("<Q", raw[:8])[0]
header = json.loads(raw[8:start])
for memory in (False, True):
    weights = torch.load("out/weights.pt", weights_only=True, mmap=memory)
    assert set(weights) == set(header) - {"__metadata__"}
    for name, tensor in weights.items():
        begin, end = header[name]["data_offsets"]
        assert list(tensor.shape) == header[name]["shape"], name
        assert bytes(tensor.untyped_storage().tolist()) == raw[start + begin:start + end], name
        assert tensor.is_contiguous() and not tensor.requires_grad, name
print(type(weights).__name__, len(weights), list(weights)[:3], weights["bn1.num_batches_tracked"].dtype)
"#;

#[test]
fn pytorch_loads_exported_weights() {
    let project = encoder();
    project.pipeline("run experiment.toml encoder").success();
    let ended = project.pipeline("export experiment.toml encoder out --format torch");
    assert_eq!(ended.printed(), "out: encoder, weights\n");
    assert_eq!(names(&project.path("out")), ["import.json", "model.json", "weights.pt"]);
    project.pipeline("export experiment.toml encoder files").printed();
    // What it wrote is a checkpoint like any other: imported again, it is the same encoder.
    project.edit("encoder.pth.tar", "out/weights.pt");
    project.pipeline("run experiment.toml encoder").success();
    let again = std::fs::read(project.artifact("encoder").join("weights.safetensors"));
    let first = std::fs::read(project.path("files/weights.safetensors"));
    assert!(again.expect("readable") == first.expect("readable"));

    let python = std::env::var("PIPELINE_TORCH_PYTHON").unwrap_or("python3".to_owned());
    let mut command = Command::new(python);
    project.dress(&mut command);
    match command.args(["-c", LOAD]).output() {
        Ok(output) if output.status.success() => {
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let names = "['conv1.weight', 'bn1.weight', 'bn1.bias']";
            assert_eq!(printed, format!("OrderedDict 42 {names} torch.int64\n"));
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("No module named") => {
            skipped("PyTorch is not installed, so it did not load what was exported");
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skipped(&format!("no Python, so PyTorch did not load what was exported: {error}"))
        }
    }
}
