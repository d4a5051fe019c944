//! Stages that run elsewhere, as jobs of a scheduler that is asked by commands: here, a fake one.

use std::fs;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::manifests::TRAINING;
use crate::support::{MANIFEST, Sandbox, eventually, names};

/// A scheduler: jobs wait in its queue while there is a file `hold`.
const SCHEDULER: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
queue=$here/queue
verb=$1
shift
case $verb in
submit)
    mkdir -p "$queue"
    id=1
    until mkdir "$queue/$id" 2> /dev/null; do id=$((id + 1)); done
    echo PEND > "$queue/$id/state"
    setsid sh -c '
        while [ -e "$0/hold" ] && [ -d "$0" ]; do sleep 0.02; done
        [ "$(cat "$1/state")" = EXIT ] && exit
        echo RUN > "$1/state"
        "$2" & echo $! > "$1/pid"
        wait $!
        echo $? > "$1/status"
        echo EXIT > "$1/state"
    ' "$here" "$queue/$id" "$1" > /dev/null 2>&1 &
    echo "Job <$id> is submitted to the queue <normal>."
    ;;
state)
    echo "$@" >> "$here/asked"
    [ -e "$here/away" ] && exit 1
    [ -e "$here/mute" ] && exit 0
    for id; do [ -e "$queue/$id/state" ] && echo "$id $(cat "$queue/$id/state")"; done
    true
    ;;
cancel)
    for id; do
        echo EXIT > "$queue/$id/state"
        [ -e "$queue/$id/pid" ] && kill "$(cat "$queue/$id/pid")"
        echo "$id" >> "$here/cancelled"
    done
    true
    ;;
esac
"#;

const EXECUTOR: &str = r#"
[executors.fake]
kind = "command"
submit = "./sched submit {script}"
state = "./sched state {ids}"
cancel = "./sched cancel {ids}"
"#;

/// A training whose stages that learn can run on the scheduler.
fn project(behaviour: &str) -> Sandbox {
    let project = Sandbox::new(&format!("{TRAINING}{EXECUTOR}")).with_fake_learn(behaviour);
    // Three seconds for one that is slow: long enough to be killed, also beside other work.
    let project = project.set("FAKE_LEARN_STEPS", "60");
    project.write("sched", SCHEDULER);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(project.path("sched"), mode).expect("it is ours");
    project
}

const RUN: &str = "run experiment.toml --executor fake";

/// How many jobs were submitted.
fn submitted(project: &Sandbox) -> usize {
    names(&project.path("queue")).len()
}

/// The process of a job, once it runs.
fn process(project: &Sandbox, job: usize) -> Pid {
    let pid = || project.read(&format!("queue/{job}/pid")).trim().parse::<i32>().ok();
    eventually("a running job", || pid().is_some());
    Pid::from_raw(pid().expect("it was there")).expect("a number")
}

/// The first process that learns.
fn worker(project: &Sandbox) -> Pid {
    let journal = project.read("journal");
    let worker = journal.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
    Pid::from_raw(worker.expect("its number")).expect("not zero")
}

/// The steps that were really done.
fn steps(project: &Sandbox) -> usize {
    project.read("journal").lines().filter(|line| line.contains("step")).count()
}

/// Waits until the stage that learns works.
fn works(project: &Sandbox) {
    eventually("a step", || steps(project) > 1);
}

