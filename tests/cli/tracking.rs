//! Trackers: TensorBoard's event files.

use std::process::Command;

use crate::support::{Sandbox, walk};

const SCORE: &str = r#"
[experiment]
name = "scores"

[tracking]
tensorboard = "runs"

[stages.score]
kind = "command"
output = "metrics"
shell = """
echo '{"accuracy": 0.75, "loss": 1.5}' > "$PIPELINE_OUTPUT/metrics.json"
"""
"#;

#[test]
fn event_files_of_tensorboard_are_what_it_reads() {
    let project = Sandbox::new(SCORE);
    project.pipeline("run experiment.toml").success();
    let files: Vec<_> =
        walk(&project.path("runs")).into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let name = files[0].strip_prefix(project.path("runs")).expect("below it");
    assert!(name.starts_with("scores/score"), "{name:?}");
    // A second run does nothing, and writes nothing.
    project.pipeline("run experiment.toml").success();
    assert_eq!(walk(&project.path("runs")).iter().filter(|path| path.is_file()).count(), 1);

    let script = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
for tag in sorted(events.Tags()['scalars']):
    print(tag, [(event.step, event.value) for event in events.Scalars(tag)])
";
    let python = std::env::var("PIPELINE_TENSORBOARD_PYTHON").unwrap_or("python3".to_owned());
    let folder = files[0].parent().expect("a folder");
    let read = Command::new(python).args(["-c", script]).arg(folder).output();
    match read {
        Ok(output) if output.status.success() => assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "result/accuracy [(0, 0.75)]\nresult/loss [(0, 1.5)]\n"
        ),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("No module named") => {
            eprintln!(
                "SKIPPED: Python's tensorboard is not installed, so it did not read the file"
            );
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("SKIPPED: no Python, so TensorBoard did not read the file: {error}")
        }
    }
}

#[test]
fn a_tracker_is_in_no_key_and_one_that_does_not_work_is_a_warning() {
    let project = Sandbox::new(SCORE);
    project.write("runs", "a file, not a folder");
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(ended.stderr.contains("warning: TensorBoard: cannot write to "), "{ended}");
    project.edit("[tracking]\ntensorboard = \"runs\"\n", "");
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(0));
    let wrong = Sandbox::new(&SCORE.replace("tensorboard = \"runs\"", "tensorbord = \"\""));
    let ended = wrong.pipeline("plan experiment.toml");
    assert!(ended.stderr.contains("unknown key 'tensorbord' in 'tracking'"), "{ended}");
}
