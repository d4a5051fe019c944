//! Looking at a run from another shell.

use std::process::Stdio;

use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::Value;

use crate::manifests::TRAINING;
use crate::support::{Running, Sandbox, eventually};

/// Two stages that each begin, write a line, and go on when there is a file of their name.
const TWO: &str = r#"
[experiment]
name = "two"

[stages.first]
kind = "command"
shell = 'echo "first begins" >&2; until test -e first; do sleep 0.01; done; echo "first ends" >&2; echo 1 > "$PIPELINE_OUTPUT/a"'

[stages.second]
kind = "command"
inputs = { first = "first" }
shell = 'echo "second begins" >&2; until test -e second; do sleep 0.01; done; printf "\033[31mno more" >&2; echo 1 > "$PIPELINE_OUTPUT/a"'
"#;

/// A run that has begun a stage, as `status` knows.
fn begun(project: &Sandbox, run: &str) -> Running {
    let run = project.start(run);
    let has_begun = || project.pipeline("status experiment.toml").stdout.contains("running");
    eventually("a stage that runs", has_begun);
    run
}

fn stage<'a>(status: &'a Value, name: &str) -> &'a Value {
    let stages = status["stages"].as_array().expect("stages");
    stages.iter().find(|stage| stage["stage"] == name).expect("a stage of this name")
}

