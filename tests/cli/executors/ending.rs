//! How jobs end: failures, kills, cancellation, and their time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use rustix::process::{Signal, kill_process};

use super::{RUN, jobs, process, project, steps, submitted, two_stages, worker, works};
use crate::support::{MANIFEST, Sandbox, eventually, is_alive, names};

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
          simclr (pretrain-simclr) runs on [host]: no earlier run
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
fn nothing_more_is_submitted_once_somebody_asks_the_run_to_stop() {
    for times in [1, 2] {
        let project = two_stages();
        let b = "[stages.b]\nkind = \"command\"\nshell = 'echo b";
        let c = b.replace(".b]", ".c]").replace("echo b", "echo c");
        project.edit(
            b,
            &format!("{c} > \"$PIPELINE_OUTPUT/a\"'\nexecution = {{ executor = \"fake\" }}\n{b}"),
        );
        let slow =
            "echo >> tried; [ $(wc -l < tried) = 1 ] || until [ -e go ]; do sleep 0.02; done; ";
        project.edit("submit = \"", &format!("submit = \"{slow}"));
        project.write("hold", "");
        let run = project.start("run experiment.toml");
        eventually("a submission", || project.read("tried").lines().count() == 2);
        for _ in 0..times {
            run.signal(Signal::INT);
            run.wait_for("stopping: 1 job goes on elsewhere");
            // Two signals within a moment count as one.
            std::thread::sleep(Duration::from_millis(300));
        }
        project.write("go", "");
        let ended = run.wait();
        let results = match times {
            1 => "a left, c left, b stopped",
            _ => "a stopped, c stopped, b stopped",
        };
        assert_eq!((ended.code(), &*ended.results()), (Some(130), results), "{ended}");
        assert_eq!(submitted(&project), 2);
        let cancelled = if times == 1 { "" } else { "1\n2\n" };
        assert_eq!(project.read("cancelled"), cancelled);
        assert_eq!(jobs(&project).len(), if times == 1 { 2 } else { 0 });
    }
}

