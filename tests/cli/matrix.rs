//! A small sweep: run it, add a seed, select some of it.

use insta::assert_snapshot;

use crate::support::Sandbox;

/// Two rates and two seeds, each trained once, with a stage beside them that all of them read.
const SWEEP: &str = r#"
[experiment]
name = "sweep"

[matrix]
rate = [0.10, 0.9]
seed = [1, 2]

[defaults.command]
output = "metrics"

[stages.words]
kind = "command"
shell = 'echo words >> ran; echo some words > "$PIPELINE_OUTPUT/text"'
output = "directory"

[stages.train]
kind = "command"
inputs = { words = "words" }
environment = { RATE = "${rate}", SEED = "${seed}" }
shell = 'echo "train ${RATE} ${SEED}" >> ran; echo "{\"rate\": ${RATE}, \"seed\": ${SEED}}" > "$PIPELINE_OUTPUT/metrics.json"'

[stages.evaluate]
kind = "command"
inputs = { model = "train", baseline = "train@rate=0.1" }
shell = 'echo evaluate >> ran; cat "$PIPELINE_INPUT_MODEL/metrics.json" > "$PIPELINE_OUTPUT/metrics.json"'
"#;

/// One of the trainings, written by hand.
const BY_HAND: &str = r#"
[stages.by-hand]
kind = "command"
inputs = { words = "words" }
environment = { RATE = "0.9", SEED = "2" }
shell = 'echo "train ${RATE} ${SEED}" >> ran; echo "{\"rate\": ${RATE}, \"seed\": ${SEED}}" > "$PIPELINE_OUTPUT/metrics.json"'
"#;

