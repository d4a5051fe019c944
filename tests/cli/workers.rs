//! Workers that are not what they should be.

use insta::assert_snapshot;

use crate::caching::TRAINING;
use crate::support::{Sandbox, pipeline};

/// What a run says whose learning stages have a worker of this behaviour.
fn run_with(behaviour: &str) -> crate::support::Ended {
    let project = Sandbox::new(TRAINING).with_fake_learn(behaviour);
    let ended = project.pipeline("run experiment.toml --jobs 1 simclr");
    // What was wrong with the worker is no reason to keep anything of it.
    let again = project.with_fake_learn("").pipeline("run experiment.toml simclr");
    assert_eq!(again.success().matches("data fresh").count(), 1);
    ended
}

#[test]
fn of_another_version() {
    assert_snapshot!(run_with("other-version"), @"");
}

#[test]
fn another_program() {
    assert_snapshot!(run_with("garbage"), @"");
}

#[test]
fn one_that_does_not_start() {
    assert_snapshot!(run_with("mute"), @"");
}

#[test]
fn one_that_crashes() {
    assert_snapshot!(run_with("die"), @"");
}

#[test]
fn one_that_panics() {
    let ended = run_with("panic");
    assert_eq!(ended.code(), Some(1));
    let failure: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("FAIL")).collect();
    assert!(failure[0].ends_with("internal error: an index was out of bounds"), "{ended}");
}

#[test]
fn one_that_leaves_without_a_result() {
    assert_snapshot!(run_with("silent-exit"), @"");
}

#[test]
fn one_whose_libraries_print_is_forgiven() {
    assert_snapshot!(run_with("flood").success(), @"");
}

#[test]
fn one_that_is_not_there() {
    let project = Sandbox::new(TRAINING);
    // Alone in its folder, so that no other build's worker lies beside it.
    std::fs::create_dir(project.path("bin")).expect("ours");
    std::fs::copy(pipeline(), project.path("bin/pipeline")).expect("a copy of the program");
    let mut command = std::process::Command::new(project.path("bin/pipeline"));
    command.args(["run", "experiment.toml"]);
    project.dress(&mut command);
    command.env("PATH", "/usr/bin:/bin");
    assert_snapshot!(project.start_command(command).wait(), @"");
    let project = project.set("PIPELINE_LEARN", "/nowhere/pipeline-learn");
    assert_snapshot!(project.pipeline("run experiment.toml"), @"");
}

#[test]
fn one_that_is_called_by_hand() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("__worker"), @"");
}
