//! Two runs at once.

use std::fs;

use insta::assert_snapshot;

use crate::support::{Sandbox, eventually};

/// A stage that begins, and ends when there is a file `go`; and one after it.
const SLOW: &str = r#"
[experiment]
name = "slow"

[stages.slow]
kind = "command"
shell = 'echo slow >> ran; until test -e go; do sleep 0.01; done; echo done > "$PIPELINE_OUTPUT/a"'

[stages.after]
kind = "command"
inputs = { slow = "slow" }
shell = 'echo after >> ran; echo after > "$PIPELINE_OUTPUT/a"'
"#;

#[test]
fn two_runs_of_one_manifest_share_the_work() {
    let project = Sandbox::new(SLOW);
    let first = project.start("run experiment.toml slow");
    project.wait_for_line("ran", "slow");
    let second = project.start("run experiment.toml slow");
    second.wait_for("another process does the same work");
    project.write("go", "");
    assert_snapshot!(first.wait(), @r"
    status 0
    --- stderr
          slow (command) runs: no earlier run
    done  slow in [time]
    --- stdout

    stage  result  time  metrics
    slow  ran  [time]

    slow: 1 ran in [time]
    ");
    assert_snapshot!(second.wait(), @r"
    status 0
    --- stderr
          slow waits: another process does the same work
    --- stdout

    stage  result  time  metrics
    slow  fresh

    slow: 1 fresh in [time]
    ");
    assert_eq!(project.read("ran"), "slow\n");
}

#[test]
fn two_manifests_share_the_work_under_other_names() {
    let project = Sandbox::new(SLOW);
    let named = |before: &str| {
        SLOW.replace("stages.slow", &format!("stages.{before}"))
            .replace("slow = \"slow\"", &format!("slow = \"{before}\""))
            .replace("echo slow >> ran; until test -e go; do sleep 0.01; done; ", "")
            .replace(
                "echo after >> ran; ",
                "echo after >> ran; until test -e go; do sleep 0.01; done; ",
            )
    };
    project.write("one.toml", named("data-a"));
    project.write("other.toml", named("data-b"));
    let first = project.start("run one.toml");
    project.wait_for_line("ran", "after");
    let second = project.start("run other.toml");
    second.wait_for("another process does the same work");
    project.write("go", "");
    assert_eq!(first.wait().success(), "data-a ran, after ran");
    let ended = second.wait();
    assert_eq!(ended.success(), "data-b fresh, after fresh");
    assert!(!ended.stderr.contains("damaged"), "{ended}");
}

/// `a`, `b` and `c` do this same work. `after` reads `b`, and `beside` makes the file `go`.
fn twins(work: &str) -> Sandbox {
    let stages = ["a", "b", "c"].map(|name| {
        format!("[stages.{name}]\nkind = \"command\"\nshell = 'echo ran >> ran; {work}'\n")
    });
    let after = "[stages.after]\nkind = \"command\"\ninputs = { b = \"b\" }\n\
                 shell = 'cat \"$PIPELINE_INPUT_B/a\" > \"$PIPELINE_OUTPUT/a\"'\n";
    let beside = "[stages.beside]\nkind = \"command\"\nshell = 'touch go; true'\n";
    Sandbox::new(&format!("[experiment]\nname = \"twins\"\n{}{after}{beside}", stages.concat()))
}

#[test]
fn stages_of_one_run_that_do_the_same_do_it_once() {
    // It ends when `beside` has run: those that do the same do not take its slot.
    let wait =
        "for i in $(seq 2000); do test -e go && break; sleep 0.01; done; test -e go || exit 1";
    let project = twins(&format!("{wait}; echo 1 > \"$PIPELINE_OUTPUT/a\""));
    // Also of what waits: it would read the same.
    project.edit("[stages.beside]", "[stages.more]\nkind = \"command\"\ninputs = { b = \"c\" }\nshell = 'cat \"$PIPELINE_INPUT_B/a\" > \"$PIPELINE_OUTPUT/a\"'\n[stages.beside]");
    let plan = project.pipeline("plan experiment.toml").printed();
    assert_eq!(
        plan.lines().last(),
        Some("twins: 3 would run, 3 would share a result with them, 0 are fresh")
    );
    let plan = project.pipeline("plan experiment.toml b").printed();
    assert_eq!(plan.lines().last(), Some("twins: 1 would run, 0 are fresh"));
    let ended = project.pipeline("run experiment.toml --jobs 2");
    assert_snapshot!(ended.success(), @"a ran, b shared, c shared, after ran, more shared, beside ran");
    let counts = ended.stdout.lines().last().unwrap_or_default();
    assert!(counts.starts_with("twins: 3 ran, 3 shared in "), "{ended}");
    let waits = ended.stderr.lines().filter(|line| line.contains("waits for")).map(str::trim);
    assert_snapshot!(waits.collect::<Vec<_>>().join("\n"), @r"
    b waits for a, which does the same
    c waits for a, which does the same
    more waits for after, which does the same
    ");
    assert_eq!(project.read("ran"), "ran\n");
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 2").success(), @"a fresh, b fresh, c fresh, after fresh, more fresh, beside fresh");
}

#[test]
fn stages_of_one_run_that_do_the_same_fail_together() {
    let project = twins("echo why >&2; exit 3");
    assert_snapshot!(project.pipeline("run experiment.toml after c a --jobs 2 --keep-going"), @r"
    status 1
    --- stderr
          b waits for a, which does the same
          c waits for a, which does the same
          a (command) runs: no earlier run
    FAIL  a after [time]: 'sh -c echo ran >> ran; echo why >&2; exit 3' ended with exit status 3
          the last lines of its log:
          | why
    FAIL  b after [time]: it does the same as a, which failed: 'sh -c echo ran >> ran; echo why >&2; exit 3' ended with exit status 3
    FAIL  c after [time]: it does the same as a, which failed: 'sh -c echo ran >> ran; echo why >&2; exit 3' ended with exit status 3
    --- stdout

    stage  result  time  metrics
    a  failed  [time]
    b  failed  [time]
    c  failed  [time]
    after  skipped  needs b

    twins: 3 failed, 1 skipped in [time]; `pipeline log experiment.toml a` shows the whole log
    ");
    assert_eq!(project.read("ran"), "ran\n");
    // A failure is never kept: another run tries again, also with one stage at a time.
    let ended = project.pipeline("run experiment.toml --jobs 1");
    assert_snapshot!(ended.results(), @"a failed, b failed, c failed, after skipped, beside skipped");
    assert_eq!(project.read("ran"), "ran\nran\n");
}

#[test]
fn stages_that_do_the_same_in_another_way_do_not_share_a_failure() {
    // The third time, it succeeds.
    let project = twins("test $(wc -l < ran) -ge 3 && echo 1 > \"$PIPELINE_OUTPUT/a\"");
    let more = |stage: &str, more: &str| {
        let table = format!("[stages.{stage}]\nkind = \"command\"\n");
        project.edit(&table, &format!("{table}{more}\n"));
    };
    more("b", "execution = { attempts = { count = 2, on = [\"failure\"] } }");
    more("c", "execution = { priority = -1 }");
    let work = project.read("experiment.toml");
    let work = work.split("[stages.b]").nth(1).and_then(|text| text.split("[stages.c]").next());
    let twin = format!("[stages.d]{}", work.expect("a stage"));
    project.edit("[stages.after]", &format!("{twin}[stages.after]"));
    assert_snapshot!(project.pipeline("run experiment.toml a b c d after --jobs 2 --keep-going"), @r#"
    status 1
    --- stderr
          b waits for a, which does the same
          c waits for a, which does the same
          d waits for a, which does the same
          a (command) runs: no earlier run
    FAIL  a after [time]: 'sh -c echo ran >> ran; test $(wc -l < ran) -ge 3 && echo 1 > "$PIPELINE_OUTPUT/a"' ended with exit status 1
    FAIL  c after [time]: it does the same as a, which failed: 'sh -c echo ran >> ran; test $(wc -l < ran) -ge 3 && echo 1 > "$PIPELINE_OUTPUT/a"' ended with exit status 1
          d waits for b, which does the same
          b: its log and output take the place of those of a
          b (command) runs: no earlier run
          b: attempt 2 of 2: 'sh -c echo ran >> ran; test $(wc -l < ran) -ge 3 && echo 1 > "$PIPELINE_OUTPUT/a"' ended with exit status 1
          d waits for b, which does the same
          b (command) runs: no earlier run
    done  b in [time]
          after (command) runs: no earlier run
    done  after in [time]
    --- stdout

    stage  result  time  metrics
    a  failed  [time]
    b  ran  [time]
    c  failed  [time]
    d  shared
    after  ran  [time]

    twins: 2 ran, 1 shared, 2 failed in [time]
    "#);
    assert_eq!(project.read("ran"), "ran\n".repeat(3));
    assert_snapshot!(project.pipeline("run experiment.toml a c").success(), @"a fresh, c fresh");
    // Without --keep-going, nothing starts after a failure.
    let project = twins("cat secret > \"$PIPELINE_OUTPUT/a\"");
    project.write("secret", "1");
    project.edit("[stages.a]\n", "[stages.a]\nsandbox = \"on\"\n");
    assert_snapshot!(project.pipeline("run experiment.toml a b").results(), @"a failed, b skipped");
    let ended = project.pipeline("run experiment.toml a b c --keep-going");
    assert_snapshot!(ended.results(), @"a failed, b ran, c shared");
    // The log and the output that are kept are those of the last one.
    let project = twins("cat secret > \"$PIPELINE_OUTPUT/a\"");
    project.edit("[stages.c]\n", "[stages.c]\nexecution = { timeout-seconds = 600 }\n");
    assert_snapshot!(project.pipeline("run experiment.toml a b c --keep-going"), @r#"
    status 1
    --- stderr
          b waits for a, which does the same
          c waits for a, which does the same
          a (command) runs: no earlier run
    FAIL  a after [time]: 'sh -c echo ran >> ran; cat secret > "$PIPELINE_OUTPUT/a"' ended with exit status 1
          what it had written is kept in [project]/cache/failed/[digest]
          the last lines of its log:
          | cat: secret: No such file or directory
    FAIL  b after [time]: it does the same as a, which failed: 'sh -c echo ran >> ran; cat secret > "$PIPELINE_OUTPUT/a"' ended with exit status 1
          c: its log and output take the place of those of a
          c (command) runs: no earlier run
    FAIL  c after [time]: 'sh -c echo ran >> ran; cat secret > "$PIPELINE_OUTPUT/a"' ended with exit status 1
          what it had written is kept in [project]/cache/failed/[digest]
          the last lines of its log:
          | cat: secret: No such file or directory
    --- stdout

    stage  result  time  metrics
    a  failed  [time]
    b  failed  [time]
    c  failed  [time]

    twins: 3 failed in [time]; `pipeline log experiment.toml c` shows the whole log
    "#);
    let note = "this is the log of c, which does the same as a and was the last of them to run";
    for arguments in ["log experiment.toml a", "log experiment.toml a --follow"] {
        let log = project.pipeline(arguments);
        assert!(log.stderr.contains(note) && log.stdout.contains("cat: secret"), "{log}");
    }
    let log = project.pipeline("log experiment.toml c");
    assert!(!log.stderr.contains("the log of"), "{log}");
    // Also where it has made the result of both.
    project.write("secret", "1");
    project.pipeline("run experiment.toml b").success();
    project.pipeline("run experiment.toml a c").success();
    let log = project.pipeline("log experiment.toml a").stderr;
    assert!(log.contains("the log of b, which does the same as a"), "{log}");
    // In another folder, a program finds other files.
    let stage = |name| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nshell = 'cat here > \"$PIPELINE_OUTPUT/a\"'\n"
        )
    };
    let head = "include = [\"parts/part.toml\"]\n[experiment]\nname = \"folders\"\n";
    let project = Sandbox::new(&(head.to_owned() + &stage("a")));
    project.write("parts/part.toml", stage("b"));
    project.write("parts/here", "1");
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert_snapshot!(ended.results(), @"a failed, b ran");
}

#[test]
fn stages_of_one_run_that_do_the_same_are_stopped_together() {
    let project = twins("until test -e never; do sleep 0.01; done");
    let run = project.start("run experiment.toml a b c --jobs 3");
    project.wait_for_line("ran", "ran");
    run.signal(rustix::process::Signal::INT);
    assert_snapshot!(run.wait(), @r"
    status 130
    --- stderr
          b waits for a, which does the same
          c waits for a, which does the same
          a (command) runs: no earlier run
          stopping: running stages write a checkpoint and leave (again to end them at once)
    stop  a
    --- stdout

    stage  result  time  metrics
    a  stopped
    b  skipped  the run was stopped
    c  skipped  the run was stopped

    twins: 1 stopped, 2 skipped in [time]; the same command continues from here
    ");
    // Also where it was not the first attempt: the others have not begun.
    let project = twins(
        "test $(wc -l < ran) -ge 2 || exit 1; echo again >> ran; until test -e never; do sleep 0.01; done",
    );
    let more = "execution = { attempts = { count = 2, on = [\"failure\"] } }\n";
    let table = "kind = \"command\"\nshell = 'echo ran";
    let text = project.read("experiment.toml").replace(table, &format!("{more}{table}"));
    project.write("experiment.toml", text);
    let run = project.start("run experiment.toml a b c --jobs 3");
    project.wait_for_line("ran", "again");
    run.signal(rustix::process::Signal::INT);
    assert_snapshot!(run.wait().results(), @"a stopped, b skipped, c skipped");
}

#[test]
fn many_runs_at_once_run_each_stage_once() {
    let stages: String = (0..6)
        .map(|number| {
            let input = match number {
                0 | 3 => String::new(),
                _ => format!("inputs = {{ before = \"s{}\" }}\n", number - 1),
            };
            format!(
                "[stages.s{number}]\nkind = \"command\"\n{input}\
                 shell = 'echo s{number} >> ran; echo {number} > \"$PIPELINE_OUTPUT/a\"'\n"
            )
        })
        .collect();
    let project = Sandbox::new(&format!("[experiment]\nname = \"many\"\n{stages}"));
    let runs: Vec<_> = (0..5).map(|_| project.start("run experiment.toml")).collect();
    for run in runs {
        let ended = run.wait();
        assert_eq!(
            ended.success().matches("s").count(),
            6 + ended.results().matches("fresh").count()
        );
    }
    let ran = project.read("ran");
    let mut ran: Vec<&str> = ran.lines().collect();
    ran.sort_unstable();
    assert_eq!(ran, ["s0", "s1", "s2", "s3", "s4", "s5"]);
}

#[test]
fn two_manifests_share_a_stage_and_do_not_wait_for_others() {
    let project = Sandbox::new(SLOW);
    project.write(
        "other.toml",
        r#"
[experiment]
name = "other"

[stages.same-under-another-name]
kind = "command"
shell = 'echo slow >> ran; until test -e go; do sleep 0.01; done; echo done > "$PIPELINE_OUTPUT/a"'

[stages.own]
kind = "command"
shell = 'echo own >> ran; echo own > "$PIPELINE_OUTPUT/a"'
"#,
    );
    let first = project.start("run experiment.toml");
    project.wait_for_line("ran", "slow");
    // What has another key is not held up.
    assert_snapshot!(project.pipeline("run other.toml own").success(), @"own ran");
    let second = project.start("run other.toml");
    second.wait_for("another process does the same work");
    project.write("go", "");
    assert_snapshot!(first.wait().success(), @"slow ran, after ran");
    assert_snapshot!(second.wait().success(), @"same-under-another-name fresh, own fresh");
    assert_eq!(project.read("ran").matches("slow").count(), 1);
}

#[test]
fn whoever_waits_runs_the_stage_when_the_other_fails() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "relay"

[stages.relay]
kind = "command"
shell = 'echo relay >> ran; until test -e go; do sleep 0.01; done; mkdir failed-once 2> /dev/null && exit 1; exit 0'
"#,
    );
    let first = project.start("run experiment.toml");
    project.wait_for_line("ran", "relay");
    let second = project.start("run experiment.toml");
    second.wait_for("another process does the same work");
    project.write("go", "");
    assert_eq!(first.wait().code(), Some(1));
    assert_snapshot!(second.wait().success(), @"relay ran");
    assert_eq!(project.read("ran").lines().count(), 2);
}

#[test]
fn whoever_waits_can_be_interrupted() {
    let project = Sandbox::new(SLOW);
    let first = project.start("run experiment.toml");
    project.wait_for_line("ran", "slow");
    let second = project.start("run experiment.toml");
    second.wait_for("another process does the same work");
    second.signal(rustix::process::Signal::INT);
    let ended = second.wait();
    assert_eq!(ended.code(), Some(130));
    assert_snapshot!(ended, @r"
    status 130
    --- stderr
          slow waits: another process does the same work
          stopping: running stages write a checkpoint and leave (again to end them at once)
    stop  slow
    --- stdout

    stage  result  time  metrics
    slow  stopped
    after  skipped  needs slow

    slow: 1 stopped, 1 skipped in [time]; the same command continues from here
    ");
    project.write("go", "");
    assert_snapshot!(first.wait().success(), @"slow ran, after ran");
}

#[test]
fn a_stage_that_only_waits_for_the_disk_leaves_its_core_to_others() {
    // Each needs the only core; the first one makes what is in the store already.
    let project = Sandbox::new(
        r#"
[experiment]
name = "together"
[stages.known]
kind = "command"
shell = 'echo text > "$PIPELINE_OUTPUT/a"'
[stages.first]
kind = "command"
shell = ': again; echo text > "$PIPELINE_OUTPUT/a"'
execution = { priority = 1 }
[stages.second]
kind = "command"
shell = 'touch begun; echo other > "$PIPELINE_OUTPUT/a"'
"#,
    );
    project.pipeline("run experiment.toml known").success();
    let artifact = fs::canonicalize(project.cache("latest/together/known")).expect("a result");
    let artifact = artifact.file_name().expect("its digest").to_string_lossy();
    let lock = project.cache(&format!("locks/store-{artifact}"));
    let lock = fs::File::create(lock).expect("writable");
    // As whoever compares that artifact with another one.
    lock.lock().expect("nobody else has it");
    let run = project.start("run experiment.toml first second --jobs 2 --cpus 1");
    eventually("the second stage", || project.path("begun").exists());
    assert!(run.is_running(), "the first one waits");
    drop(lock);
    assert_eq!(run.wait().success(), "first ran, second ran");
}
