//! Runs that come back to jobs: of a run that was killed, or that another run has made.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use super::{RUN, SCHEDULER, jobs, process, project, steps, submitted, two_stages, worker, works};
use crate::support::{Ended, MANIFEST, Sandbox, eventually};
use crate::terminal::sized_terminal;

#[test]
fn a_run_that_is_killed_leaves_its_job_and_the_next_one_follows_it() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    let status = || project.pipeline("status experiment.toml simclr").stdout;
    eventually("it is shown", || status().contains("simclr is running"));
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert_snapshot!(project.filter(&ended.stderr), @r"
          simclr is job 1 of fake
          simclr (pretrain-simclr) runs on [host]: no earlier run
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
    assert_eq!(jobs(&project), [""; 0]);
    let history = project.pipeline("history --json").json();
    assert_eq!(
        (&history[0]["state"], &history[1]["state"]),
        (&"complete".into(), &"killed".into())
    );
}

#[test]
fn a_stage_whose_job_had_failed_before_is_counted_once() {
    let project = two_stages();
    for stage in ["a", "b"] {
        let shell = format!("shell = 'echo {stage} >");
        project.edit(&shell, &shell.replace("echo", "test -e works || exit 1; echo"));
    }
    project.write("hold", "");
    project.pipeline("run experiment.toml --detach").success();
    fs::remove_file(project.path("hold")).expect("ours");
    for job in [1, 2] {
        let status = format!("queue/{job}/status");
        eventually("the end of a job", || project.read(&status) == "1\n");
    }
    project.write("works", "");
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success(), "a ran, b ran");
    assert!(ended.stderr.contains("a job that failed meanwhile"), "{ended}");
    let history = project.pipeline("history").stdout;
    let newest = history.lines().nth(1).expect("a run");
    assert!(newest.contains("2 ran") && !newest.contains("started"), "{history}");
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
    assert_snapshot!(project.pipeline("log experiment.toml simclr"), @r"
    status 2
    --- stderr
    simclr is queued as job 1 of fake, submitted just now
    error: 'simclr' does not have a log: it has not run yet
    ");
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
fn a_job_in_the_queue_for_what_a_stage_was_is_shown_with_what_cancels_it() {
    let project = two_stages();
    project.write("hold", "");
    project.pipeline("run experiment.toml --detach").success();
    let status = |more: &str| {
        let status = project.pipeline(&format!("status experiment.toml {more}")).printed();
        let lines = status.split_once("\n\n").map(|(_, lines)| lines.to_owned());
        project.filter(&lines.unwrap_or_default())
    };
    assert!(!status("").contains("cancel"), "they are its own");
    project.edit("echo a >", "echo other >");
    assert_snapshot!(status(""), @r"
    b is queued as job 2 of fake, submitted just now
    a with other values or inputs is queued as job 1 of fake, submitted just now
      if nobody wants it, to cancel it: ./sched cancel 1
    cache: [project]/cache
    ");
    project.edit("echo b >", "echo other >");
    assert_snapshot!(status("--all"), @r"
    a with other values or inputs is queued as job 1 of fake, submitted just now
    b with other values or inputs is queued as job 2 of fake, submitted just now
      if nobody wants them, to cancel them: ./sched cancel 1 2
    cache: [project]/cache
    ");
    assert!(!status("a").contains("./sched cancel 1 2"), "{}", status("a"));
    let json = project.pipeline("status experiment.toml --json").json();
    let other = &json["other-jobs"][1];
    assert_eq!((&other["stage"], &other["job"]), (&"b".into(), &"2".into()), "{json}");
    assert_eq!(other["key"].as_str().map(str::len), Some(64), "{json}");
    // Whoever has other settings may not have that executor.
    project.edit("[executors.fake]", "[executors.other]");
    assert_snapshot!(status(""), @r"
    a with other values or inputs is queued as job 1 of fake, submitted just now
    b with other values or inputs is queued as job 2 of fake, submitted just now
      if nobody wants them, to cancel them, in the scheduler of fake: 1 2
    cache: [project]/cache
    ");
    fs::remove_file(project.path("hold")).expect("ours");
}

#[test]
fn a_job_that_may_be_that_of_a_stage_is_shown_without_what_cancels_it() {
    let project = two_stages();
    project.edit("[stages.b]\n", "[stages.b]\ninputs = { a = \"a\" }\n");
    project.pipeline("run experiment.toml a").success();
    project.write("hold", "");
    project.pipeline("run experiment.toml --detach").success();
    // With this edit, the input may come out as it was.
    project.edit("echo a >", "echo  a >");
    let status = project.pipeline("status experiment.toml").stdout;
    let line = "b with other values or inputs is queued as job 2 of fake";
    assert!(status.contains(line) && !status.contains("cancel"), "{status}");
    project.edit("echo b >", "echo other >");
    project.edit("echo  a >", "echo a >");
    let status = project.pipeline("status experiment.toml").stdout;
    assert!(status.contains("if nobody wants it, to cancel it: ./sched cancel 2\n"), "{status}");
    fs::remove_file(project.path("hold")).expect("ours");
}

#[test]
fn a_bar_says_that_its_job_is_queued() {
    let project = project("slow").set("FAKE_LEARN_STEPS", "20").set("TERM", "xterm");
    project.write("hold", "");
    let (mut window, end) = sized_terminal(60, 10);
    let mut command = project.command(&format!("{RUN} simclr"));
    let mut child = command.stdout(Stdio::null()).stderr(end).spawn().expect("it starts");
    drop(command);
    let (mut shown, mut part) = (String::new(), [0; 4096]);
    let began = Instant::now();
    // When nobody holds its other end, a terminal ends with an error.
    while let Ok(count) = window.read(&mut part) {
        shown.push_str(&String::from_utf8_lossy(&part[..count]));
        if shown.contains(" queued") {
            let _ = fs::remove_file(project.path("hold"));
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{shown:?}");
    }
    assert!(child.wait().expect("it ends").success());
    let (queued, runs) = shown.rsplit_once(" queued").expect("it was");
    assert!(queued.contains("simclr is job 1 of fake"), "{shown:?}");
    assert!(runs.contains("loss 0."), "{shown:?}");
}

#[test]
fn a_job_that_is_held_is_shown_as_that() {
    let project = project("");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    let log = project.start("log experiment.toml simclr --follow");
    log.wait_for("simclr is queued as job 1 of fake, submitted just now\n");
    project.write("queue/1/state", "PSUSP\n");
    run.wait_for("simclr: its job 1 is held: PSUSP");
    log.wait_for("simclr is held as job 1 of fake, submitted just now: PSUSP\n");
    let status = || project.pipeline("status experiment.toml simclr");
    let line = "simclr is held as job 1 of fake, submitted just now: PSUSP\n";
    eventually("the status", || status().stdout.contains(line));
    project.write("queue/1/state", "PEND\n");
    eventually("the status", || status().stdout.contains("simclr is queued as job 1 of fake"));
    fs::remove_file(project.path("hold")).expect("ours");
    assert_eq!(run.wait().success(), "data ran, simclr ran");
    let ended = log.wait();
    assert!(ended.status.success() && ended.stdout.ends_with("step 59\n"), "{ended}");
}

#[test]
fn whoever_follows_a_job_is_told_where_it_runs_and_since_when() {
    let project = two_stages();
    let waits = "shell = 'echo begins; until [ -e go ]; do sleep 0.05; done; echo a";
    project.edit("shell = 'echo a", waits);
    project.write("hold", "");
    let run = project.start("run experiment.toml a --progress json");
    eventually("its place in the queue", || run.printed().contains("queued"));
    let log = project.start("log experiment.toml a --follow");
    log.wait_for("a is queued");
    fs::remove_file(project.path("hold")).expect("ours");
    log.wait_for("a is running");
    project.write("go", "");
    let log = log.wait();
    // Beside other work, its process may take a moment to begin.
    let said = log.stderr.lines().filter(|line| *line != "waits for a to start");
    let said: String = said.map(|line| format!("{line}\n")).collect();
    assert_snapshot!(project.filter(&said), @r"
    a is queued as job 1 of fake, submitted just now
    a is running; started just now (process [number] on [host])
    ");
    assert_eq!(log.stdout, "begins\n", "{log}");
    let ended = run.wait();
    let start = ended.stdout.lines().find(|line| line.contains("\"start\"")).expect("it started");
    let start: serde_json::Value = serde_json::from_str(start).expect("an object");
    let host = rustix::system::uname();
    assert_eq!(start["owner"]["host"].as_str(), host.nodename().to_str().ok(), "{ended}");
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
    assert_eq!(jobs(&project), [""; 0]);
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
    assert_eq!((submitted(&project), jobs(&project).len()), (0, 1));
    // After that, and before it is written which job it is.
    killed("./sched submit {script}; kill -9 $PPID");
    assert_eq!(submitted(&project), 1);
    works(&project);
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert_eq!((submitted(&project), steps(&project)), (1, 60));
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
    assert_eq!(jobs(&project).len(), 1);
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    assert_eq!(steps(&project), 2 * steps_before);
    // Now it has ended.
    project.pipeline(&format!("{RUN} simclr")).success();
    assert_eq!(jobs(&project), [""; 0]);
}

#[test]
fn a_forced_job_runs_once_and_is_not_what_is_forced_later() {
    let project = forced_job();
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    let once = steps(&project);
    // Its scheduler starts it again.
    let key = jobs(&project).remove(0);
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
    let key = jobs(&project).remove(0);
    let mut command = std::process::Command::new(project.cache("jobs").join(key).join("script"));
    project.dress(&mut command);
    assert_eq!(command.status().expect("a script").code(), Some(4), "it is held");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(jobs(&project).len(), 1);
    assert_eq!(run.wait().success(), "data ran, simclr ran");
    assert_eq!(submitted(&project), 1);
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

/// A job in the queue that nobody follows.
fn left_in_the_queue(project: &Sandbox) {
    project.write("hold", "");
    let left = project.pipeline(&format!("{RUN} simclr --detach"));
    assert_eq!(left.success(), "data ran, simclr left");
}

#[test]
fn a_job_in_the_queue_is_cancelled_where_its_stage_runs_here() {
    let project = project("");
    left_in_the_queue(&project);
    let ended = project.pipeline("run experiment.toml simclr");
    assert_eq!(ended.success(), "data fresh, simclr ran");
    let said = "simclr: its job 1 of fake was cancelled, as the stage runs here\n";
    assert!(ended.stderr.contains(said), "{ended}");
    assert_eq!((&*project.read("cancelled"), jobs(&project)), ("1\n", Vec::new()));
}

#[test]
fn a_job_in_the_queue_that_cannot_be_cancelled_is_named_where_its_stage_runs_here() {
    let project = project("");
    left_in_the_queue(&project);
    let cancel = "cancel = \"./sched cancel {ids}\"";
    project.edit(cancel, "cancel = \"echo {ids} is not yours >&2; exit 1\"");
    let ended = project.pipeline("run experiment.toml simclr");
    assert_eq!(ended.success(), "data fresh, simclr ran");
    let says = |ended: &Ended, what: &str| {
        assert!(ended.stderr.contains(&format!("simclr: its job 1 of fake {what}\n")), "{ended}");
    };
    says(&ended, "could not be cancelled: 1 is not yours");
    says(&ended, "may still be in the queue, and there is a result: cancel it");
    // It is started, and there is nothing.
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "127\n");

    project.edit("epochs = 10", "epochs = 11");
    project.write("hold", "");
    project.pipeline(&format!("{RUN} simclr --detach")).success();
    project.edit("[executors.fake]", "[executors.other]");
    let ended = project.pipeline("run experiment.toml simclr");
    assert_eq!(ended.success(), "data fresh, simclr ran");
    let said =
        "its job 2 of fake stays in the queue, as this run does not have that executor: cancel it";
    assert!(ended.stderr.contains(said), "{ended}");
}

#[test]
fn a_job_that_has_left_the_queue_by_itself_is_no_trouble_where_its_stage_runs_here() {
    let project = project("");
    left_in_the_queue(&project);
    project.write("queue/1/state", "EXIT\n");
    let cancel = "cancel = \"./sched cancel {ids}\"";
    project.edit(cancel, "cancel = \"echo {ids} is not there >&2; exit 1\"");
    let ended = project.pipeline("run experiment.toml simclr");
    assert_eq!(ended.success(), "data fresh, simclr ran");
    let said = "simclr: its job 1 of fake was cancelled, as the stage runs here\n";
    assert!(ended.stderr.contains(said) && !ended.stderr.contains("may still"), "{ended}");
    assert_eq!(jobs(&project), [""; 0]);
}

#[test]
fn asked_twice_a_run_does_not_wait_for_a_scheduler_that_hangs() {
    let project = project("");
    left_in_the_queue(&project);
    let cancel = "cancel = \"./sched cancel {ids}\"";
    project.edit(cancel, "cancel = \"echo $$ > hangs; exec sleep 90 # {ids}\"");
    let run = project.start("run experiment.toml simclr");
    eventually("it is asked", || !project.read("hangs").is_empty());
    run.signal(Signal::INT);
    run.wait_for("stopping");
    // What follows at once is an echo of the first.
    std::thread::sleep(Duration::from_millis(400));
    let asked = Instant::now();
    run.signal(Signal::INT);
    let ended = run.wait();
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    assert_eq!((ended.code(), &*ended.results()), (Some(130), "data fresh, simclr stopped"));
    // It was not cancelled, and is known.
    assert_eq!(jobs(&project).len(), 1);
    let hangs = project.read("hangs").trim().parse().ok().and_then(Pid::from_raw);
    kill_process(hangs.expect("its number"), Signal::KILL).expect("ours");
}

#[test]
fn a_run_whose_job_another_run_takes_out_of_the_queue_waits_for_that_one() {
    let project = project("slow").set("FAKE_LEARN_STEPS", "200");
    project.write("hold", "");
    let follows = project.start(&format!("{RUN} simclr"));
    follows.wait_for("simclr is job 1 of fake");
    let here = project.start("run experiment.toml simclr");
    follows.wait_for("simclr waits: another process does the same work");
    assert_eq!(here.wait().success(), "data fresh, simclr ran");
    assert_eq!(follows.wait().success(), "data ran, simclr fresh");
    assert_eq!((submitted(&project), steps(&project)), (1, 200));
}

#[test]
fn a_job_of_another_build_does_not_run_and_is_replaced() {
    let project = project("");
    left_in_the_queue(&project);
    let key = jobs(&project).remove(0);
    let folder = project.cache("jobs").join(key);
    let spec = fs::read(folder.join("spec.json")).expect("a job");
    let mut spec: serde_json::Value = serde_json::from_slice(&spec).expect("JSON");
    spec["by"]["contract"] = "0".repeat(16).into();
    fs::write(folder.join("spec.json"), spec.to_string()).expect("ours");
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "2\n");
    let said = fs::read_to_string(folder.join("output")).expect("it printed");
    assert!(said.contains("is a job of another build of pipeline"), "{said}");
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    let replaced = "simclr: the job of another build is replaced by a new one";
    assert!(ended.stderr.contains(replaced), "{ended}");
    assert_eq!((submitted(&project), steps(&project)), (2, 60));
}

#[test]
fn a_job_whose_files_cannot_be_read_now_is_not_submitted_again() {
    // Root reads everything.
    let manifest = two_stages().read(MANIFEST);
    for (name, said) in [
        ("spec.json", "cannot read "),
        ("submitted", "cannot read which job it is"),
        ("handed-over", "cannot read whether it was submitted"),
    ] {
        let project = Sandbox::of_an_ordinary_user(&manifest);
        project.write_program("sched", SCHEDULER);
        project.write("hold", "");
        project.pipeline("run experiment.toml --detach").success();
        assert_eq!(submitted(&project), 2);
        let folders = jobs(&project).into_iter().map(|key| project.cache("jobs").join(key));
        let folders: Vec<_> = folders.collect();
        let files: Vec<_> = folders.iter().map(|folder| folder.join(name)).collect();
        let allow = |mode| {
            for file in &files {
                fs::set_permissions(file, Permissions::from_mode(mode)).expect("it is there");
            }
        };
        allow(0o000);
        let is_lost = name == "handed-over";
        if is_lost {
            // As whoever was killed before it had the receipts.
            folders.iter().for_each(|job| fs::remove_file(job.join("submitted")).expect("ours"));
        }
        let run = project.start("run experiment.toml");
        run.wait_for(&format!("a: {said}"));
        run.wait_for(&format!("b: {said}"));
        let let_go = || fs::remove_file(project.path("hold")).expect("it is there");
        if is_lost {
            // This scheduler cannot be asked for what has not begun.
            let_go();
            let has_ended = |job: usize| project.path(&format!("queue/{job}/status")).exists();
            eventually("their ends", || has_ended(1) && has_ended(2));
            allow(0o600);
        } else {
            allow(0o600);
            let_go();
        }
        let ended = run.wait();
        assert_eq!(ended.success(), "a ran, b ran", "{name}");
        assert_eq!(submitted(&project), 2, "{name}: {ended}");
        assert_eq!(ended.stderr.matches(said).count(), 2, "{ended}");
    }
}
