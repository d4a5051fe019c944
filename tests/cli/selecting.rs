//! Some of the stages, some that fail, several at once.

use insta::assert_snapshot;

use crate::caching::WORDS;
use crate::support::Sandbox;

/// `good -> last`, `bad -> after`, and `both` after `good` and `bad`.
const FAILING: &str = r#"
[experiment]
name = "failing"

[stages.bad]
kind = "command"
shell = 'echo bad >> ran; echo "first line"; echo "the reason" >&2; exit 3'

[stages.after]
kind = "command"
inputs = { bad = "bad" }
shell = 'echo after >> ran'

[stages.good]
kind = "command"
shell = 'echo good >> ran'

[stages.both]
kind = "command"
inputs = { good = "good", bad = "bad" }
shell = 'echo both >> ran'

[stages.last]
kind = "command"
inputs = { good = "good" }
shell = 'echo last >> ran'
"#;

#[test]
fn named_stages_run_with_what_they_need() {
    let project = Sandbox::new(WORDS);
    assert_snapshot!(project.pipeline("plan experiment.toml count").printed(), @"");
    assert_snapshot!(project.pipeline("run experiment.toml count").success(), @"");
    assert_snapshot!(project.pipeline("run experiment.toml other count").success(), @"");
    assert_snapshot!(project.read("ran"), @"");
}

#[test]
fn a_stage_that_is_not_there_is_named_with_the_nearest() {
    let project = Sandbox::new(WORDS);
    assert_snapshot!(project.pipeline("run experiment.toml reprot"), @"");
    assert_snapshot!(project.pipeline("why experiment.toml training"), @"");
    assert_eq!(project.read("ran"), "");
    assert!(!project.path("cache").exists(), "nothing was written");
}

#[test]
fn a_failure_ends_the_run() {
    let project = Sandbox::new(FAILING);
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1"), @"");
    assert_snapshot!(project.pipeline("log experiment.toml bad"), @"");
    assert_snapshot!(project.pipeline("status experiment.toml").printed(), @"");
}

#[test]
fn what_does_not_depend_on_a_failure_goes_on_if_asked_to() {
    let project = Sandbox::new(FAILING);
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(ended.results(), @"");
    // A failure is never cached; what succeeded is.
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(ended.results(), @"");
    assert_eq!(project.pipeline("run experiment.toml last").code(), Some(0));
    project.edit("exit 3", "exit 0");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"");
}

#[test]
fn stages_run_side_by_side() {
    // Each ends only when it has seen the other at work.
    let meet = |own: &str, other: &str| {
        format!(
            "touch {own}; for i in $(seq 2000); do test -e {other} && exit 0; sleep 0.01; done; exit 1"
        )
    };
    let manifest = format!(
        "[experiment]\nname = \"meeting\"\n\
         [stages.a]\nkind = \"command\"\nshell = '{}'\n\
         [stages.b]\nkind = \"command\"\nshell = '{}'\n",
        meet("a-is-here", "b-is-here"),
        meet("b-is-here", "a-is-here"),
    );
    let project = Sandbox::new(&manifest);
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 2").success(), @"");
}

#[test]
fn one_job_is_one_stage_at_a_time() {
    let alone = "mkdir busy || exit 1; sleep 0.05; rmdir busy";
    let stages: String = (0..4)
        .map(|number| format!("[stages.s{number}]\nkind = \"command\"\nshell = '{alone}'\n"))
        .collect();
    let project = Sandbox::new(&format!("[experiment]\nname = \"one\"\n{stages}"));
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1").success(), @"");
}

#[test]
fn a_stage_that_takes_too_long_fails() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "late"

[stages.late]
kind = "command"
shell = 'echo $$ > pid; echo "still at it"; while :; do sleep 0.05; done'
timeout-seconds = 1
"#,
    );
    assert_snapshot!(project.pipeline("run experiment.toml"), @"");
    let pid = project.read("pid").trim().parse().expect("a process id");
    crate::support::eventually("the program's end", || !crate::support::is_alive(pid));
}
