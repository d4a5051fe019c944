//! Workers that are not what they should be.

use insta::assert_snapshot;

use crate::manifests::TRAINING;
use crate::support::{Sandbox, copy_program, pipeline};

/// What a run says whose learning stages have a worker of this behaviour.
fn run_with(behaviour: &str) -> crate::support::Ended {
    let project = Sandbox::new(TRAINING).with_fake_learn(behaviour);
    let ended = project.pipeline("run experiment.toml --jobs 1 simclr");
    // Nothing is kept of a worker that was wrong.
    let again = project.with_fake_learn("").pipeline("run experiment.toml simclr");
    assert_eq!(again.success().matches("data fresh").count(), 1);
    ended
}

#[test]
fn of_another_version() {
    assert_snapshot!(run_with("other-version"), @r"
    status 1
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr (pretrain-simclr) runs: no earlier run
    FAIL  simclr after [time]: pipeline-learn is version 99.0.0 (protocol 4), this is pipeline 0.1.0 (protocol 4): build or install both together, with `cargo xtask build`
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  failed  [time]

    training: 1 ran, 1 failed in [time]; `pipeline log experiment.toml simclr` shows the whole log
    ");
}

#[test]
fn of_another_build() {
    let ended = run_with("other-kinds");
    assert!(
        ended.stderr.contains(
            "pipeline-learn is another build of 0.1.0 than this pipeline: build or install both together"
        ),
        "{ended}"
    );
}

#[test]
fn one_that_measured_nan() {
    let ended = run_with("not-a-number");
    assert!(ended.stdout.contains("loss NaN"), "{ended}");
}

#[test]
fn another_program() {
    assert_snapshot!(run_with("garbage"), @r"
    status 1
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr (pretrain-simclr) runs: no earlier run
    FAIL  simclr after [time]: the worker does not speak pipeline's protocol; it sent: Welcome to another program!
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  failed  [time]

    training: 1 ran, 1 failed in [time]; `pipeline log experiment.toml simclr` shows the whole log
    ");
}

#[test]
fn one_that_does_not_start() {
    assert_snapshot!(run_with("mute"), @r#"
    status 1
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr (pretrain-simclr) runs: no earlier run
    FAIL  simclr after [time]: fake-learn ended before it said hello (exit status: 127)
          the last lines of its log:
          | libtorch_cpu.so: cannot open shared object file
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  failed  [time]

    training: 1 ran, 1 failed in [time]; `pipeline log experiment.toml simclr` shows the whole log
    "#);
}

#[test]
fn one_that_crashes() {
    assert_snapshot!(run_with("die"), @r"
    status 1
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr (pretrain-simclr) runs: no earlier run
    FAIL  simclr after [time]: fake-learn crashed (signal 6)
          the last lines of its log:
          | line 11 of the log
          | line 12 of the log
          | line 13 of the log
          | line 14 of the log
          | line 15 of the log
          | line 16 of the log
          | line 17 of the log
          | line 18 of the log
          | line 19 of the log
          | line 20 of the log
          | line 21 of the log
          | line 22 of the log
          | line 23 of the log
          | line 24 of the log
          | line 25 of the log
          | line 26 of the log
          | line 27 of the log
          | line 28 of the log
          | line 29 of the log
          | line 30 of the log
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  failed  [time]

    training: 1 ran, 1 failed in [time]; `pipeline log experiment.toml simclr` shows the whole log
    ");
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
    assert_snapshot!(run_with("silent-exit"), @r"
    status 1
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr (pretrain-simclr) runs: no earlier run
    FAIL  simclr after [time]: fake-learn ended without a result (exit status: 0)
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  failed  [time]

    training: 1 ran, 1 failed in [time]; `pipeline log experiment.toml simclr` shows the whole log
    ");
}

#[test]
fn one_whose_libraries_print_is_forgiven() {
    assert_snapshot!(run_with("flood").success(), @"data ran, simclr ran");
}

#[test]
fn a_worker_that_is_missing() {
    let project = Sandbox::new(TRAINING);
    // Alone in its folder, so that no other build's worker is beside it.
    std::fs::create_dir(project.path("bin")).expect("ours");
    copy_program(&pipeline(), &project.path("bin/pipeline"));
    let mut command = std::process::Command::new(project.path("bin/pipeline"));
    command.args(["run", "experiment.toml"]);
    project.dress(&mut command);
    command.env("PATH", "/usr/bin:/bin");
    assert_snapshot!(project.start_command(command).wait(), @r"
    status 1
    --- stderr
          simclr: warning: there is no pipeline-learn beside [project]/bin/pipeline or on the PATH: build it with `cargo xtask build`, or name it in PIPELINE_LEARN
          data (command) runs: no earlier run
    done  data in [time]
    FAIL  simclr after [time]: there is no pipeline-learn beside [project]/bin/pipeline or on the PATH: build it with `cargo xtask build`, or name it in PIPELINE_LEARN
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  failed  [time]
    train  skipped  needs simclr
    evaluate  skipped  needs train

    training: 1 ran, 1 failed, 2 skipped in [time]; `pipeline log experiment.toml simclr` shows the whole log
    ");
    // An empty variable is not set.
    let mut command = std::process::Command::new(project.path("bin/pipeline"));
    command.args(["run", "experiment.toml"]);
    project.dress(&mut command);
    command.env("PATH", "/usr/bin:/bin").env("PIPELINE_LEARN", "");
    let ended = project.start_command(command).wait();
    assert!(ended.stderr.contains("there is no pipeline-learn beside"), "{ended}");
    let project = project.set("PIPELINE_LEARN", "/nowhere/pipeline-learn");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 1
    --- stderr
          simclr: warning: PIPELINE_LEARN names /nowhere/pipeline-learn, which is missing: build it with `cargo xtask build`, or unset PIPELINE_LEARN to use the one beside pipeline
    FAIL  simclr after [time]: PIPELINE_LEARN names /nowhere/pipeline-learn, which is missing: build it with `cargo xtask build`, or unset PIPELINE_LEARN to use the one beside pipeline
    --- stdout

    stage  result  time  metrics
    data  fresh
    simclr  failed  [time]
    train  skipped  needs simclr
    evaluate  skipped  needs train

    training: 1 fresh, 1 failed, 2 skipped in [time]; `pipeline log experiment.toml simclr` shows the whole log
    ");
}

#[test]
fn one_that_is_called_by_hand() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("__worker"), @r#"
    status 1
    --- stderr
    pipeline: this program is started by `pipeline`, which sends it a request
    --- stdout
    {"event":"hello","program":"pipeline","protocol":4,"version":"0.1.0","contract":"[digest]"}
    "#);
}