/// The lines below the table of `status`, with the process and the speed blanked.
fn lines(project: &Sandbox) -> String {
    let text = project.pipeline("status experiment.toml").printed();
    let below = text.lines().skip_while(|line| !line.is_empty()).skip(1);
    let below = below.map(|line| match line.split_once("(process ") {
        None => line.to_owned(),
        Some((before, after)) => {
            let after = after.split_once(')').map_or("", |(_, after)| after);
            format!("{before}(process [..]){after}")
        }
    });
    below.filter(|line| !line.starts_with("cache: ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_stage_that_runs_shows_how_far_it_is_and_one_that_was_stopped_where() {
    let project = Sandbox::new(TRAINING).with_fake_learn("slow").set("FAKE_LEARN_STEPS", "100");
    let run = project.start("run experiment.toml simclr");
    let running = || lines(&project).lines().last().unwrap_or_default().to_owned();
    eventually("a speed", || running().contains(" left"));
    let line = running();
    for part in [
        "simclr is running: ",
        " %, epoch ",
        "loss ",
        " steps/s, ",
        " left; started just now (process ",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(project.pipeline("status experiment.toml").stdout.contains("pretrain-simclr  running"));

    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(130));
    let line = lines(&project);
    assert!(line.starts_with("simclr was interrupted just now at epoch "), "{line}");
    assert!(line.ends_with("; the next run continues from its checkpoint"), "{line}");
    assert!(!line.contains(", ,"), "{line}");
    let status = project.pipeline("status experiment.toml --json").json();
    let interrupted = &stage(&status, "simclr")["interrupted"];
    assert_eq!(interrupted["has-checkpoint"], true, "{status}");
    assert!(interrupted["progress"]["done"].as_u64() > Some(0), "{status}");
    let plan = project.pipeline("plan experiment.toml simclr").printed();
    let goes_on = "dirty  no earlier run; continues from its checkpoint, interrupted at epoch ";
    assert!(plan.contains(goes_on), "{plan}");

    assert!(project.pipeline("run experiment.toml simclr").status.success());
    assert_snapshot!(lines(&project), @"");
}

#[test]
fn a_stage_whose_run_was_killed_was_interrupted() {
    let project = Sandbox::new(TRAINING).with_fake_learn("slow");
    let run = project.start("run experiment.toml simclr");
    project.wait_for_line("journal", "step 2");
    run.signal(Signal::KILL);
    run.wait();
    let ended = || lines(&project).starts_with("simclr was interrupted just now");
    eventually("the end of its worker", ended);
}

#[test]
fn a_stage_that_failed_shows_why_until_it_is_another_one() {
    let project =
        Sandbox::new(&TWO.replace("until test -e first; do sleep 0.01; done;", "exit 3;"));
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(1));
    assert!(lines(&project).starts_with("first failed just now: 'sh -c "), "{}", lines(&project));
    let status = project.pipeline("status experiment.toml --json").json();
    let failed = &stage(&status, "first")["failed"];
    assert!(
        failed["message"].as_str().is_some_and(|text| text.ends_with("exit status 3")),
        "{failed}"
    );
    assert!(failed["at"].as_u64() > Some(1_700_000_000), "{failed}");
    project.edit("exit 3;", "true;");
    assert_snapshot!(lines(&project), @"");
}

#[test]
fn why_says_which_stages_failed() {
    let project = Sandbox::new(
        r#"
        [experiment]
        name = "some"
        [matrix]
        seed = [1, 2, 3]
        [stages.a]
        kind = "command"
        environment = { SEED = "${seed}" }
        shell = 'test "$SEED" = 2 || exit "$SEED"'
    "#,
    );
    assert_eq!(project.pipeline("run experiment.toml --only seed=3").code(), Some(1));
    let why = project.pipeline("why experiment.toml").printed();
    assert_eq!(why.matches("failed").count(), 1, "{why}");
    assert!(why.contains("the same is true for a@seed=2\n\na@seed=3 will run"), "{why}");
    assert!(why.ends_with("ended with exit status 3\n"), "{why}");
    // All that failed in the same way are shown once, whenever that was.
    project.edit("exit \"$SEED\"", "exit 4");
    assert_eq!(project.pipeline("run experiment.toml --keep-going").code(), Some(1));
    let why = project.pipeline("why experiment.toml").printed();
    assert_eq!(why.matches("failed").count(), 1, "{why}");
    assert!(why.contains("exit status 4\nthe same is true for a@seed=3\n"), "{why}");
    // Others failed in other ways.
    project.edit("seed = [1, 2, 3]", "seed = [1, 3, 4, 5]");
    project.edit("environment", "output = \"metrics\"\nenvironment");
    let ways = "case $SEED in 1) exit 4;; 5) ;; *) kill -9 $$;; esac";
    project.edit("test \"$SEED\" = 2 || exit 4", ways);
    assert_eq!(project.pipeline("run experiment.toml --keep-going").code(), Some(1));
    let why = project.pipeline("why experiment.toml").printed();
    assert_eq!(why.matches("failed").count(), 3, "{why}");
    assert!(why.contains("(SIGKILL: out of memory?)\nthe same is true for a@seed=4\n"), "{why}");
}

#[test]
fn why_says_what_runs_before_why() {
    let project = Sandbox::new(TWO);
    let run = begun(&project, "run experiment.toml");
    let why = project.pipeline("why experiment.toml first").printed();
    assert!(why.starts_with("first is running; started just now (process "), "{why}");
    assert!(why.ends_with(")\nit runs because:\n  no earlier run\n"), "{why}");
    let waits = "second will run after first, because:\n  no earlier run\nfirst runs because:\n  no earlier run\n";
    assert_eq!(project.pipeline("why experiment.toml second").printed(), waits);
    let why = project.pipeline("why experiment.toml").printed();
    assert!(why.ends_with(&format!("\n\n{waits}")), "{why}");
    project.write("first", "");
    project.write("second", "");
    assert!(run.wait().status.success());
    std::fs::remove_file(project.path("first")).expect("it is there");
    let run = begun(&project, "run experiment.toml --force first");
    let why = project.pipeline("why experiment.toml first").printed();
    assert!(why.starts_with("first is running; started just now (process "), "{why}");
    assert!(why.contains(")\nits last result is artifact "), "{why}");
    assert!(why.ends_with("\nit ran then because:\n  no earlier run\n"), "{why}");
    project.write("first", "");
    assert!(run.wait().status.success());
    std::fs::remove_file(project.path("first")).expect("it is there");
    project.edit("first ends", "first ended");
    let run = begun(&project, "run experiment.toml");
    let why = project.pipeline("why experiment.toml second").printed();
    let head = "second will run if the output of first changes\nfirst runs because:\n  ";
    assert!(why.starts_with(head), "{why}");
    project.write("first", "");
    assert!(run.wait().status.success());
}

#[test]
fn why_says_which_of_many_inputs_run() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "many"

[matrix]
n = [1, 2, 3, 4, 5, 6]

[stages.a]
kind = "command"
environment = { N = "${n}" }
shell = 'until test -e end; do sleep 0.01; done; echo 1 > "$PIPELINE_OUTPUT/a"'

[stages.all]
kind = "command"
inputs = { a = "a@*" }
shell = 'echo 1 > "$PIPELINE_OUTPUT/a"'
"#,
    );
    let run = begun(&project, "run experiment.toml a@n=5");
    let why = project.pipeline("why experiment.toml all").printed();
    assert_snapshot!(why, @r"
    all will run after 6 of a, because:
      no earlier run
    5 of a will run because:
      no earlier run
    a@n=5 runs because:
      no earlier run
    ");
    project.write("end", "");
    assert!(run.wait().status.success());
}

