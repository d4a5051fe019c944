//! Schedulers that are away, refuse, or say nothing; and what they are asked.

use std::fs;
use std::path::Path;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::{Signal, kill_process};

use super::{RUN, jobs, process, project, submitted, two_stages};
use crate::support::{Sandbox, copy_program, eventually, is_alive, names};

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
    // What it was asked to take, it may have.
    assert_eq!(names(&project.cache("jobs")).len(), 1);
    project.edit(away, submit);
    assert_eq!(project.pipeline("run experiment.toml").success(), "a ran, b ran");
    assert_eq!(submitted(&project), 2);
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
    // In its log, too.
    let why = "the executor 'fake' did not take it: the queue gpu does not exist";
    let log = project.pipeline("log experiment.toml simclr");
    assert!(log.status.success() && log.stdout.contains(why), "{log}");
    let status = project.pipeline("status experiment.toml simclr");
    assert!(status.stdout.contains(&format!("simclr failed just now: {why}")), "{status}");
    assert_snapshot!(refuse("echo thank you: {script} | cut -c 1-9"), @"FAIL  simclr after [time]: the executor 'fake' did not take it: 'submit' did not print the id of a new job, but 'thank you'");
    assert_snapshot!(refuse("echo 1 {script} -l mem={memory}"), @"FAIL  simclr after [time]: the executor 'fake' did not take it: it uses {memory} in 'submit', and the stage does not say its 'memory' in 'execution'");
}

#[test]
fn a_program_that_was_replaced_submits_nothing() {
    replaced(|program| fs::remove_file(program).expect("ours"));
    // As NFS does it, where the file is still open.
    replaced(|program| {
        fs::rename(program, program.with_file_name(".nfs00000001")).expect("ours");
        fs::write(program, "another build").expect("ours");
    });
}

fn replaced(replace: impl FnOnce(&Path)) {
    let project = project("");
    let go = project.path("go").display().to_string();
    let waits = format!("shell = 'until [ -e {go} ]; do sleep 0.05; done; cd");
    project.edit("shell = 'cd", &waits);
    let program = project.path("pipeline-copy");
    let mut command = project.command(&format!("{RUN} simclr"));
    copy_program(Path::new(command.get_program()), &program);
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    command = std::process::Command::new(&program);
    project.dress(command.args(arguments));
    let run = project.start_command(command);
    run.wait_for("data (command) runs");
    replace(&program);
    project.write("go", "");
    let ended = run.wait();
    assert_eq!(ended.results(), "data ran, simclr failed");
    assert!(ended.stderr.contains("the program of this run was replaced or removed"), "{ended}");
    assert_eq!((submitted(&project), names(&project.cache("jobs")).len()), (0, 1));
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr ran");
}

#[test]
fn an_id_that_another_job_has_is_none() {
    let project = two_stages();
    project.edit("submit = \"", "submit = \"echo WARNING: node42 is drained; ");
    project.write("hold", "");
    let run = project.start("run experiment.toml --keep-going");
    run.wait_for("a is job node42 of fake");
    run.wait_for("FAIL  b");
    run.signal(Signal::KILL);
    let ended = run.wait();
    let why = "'submit' did not print the id of a new job, but 'WARNING: node42 is drained\n";
    assert!(ended.stderr.contains(why), "{ended}");
    // Whatever became of the second one, nothing is left that it could do.
    assert_eq!(jobs(&project).len(), 1);
}

#[test]
fn a_scheduler_that_does_not_answer_delays_nothing() {
    let project = two_stages();
    project.write("works", "");
    let shell = "shell = 'while [ -e works ]; do sleep 0.02; done; echo a";
    project.edit("shell = 'echo a", shell);
    project
        .edit("state = \"", "state = \"echo >> hangs; while [ -e hangs ]; do sleep 0.02; done; ");
    let run = project.start("run experiment.toml");
    run.wait_for("done  b");
    eventually("a question", || !project.read("hangs").is_empty());
    run.signal(Signal::INT);
    run.wait_for("stopping: 1 job goes on elsewhere");
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!((ended.code(), &*ended.results()), (Some(130), "a stopped, b ran"), "{ended}");
    // It goes on alone.
    std::fs::remove_file(project.path("hangs")).expect("it was asked");
}

#[test]
fn a_question_without_an_answer_ends_with_the_run() {
    for is_interrupted in [true, false] {
        let project = two_stages();
        project.write("works", "");
        let shell = "shell = 'while [ -e works ]; do sleep 0.02; done; echo a";
        project.edit("shell = 'echo a", shell);
        project.edit("state = \"", "state = \"sleep 300 & echo $! $$ > asks; wait; ");
        let run = project.start("run experiment.toml");
        eventually("a question", || project.read("asks").ends_with('\n'));
        if is_interrupted {
            run.signal(Signal::INT);
        } else {
            fs::remove_file(project.path("works")).expect("ours");
        }
        let ended = run.wait();
        assert_eq!(ended.code(), Some(if is_interrupted { 130 } else { 0 }), "{ended}");
        let asks = project.read("asks");
        let asks: Vec<u32> =
            asks.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        eventually("the end of the question", || !asks.iter().any(|pid| is_alive(*pid)));
        let _ = fs::remove_file(project.path("works"));
    }
}

#[test]
fn jobs_that_were_all_cancelled_are_noticed_at_once() {
    let project = two_stages();
    for stage in ["a", "b"] {
        let shell = format!("shell = 'echo {stage}");
        project.edit(&shell, &shell.replace("echo", "echo >> works; sleep 60; echo"));
    }
    // As some do it: whatever has ended, they do not know.
    project.edit("./sched state {ids}", "./sched state {ids} | grep -v EXIT || true");
    let run = project.start("run experiment.toml --keep-going");
    eventually("both work", || project.read("works").lines().count() == 2);
    let cancel = |job: usize| {
        kill_process(process(&project, job), Signal::TERM).expect("ours");
    };
    cancel(1);
    cancel(2);
    eventually("their ends", || {
        [1, 2].iter().all(|job| !project.read(&format!("queue/{job}/status")).is_empty())
    });
    let status = project.pipeline("status experiment.toml");
    assert!(!status.stdout.contains("back in the queue"), "{status}");
    let began = std::time::Instant::now();
    let ended = run.wait();
    assert_eq!(ended.results(), "a failed, b failed", "{ended}");
    assert!(ended.stderr.contains("was asked to stop: somebody cancelled it"), "{ended}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
