//! Stages that run again although they have results.

use insta::assert_snapshot;

use crate::support::Sandbox;

/// `same` and `other` are read by one stage each. `other` writes what is in the file `content`, which it does not declare.
const PROJECT: &str = r#"
[experiment]
name = "forced"

[stages.same]
kind = "command"
shell = 'echo same >> ran; echo 1 > "$PIPELINE_OUTPUT/a"'

[stages.other]
kind = "command"
shell = 'echo other >> ran; cat content > "$PIPELINE_OUTPUT/a"'

[stages.after-same]
kind = "command"
inputs = { before = "same" }
shell = 'echo after-same >> ran; cp "$PIPELINE_INPUT_BEFORE/a" "$PIPELINE_OUTPUT/a"'

[stages.after-other]
kind = "command"
inputs = { before = "other" }
shell = 'echo after-other >> ran; cp "$PIPELINE_INPUT_BEFORE/a" "$PIPELINE_OUTPUT/a"'
"#;

/// The project after its first run.
fn project() -> Sandbox {
    let project = Sandbox::new(PROJECT);
    project.write("content", "1");
    project.pipeline("run experiment.toml --jobs 1").success();
    project.write("ran", "");
    project
}

#[test]
fn a_forced_stage_runs_again_and_its_bytes_are_compared() {
    let project = project();
    assert_snapshot!(project.pipeline("run experiment.toml -n --force same --force other").printed(), @r"
    same         dirty    asked for with --force
    other        dirty    asked for with --force
    after-same   waiting  on same
    after-other  waiting  on other

    forced: 2 would run, 2 more if what they read changes, 0 are fresh
    ");
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1 --force same --force other"), @r"
    status 0
    --- stderr
          same (command) runs: asked for with --force
    done  same in [time], with the same bytes as before
          other (command) runs: asked for with --force
    done  other in [time], with the same bytes as before
    --- stdout

    stage  result  time  metrics
    same  ran, same bytes  [time]
    other  ran, same bytes  [time]
    after-same  fresh
    after-other  fresh

    forced: 2 fresh, 2 ran in [time]
    ");
    assert_snapshot!(project.read("ran"), @r"
    same
    other
    ");
    // Other bytes: what reads them runs, too.
    project.write("content", "2");
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1 --force oth*"), @r"
    status 0
    --- stderr
          other (command) runs: asked for with --force
    done  other in [time], with other bytes than before
          after-other (command) runs: the content of input 'inputs.before' changed, through stage 'other'
    done  after-other in [time]
    --- stdout

    stage  result  time  metrics
    same  fresh
    other  ran, other bytes  [time]
    after-same  fresh
    after-other  ran  [time]

    forced: 2 fresh, 2 ran in [time]
    ");
    assert_snapshot!(project.pipeline("why experiment.toml other").printed(), @r"
    other is fresh: artifact [digest], made just now
    it ran then because:
      asked for with --force
    ");
    let json = project.pipeline("run experiment.toml other --force other --progress json");
    assert!(json.stdout.contains(r#""forced":true"#), "{json}");
    // Only this once.
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"same fresh, other fresh, after-same fresh, after-other fresh");
}

#[test]
fn a_stage_that_does_the_same_as_a_forced_one_has_its_new_bytes() {
    let project = project();
    project.edit(
        "[stages.after-other]",
        "[stages.third]\nkind = \"command\"\nshell = 'echo other >> ran; cat content > \"$PIPELINE_OUTPUT/a\"'\n\n[stages.after-other]",
    );
    project.pipeline("run experiment.toml --jobs 1").success();
    project.write("content", "2");
    let ended = project.pipeline("run experiment.toml --jobs 1 --force third").success();
    assert_snapshot!(ended, @"same fresh, other shared, after-same fresh, third ran,, after-other ran");
    let linked = |stage: &str| project.read(&format!("cache/latest/forced/{stage}/a"));
    assert_eq!(["other", "third", "after-other"].map(linked), ["2"; 3]);
}

#[test]
fn only_a_stage_that_is_to_run_can_be_forced() {
    let project = project();
    assert_snapshot!(project.pipeline("run experiment.toml after-same --force other"), @r"
    status 2
    --- stderr
    error: 'other' of --force is not among the stages that are to run, nor needed by them
    ");
    assert_snapshot!(project.pipeline("plan experiment.toml --force smae"), @r"
    status 2
    --- stderr
    error: experiment.toml has no stage 'smae'; did you mean 'same'?
    ");
    assert_eq!(project.read("ran"), "");
}

#[test]
fn the_old_result_stays_where_a_forced_run_fails() {
    let project = project();
    std::fs::remove_file(project.path("content")).expect("a file");
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going --force other");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert_snapshot!(ended.results(), @"same fresh, other failed, after-same fresh, after-other skipped");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"same fresh, other fresh, after-same fresh, after-other fresh");
}

#[test]
fn instances_that_do_the_same_are_forced_once() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "twins"

[matrix]
seed = [1, 2, 3, 4, 5, 6]

[stages.train]
kind = "command"
environment = { SEED = "${seed}" }
shell = 'echo ran >> ran; cat content > "$PIPELINE_OUTPUT/a"'

[stages.again]
kind = "command"
environment = { SEED = "1" }
shell = 'echo ran >> ran; cat content > "$PIPELINE_OUTPUT/a"'
"#,
    );
    project.write("content", "1");
    project.pipeline("run experiment.toml").success();
    assert_eq!(project.read("ran").lines().count(), 6);
    project.write("content", "2");
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1 --progress none --force again --force train@seed=1"), @r"
    status 0
    --- stdout

    stage  result  time  metrics
    train  6: 5 fresh, 1 ran
    train@seed=1  ran, other bytes  [time]
    again  shared

    twins: 5 fresh, 1 ran, 1 shared in [time]
    ");
    assert_eq!(project.read("ran").lines().count(), 7);
}
