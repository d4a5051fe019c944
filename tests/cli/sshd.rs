//! A cache that others share, in a folder of this machine through a real `sshd`: `cargo xtask test-remotes` starts one for these.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::remote_stories::{
    PAPER, a_file_of_4_gb_arrives, a_pull_that_is_killed_is_continued, many_files,
    one_of_eight_pushes_wins, push_into, succeeded, what_is_wrong_there_is_made_here,
};
use crate::support::{Sandbox, eventually, walk};

/// The folder of the server.
fn server() -> String {
    std::env::var("PIPELINE_TEST_SSHD").expect("cargo xtask test-remotes sets PIPELINE_TEST_SSHD")
}

/// Its port.
fn port() -> String {
    let settings = std::fs::read_to_string(format!("{}/ssh_config", server()));
    let settings = settings.expect("readable");
    let port = settings.lines().find_map(|line| line.trim().strip_prefix("Port "));
    port.expect("it has one").to_owned()
}

/// A user of a folder, by a host that the server knows.
fn user(folder: &tempfile::TempDir, host: &str) -> Sandbox {
    user_of(PAPER, folder, host)
}

fn user_of(manifest: &str, folder: &tempfile::TempDir, host: &str) -> Sandbox {
    let (server, port) = (server(), port());
    let user = Sandbox::new(manifest)
        .set("PIPELINE_REMOTE", format!("ssh://{host}{}", folder.path().display()));
    let pid = user.path("pid").display().to_string();
    user.write_program(
        "ssh",
        &format!("#!/bin/sh\necho $$ > '{pid}'\nexec ssh -F '{server}/ssh_config' -o 'HostKeyAlias=[127.0.0.1]:{port}' \"$@\"\n"),
    );
    let program = user.path("ssh").display().to_string();
    user.set("PIPELINE_SSH", program)
}

#[test]
#[ignore = "needs sshd: cargo xtask test-remotes"]
fn a_second_user_gets_the_whole_table_and_every_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let ann = user(&folder, "lab");
    ann.pipeline("run experiment.toml").success();
    let pushed = succeeded(ann.pipeline("push experiment.toml")).stdout;
    assert!(pushed.starts_with("2 pushed (70 MB) to ssh://lab/"), "{pushed}");
    let bob = user(&folder, "lab");
    let ran = succeeded(bob.pipeline("run experiment.toml"));
    assert!(ran.stdout.contains("paper: 2 remote in"), "{ran}");
    bob.pipeline("pull experiment.toml").success();
    assert_eq!(bob.digest("data"), ann.digest("data"));
    bob.pipeline("verify experiment.toml").success();
}

#[test]
#[ignore = "needs sshd: cargo xtask test-remotes"]
fn who_is_not_known_there_is_told_so_and_runs_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = succeeded(user(&folder, "stranger").pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("Permission denied"), "{ran}");
    assert!(ran.stdout.contains("paper: 2 ran in"), "{ran}");
}

#[test]
#[ignore = "needs sshd: cargo xtask test-remotes"]
fn a_push_whose_connection_or_process_ends_leaves_nothing_that_counts_and_the_next_completes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let ann = user(&folder, "lab");
    ann.pipeline("run experiment.toml").success();
    let arrived = || {
        let files = walk(folder.path()).into_iter().filter_map(|path| path.metadata().ok());
        files.filter(|file| file.is_file()).map(|file| file.len()).sum::<u64>()
    };
    let running = ann.start("push experiment.toml");
    eventually("some of it has arrived", || arrived() > 5_000_000);
    running.signal(Signal::KILL);
    running.wait();
    let bob = user(&folder, "lab");
    assert_eq!(bob.pipeline("pull experiment.toml").code(), Some(1));
    // The connection alone: another one is made, or it is said.
    let running = ann.start("push experiment.toml");
    let before = arrived();
    eventually("more of it has arrived", || arrived() > before + 5_000_000);
    let pid = ann.read("pid").trim().parse().ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a number"), Signal::KILL).expect("it runs");
    running.wait();
    ann.pipeline("push experiment.toml").success();
    bob.pipeline("pull experiment.toml").success();
    assert_eq!(bob.digest("data"), ann.digest("data"));
}

#[test]
#[ignore = "needs sshd: cargo xtask test-remotes"]
fn what_is_wrong_there_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    what_is_wrong_there_is_made_here(&folder, |manifest| user_of(manifest, &folder, "lab"));
}

#[test]
#[ignore = "needs sshd: cargo xtask test-remotes"]
fn ten_thousand_small_files_are_few_files_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob) =
        (user_of(&many_files(), &folder, "lab"), user_of(&many_files(), &folder, "lab"));
    ann.pipeline("run experiment.toml").success();
    for (user, command) in [(&ann, "push"), (&bob, "pull")] {
        let began = Instant::now();
        user.pipeline(&format!("{command} experiment.toml")).success();
        println!("10,000 files by ssh, {command}: {:?}", began.elapsed());
    }
    let files = walk(folder.path()).into_iter().filter(|path| path.is_file()).count();
    // The version, and of each of two results a record, a list and a pack, and the one file that is not small.
    assert_eq!(files, 1 + 2 * 3 + 1);
    assert_eq!(bob.digest("data"), ann.digest("data"));
}

#[test]
#[ignore = "needs sshd: cargo xtask test-remotes"]
fn of_eight_pushes_at_once_one_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    one_of_eight_pushes_wins(|| user(&folder, "lab"), &user(&folder, "lab"));
}

#[test]
#[ignore = "needs sshd: cargo xtask test-remotes"]
fn a_pull_that_is_killed_is_continued_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = |server: &str| {
        let (_, port) = server.rsplit_once(':').expect("a host and its port");
        format!("ssh://lab:{port}{}", folder.path().display())
    };
    a_pull_that_is_killed_is_continued(
        &format!("127.0.0.1:{}", port()),
        |manifest| user_of(manifest, &folder, "lab"),
        address,
    );
}

#[test]
#[ignore = "needs sshd and 11 GB of room: cargo xtask test-remotes --large"]
fn a_file_of_4_gb_whose_push_was_killed_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let user = |manifest: &str| user_of(manifest, &folder, "lab");
    a_file_of_4_gb_arrives("sshd", user, |user| push_into(folder.path(), user));
}