#[test]
fn a_sweep_runs_and_a_new_seed_runs_only_what_is_new() {
    let project = Sandbox::new(SWEEP);
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r"
    words                     dirty    no earlier run
    train@rate=0.1,seed=1     waiting  on words; no earlier run
    train@rate=0.1,seed=2     waiting  on words; no earlier run
    train@rate=0.9,seed=1     waiting  on words; no earlier run
    train@rate=0.9,seed=2     waiting  on words; no earlier run
    evaluate@rate=0.1,seed=1  waiting  on train@rate=0.1,seed=1; no earlier run
    evaluate@rate=0.1,seed=2  waiting  on train@rate=0.1,seed=2; no earlier run
    evaluate@rate=0.9,seed=1  waiting  on train@rate=0.1,seed=1, train@rate=0.9,seed=1; no earlier run
    evaluate@rate=0.9,seed=2  waiting  on train@rate=0.1,seed=2, train@rate=0.9,seed=2; no earlier run

    sweep: 9 would run, 0 are fresh
    ");
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1").success(), @"words ran, train@rate=0.1,seed=1 ran, train@rate=0.1,seed=2 ran, train@rate=0.9,seed=1 ran, train@rate=0.9,seed=2 ran, evaluate@rate=0.1,seed=1 ran, evaluate@rate=0.1,seed=2 ran, evaluate@rate=0.9,seed=1 ran, evaluate@rate=0.9,seed=2 ran");
    assert_snapshot!(project.read("ran"), @r"
    words
    train 0.1 1
    train 0.1 2
    train 0.9 1
    train 0.9 2
    evaluate
    evaluate
    evaluate
    evaluate
    ");
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(0));
    let name = "train@rate=0.9,seed=2";
    assert!(project.cache("latest/sweep").join(name).join("metrics.json").is_file());

    project.write("ran", "");
    project.edit("seed = [1, 2]", "seed = [1, 2, 3]");
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r"
    words     fresh
    train     6: 4 fresh, 2 to run
    evaluate  6: 4 fresh, 2 waiting

    sweep: 4 would run, 9 are fresh
    ");
    assert_snapshot!(project.pipeline("plan experiment.toml --all train").printed(), @r"
    words                  fresh
    train@rate=0.1,seed=1  fresh
    train@rate=0.1,seed=2  fresh
    train@rate=0.1,seed=3  dirty  no earlier run
    train@rate=0.9,seed=1  fresh
    train@rate=0.9,seed=2  fresh
    train@rate=0.9,seed=3  dirty  no earlier run

    sweep: 2 would run, 5 are fresh
    ");
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1").printed(), @r"

    stage  result  time  metrics
    words  fresh
    train  6: 4 fresh, 2 ran
    evaluate  6: 4 fresh, 2 ran

    sweep: 9 fresh, 4 ran in [time]
    `pipeline metrics experiment.toml evaluate` shows what was measured
    ");
    let all = project.pipeline("run experiment.toml --all evaluate@seed=1");
    assert!(all.stdout.contains("\nevaluate@rate=0.9,seed=1  fresh"), "{all}");
    assert_snapshot!(project.read("ran"), @r"
    train 0.1 3
    train 0.9 3
    evaluate
    evaluate
    ");

    // Without a point, nothing runs; nor with another spelling of its value.
    project.write("ran", "");
    project.edit("seed = [1, 2, 3]", "seed = [3, 1]");
    project.edit("rate = [0.10, 0.9]", "rate = [9e-1, 0.1]");
    project.pipeline("run experiment.toml").success();
    project.pipeline("run experiment.toml --set matrix.seed=[2]").success();
    assert_eq!(project.read("ran"), "");
}

#[test]
fn a_stage_written_by_hand_and_an_instance_share_their_result() {
    let project = Sandbox::new(&format!("{SWEEP}{BY_HAND}"));
    project.pipeline("run experiment.toml by-hand").success();
    assert_snapshot!(project.read("ran"), @r"
    words
    train 0.9 2
    ");
    assert_snapshot!(project.pipeline("plan experiment.toml train@rate=0.9").printed(), @r"
    words                  fresh
    train@rate=0.9,seed=1  dirty  no earlier run
    train@rate=0.9,seed=2  fresh

    sweep: 1 would run, 2 are fresh
    ");
    let path = |stage: &str| project.pipeline(&format!("path experiment.toml {stage}")).printed();
    assert_eq!(path("by-hand"), path("train@rate=0.9,seed=2"));
}

#[test]
fn instances_are_selected_by_patterns() {
    let project = Sandbox::new(SWEEP);
    let results = |patterns: &str| {
        project.pipeline(&format!("run experiment.toml --jobs 1 {patterns}")).success()
    };
    assert_snapshot!(results("train@rate=0.90,seed=1"), @"words ran, train@rate=0.9,seed=1 ran");
    assert_snapshot!(results("train@seed=*,rate=*.1"), @"words fresh, train@rate=0.1,seed=1 ran, train@rate=0.1,seed=2 ran");
    assert_snapshot!(results("tr*@seed=2 words"), @"words fresh, train@rate=0.1,seed=2 fresh, train@rate=0.9,seed=2 ran");
    assert_snapshot!(results("evaluate@rate=0.1"), @"words fresh, train@rate=0.1,seed=1 fresh, train@rate=0.1,seed=2 fresh, evaluate@rate=0.1,seed=1 ran, evaluate@rate=0.1,seed=2 ran");
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train"), @r"
    status 2
    --- stderr
    error: 'train' is 4 stages; name one of them: train@rate=0.1,seed=1
    ");
    assert_snapshot!(project.pipeline("why experiment.toml train@rate=0.7"), @r"
    status 2
    --- stderr
    error: 'train' does not have the value '0.7' of 'rate'; there are: 0.1, 0.9
    ");
    assert_snapshot!(project.pipeline("run experiment.toml trian@rate=0.9"), @r"
    status 2
    --- stderr
    error: experiment.toml has no stage 'trian@rate=0.9'; did you mean 'train'?
    ");
    assert_eq!(project.pipeline("log experiment.toml train@rate=0.9,seed=2").code(), Some(0));
}

#[test]
fn a_failure_is_of_one_point() {
    let project = Sandbox::new(SWEEP);
    let check = "grep -q 0.9 \"$PIPELINE_INPUT_MODEL/metrics.json\" || exit 1";
    project.edit("echo evaluate >> ran", &format!("{check}; echo evaluate >> ran"));
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(ended.results(), @"words ran, train@rate=0.1,seed=1 ran, train@rate=0.1,seed=2 ran, train@rate=0.9,seed=1 ran, train@rate=0.9,seed=2 ran, evaluate@rate=0.1,seed=1 failed, evaluate@rate=0.1,seed=2 failed, evaluate@rate=0.9,seed=1 ran, evaluate@rate=0.9,seed=2 ran");
    assert!(
        ended.stdout.contains("pipeline log experiment.toml evaluate@rate=0.1,seed=1"),
        "{ended}"
    );
    project.edit("seed = [1, 2]", "seed = [1, 2, 3]");
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going");
    assert_snapshot!(ended.results(), @"words fresh, train 6:, evaluate 6:, evaluate@rate=0.1,seed=1 failed, evaluate@rate=0.1,seed=2 failed, evaluate@rate=0.1,seed=3 failed");
    assert!(ended.stdout.contains(" 6: 2 fresh, 1 ran, 3 failed\n"), "{ended}");
}

#[test]
fn mistakes_name_their_point() {
    let project = Sandbox::new(SWEEP);
    project.edit(
        "{ model = \"train\", baseline",
        "{ model = \"train@rate=${rate},seed=1${seed}\", baseline",
    );
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r#"
    status 2
    --- stderr
    error: the axis 'seed' does not have the value '11'
      --> experiment.toml:25:20
       |
    25 | inputs = { model = "train@rate=${rate},seed=1${seed}", baseline = "train@rate=0.1" }
       |                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: its values are 1 and 2
       = help: at rate=0.1,seed=1, and at 3 other points

    error: 1 mistake in experiment.toml; nothing was run
    "#);
}