#[test]
fn a_submission_that_hangs_is_said_and_cut_off_when_somebody_asks_twice() {
    let project = two_stages();
    let submit = "submit = \"./sched submit {script}\"";
    // It has the job before it hangs.
    let hangs = "submit = \"./sched submit {script}; touch hangs; sleep 60\"";
    project.edit(submit, hangs);
    project.write("hold", "");
    let run = project.start("run experiment.toml");
    eventually("the submission", || project.path("hangs").exists());
    run.signal(Signal::INT);
    run.wait_for(
        "stopping: a submission is waited for, at most 60 s; what runs here writes a checkpoint and leaves \
         (again to wait for it at most 5 s, and to end the rest at once)",
    );
    // Two signals within a moment count as one.
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    run.signal(Signal::INT);
    let ended = run.wait();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!((ended.code(), &*ended.results()), (Some(130), "a stopped, b stopped"), "{ended}");
    let said = "a: its scheduler did not say whether it has taken its job: the next run finds out";
    assert!(ended.stderr.contains(said), "{ended}");
    assert!(!ended.to_string().contains("elsewhere"), "{ended}");
    // It has; that one does the work, and the next run follows it.
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    project.edit(hangs, submit);
    assert_eq!(project.pipeline("run experiment.toml").success(), "a fresh, b ran");
    assert_eq!((submitted(&project), jobs(&project)), (2, Vec::new()));
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
fn the_time_in_a_queue_is_not_a_part_of_how_long_a_stage_took_to_fail() {
    let project = two_stages();
    project.edit("shell = 'echo a >", "shell = 'exit 1; echo a >");
    project.write("hold", "");
    let run = project.start("run experiment.toml a");
    run.wait_for("a is job 1 of fake");
    std::thread::sleep(Duration::from_secs(4));
    let began = Instant::now();
    fs::remove_file(project.path("hold")).expect("ours");
    assert_eq!(run.wait().results(), "a failed");
    // The job says in whole seconds when it began.
    let most = began.elapsed().as_secs_f64() + 1.0;
    let history = project.pipeline("history --json").json();
    let stage = &history[0]["stages"][0];
    let seconds = stage["seconds"].as_f64();
    assert!(seconds.is_some_and(|seconds| seconds < most), "{most}: {history}");
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
    assert_eq!(submitted(&project), 1);
    // What the stage said, and not what its job did.
    let shown = &ended.stderr[ended.stderr.find("FAIL").expect("it failed")..];
    assert!(shown.contains("\n      | step 0\n"), "{ended}");
    assert!(!shown.contains("(pretrain-simclr)"), "{ended}");
}

/// Ends a job by a signal that no process hears, once it has done a step.
fn kill(project: &Sandbox, job: usize) {
    let process = process(project, job);
    let done = steps(project);
    eventually("its steps", || steps(project) > done + 1);
    kill_process(process, Signal::KILL).expect("ours");
}

#[test]
fn a_job_that_was_killed_is_tried_again_whether_or_not_its_scheduler_remembers_it() {
    for remembers in [true, false] {
        let project = project("slow");
        if !remembers {
            let state = "state = \"./sched state {ids}\"";
            project.edit(state, "state = \"./sched state {ids} | grep -v EXIT || true\"");
        }
        let run = project.start(&format!("{RUN} simclr --set execution.attempts=3"));
        let why = match remembers {
            true => "ended (EXIT) without a result",
            false => "is gone without a result: its scheduler does not know it any more",
        };
        for job in [1, 2] {
            kill(&project, job);
            run.wait_for(&format!("simclr: attempt {} of 3: its job {job} {why}", job + 1));
        }
        kill(&project, 3);
        let ended = run.wait();
        assert_eq!(ended.results(), "data ran, simclr failed", "{ended}");
        assert!(ended.stderr.contains("this was attempt 3 of 3"), "{ended}");
        assert_eq!(submitted(&project), 3);
    }
}

#[test]
fn a_job_that_somebody_cancelled_or_whose_setup_failed_is_not_tried_again() {
    for remembers in [true, false] {
        let project = project("slow");
        let state = "state = \"./sched state {ids}\"";
        if !remembers {
            project.edit(state, "state = \"./sched state {ids} | grep -v EXIT || true\"");
        }
        let command = format!("{RUN} simclr --set execution.attempts=3");
        let run = project.start(&command);
        works(&project);
        kill_process(process(&project, 1), Signal::TERM).expect("ours");
        let ended = run.wait();
        assert_eq!(ended.results(), "data ran, simclr failed", "{ended}");
        assert!(ended.stderr.contains("its job 1 was asked to stop: somebody"), "{ended}");
        project.edit("kind = \"command\"\nsubmit", "kind = \"command\"\nsetup = \"false\"\nsubmit");
        let ended = project.pipeline(&command);
        assert_eq!(ended.results(), "data fresh, simclr failed", "{ended}");
        assert!(ended.stderr.contains("| the setup of the executor fake has failed"), "{ended}");
        assert_eq!(submitted(&project), 2, "{ended}");
    }
}

#[test]
fn a_job_whose_process_never_began_is_not_tried_again() {
    for remembers in [true, false] {
        let project = project("");
        if !remembers {
            let state = "state = \"./sched state {ids}\"";
            project.edit(state, "state = \"./sched state {ids} | grep -v EXIT || true\"");
        }
        let command = format!("{RUN} simclr --set execution.attempts=3");
        project.write("hold", "");
        let run = project.start(&command);
        run.wait_for("simclr is job 1 of fake");
        let mut cancel = std::process::Command::new(project.path("sched"));
        assert!(cancel.args(["cancel", "1"]).status().expect("a script").success());
        let ended = run.wait();
        assert_eq!(ended.results(), "data ran, simclr failed", "{ended}");
        let why = match remembers {
            true => "its job 1 ended (EXIT) without a result",
            false => "its job 1 is gone without a result: its scheduler does not know it any more",
        };
        assert!(ended.stderr.contains(why), "{ended}");
        fs::remove_file(project.path("hold")).expect("ours");
        project
            .edit("kind = \"command\"\nsubmit", "kind = \"command\"\npath = \"/nowhere\"\nsubmit");
        let ended = project.pipeline(&command);
        assert_eq!(ended.results(), "data fresh, simclr failed", "{ended}");
        assert!(ended.stderr.contains("/nowhere/pipeline"), "{ended}");
        assert_eq!(submitted(&project), 2, "{ended}");
    }
}

#[test]
fn a_job_that_its_scheduler_does_not_know_any_more_is_gone() {
    let project = project("");
    project.write("hold", "");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    fs::rename(project.path("queue/1"), project.path("gone")).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.code(), Some(1));
    let why = "its job 1 is gone without a result: its scheduler does not know it any more";
    assert!(ended.stderr.contains(why), "{ended}");
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
    let here = self::project("");
    here.pipeline("run experiment.toml simclr").success();
    assert_eq!(project.digest("simclr"), here.digest("simclr"), "the same as here, in one go");

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
fn a_job_that_writes_the_same_checkpoint_again_has_not_advanced() {
    let project = two_stages();
    let shell = r#"trap "echo here > $PIPELINE_CHECKPOINT/state; exit 1" TERM; echo >> works; while :; do sleep 0.05; done; echo a >"#;
    project.edit("shell = 'echo a >", &format!("shell = '{shell}"));
    let run = project.start("run experiment.toml a");
    for job in 1..=2 {
        let process = process(&project, job);
        eventually("its work", || project.read("works").lines().count() == job);
        kill_process(process, Signal::USR1).expect("ours");
    }
    let ended = run.wait();
    assert_eq!(ended.results(), "a failed", "{ended}");
    assert!(ended.stderr.contains("its job 1, which was interrupted, and whose"), "{ended}");
    assert!(ended.stderr.contains("its job 2 had too little time"), "{ended}");
    assert_eq!(submitted(&project), 2);
}

#[test]
fn a_job_that_is_told_twice_that_its_time_is_up_records_what_it_has_made() {
    let project = two_stages();
    // Takes no room on the disk, and longer to read than the thread of a run that is ended would have.
    let shell = r#"truncate -s 12G "$PIPELINE_OUTPUT/zeros"; echo $PPID > worker; echo a >"#;
    project.edit("shell = 'echo a >", &format!("shell = '{shell}"));
    let run = project.start("run experiment.toml a");
    let worker = || project.read("worker").trim().parse().ok();
    eventually("the end of its worker", || worker().is_some_and(|worker| !is_alive(worker)));
    let job = process(&project, 1);
    for signal in [Signal::USR1, Signal::TERM] {
        kill_process(job, signal).expect("ours");
        // One within this time would be an echo.
        std::thread::sleep(Duration::from_millis(400));
    }
    let ended = run.wait();
    assert_eq!(ended.success(), "a ran", "{ended}");
    assert_eq!(submitted(&project), 1);
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
fn a_job_can_warn_itself_before_its_time_is_up() {
    let project = project("slow");
    // As docs/cluster.md says it, after some steps instead of a time, and once.
    let waits = "until [ $(grep -c step journal) -gt 10 ]; do sleep 0.02; done; touch warned";
    let setup = format!("setup = \"[ -e warned ] || ({waits}; kill -USR1 $$) > /dev/null 2>&1 &\"");
    project.edit("kind = \"command\"\nsubmit", &format!("kind = \"command\"\n{setup}\nsubmit"));
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data ran, simclr ran");
    assert!(
        ended.stderr.contains("which was interrupted, and whose checkpoint has advanced,"),
        "{ended}"
    );
    assert_eq!(steps(&project), 60, "no step was done twice");
}

#[test]
fn a_job_whose_setup_fails_does_not_begin_the_stage() {
    let project = two_stages();
    let with = |setup: &str| {
        let text = project.read(MANIFEST);
        let text = text.split_once("setup").map_or(&*text, |(before, _)| before).to_owned();
        project.write(MANIFEST, format!("{text}setup = '''\n{setup}\n'''\n"));
        project.pipeline("run experiment.toml a")
    };
    for (setup, status) in [
        ("true; no-such-module load nothing", 127),
        ("exit 3\ntrue", 3),
        ("set -e; false\ntrue", 1),
    ] {
        let ended = with(setup);
        assert_eq!(ended.results(), "a failed", "{ended}");
        let why = format!(
            "the setup of the executor fake has failed with the exit status {status}: the stage was not begun"
        );
        assert!(ended.stderr.contains(&why), "{ended}");
    }
    // What it calls need not bear that each command counts.
    project.write("of-a-cluster", "false; f() { false; true; }; f; [ -e nothing ] && true; true\n");
    assert_eq!(with("if false; then :; fi; . ./of-a-cluster").success(), "a ran");
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
    project.edit("[executors.fake]", "[executors.other]");
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

#[test]
fn a_job_that_was_suspended_and_has_lost_its_locks_harms_nothing() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    let (job, worker) = (process(&project, 1), worker(&project));
    for process in [job, worker] {
        kill_process(process, Signal::STOP).expect("ours");
    }
    let key = names(&project.cache("jobs")).remove(0);
    project.lose_locks(&key);
    let mut other = std::process::Command::new(project.cache("jobs").join(key).join("script"));
    project.dress(&mut other);
    assert_eq!(other.status().expect("a script").code(), Some(0), "it takes the work over");
    assert_eq!(run.wait().success(), "data ran, simclr ran");
    for process in [job, worker] {
        // One that another worker has waited for is gone.
        let _ = kill_process(process, Signal::CONT);
    }
    eventually("the end of the first one", || !project.read("queue/1/status").is_empty());
    assert_eq!(project.read("queue/1/status"), "3\n", "it takes the result of the other one");
    project.pipeline("verify experiment.toml").success();
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data fresh, simclr fresh");
}

#[test]
fn a_job_that_has_lost_its_locks_ends_before_the_one_that_took_its_work_over() {
    let project = two_stages();
    let shell =
        "shell = 'echo $$ >> works; echo $$ >&2; until test -e go-$$; do sleep 0.02; done; echo a";
    project.edit("shell = 'echo a", shell);
    let run = project.start("run experiment.toml a");
    let works = |job: usize| project.read("works").lines().nth(job).map(str::to_owned);
    eventually("the first job works", || works(0).is_some());
    let key = jobs(&project).remove(0);
    project.lose_locks(&key);
    let mut other = std::process::Command::new(project.cache("jobs").join(&key).join("script"));
    project.dress(&mut other);
    let other = project.start_command(other);
    eventually("the other one works", || works(1).is_some());
    let go = |job| project.write(&format!("go-{}", works(job).expect("it works")), "");
    go(0);
    eventually("the end of the first one", || !project.read("queue/1/status").is_empty());
    assert_eq!(project.read("queue/1/status"), "4\n", "another one works on the key");
    let asked = || project.read("asked").lines().count();
    let before = asked();
    eventually("the run has heard that", || asked() > before + 1 || !run.is_running());
    assert!(run.is_running(), "it follows the other one");
    let log = fs::read_to_string(project.cache("logs").join(&key[..2]).join(format!("{key}.log")));
    assert_eq!(log.expect("it has a log"), format!("{}\n", works(1).expect("it works")));
    go(1);
    assert_eq!(other.wait().code(), Some(0));
    assert_eq!(run.wait().code(), Some(0));
    assert_eq!(project.pipeline("run experiment.toml a").success(), "a fresh");
}

#[test]
fn a_forced_job_that_has_lost_its_locks_does_not_have_the_last_word() {
    let project = two_stages();
    let shell =
        "shell = 'echo $$ >> works; until test -e go-$$ || test -e go; do sleep 0.02; done; echo a";
    project.edit("shell = 'echo a", shell);
    project.write("go", "");
    project.pipeline("run experiment.toml a").success();
    fs::remove_file(project.path("go")).expect("ours");
    let run = project.start("run experiment.toml a --force a");
    let works = |job: usize| project.read("works").lines().nth(job).map(str::to_owned);
    eventually("the first job works", || works(1).is_some());
    // So that nobody sees the end of the other one.
    run.signal(Signal::KILL);
    run.wait();
    let key = jobs(&project).remove(0);
    project.lose_locks(&key);
    let folder = project.cache("jobs").join(&key);
    let mut other = std::process::Command::new(folder.join("script"));
    project.dress(&mut other);
    let other = project.start_command(other);
    eventually("the other one works", || works(2).is_some());
    let go = |job| project.write(&format!("go-{}", works(job).expect("it works")), "");
    go(2);
    assert_eq!(other.wait().code(), Some(0));
    go(1);
    eventually("the end of the first one", || !project.read("queue/2/status").is_empty());
    assert_eq!(project.read("queue/2/status"), "1\n", "it was to do the work again");
    let events = fs::read_to_string(folder.join("events")).expect("it has a journal");
    let last = events.lines().last().expect("it has ended");
    assert!(last.contains("recorded"), "{events}");
}

#[test]
fn a_job_whose_input_is_damaged_or_gone_ends_at_once_and_the_input_is_made_again() {
    for damage in [
        |artifact: &Path| fs::write(artifact.join("dataset.json"), "other").expect("ours"),
        |artifact: &Path| fs::remove_dir_all(artifact).expect("ours"),
    ] {
        let project = project("");
        project.write("hold", "");
        let run = project.start(&format!("{RUN} simclr"));
        run.wait_for("simclr is job 1 of fake");
        let artifact = project.artifact("data");
        project.unprotect(&artifact);
        damage(&artifact);
        fs::remove_file(project.path("hold")).expect("ours");
        let ended = run.wait();
        assert_eq!(ended.success(), "data ran, simclr ran");
        assert!(ended.stderr.contains("its stage runs again"), "{ended}");
        assert_eq!((project.read("queue/1/status"), submitted(&project)), ("5\n".to_owned(), 2));
    }
}

#[test]
fn a_job_whose_file_outside_the_cache_was_changed_meanwhile_does_not_run() {
    let project = two_stages();
    project.write("notes", "one");
    project.edit(
        "[stages.a]\nkind = \"command\"",
        "[stages.a]\nkind = \"command\"\nfiles = [\"notes\"]",
    );
    project.write("hold", "");
    let run = project.start("run experiment.toml a");
    run.wait_for("a is job 1 of fake");
    project.write("notes", "two");
    fs::remove_file(project.path("hold")).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.results(), "a failed");
    assert!(
        ended.stderr.contains("notes changed before the stage started: run it again"),
        "{ended}"
    );
    assert_eq!(project.pipeline("run experiment.toml a").success(), "a ran");
}

#[test]
fn a_worker_whose_program_was_changed_says_so() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    // The first one might be about a stack that is full: a program looks whether it comes again.
    kill_process(worker(&project), Signal::BUS).expect("ours");
    std::thread::sleep(Duration::from_millis(100));
    kill_process(worker(&project), Signal::BUS).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.code(), Some(1));
    let why = "fake-learn crashed (signal 7): its program, or a file that it reads, was changed while it ran";
    assert!(ended.stderr.contains(why), "{ended}");
}

#[test]
fn what_runs_elsewhere_is_not_blamed_when_memory_runs_out_here() {
    let project = two_stages();
    project.edit(
        "shell = 'echo a >",
        "shell = 'touch seen; while [ ! -e end ]; do sleep 0.01; done; echo a >",
    );
    project.edit(
        "shell = 'echo b > \"$PIPELINE_OUTPUT/a\"'\nexecution = { executor = \"fake\" }",
        "shell = 'while [ ! -e seen ]; do sleep 0.01; done; echo MemoryError >&2; exit 1'",
    );
    let run = project.start("run experiment.toml --keep-going --jobs 2");
    run.wait_for("FAIL  b");
    project.write("end", "");
    let ended = run.wait();
    assert_eq!(ended.results(), "a ran, b failed", "{ended}");
    assert!(ended.stderr.contains("nothing ran beside it"), "{ended}");
}