#[test]
fn what_learns_runs_as_jobs_and_the_rest_here() {
    // How many cores its allocation has is not what a job asks for.
    let project = project("").set("NSLOTS", "1");
    let ended = project.pipeline(RUN);
    assert_eq!(ended.success(), "data ran, simclr ran, train ran, evaluate ran");
    assert_snapshot!(project.filter(&ended.stderr), @r"
          data (command) runs: no earlier run
    done  data in [time]
          simclr is job 1 of fake
          simclr (pretrain-simclr) runs: no earlier run
    done  simclr in [time]
          train is job 1 of fake
          train (train) runs: no earlier run
    done  train in [time]
          evaluate is job 1 of fake
          evaluate (evaluate) runs: no earlier run
    done  evaluate in [time]
    ");
    assert_eq!(submitted(&project), 1, "it went on with what it made ready");
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
    assert_eq!(names(&project.cache("running")), [""; 0]);
    let again = project.pipeline(RUN);
    assert_eq!(again.success(), "data fresh, simclr fresh, train fresh, evaluate fresh");
    // Where a stage runs is in no key.
    assert!(project.pipeline("plan experiment.toml --exit-code").status.success());
}

#[test]
fn a_stage_says_where_it_runs() {
    let project = project("");
    project
        .edit("kind = \"evaluate\"", "kind = \"evaluate\"\nexecution = { executor = \"local\" }");
    project
        .edit("output = \"dataset\"", "output = \"dataset\"\nexecution = { executor = \"fake\" }");
    project.pipeline(RUN).success();
    assert_eq!(submitted(&project), 1, "data, and then simclr and train");
}

#[test]
fn a_run_that_is_killed_leaves_its_job_and_the_next_one_follows_it() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    let status = project.pipeline("status experiment.toml simclr").stdout;
    assert!(status.contains("simclr is running"), "{status}");
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert_snapshot!(project.filter(&ended.stderr), @r"
          simclr is job 1 of fake
          simclr (pretrain-simclr) runs: no earlier run
    done  simclr in [time]
    ");
    assert_eq!((submitted(&project), steps(&project)), (1, 60));
    let history = project.pipeline("history --json").json();
    let stage = &history[0]["stages"][0];
    assert_eq!(
        (&stage["stage"], &stage["outcome"]),
        (&"simclr".into(), &"ran".into()),
        "{history}"
    );
    // The time of the job, and not of the run that followed it last.
    assert!(stage["seconds"].as_f64().is_some_and(|seconds| seconds >= 3.0), "{history}");
}

#[test]
fn a_job_that_ends_while_nobody_follows_it_is_caught_up_with() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    assert!(!project.path("cache/latest/training/simclr").exists());
    // Until somebody has seen it, it stays.
    let kept = project.pipeline("gc --keep-days 0").stdout;
    assert!(kept.contains("uses it"), "{kept}");
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr fresh");
    assert!(project.path("cache/latest/training/simclr").exists());
    assert_eq!((submitted(&project), steps(&project)), (1, 60));
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
    let history = project.pipeline("history --json").json();
    assert_eq!(
        (&history[0]["state"], &history[1]["state"]),
        (&"complete".into(), &"killed".into())
    );
}

#[test]
fn a_job_in_the_queue_is_shown_and_what_it_needs_stays() {
    let project = project("");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    run.signal(Signal::KILL);
    run.wait();
    let status = project.pipeline("status experiment.toml simclr").stdout;
    let line = "simclr is queued as job 1 of fake, submitted just now\n";
    assert!(status.contains(line), "{status}");
    let queued =
        &project.pipeline("status experiment.toml simclr --json").json()["stages"][0]["queued"];
    assert_eq!((queued["executor"].as_str(), queued["job"].as_str()), (Some("fake"), Some("1")));
    fs::remove_dir_all(project.cache("history")).expect("ours");
    fs::remove_dir_all(project.cache("heads")).expect("ours");
    let kept = project.pipeline("gc --keep-days 0");
    let line = "the job [project]/cache/jobs/[digest] uses it";
    assert!(project.filter(&kept.stdout).contains(line), "{kept}");
    // A manifest that was edited has another key, and the job does not read it.
    project.edit("epochs = 10", "epochs = 11");
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    project.edit("epochs = 11", "epochs = 10");
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr fresh");
}

#[test]
fn a_job_that_is_held_is_shown_as_that() {
    let project = project("");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    project.write("queue/1/state", "PSUSP\n");
    run.wait_for("simclr: its job 1 is held: PSUSP");
    let status = || project.pipeline("status experiment.toml simclr");
    let line = "simclr is held as job 1 of fake, submitted just now: PSUSP\n";
    eventually("the status", || status().stdout.contains(line));
    project.write("queue/1/state", "PEND\n");
    eventually("the status", || status().stdout.contains("simclr is queued as job 1 of fake"));
    fs::remove_file(project.path("hold")).expect("ours");
    assert_eq!(run.wait().success(), "data ran, simclr ran");
}

