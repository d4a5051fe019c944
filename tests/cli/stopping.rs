//! Asked to stop while something else than a worker takes long: a commit, a lock that somebody has, a terminal that nobody reads.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Ended, MANIFEST, Running, Sandbox, eventually, is_alive, names, process_state,
};

/// A stage whose output is as large as a file says, and takes no room on the disk. It says who its worker is.
const LARGE: &str = r#"
[experiment]
name = "large"

[stages.large]
kind = "command"
shell = 'truncate -s "$(cat size)" "$PIPELINE_OUTPUT/zeros"; echo $PPID > worker'
"#;

/// Far less than what is waited for without a second request.
const SOON: Duration = Duration::from_secs(30);

/// Asks once, and, when what follows is no echo any more, a second time. Returns how it ended.
fn asked_twice(run: Running) -> Ended {
    run.signal(Signal::INT);
    run.wait_for("stopping");
    std::thread::sleep(Duration::from_millis(400));
    assert!(run.is_running(), "the first request leaves it time");
    let asked = Instant::now();
    run.signal(Signal::INT);
    let ended = run.wait();
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert_eq!(ended.code(), Some(130), "{ended}");
    ended
}

/// Has a lock of the cache alone, as a process that was suspended.
fn has_alone(project: &Sandbox, name: &str) -> File {
    let lock = File::options().write(true).open(project.cache("locks").join(name));
    let lock = lock.expect("somebody has had it");
    lock.lock().expect("nobody has it for long");
    lock
}

fn worker_has_ended(project: &Sandbox) {
    let worker = || project.read("worker").trim().parse().ok();
    eventually("the end of its worker", || worker().is_some_and(|worker| !is_alive(worker)));
}

#[test]
fn asked_twice_a_run_does_not_read_a_large_output_to_its_end() {
    let project = Sandbox::new(LARGE);
    project.write("size", "400G");
    let run = project.start(&format!("run {MANIFEST}"));
    worker_has_ended(&project);
    assert_eq!(asked_twice(run).results(), "large stopped");
    assert_eq!((names(&project.cache("store")), names(&project.cache("tmp"))), (vec![], vec![]));
    assert_eq!(names(&project.cache("failed")), [""; 0], "it has not failed");
    project.write("size", "1000");
    assert_eq!(project.pipeline(&format!("run {MANIFEST}")).success(), "large ran");
    assert_eq!(project.pipeline("verify --all").code(), Some(0));
}

#[test]
fn asked_twice_a_run_does_not_wait_for_whoever_keeps_it_from_recording_a_result() {
    let project = Sandbox::new(LARGE);
    project.write("size", "1000");
    project.pipeline(&format!("run {MANIFEST}")).success();
    project.edit("truncate", ": again; truncate");
    fs::remove_file(project.path("worker")).expect("ours");
    let withdraws = has_alone(&project, "withdrawal");
    let run = project.start(&format!("run {MANIFEST}"));
    worker_has_ended(&project);
    assert_eq!(asked_twice(run).results(), "large stopped");
    drop(withdraws);
    // As after a crash: what it left is swept, and the same command makes the result.
    assert_eq!(project.pipeline(&format!("run {MANIFEST}")).success(), "large ran");
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
    assert_eq!(project.pipeline("verify --all").code(), Some(0));
}

#[test]
fn a_stage_whose_files_are_still_read_does_not_start_when_a_run_is_asked_to_stop() {
    let manifest = "[experiment]\nname = \"reads\"\n[stages.reads]\nkind = \"command\"\nfiles = [\"large\"]\nshell = 'echo >> ran'\n";
    let project = Sandbox::new(manifest);
    project.write("large", "");
    let large = File::options().write(true).open(project.path("large")).expect("ours");
    large.set_len(5 << 30).expect("a file system with holes");
    // Not remembered: it may be changed at this time.
    large.set_modified(SystemTime::now() + Duration::from_secs(3600)).expect("ours");
    let run = project.start(&format!("run {MANIFEST}"));
    eventually("its folder", || !names(&project.cache("tmp")).is_empty());
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!((ended.code(), &*ended.results()), (Some(130), "reads stopped"), "{ended}");
    assert!(!ended.stderr.contains("no earlier run"), "it did not begin: {ended}");
    assert_eq!(project.read("ran"), "");
}