#[test]
fn what_runs_under_another_name_is_the_stage_that_has_its_key() {
    let project = Sandbox::new(TWO);
    let run =
        project.start("run experiment.toml first --sweep stages.first.environment.X=a,b --jobs 1");
    let status =
        || project.pipeline("status experiment.toml --set stages.first.environment.X=a").printed();
    eventually("it runs", || status().contains("first is running"));
    assert_eq!(lines(&project).matches("with other values").count(), 1, "{}", lines(&project));
    assert!(!status().contains("other values"), "{}", status());
    project.write("first", "");
    assert!(run.wait().status.success());
}

#[test]
fn what_another_run_does_with_other_values_is_shown() {
    let project = Sandbox::new(TWO);
    for name in ["first", "second"] {
        project.write(name, "");
    }
    project.pipeline("run experiment.toml").success();
    std::fs::remove_file(project.path("second")).expect("it is there");
    let other = "--set stages.second.environment.X=x";
    let run = project.start(&format!("run experiment.toml {other}"));
    let shown =
        || lines(&project).starts_with("second with other values or inputs is running; started ");
    eventually("the other run", shown);
    assert_eq!(lines(&project).lines().count(), 1, "{}", lines(&project));
    assert!(
        project.pipeline("status experiment.toml first").printed().matches("running").count() == 0
    );
    let own = project.pipeline(&format!("status experiment.toml {other}")).printed();
    assert!(own.contains("second is running") && !own.contains("other values"), "{own}");
    let status = project.pipeline("status experiment.toml --json").json();
    assert_eq!(status["others"][0]["stage"], "second", "{status}");
    project.write("second", "");
    assert!(run.wait().status.success());
    assert_snapshot!(lines(&project), @"");
}

#[test]
fn a_watch_shows_what_changes_and_ends_with_the_run() {
    let project = Sandbox::new(TWO);
    let run = begun(&project, "run experiment.toml");
    let watch = project.start("status experiment.toml --watch");
    eventually("the first block", || watch.printed().contains("first is running"));
    project.write("first", "");
    eventually("the second block", || watch.printed().contains("second is running"));
    project.write("second", "");
    assert!(run.wait().status.success());
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended}");
    let blocks: Vec<&str> = ended.stdout.split("\n\nstage ").collect();
    let last = blocks.last().expect("a block");
    assert_eq!(last.matches("  fresh  ").count(), 2, "{ended}");
    assert!(!last.contains("running"), "{ended}");
    // A block for each change, not for each second.
    assert!(blocks.len() <= 5, "{ended}");
    let again = project.pipeline("status experiment.toml --watch");
    assert!(again.stdout.matches("  fresh  ").count() == 2, "{again}");
}