#[test]
fn ctrl_c_once_leaves_jobs_and_twice_cancels_them() {
    let project = project("slow").set("FAKE_LEARN_STEPS", "200");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr (pretrain-simclr) runs");
    run.signal(Signal::INT);
    let left = run.wait();
    assert_eq!(left.code(), Some(130));
    assert_snapshot!(left, @r"
    status 130
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr is job 1 of fake
          simclr (pretrain-simclr) runs: no earlier run
          stopping: 1 job goes on elsewhere, and the same command comes back; what runs here writes a checkpoint and leaves (again within 3 s to cancel jobs, and to end the rest at once)
    left  simclr, which goes on elsewhere
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  left  goes on elsewhere

    training: 1 ran, 1 left in [time]; what was left goes on elsewhere, and the same command comes back to it
    ");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    run.signal(Signal::INT);
    run.wait_for("again within 3 s");
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::INT);
    let cancelled = run.wait();
    assert_eq!(
        (cancelled.code(), &*cancelled.results()),
        (Some(130), "data fresh, simclr stopped")
    );
    assert_eq!(project.read("cancelled"), "1\n");
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
    // The job wrote a checkpoint, from which another one goes on.
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr ran");
    assert_eq!((submitted(&project), steps(&project)), (2, 200));
}

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
fn the_jobs_of_a_detached_run_submit_what_they_make_ready() {
    let project = project("");
    two_trainings(&project);
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
fn two_runs_share_a_job() {
    let project = project("slow");
    let runs = [0; 2].map(|_| project.start(&format!("{RUN} simclr")));
    let ended = runs.map(|run| run.wait());
    for ended in &ended {
        assert!(ended.status.success(), "{ended}");
    }
    assert_eq!((submitted(&project), steps(&project)), (1, 60));
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
}

#[test]
fn a_run_that_is_killed_between_its_file_and_the_submission_submits_once() {
    let project = project("slow");
    let before = "experiment.toml simclr --executor fake --set";
    let killed = |submit: &str| {
        let mut command = project.command(&format!("run {before}"));
        command.arg(format!("executors.fake.submit='{submit}'"));
        let ended = project.start_command(command).wait();
        assert_eq!(ended.status.code(), None, "{ended}");
    };
    // Before the scheduler has it.
    killed("kill -9 $PPID; : {script}");
    assert_eq!((submitted(&project), names(&project.cache("jobs")).len()), (0, 1));
    // After that, and before it is written which job it is.
    killed("./sched submit {script}; kill -9 $PPID");
    assert_eq!(submitted(&project), 1);
    works(&project);
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert_eq!((submitted(&project), steps(&project)), (1, 60));
}

#[test]
fn a_failure_is_reported_once_and_tried_again_when_asked() {
    let project = project("die");
    let failed = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(failed.code(), Some(1));
    let said = project.filter(&failed.stderr);
    let why = "FAIL  simclr after [time]: fake-learn crashed (signal 6)\n      the last lines of its log:";
    assert!(said.contains(why) && said.contains("| line 30 of the log"), "{failed}");
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
    let project = project.set("FAKE_LEARN", "");
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr ran");
    assert_eq!(submitted(&project), 2);
}

#[test]
fn a_failure_that_nobody_saw_is_tried_again() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    kill_process(worker(&project), Signal::ABORT).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "1\n");
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    let why = "simclr: a job that failed meanwhile (fake-learn crashed (signal 6)) is replaced";
    assert!(ended.stderr.contains(why), "{ended}");
    assert_eq!((submitted(&project), steps(&project)), (2, 60));
}

#[test]
fn a_job_that_is_killed_is_noticed() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    kill_process(process(&project, 1), Signal::KILL).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("its job 1 ended (EXIT) without a result"), "{ended}");
    // With attempts, there is another job, which goes on from the checkpoint.
    let run = project.start(&format!(
        "{RUN} simclr --set execution.attempts.count=2 --set execution.attempts.on=['failure']"
    ));
    eventually("another job", || submitted(&project) == 2);
    let first = process(&project, 2);
    let done = steps(&project);
    eventually("its steps", || steps(&project) > done + 1);
    kill_process(first, Signal::KILL).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert_eq!(submitted(&project), 3);
}

