//! Trackers: TensorBoard's event files.

use std::path::Path;
use std::process::Command;

use crate::support::{Sandbox, skipped, walk};

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

    assert_read(
        files[0].parent().expect("a folder"),
        "result/accuracy [(0, 0.75)]\nresult/loss [(0, 1.5)]\n",
    );
}

/// What TensorBoard reads in a folder, where it is installed.
fn assert_read(folder: &Path, expected: &str) {
    let script = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
for tag in sorted(events.Tags()['scalars']):
    print(tag, [(event.step, event.value) for event in events.Scalars(tag)])
";
    let python = std::env::var("PIPELINE_TENSORBOARD_PYTHON").unwrap_or("python3".to_owned());
    let read = Command::new(python).args(["-c", script]).arg(folder).output();
    match read {
        Ok(output) if output.status.success() => {
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("No module named") => {
            skipped("Python's tensorboard is not installed, so it did not read the file");
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped(&format!("no Python, so TensorBoard did not read the file: {error}")),
    }
}

#[test]
fn a_result_is_the_same_for_tensorboard_whoever_sends_it_and_one_made_again_is_apart() {
    let text = SCORE.replace(
        "shell = \"\"\"\n",
        "shell = \"\"\"\nprintf 'epoch,loss\\\\n1,0.5\\\\n2,0.25\\\\n' > \"$PIPELINE_OUTPUT/curves.csv\"\ncp again \"$PIPELINE_OUTPUT\" 2> /dev/null || true\n",
    );
    let shown =
        "curves/loss [(1, 0.5), (2, 0.25)]\nresult/accuracy [(0, 0.75)]\nresult/loss [(0, 1.5)]\n";
    let folders = |project: &Sandbox| {
        let mut folders: Vec<_> = walk(&project.path("runs")).into_iter().collect();
        folders.retain(|path| path.is_file());
        folders.sort();
        folders.iter().map(|file| file.parent().expect("a folder").to_owned()).collect::<Vec<_>>()
    };
    let project = Sandbox::new(&text);
    project.pipeline("run experiment.toml").success();
    let first = folders(&project);
    assert_eq!(first.len(), 1, "{first:?}");
    assert_read(&first[0], shown);
    let content = |project: &Sandbox| {
        let files = walk(&project.path("runs")).into_iter().filter(|path| path.is_file());
        files.map(|path| std::fs::read(path).expect("readable")).collect::<Vec<_>>()
    };
    let written = content(&project);
    let there = ": 1 there already\n";
    assert!(project.pipeline("track --resend experiment.toml").stdout.ends_with(there));
    // Sent later, it is the same, with the time at which the stage ended.
    std::fs::remove_dir_all(project.path("runs")).expect("a folder");
    assert!(project.pipeline("track --resend experiment.toml").stdout.ends_with(": 1 sent\n"));
    assert_eq!(folders(&project), first);
    assert_read(&first[0], shown);
    assert!(content(&project) == written, "the bytes differ");
    // Made again, it has a folder of its own.
    project.write("again", "");
    project.pipeline("run experiment.toml --force score").success();
    let both = folders(&project);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both[0] == first[0] && both[1] != first[0], "{both:?}");
    for folder in &both {
        assert_read(folder, shown);
    }
    // Made again while nobody was told, it is sent.
    std::fs::remove_dir_all(&both[1]).expect("a folder");
    assert!(project.pipeline("track --resend experiment.toml").stdout.ends_with(": 1 sent\n"));
    assert!(project.pipeline("track --resend experiment.toml").stdout.ends_with(there));
    assert_eq!(folders(&project), both);
    // Curves alone are a result, too.
    let project = Sandbox::new(&text.replace("\"accuracy\": 0.75, \"loss\": 1.5", ""));
    project.pipeline("run experiment.toml").success();
    assert_read(&folders(&project)[0], "curves/loss [(1, 0.5), (2, 0.25)]\n");
    std::fs::remove_dir_all(project.path("runs")).expect("a folder");
    assert!(project.pipeline("track --resend experiment.toml").stdout.ends_with(": 1 sent\n"));
    assert_read(&folders(&project)[0], "curves/loss [(1, 0.5), (2, 0.25)]\n");
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
