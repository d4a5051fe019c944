//! Ctrl-Z and `fg`, and limits that the system sets: no thread left, no larger file.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::support::{MANIFEST, Sandbox, eventually, is_alive, names, process_state, skipped};

/// A stage that waits for the file `go`, beside a process that left its group. Each says who it is.
const WAITING: &str = r#"
[experiment]
name = "waiting"

[stages.wait]
kind = "command"
shell = """
setsid sh -c 'echo $$ >> pids; exec sleep 90' &
echo $PPID >> pids
echo $$ >> pids
while [ ! -e go ]; do sleep 0.01; done
echo done > "$PIPELINE_OUTPUT/text"
"""
execution = { timeout-seconds = 2 }
"#;

fn pids(project: &Sandbox) -> Vec<u32> {
    project.read("pids").lines().filter_map(|line| line.parse().ok()).collect()
}

fn all_stopped(project: &Sandbox) -> bool {
    // A shell that starts a program waits in `D` while the program, not quite begun, is stopped.
    pids(project).into_iter().all(|pid| matches!(process_state(pid).as_str(), "T" | "D"))
}

#[test]
fn a_paused_run_pauses_its_workers_and_its_clock() {
    let project = Sandbox::new(WAITING);
    let run = project.start(&format!("run {MANIFEST}"));
    eventually("three processes", || pids(&project).len() == 3);
    run.signal(Signal::TSTP);
    let own = run.pid().as_raw_pid().unsigned_abs();
    eventually("all are stopped", || process_state(own) == "T" && all_stopped(&project));
    std::thread::sleep(Duration::from_millis(2100));
    run.signal(Signal::CONT);
    eventually("none is stopped", || {
        !pids(&project).into_iter().any(|pid| process_state(pid) == "T")
    });
    project.write("go", "");
    assert_snapshot!(run.wait().success(), @"wait ran");
}

#[test]
fn a_paused_run_that_is_killed_leaves_no_worker_behind() {
    let project = Sandbox::new(WAITING);
    // One in another session would hold it up for as long as it may take to leave.
    project.edit("setsid sh -c 'echo $$ >> pids; exec sleep 90' &\n", "");
    let run = project.start(&format!("run {MANIFEST}"));
    eventually("two processes", || pids(&project).len() == 2);
    run.signal(Signal::TSTP);
    let own = run.pid().as_raw_pid().unsigned_abs();
    eventually("all are stopped", || process_state(own) == "T" && all_stopped(&project));
    run.signal(Signal::KILL);
    run.wait();
    project.write("go", "");
    assert_snapshot!(project.pipeline(&format!("run {MANIFEST}")).success(), @"wait ran");
}

#[test]
fn under_nohup_a_hangup_changes_nothing() {
    let project = Sandbox::new(WAITING);
    project.edit("execution = { timeout-seconds = 2 }\n", "");
    let mut command = project.command(&format!("run {MANIFEST}"));
    // SAFETY: signal is a bare system call: it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let run = project.start_command(command);
    eventually("three processes", || pids(&project).len() == 3);
    run.signal(Signal::HUP);
    project.write("go", "");
    assert_snapshot!(run.wait().success(), @"wait ran");
}

#[test]
fn a_second_interrupt_ends_what_left_its_group_too() {
    let project = Sandbox::new(WAITING);
    project.edit("execution = { timeout-seconds = 2 }\n", "");
    let run = project.start(&format!("run {MANIFEST}"));
    eventually("three processes", || pids(&project).len() == 3);
    let all = pids(&project);
    run.signal(Signal::INT);
    // Two within 250 ms are one.
    std::thread::sleep(Duration::from_millis(500));
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(130));
    eventually("all are gone", || !all.iter().any(|&pid| is_alive(pid)));
}