#[test]
fn a_job_whose_time_is_up_goes_on_only_if_it_advanced() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    // Its process has heard of one more than the first by then.
    eventually("some steps", || steps(&project) > 10);
    // Some schedulers send it to all processes of a job.
    kill_process(worker(&project), Signal::USR1).expect("ours");
    kill_process(process(&project, 1), Signal::USR1).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.success(), "data ran, simclr ran");
    assert!(
        ended
            .stderr
            .contains("its job 1, which was interrupted, and whose checkpoint has advanced,"),
        "{ended}"
    );
    assert_eq!((submitted(&project), steps(&project)), (2, 60), "no step was done twice");

    // One that cannot come further in its time fails.
    project.edit("epochs = 10", "epochs = 11");
    let shell = "sleep 60";
    let stage = format!(
        "[stages.stuck]\nkind = \"command\"\nshell = '{shell}'\nexecution = {{ executor = \"fake\" }}\n"
    );
    project.write(MANIFEST, format!("{}{stage}", project.read(MANIFEST)));
    let run = project.start("run experiment.toml stuck");
    let job = process(&project, 3);
    eventually("its worker", || !names(&project.cache("tmp")).is_empty());
    kill_process(job, Signal::USR1).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("its job 3 had too little time"), "{ended}");
}

#[test]
fn a_job_that_hears_of_its_time_before_it_works_goes_on() {
    let project = project("");
    project.edit(
        "kind = \"command\"\nsubmit",
        "kind = \"command\"\nsetup = \"kill -USR1 $$\"\nsubmit",
    );
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data ran, simclr ran");
    assert_eq!(submitted(&project), 1);
}

#[test]
fn a_key_that_another_process_works_on_is_not_submitted() {
    let project = project("slow");
    let here = project.start("run experiment.toml simclr");
    works(&project);
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr fresh");
    assert!(ended.stderr.contains("simclr waits: another process does the same work"), "{ended}");
    here.wait().success();
    assert_eq!(submitted(&project), 0);
}

#[test]
fn a_job_never_waits_in_its_allocation() {
    let project = project("slow");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    run.signal(Signal::KILL);
    run.wait();
    // Held, and then fresh: each has an exit status of its own.
    let here = project.start("run experiment.toml simclr");
    works(&project);
    let spec = names(&project.cache("jobs"));
    let spec = format!("__job cache/jobs/{}/spec.json", spec[0]);
    assert_eq!(project.pipeline(&spec).code(), Some(4));
    here.signal(Signal::KILL);
    here.wait();
    // One that begins where there is a result.
    assert_eq!(project.pipeline(&spec).code(), Some(0));
    assert_eq!(project.pipeline(&spec).code(), Some(3));
    project.pipeline("run experiment.toml simclr").success();
    assert_eq!(project.pipeline(&spec).code(), Some(2), "its end was seen");
}

#[test]
fn there_are_no_more_jobs_at_once_than_an_executor_takes() {
    let stages = (0..4).map(|number| {
        format!("[stages.s{number}]\nkind = \"command\"\nshell = 'mkdir busy && sleep 0.2 && rmdir busy && echo {number} > \"$PIPELINE_OUTPUT/a\"'\nexecution = {{ executor = \"fake\" }}\n")
    });
    let project = project("");
    let stages: String = stages.collect();
    project
        .write(MANIFEST, format!("[experiment]\nname = \"x\"\n{stages}{EXECUTOR}max-jobs = 1\n"));
    assert_eq!(project.pipeline("run experiment.toml").success(), "s0 ran, s1 ran, s2 ran, s3 ran");
}

/// Two stages that run at the same time, each a word on the disk.
fn two_stages() -> Sandbox {
    let project = project("");
    let stage = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nshell = 'echo {name} > \"$PIPELINE_OUTPUT/a\"'\nexecution = {{ executor = \"fake\" }}\n"
        )
    };
    let stages = format!("{}{}", stage("a"), stage("b"));
    project.write(MANIFEST, format!("[experiment]\nname = \"x\"\n{stages}{EXECUTOR}"));
    project
}

/// Waits until the scheduler was asked so often again where its jobs are.
fn asked(project: &Sandbox, times: usize) {
    let count = || project.read("asked").lines().count();
    let before = count();
    eventually("questions", || count() >= before + times);
}

