//! Mistakes in manifests and on the command line. How each one is said is tested beside the reader.

use insta::assert_snapshot;

use crate::support::Sandbox;

#[test]
fn all_mistakes_are_told_at_once_and_nothing_runs() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "mistakes"

[stages.fine]
kind = "command"
shell = 'echo fine >> ran'

[stages.train]
kind = "train"
data = "fine"
epoch = 3

[stages.a]
kind = "command"
inputs = { b = "b" }
run = ["true"]

[stages.b]
kind = "command"
inputs = { a = "a" }
run = ["true"]

[stages.noisy]
kind = "corrupt-label"
"#,
    );
    assert_snapshot!(project.pipeline("run experiment.toml"), @"");
    assert_eq!(project.read("ran"), "");
    assert!(!project.path("cache").exists(), "nothing was written");
    for command in ["plan", "graph", "status", "metrics"] {
        assert_eq!(project.pipeline(&format!("{command} experiment.toml")).code(), Some(2));
    }
}

#[test]
fn a_manifest_that_is_not_there_or_can_not_be_read() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("run other.toml"), @"");
    assert_snapshot!(project.pipeline("run ."), @"");
    project.write("bytes.toml", [0xff, 0xfe, 0x00]);
    assert_snapshot!(project.pipeline("run bytes.toml"), @"");
    assert_snapshot!(project.pipeline("run experiment.toml"), @"");
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let project = Sandbox::new("");
    for arguments in ["", "rum", "run", "run experiment.toml --jobs 0", "run x.toml --set epochs"] {
        let ended = project.pipeline(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments}: {ended}");
        assert!(!ended.stderr.is_empty() && !ended.stderr.contains("panicked"), "{ended}");
    }
}
