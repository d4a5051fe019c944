//! What jobs go on with, and what those of a detached run submit.

use std::fs;

use insta::assert_snapshot;
use rustix::process::{Signal, kill_process};

use super::{EXECUTOR, RUN, process, project, steps, submitted, works};
use crate::support::{MANIFEST, Sandbox, eventually, names};

#[test]
fn a_detached_run_leaves_what_it_has_submitted() {
    let project = project("");
    project.write("hold", "");
    let ended = project.pipeline(&format!("{RUN} train --detach"));
    assert_snapshot!(ended, @r"
    status 0
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr is job 1 of fake
    left  simclr, which goes on elsewhere
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  left  goes on elsewhere
    train  skipped  needs simclr

    training: 1 ran, 1 left, 1 skipped in [time]; what was left goes on elsewhere, and the same command comes back to it
    ");
    // It waits, and is left again.
    assert_eq!(
        project.pipeline(&format!("{RUN} train --detach")).success(),
        "data fresh, simclr left, train skipped"
    );
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    assert_eq!(
        project.pipeline(&format!("{RUN} train")).success(),
        "data fresh, simclr fresh, train fresh"
    );
    assert_eq!(submitted(&project), 1, "it went on");
    let history = project.pipeline("history").stdout;
    assert!(history.contains("1 ran, 1 left"), "{history}");
}

#[test]
fn a_job_goes_on_although_nobody_follows_it() {
    let project = project("slow");
    let run = project.start(RUN);
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    // What it goes on with was written down before.
    project.edit("kind = \"evaluate\"", "kind = \"evaluated\"");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    project.edit("kind = \"evaluated\"", "kind = \"evaluate\"");
    let fresh = "data fresh, simclr fresh, train fresh, evaluate fresh";
    assert_eq!(project.pipeline(RUN).success(), fresh);
    assert_eq!((submitted(&project), names(&project.cache("jobs"))), (1, Vec::new()));
}

/// Lets the pretraining make two trainings ready, each with an evaluation.
fn two_trainings(project: &Sandbox) {
    let text = project.read(MANIFEST);
    let trained = &text[text.find("[stages.train]").expect("it is there")..];
    let trained = &trained[..trained.find("[executors").expect("it follows")];
    let other = trained.replace("[stages.train]", "[stages.train-5]\nseed = 5");
    let other = other.replace("[stages.evaluate]", "[stages.evaluate-5]");
    let other = other.replace("model = \"train\"", "model = \"train-5\"");
    project.write(MANIFEST, format!("{text}\n{other}"));
}

#[test]
fn the_jobs_of_a_detached_run_submit_what_they_make_ready_and_the_next_run_pushes_it() {
    let share = tempfile::tempdir().expect("a folder");
    let remote = format!("file://{}", share.path().display());
    let project = project("").set("PIPELINE_REMOTE", remote);
    two_trainings(&project);
    let text = project.read(MANIFEST);
    project.write(MANIFEST, format!("[cache]\npush = \"always\"\n{text}"));
    project.write("hold", "");
    let ended = project.pipeline(&format!("{RUN} --detach"));
    assert!(ended.success().contains("simclr left, train skipped"), "{ended}");
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the ends of the jobs", || {
        (1..=3).all(|job| project.read(&format!("queue/{job}/status")) == "0\n")
    });
    let ended = project.pipeline(RUN);
    assert!(ended.success().split(", ").all(|one| one.ends_with(" fresh")), "{ended}");
    assert_eq!((submitted(&project), names(&project.cache("jobs"))), (3, Vec::new()));
    assert_eq!(ended.stderr, "");
    let pushed = project.pipeline("push experiment.toml");
    assert!(pushed.printed().starts_with("0 pushed (0 B)"), "{pushed}");
}

#[test]
fn what_a_job_cannot_submit_the_next_run_does() {
    let project = project("");
    two_trainings(&project);
    // Where jobs run, nobody submits.
    project.edit(
        "submit = \"./sched submit {script}\"",
        "submit = \"[ -z $SCHEDULED ] || exit 1; SCHEDULED=1 ./sched submit {script}\"",
    );
    project.write("hold", "");
    project.pipeline(&format!("{RUN} --detach")).success();
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    assert_eq!((submitted(&project), names(&project.cache("jobs")).len()), (1, 1));
    let ended = project.pipeline(RUN);
    assert!(ended.success().contains("simclr fresh, train ran"), "{ended}");
    assert_eq!(submitted(&project), 3);
}