#[test]
fn a_scheduler_that_is_away_is_asked_again() {
    let project = project("");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    project.write("away", "");
    asked(&project, 2);
    fs::remove_file(project.path("away")).expect("ours");
    asked(&project, 2);
    fs::remove_file(project.path("hold")).expect("ours");
    assert_eq!(run.wait().success(), "data ran, simclr ran");
    assert_eq!(submitted(&project), 1);
}

#[test]
fn a_scheduler_that_says_nothing_of_any_job_is_not_believed() {
    let project = two_stages();
    project.write("hold", "");
    let run = project.start("run experiment.toml");
    run.wait_for("a is job");
    run.wait_for("b is job");
    project.write("mute", "");
    asked(&project, 4);
    fs::remove_file(project.path("mute")).expect("ours");
    fs::remove_file(project.path("hold")).expect("ours");
    assert_eq!(run.wait().success(), "a ran, b ran");
    assert_eq!(submitted(&project), 2);
}

#[test]
fn a_scheduler_that_takes_nothing_now_is_spared_and_can_be_left() {
    let project = two_stages();
    let submit = "submit = \"./sched submit {script}\"";
    let away = "submit = \"echo {script} >> tried; echo the server is away >&2; exit 75\"";
    project.edit(submit, away);
    let run = project.start("run experiment.toml");
    run.wait_for("did not take it: the server is away; it is asked again");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(project.read("tried").lines().count(), 1, "for both stages");
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!((ended.code(), &*ended.results()), (Some(130), "a stopped, b stopped"));
    // What was made is submitted by the next run.
    assert_eq!(names(&project.cache("jobs")).len(), 2);
    project.edit(away, submit);
    assert_eq!(project.pipeline("run experiment.toml").success(), "a ran, b ran");
    assert_eq!(submitted(&project), 2);
}

#[test]
fn a_run_that_was_away_follows_the_job_that_another_run_has_made_meanwhile() {
    let project = project("slow").set("FAKE_LEARN_STEPS", "200");
    let first = project.start(&format!("{RUN} simclr"));
    works(&project);
    let second = project.start(&format!("{RUN} simclr"));
    second.wait_for("simclr (pretrain-simclr) runs");
    second.signal(Signal::STOP);
    project.write("hold", "");
    kill_process(process(&project, 1), Signal::USR1).expect("ours");
    first.wait_for("simclr is job 2 of fake");
    second.signal(Signal::CONT);
    second.wait_for("simclr is job 2 of fake");
    fs::remove_file(project.path("hold")).expect("ours");
    // One of them hears its end, and the other one finds its result.
    for ended in [first, second].map(|run| run.wait()) {
        assert!(ended.status.success(), "{ended}");
    }
    assert_eq!((submitted(&project), steps(&project)), (2, 200));
}

#[test]
fn the_time_of_a_stage_is_kept_by_its_job() {
    let project = project("slow").set("FAKE_LEARN_STEPS", "200");
    let run = project.start(&format!("{RUN} simclr --set execution.timeout-seconds=2"));
    works(&project);
    // For as long as its time is up here: as a job that waits in the queue again.
    let job = process(&project, 1);
    kill_process(job, Signal::STOP).expect("ours");
    std::thread::sleep(Duration::from_secs(3));
    kill_process(job, Signal::CONT).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("its time was up (timeout-seconds)"), "{ended}");
    assert_eq!(project.read("cancelled"), "");
}

/// A forced job that waits, after a result.
fn forced_job() -> Sandbox {
    let project = project("");
    project.pipeline("run experiment.toml simclr").success();
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr --force simclr"));
    run.wait_for("simclr is job 1 of fake");
    run.signal(Signal::KILL);
    run.wait();
    project
}

#[test]
fn a_forced_job_is_left_alone_by_a_run_that_has_a_result() {
    let project = forced_job();
    let steps_before = steps(&project);
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr fresh");
    assert_eq!(names(&project.cache("jobs")).len(), 1);
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    assert_eq!(steps(&project), 2 * steps_before);
    // Now it has ended.
    project.pipeline(&format!("{RUN} simclr")).success();
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
}