#[test]
fn a_watch_that_nobody_reads_or_wants_ends() {
    let project = Sandbox::new(TWO);
    let run = begun(&project, "run experiment.toml");
    for command in ["status experiment.toml --watch", "log experiment.toml --follow"] {
        let watch = project.start(command);
        eventually("something", || watch.printed().contains("first"));
        watch.signal(Signal::INT);
        assert_eq!(watch.wait().code(), Some(130), "{command}");

        let mut child = project.command(command).stdout(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        project.write("first", "");
        eventually("its end", || child.try_wait().expect("it is our child").is_some());
    }
    project.write("second", "");
    assert!(run.wait().status.success());
}

#[test]
fn logs_are_followed_from_stage_to_stage() {
    let project = Sandbox::new(TWO);
    let run = begun(&project, "run experiment.toml");
    let both = project.start("log experiment.toml -f");
    let only = project.start("log experiment.toml second -f");
    eventually("the first line", || both.printed().contains("first begins"));
    only.wait_for("waits for second to start");
    project.write("first", "");
    eventually("the first line of the second", || only.printed().contains("second begins"));
    project.write("second", "");
    assert!(run.wait().status.success());
    let [both, only] = [both.wait(), only.wait()];
    assert!(both.status.success() && only.status.success(), "{both}{only}");
    assert_eq!(
        both.stdout,
        "==> first <==\nfirst begins\nfirst ends\n\n==> second <==\nsecond begins\n\u{1b}[31mno more"
    );
    assert_eq!(only.stdout, "second begins\n\u{1b}[31mno more");
    // Nothing runs: what is there, and the end.
    assert_eq!(project.pipeline("log experiment.toml second -f").stdout, only.stdout);
}

#[test]
fn what_has_failed_is_not_waited_for() {
    let project = Sandbox::new(TWO);
    project.edit("[stages.first]", "[stages.bad]\nkind = \"command\"\nexecution = { priority = 1 }\nshell = 'echo \"bad begins\" >&2; exit 3'\n\n[stages.first]");
    let run = project.start("run experiment.toml --keep-going --jobs 1");
    run.wait_for("first (command) runs");
    let log = project.pipeline("log experiment.toml bad -f");
    assert!(log.status.success() && log.stdout.starts_with("bad begins\n"), "{log}");
    assert_eq!(log.stderr, "", "{log}");
    project.write("first", "");
    project.write("second", "");
    assert_eq!(run.wait().results(), "bad failed, first ran, second ran");
}

#[test]
fn the_log_of_an_earlier_run_is_said_to_be_one() {
    let project = Sandbox::new(TWO);
    project.write("first", "");
    assert!(project.pipeline("run experiment.toml first").status.success());
    project.edit("first begins", "first begins again");
    let log = project.pipeline("log experiment.toml first -f");
    assert_eq!(log.stdout, "first begins\nfirst ends\n");
    assert!(
        log.stderr.contains("this is the log of an earlier run; 'first' is dirty now"),
        "{log}"
    );
}

#[test]
fn a_watch_goes_on_where_a_run_is_started_soon_after_another_was_killed() {
    let project = Sandbox::new(TWO);
    let run = begun(&project, "run experiment.toml");
    let watch = project.start("status experiment.toml --watch");
    eventually("the first block", || watch.printed().contains("first is running"));
    run.signal(Signal::KILL);
    run.wait();
    project.write("first", "");
    project.write("second", "");
    assert!(project.pipeline("run experiment.toml").status.success());
    let ended = watch.wait();
    let last = ended.stdout.split("\n\nstage ").last().expect("a block");
    assert_eq!(last.matches("  fresh  ").count(), 2, "{ended}");
}

#[test]
fn a_stage_that_never_ran_cannot_be_followed() {
    let project = Sandbox::new(TWO);
    assert_snapshot!(project.pipeline("log experiment.toml second -f"), @r"
    status 2
    --- stderr
    error: 'second' does not have a log: it has not run yet, and no run is in progress
    ");
    assert_snapshot!(project.pipeline("log experiment.toml -f"), @r"
    status 2
    --- stderr
    error: none of these has a log: they have not run yet, and no run is in progress
    ");
}

#[test]
fn the_log_of_a_stage_that_runs_again_is_followed() {
    let project = Sandbox::new(TWO);
    project.write("first", "");
    assert!(project.pipeline("run experiment.toml first").status.success());
    std::fs::remove_file(project.path("first")).expect("it is there");
    let run = begun(&project, "run experiment.toml first --force first");
    let log = project.start("log experiment.toml first -f");
    eventually("a line", || log.printed() == "first begins\n");
    project.write("first", "");
    assert!(run.wait().status.success());
    assert_eq!(log.wait().stdout, "first begins\nfirst ends\n");
}

/// A stage that draws a bar again and again, in one line, until there is the file `go`.
const BAR: &str = r#"
[experiment]
name = "bar"

[stages.bar]
kind = "command"
shell = 'until test -e go; do n=$((n + 1)); printf "\rstep %d" $n >&2; sleep 0.1; done; printf "\ndone\n" >&2; echo 1 > "$PIPELINE_OUTPUT/a"'
"#;

#[test]
fn a_bar_is_followed_while_it_is_drawn() {
    let project = Sandbox::new(BAR);
    let run = begun(&project, "run experiment.toml");
    let log = project.start("log experiment.toml -f");
    eventually("some of it", || log.printed().contains("step"));
    let shown = log.printed().len();
    eventually("more of it", || log.printed().len() > shown);
    project.write("go", "");
    assert!(run.wait().status.success());
    let log = log.wait();
    assert!(log.stdout.ends_with("\ndone\n"), "{log}");
    assert_eq!(log.stdout, project.pipeline("log experiment.toml").stdout);
}