#[test]
fn what_a_job_goes_on_with_takes_no_more_and_is_one_stage() {
    let project = project("");
    project.edit("kind = \"evaluate\"", "kind = \"evaluate\"\nexecution = { cpus = 2 }");
    project.pipeline(RUN).success();
    assert_eq!(submitted(&project), 2, "evaluate has other cores");
    let text = project.read(MANIFEST);
    let train = &text[text.find("[stages.train]").expect("it is there")..];
    let train = &train[..train.find("\n[").expect("more follows")];
    let other = train.replace("[stages.train]", "[stages.other]\nseed = 5");
    project.write(MANIFEST, format!("{text}\n{other}"));
    project.edit("epochs = 10", "epochs = 11");
    let ended = project.pipeline(RUN);
    assert!(ended.success().contains("other ran"), "{ended}");
    assert_eq!(submitted(&project), 2 + 4, "both that read simclr, at once");
    // There is nothing to go on with where the result is as before.
    let ended = project.pipeline(&format!("{RUN} train --force simclr"));
    assert!(ended.success().starts_with("data fresh, simclr ran"), "{ended}");
    assert!(ended.success().ends_with("train fresh"), "{ended}");
    assert_eq!(submitted(&project), 6 + 1);
}

#[test]
fn what_a_job_went_on_with_and_did_not_end_gets_a_job_of_its_own() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} train"));
    run.wait_for("train (train) runs");
    assert_eq!(submitted(&project), 1);
    let done = steps(&project);
    eventually("a step", || steps(&project) > done + 1);
    kill_process(process(&project, 1), Signal::KILL).expect("ours");
    run.wait_for("its job 1, which went on after another stage, and was ended, is replaced");
    // That one has no such excuse.
    let job = process(&project, 2);
    run.wait_for("train (train) continues from its checkpoint");
    kill_process(job, Signal::KILL).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.results(), "data ran, simclr ran, train failed", "{ended}");
    assert!(ended.stderr.contains("its job 2 ended (EXIT) without a result"), "{ended}");
}

#[test]
fn a_job_whose_time_is_up_leaves_what_it_went_on_with_to_another_one() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} train"));
    run.wait_for("train (train) runs");
    kill_process(process(&project, 1), Signal::USR1).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.success(), "data ran, simclr ran, train ran");
    assert_eq!((submitted(&project), steps(&project)), (2, 120), "no step was done twice");
}

#[test]
fn a_job_submits_what_comes_after_a_result_that_is_there() {
    let project = project("");
    project.pipeline("run experiment.toml train").success();
    project.write("hold", "");
    let ended = project.pipeline(&format!("{RUN} --detach --force simclr"));
    assert!(ended.success().starts_with("data fresh, simclr left"), "{ended}");
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    // With the same pretraining again, train has its result.
    let fresh = "data fresh, simclr fresh, train fresh, evaluate fresh";
    assert_eq!(project.pipeline(RUN).success(), fresh);
    assert_eq!((submitted(&project), names(&project.cache("jobs"))), (1, Vec::new()));
}

#[test]
fn no_more_jobs_than_an_executor_takes_are_left_at_once() {
    let project = project("");
    two_trainings(&project);
    project.edit("kind = \"command\"\nsubmit", "kind = \"command\"\nmax-jobs = 1\nsubmit");
    project.write("hold", "");
    let detached = || project.pipeline(&format!("{RUN} --detach")).success();
    assert!(detached().contains("simclr left, train skipped"));
    fs::remove_file(project.path("hold")).expect("ours");
    let ended = |job: usize| project.read(&format!("queue/{job}/status")) == "0\n";
    eventually("the ends of the jobs", || ended(1) && ended(2));
    assert_eq!(submitted(&project), 2, "one of the trainings");
    project.write("hold", "");
    let first = detached();
    assert_eq!(first.matches(" left").count(), 1, "{first}");
    assert_eq!(detached(), first, "it counts while it waits");
    assert_eq!(submitted(&project), 3);
    fs::remove_file(project.path("hold")).expect("ours");
    assert!(!project.pipeline(RUN).success().contains("skipped"));
    assert_eq!((submitted(&project), names(&project.cache("jobs"))), (3, Vec::new()));
}

#[test]
fn a_table_that_may_lack_some_waits_for_what_was_left() {
    let project = project("");
    let stages = r#"
[experiment]
name = "sweep"

[matrix]
a = [1, 2]

[stages.score]
kind = "command"
output = "metrics"
environment = { A = "${a}" }
shell = 'echo "{\"accuracy\": $A}" > "$PIPELINE_OUTPUT/metrics.json"'
execution = { executor = "fake" }

[stages.table]
kind = "summarize"
of = "score"
metric = "accuracy"
over = ["a"]
allow-missing = true
"#;
    project.write(MANIFEST, format!("{stages}{EXECUTOR}"));
    project.pipeline("run experiment.toml score@a=1").success();
    project.write("hold", "");
    let ended = project.pipeline("run experiment.toml --detach --all");
    assert_eq!(ended.success(), "score@a=1 fresh, score@a=2 left, table skipped");
    fs::remove_file(project.path("hold")).expect("ours");
    let ended = project.pipeline("run experiment.toml --all");
    assert_eq!(ended.success(), "score@a=1 fresh, score@a=2 ran, table ran");
    assert!(ended.stdout.contains("1.500"), "{ended}");
}