#[test]
fn a_forced_job_runs_once_and_is_not_what_is_forced_later() {
    let project = forced_job();
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    let once = steps(&project);
    // Its scheduler starts it again.
    let key = names(&project.cache("jobs")).remove(0);
    let script = project.cache("jobs").join(key).join("script");
    let mut command = std::process::Command::new(&script);
    project.dress(&mut command);
    assert_eq!(command.status().expect("a script").code(), Some(3));
    assert_eq!(steps(&project), once);
    let other = format!("__job --token other {}", script.with_file_name("spec.json").display());
    assert_eq!(project.pipeline(&other).code(), Some(2), "a job of another submission");
}

#[test]
fn what_is_forced_is_not_satisfied_by_a_job_that_ended_before() {
    let project = project("");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    run.signal(Signal::KILL);
    run.wait();
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    let once = steps(&project);
    let ended = project.pipeline(&format!("{RUN} simclr --force simclr"));
    assert!(ended.success().starts_with("data fresh, simclr ran"), "{ended}");
    assert_eq!((submitted(&project), steps(&project)), (2, 2 * once));
}

#[test]
fn a_second_job_of_the_same_key_disturbs_nobody() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    let key = names(&project.cache("jobs")).remove(0);
    let mut command = std::process::Command::new(project.cache("jobs").join(key).join("script"));
    project.dress(&mut command);
    assert_eq!(command.status().expect("a script").code(), Some(4), "it is held");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(names(&project.cache("jobs")).len(), 1);
    assert_eq!(run.wait().success(), "data ran, simclr ran");
    assert_eq!(submitted(&project), 1);
}

#[test]
fn a_job_that_was_suspended_and_has_lost_its_locks_harms_nothing() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    let (job, worker) = (process(&project, 1), worker(&project));
    for process in [job, worker] {
        kill_process(process, Signal::STOP).expect("ours");
    }
    // As a file server takes them from a machine that it has not heard of for long.
    let key = names(&project.cache("jobs")).remove(0);
    fs::remove_file(project.cache("locks").join(&key)).expect("ours");
    let checkpoints = project.cache("partial").join(&key).join("checkpoint");
    for name in names(&checkpoints).iter().filter(|name| name.ends_with(".lock")) {
        fs::remove_file(checkpoints.join(name)).expect("ours");
    }
    let mut other = std::process::Command::new(project.cache("jobs").join(key).join("script"));
    project.dress(&mut other);
    assert_eq!(other.status().expect("a script").code(), Some(0), "it takes the work over");
    assert_eq!(run.wait().success(), "data ran, simclr ran");
    for process in [job, worker] {
        // One that another worker has waited for is gone.
        let _ = kill_process(process, Signal::CONT);
    }
    eventually("the end of the first one", || !project.read("queue/1/status").is_empty());
    assert_ne!(project.read("queue/1/status"), "0\n", "it records nothing");
    project.pipeline("verify experiment.toml").success();
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr fresh");
}

#[test]
fn a_job_of_another_executor_that_has_ended_is_in_nobodys_way() {
    let project = project("die");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    run.signal(Signal::KILL);
    run.wait();
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "1\n");
    let project = project.set("FAKE_LEARN", "");
    project.edit("[executors.fake]", "[executors.other]");
    let ended = project.pipeline("run experiment.toml simclr --executor other");
    assert_eq!(ended.success(), "data fresh, simclr ran");
}