#[test]
fn what_is_running_is_known_by_its_lock() {
    let project = Sandbox::new(WAITING);
    project.edit("execution = { timeout-seconds = 2 }\n", "");
    let run = project.start(&format!("run {MANIFEST}"));
    let status = || project.pipeline(&format!("status {MANIFEST}")).printed();
    eventually("it runs", || status().contains("is running"));
    let folder = project.cache("running");
    let kept = names(&folder);
    let text = std::fs::read(folder.join(&kept[0])).expect("ours");
    project.write("go", "");
    run.wait().success();
    // As a run leaves it that was killed, and whose number another process has now.
    let text = String::from_utf8(text).expect("text");
    let pid = format!("\"pid\":{}", std::process::id());
    let from = text.find("\"pid\":").expect("its owner");
    let to = from + text[from..].find(',').expect("more");
    std::fs::write(folder.join(&kept[0]), format!("{}{pid}{}", &text[..from], &text[to..]))
        .expect("ours");
    assert!(!status().contains("is running"));
}

/// Two files that are larger than a limit: one is copied by a worker, one is written by a program.
const LARGE: &str = r#"
[experiment]
name = "large"

[stages.copy]
kind = "download"
url = "file:large"
unverified = true

[stages.write]
kind = "command"
shell = 'head -c 1000000 /dev/zero > "$PIPELINE_OUTPUT/large"'
"#;

#[test]
fn a_limit_on_file_sizes_is_an_error() {
    let project = Sandbox::new(LARGE);
    project.write("large", vec![0; 1_000_000]);
    let mut command = project.command(&format!("run {MANIFEST} --keep-going"));
    // SAFETY: setrlimit is a bare system call: it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| {
            let limit = Rlimit { current: Some(500_000), maximum: Some(500_000) };
            setrlimit(Resource::Fsize, limit).map_err(Into::into)
        });
    }
    let ended = project.start_command(command).wait();
    assert_eq!(ended.results(), "copy failed, write failed", "{ended}");
    assert!(ended.stderr.contains("a file would be larger than is allowed"), "{ended}");
    assert!(ended.stderr.contains("a file grew beyond the limit"), "{ended}");
}

#[test]
fn a_system_without_threads_is_an_error() {
    let project = Sandbox::of_an_ordinary_user(WAITING);
    project.write("go", "");
    let without_threads = |arguments: &str| {
        let mut command = project.command(arguments);
        // SAFETY: setrlimit is a bare system call: it neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| {
                let one = Rlimit { current: Some(1), maximum: Some(1) };
                setrlimit(Resource::Nproc, one).map_err(Into::into)
            });
        }
        project.start_command(command).wait()
    };
    let message = "cannot start a thread: the limit on processes is reached";
    let ended = without_threads(&format!("run {MANIFEST}"));
    assert!(ended.code() == Some(2) && ended.stderr.contains(message), "{ended}");

    project.pipeline(&format!("run {MANIFEST}")).success();
    let ended = without_threads(&format!("verify {MANIFEST} --rerun wait"));
    assert!(ended.code() == Some(2) && ended.stderr.contains(message), "{ended}");
    let ended = without_threads(&format!("verify {MANIFEST}"));
    assert!(ended.code() == Some(0), "{ended}");
}

#[test]
fn a_system_with_few_threads_ends_no_run_in_the_middle() {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can play an account that has no other processes");
        return;
    }
    let project = Sandbox::of_an_ordinary_user(WAITING);
    project.write("go", "");
    for folder in [project.folder(), project.folder().join("..")] {
        std::fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("root");
    }
    for most in 2..=10 {
        let mut command = project.command(&format!("run {MANIFEST} --cache cache{most}"));
        command.uid(54_341).gid(54_341);
        // SAFETY: setrlimit is a bare system call: it neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                let most = Rlimit { current: Some(most), maximum: Some(most) };
                setrlimit(Resource::Nproc, most).map_err(Into::into)
            });
        }
        let ended = project.start_command(command).wait();
        assert!(matches!(ended.code(), Some(0..=2)), "{most}: {ended}");
        assert!(!ended.stderr.contains("panicked"), "{most}: {ended}");
    }
}
