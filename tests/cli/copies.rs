//! The process that the workers of a run are copies of.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Running, Sandbox, eventually, is_alive};

/// A stage that waits for the file `go`, and one that reads it.
const WAITING: &str = r#"
[experiment]
name = "x"

[stages.one]
kind = "command"
shell = 'echo one >> ran; until test -e go; do sleep 0.01; done; echo 1 > "$PIPELINE_OUTPUT/a"'

[stages.two]
kind = "command"
inputs = { one = "one" }
shell = 'cp "$PIPELINE_INPUT_ONE/a" "$PIPELINE_OUTPUT"'
"#;

/// The processes that one has started; none of one that has ended.
fn children(of: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|one| fs::read_to_string(one.path().join("children")).ok());
    let numbers: Vec<String> = lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    numbers.iter().filter_map(|number| number.parse().ok()).collect()
}

/// The workers of a run, and the process that they are copies of. It has other children, too: `git`, for the history.
fn workers(run: &Running) -> Vec<u32> {
    let mut workers = children(run.pid().as_raw_pid().unsigned_abs());
    workers.retain(|worker| {
        let command = fs::read(format!("/proc/{worker}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == b"__workers")
    });
    workers
}

/// The process that the workers of a run are copies of: the one that has no program, while its first stage waits.
fn original(project: &Sandbox, run: &Running) -> u32 {
    project.wait_for_line("ran", "one");
    let mut idle = Vec::new();
    eventually("one without a program", || {
        idle = workers(run);
        idle.retain(|&worker| children(worker).is_empty());
        idle.len() == 1
    });
    idle[0]
}

#[test]
fn without_the_process_that_workers_are_copies_of_there_are_others() {
    // One that is stopped does not answer either, nor does it end.
    for signal in [Signal::KILL, Signal::STOP] {
        let project = Sandbox::new(WAITING);
        let run = project.start("run experiment.toml");
        let original = original(&project, &run);
        let process = Pid::from_raw(original.cast_signed()).expect("a process");
        kill_process(process, signal).expect("ours");
        project.write("go", "");
        assert_eq!(run.wait().success(), "one ran, two ran", "{signal:?}");
        assert!(!is_alive(original), "{signal:?}");
    }
}

#[test]
fn the_process_that_workers_are_copies_of_ends_with_its_run() {
    let project = Sandbox::new(WAITING);
    let run = project.start("run experiment.toml");
    let original = original(&project, &run);
    run.signal(Signal::KILL);
    run.wait();
    project.write("go", "");
    eventually("it ends", || !is_alive(original));
}

/// What a program could make of it would be in every worker. A worker that runs no program is as any other process of its user.
#[test]
fn the_process_that_workers_are_copies_of_is_not_to_be_traced() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    server.set_nonblocking(true).expect("a socket");
    let port = server.local_addr().expect("an address").port();
    // Root may look into every process.
    let project = Sandbox::of_an_ordinary_user(&format!(
        "[experiment]\nname = \"x\"\n\n[stages.data]\nkind = \"download\"\n\
         url = \"http://127.0.0.1:{port}/data\"\nunverified = true\n"
    ));
    let run = project.start("run experiment.toml");
    let mut client = None;
    eventually("a worker asks for the file", || {
        client = server.accept().ok();
        client.is_some()
    });
    let look_into = |process: u32| {
        let mut look = Command::new("cat");
        look.arg(format!("/proc/{process}/maps"));
        project.dress(&mut look);
        project.start_command(look).wait()
    };
    let looks: Vec<_> = workers(&run).into_iter().map(look_into).collect();
    let (open, closed): (Vec<_>, Vec<_>) = looks.iter().partition(|look| look.status.success());
    assert_eq!((open.len(), closed.len()), (1, 1), "the copy, and what it is a copy of");
    assert!(closed[0].stderr.contains("Permission denied"), "{}", closed[0]);
    let (mut client, _) = client.expect("it asked");
    client
        .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        .expect("it waits");
    assert_eq!(run.wait().success(), "data ran");
}