#[test]
fn a_scheduler_that_refuses_is_quoted() {
    let project = project("");
    let refuse = |submit: &str| {
        let mut command = project.command(&format!("{RUN} simclr --set"));
        command.arg(format!("executors.fake.submit='{submit}'"));
        let ended = project.start_command(command).wait();
        assert_eq!(ended.code(), Some(1));
        assert_eq!(names(&project.cache("jobs")), [""; 0]);
        project.filter(&ended.stderr)
    };
    assert_snapshot!(refuse("echo {script} > /dev/null; echo the queue gpu does not exist >&2; exit 3"), @r"
          data (command) runs: no earlier run
    done  data in [time]
    FAIL  simclr after [time]: the executor 'fake' did not take it: the queue gpu does not exist
    ");
    assert_snapshot!(refuse("echo thank you: {script} | cut -c 1-9"), @"FAIL  simclr after [time]: the executor 'fake' did not take it: 'submit' did not print the id of a job, but 'thank you'");
    assert_snapshot!(refuse("echo 1 {script} -l mem={memory}"), @"FAIL  simclr after [time]: the executor 'fake' did not take it: it uses {memory} in 'submit', and the stage does not say its 'memory' in 'execution'");
}

#[test]
fn a_stage_says_how_much_time_its_job_has() {
    let project = two_stages();
    let submit = "submit = \"./sched submit {script}\"";
    project.edit(
        submit,
        "submit = \"echo {name} {time} {minutes} >> times; ./sched submit {script}\"",
    );
    let of_b = "execution = { executor = \"fake\", time = \"1-02:00:30\" }\n[executors";
    project.edit("execution = { executor = \"fake\" }\n\n[executors", of_b);
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert_eq!(ended.results(), "a failed, b ran");
    let why = "it uses {time} in 'submit', and the stage does not say its 'time' in 'execution'";
    assert!(ended.stderr.contains(why), "{ended}");
    assert_eq!(project.read("times"), "b 26:00:30 1561\n");
    // For all stages that do not say it; it is in no key.
    let ended = project.pipeline("run experiment.toml --set execution.time='00:10:00'");
    assert_eq!(ended.success(), "a ran, b fresh");
    assert!(project.read("times").ends_with("a 00:10:00 10\n"), "{}", project.read("times"));
    // Before that of the executor.
    project.write(
        MANIFEST,
        format!("{}[executors.slurm]\nkind = \"slurm\"\ntime = \"5\"\n", project.read(MANIFEST)),
    );
    let script = |stage: &str| {
        let said = project.pipeline(&format!(
            "slurm-script experiment.toml {stage} --set stages.{stage}.execution.executor='slurm'"
        ));
        let time = said.stdout.lines().find_map(|line| line.strip_prefix("#SBATCH --time="));
        time.unwrap_or_default().to_owned()
    };
    assert_eq!([script("a"), script("b")], ["5", "26:00:30"]);
}

#[test]
fn a_program_that_was_replaced_submits_nothing() {
    let project = project("");
    let go = project.path("go").display().to_string();
    let waits = format!("shell = 'until [ -e {go} ]; do sleep 0.05; done; cd");
    project.edit("shell = 'cd", &waits);
    let program = project.path("pipeline-copy");
    let mut command = project.command(&format!("{RUN} simclr"));
    fs::copy(command.get_program(), &program).expect("a program");
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    command = std::process::Command::new(&program);
    project.dress(command.args(arguments));
    let run = project.start_command(command);
    run.wait_for("data (command) runs");
    fs::remove_file(&program).expect("ours");
    project.write("go", "");
    let ended = run.wait();
    assert_eq!(ended.results(), "data ran, simclr failed");
    assert!(ended.stderr.contains("the program of this run was replaced or removed"), "{ended}");
    assert_eq!((submitted(&project), names(&project.cache("jobs")).len()), (0, 1));
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr ran");
}

#[test]
fn an_executor_that_is_not_declared_is_refused() {
    let project = project("");
    let typed = project.pipeline("run experiment.toml --executor fakes");
    assert_snapshot!(typed, @r"
    status 2
    --- stderr
    error: there is no executor 'fakes' (--executor, PIPELINE_EXECUTOR); did you mean 'fake'?
    ");
    project.edit("kind = \"evaluate\"", "kind = \"evaluate\"\nexecution = { executor = \"gpu\" }");
    // Whoever only plans may not have it: it may be in the settings of another machine.
    assert!(project.pipeline("plan experiment.toml").status.success());
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 2
    --- stderr
    error: there is no executor 'gpu'
      --> experiment.toml:26:26
       |
    26 | execution = { executor = "gpu" }
       |                          ^^^^^
       |
       = help: there are: fake

    error: 1 mistake in experiment.toml; nothing was run
    "#);
}

#[test]
fn an_executor_can_be_in_the_settings_of_the_user() {
    let project = project("").set("XDG_CONFIG_HOME", "/nowhere");
    project.edit(EXECUTOR, "");
    let folder = project.path("config");
    project.write("config/pipeline/config.toml", EXECUTOR);
    let project = project.set("XDG_CONFIG_HOME", folder.to_string_lossy());
    project.pipeline(&format!("{RUN} simclr")).success();
    assert_eq!(submitted(&project), 1);
}
