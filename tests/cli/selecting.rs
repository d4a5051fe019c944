//! Some of the stages, some that fail, several at once.

use insta::assert_snapshot;

use crate::manifests::WORDS;
use crate::support::{Sandbox, names};

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
    assert_snapshot!(project.pipeline("plan experiment.toml count").printed(), @r"
    words  dirty    no earlier run
    count  waiting  on words; no earlier run

    words: 2 would run, 0 are fresh
    ");
    assert_snapshot!(project.pipeline("run experiment.toml count").success(), @"words ran, count ran");
    assert_snapshot!(project.pipeline("run experiment.toml other count").success(), @"words fresh, count fresh, other ran");
    assert_snapshot!(project.read("ran"), @r"
    words
    count
    other
    ");
}

#[test]
fn an_unknown_stage_is_reported_with_the_nearest_name() {
    let project = Sandbox::new(WORDS);
    assert_snapshot!(project.pipeline("run experiment.toml reprot"), @r"
    status 2
    --- stderr
    error: experiment.toml has no stage 'reprot'; did you mean 'report'?
    ");
    assert_snapshot!(project.pipeline("why experiment.toml training"), @r"
    status 2
    --- stderr
    error: experiment.toml has no stage 'training'; there are: words, count, report, other
    ");
    assert_eq!(project.read("ran"), "");
    assert!(!project.path("cache").exists(), "nothing was written");
}

#[test]
fn a_failure_ends_the_run() {
    let project = Sandbox::new(FAILING);
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1"), @r#"
    status 1
    --- stderr
          bad (command) runs: no earlier run
    FAIL  bad after [time]: 'sh -c echo bad >> ran; echo "first line"; echo "the reason" >&2; exit 3' ended with exit status 3
          the last lines of its log:
          | first line
          | the reason
    --- stdout

    stage  result  time  metrics
    bad  failed  [time]
    after  skipped  needs bad
    good  skipped  a stage failed; --keep-going goes on
    both  skipped  needs bad
    last  skipped  needs good

    failing: 1 failed, 4 skipped in [time]; `pipeline log experiment.toml bad` shows the whole log; --keep-going runs what does not need it
    "#);
    assert_snapshot!(project.pipeline("log experiment.toml bad"), @r#"
    status 0
    --- stdout
    first line
    the reason
    failed: 'sh -c echo bad >> ran; echo "first line"; echo "the reason" >&2; exit 3' ended with exit status 3
    "#);
    assert_snapshot!(project.pipeline("status experiment.toml").printed(), @r#"
    stage  kind     state    last run  took  artifact  size
    bad    command  failed   never
    after  command  waiting  never
    good   command  dirty    never
    both   command  waiting  never
    last   command  waiting  never

    bad failed just now: 'sh -c echo bad >> ran; echo "first line"; echo "the reason" >&2; exit 3' ended with exit status 3
    cache: [project]/cache
    "#);
}

#[test]
fn what_does_not_depend_on_a_failure_goes_on_if_asked_to() {
    let project = Sandbox::new(FAILING);
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(ended.results(), @"bad failed, after skipped, good ran, both skipped, last ran");
    // A failure is never cached; what succeeded is.
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(ended.results(), @"bad failed, after skipped, good fresh, both skipped, last fresh");
    assert_eq!(project.pipeline("run experiment.toml last").code(), Some(0));
    project.edit("exit 3", "exit 0");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"bad ran, after ran, good fresh, both ran, last fresh");
}

#[test]
fn what_is_not_an_artifact_is_not_kept() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "odd"

[stages.pipe]
kind = "command"
shell = 'mkdir "$PIPELINE_OUTPUT/folder"; mkfifo "$PIPELINE_OUTPUT/folder/pipe"'

[stages.missing]
kind = "command"
shell = 'echo 1 > "$PIPELINE_OUTPUT/a"'
outputs = ["a", "b"]
"#,
    );
    let ended = project.pipeline("run experiment.toml --jobs 1 --keep-going");
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.contains("/folder/pipe is neither a file, a folder nor a link"),
        "{ended}"
    );
    assert!(ended.stderr.contains("did not write b to its output folder"), "{ended}");
    assert_eq!(names(&project.cache("store")), [""; 0]);
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
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
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 2").success(), @"a ran, b ran");
}

#[test]
fn one_job_is_one_stage_at_a_time() {
    let alone = "mkdir busy || exit 1; sleep 0.05; rmdir busy";
    let stages: String = (0..4)
        .map(|number| {
            format!("[stages.s{number}]\nkind = \"command\"\nshell = '{alone}; echo {number}'\n")
        })
        .collect();
    let project = Sandbox::new(&format!("[experiment]\nname = \"one\"\n{stages}"));
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1").success(), @"s0 ran, s1 ran, s2 ran, s3 ran");
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
execution = { timeout-seconds = 2 }
"#,
    );
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 1
    --- stderr
          late (command) runs: no earlier run
    FAIL  late after [time]: its time was up (timeout-seconds)
          the last lines of its log:
          | still at it
    --- stdout

    stage  result  time  metrics
    late  failed  [time]

    late: 1 failed in [time]; `pipeline log experiment.toml late` shows the whole log
    ");
    let pid = project.read("pid").trim().parse().expect("a process id");
    crate::support::eventually("the program's end", || !crate::support::is_alive(pid));
}