/// Two stages at once, of which one fails at a word, and one is late; then a third, whose file changes before it begins.
const BESIDE: &str = r#"
[experiment]
name = "beside"

[stages.fails]
kind = "command"
execution.priority = 3
shell = 'until test -e go; do sleep 0.01; done; exit 1'

[stages.late]
kind = "command"
execution = { priority = 2, timeout-seconds = 6 }
shell = 'echo $$ > late; exec sleep 90'

[stages.last]
kind = "command"
files = ["file"]
shell = 'echo >> last'
"#;

#[test]
fn a_run_that_waits_for_whoever_cleans_keeps_time_and_hears_signals() {
    let project = Sandbox::new(BESIDE);
    project.write("file", "1");
    let run = project.start(&format!("run {MANIFEST} --keep-going --jobs 2"));
    eventually("the second stage", || !project.read("late").is_empty());
    let late = project.read("late").trim().parse().expect("a number");
    project.write("file", "another one");
    let cleans = has_alone(&project, "pins");
    project.write("go", "");
    run.wait_for("last: waits for ");
    eventually("its time is up", || !is_alive(late));
    let own = run.pid().as_raw_pid().unsigned_abs();
    run.signal(Signal::TSTP);
    eventually("it is paused", || process_state(own) == "T");
    run.signal(Signal::CONT);
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.code(), Some(130), "{ended}");
    assert_eq!(ended.results(), "fails failed, late failed, last skipped", "{ended}");
    assert!(ended.stderr.contains("stopping: "), "{ended}");
    drop(cleans);
    assert_eq!(project.read("last"), "");
    let ended = project.pipeline(&format!("run {MANIFEST} last"));
    assert_eq!(ended.success(), "last ran");
}

#[test]
fn a_watched_run_is_ended_before_its_first_stage_as_any_other() {
    let project = Sandbox::new(LARGE);
    project.write("size", "1000");
    project.pipeline(&format!("run {MANIFEST}")).success();
    project.edit("truncate", ": again; truncate");
    fs::remove_file(project.path("worker")).expect("ours");
    let watch = project.start(&format!("watch {MANIFEST} --run"));
    watch.wait_for("Ctrl-C ends it");
    fs::remove_file(project.path("worker")).expect("a stage has run");
    let cleans = has_alone(&project, "pins");
    project.edit(": again", ": once more");
    watch.wait_for("waits for ");
    let own = watch.pid().as_raw_pid().unsigned_abs();
    watch.signal(Signal::TSTP);
    eventually("it is paused", || process_state(own) == "T");
    watch.signal(Signal::CONT);
    watch.signal(Signal::INT);
    let ended = watch.wait();
    assert_eq!(ended.code(), Some(130), "{ended}");
    drop(cleans);
    assert_eq!(project.read("worker"), "", "the stage has not begun");
}

#[test]
fn asked_twice_a_run_ends_although_nobody_reads_what_it_says() {
    let stages = (0..300).map(|number| {
        format!("[stages.s{number}]\nkind = \"command\"\nshell = 'echo {number} >> ran'\n")
    });
    let manifest = format!("[experiment]\nname = \"many\"\n{}", stages.collect::<String>());
    let project = Sandbox::new(&manifest);
    let mut command = project.command(&format!("run {MANIFEST} --progress json"));
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let ran = || project.read("ran").lines().count();
    // The pipe is full, and what runs comes to its end.
    let mut before = 0;
    eventually("it waits", || {
        std::thread::sleep(Duration::from_secs(3));
        ran() > 0 && std::mem::replace(&mut before, ran()) == ran()
    });
    assert!(ran() < 300, "more than fits into a pipe");
    let asked = Instant::now();
    while run.try_wait().expect("ours").is_none() {
        assert!(asked.elapsed() < SOON, "it hangs");
        kill_process(Pid::from_child(&run), Signal::INT).expect("ours");
        // Beside other work, it may hear that late.
        std::thread::sleep(Duration::from_millis(2500));
    }
    assert_eq!(run.wait().expect("ours").code(), Some(130));
    // What was committed counts, and the same command goes on.
    project.pipeline(&format!("run {MANIFEST}")).success();
    assert_eq!(ran(), 300);
}
