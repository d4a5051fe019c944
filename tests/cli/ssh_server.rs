//! A cache that others share, in a folder of another machine: with the SFTP server of OpenSSH. `cargo xtask test-remotes` finds it. What would be
//! the network is a program in place of `ssh`, so that no story needs an account.

use std::fs;

use rustix::process::Signal;

use crate::remote_stories::one_of_eight_pushes_wins;
use crate::support::{Sandbox, eventually, is_alive, walk};

/// A large file that cannot be compressed, one that can, and small ones.
const PAPER: &str = r#"
[experiment]
name = "paper"

[stages.data]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
head -c 5000000 /dev/urandom > noise
seq 1 60000 > numbers
mkdir few
for number in 1 2 3; do echo $number > few/$number; done
'''

[stages.count]
kind = "command"
shell = 'wc -l < "$PIPELINE_INPUT_DATA/numbers" > "$PIPELINE_OUTPUT/count"'
inputs = { data = "data" }
"#;

/// A user of a folder. `ssh` is a program that says which arguments it had, and does this.
fn user(folder: &tempfile::TempDir, ssh: &str) -> Sandbox {
    let user = Sandbox::new(PAPER)
        .set("PIPELINE_REMOTE", format!("ssh://ann@lab:2222{}/cache", folder.path().display()));
    let calls = user.path("calls");
    user.write_program("ssh", &format!("#!/bin/sh\necho \"$@\" >> '{}'\n{ssh}\n", calls.display()));
    let program = user.path("ssh").display().to_string();
    user.set("PIPELINE_SSH", program)
}

fn server() -> String {
    let server = std::env::var("PIPELINE_TEST_SFTP");
    format!("exec {}", server.expect("cargo xtask test-remotes sets PIPELINE_TEST_SFTP"))
}

#[test]
#[ignore = "needs an SFTP server: cargo xtask test-remotes"]
fn a_second_user_gets_the_whole_table_and_every_byte_by_one_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let ann = user(&folder, &server());
    ann.pipeline("run experiment.toml").success();
    let calls = ann.read("calls");
    assert!(calls.ends_with("-p 2222 -l ann -s -- lab sftp\n"), "{calls}");
    let missing = ann.pipeline("push experiment.toml");
    assert!(missing.stderr.contains("of lab does not exist: make it"), "{missing}");
    fs::create_dir(folder.path().join("cache")).expect("ours");
    ann.write("calls", "");
    let pushed = ann.pipeline("push experiment.toml");
    assert!(pushed.stdout.starts_with("2 pushed (5.3 MB) to ssh://ann@lab:2222/"), "{pushed}");
    assert_eq!(ann.read("calls").lines().count(), 1, "one connection");
    let again = ann.pipeline("push experiment.toml");
    assert!(again.stdout.ends_with("2 were there already\n"), "{again}");
    let bob = user(&folder, &server());
    let ran = bob.pipeline("run experiment.toml");
    assert!(ran.stdout.contains("paper: 2 remote in"), "{ran}");
    assert_eq!(bob.digest("data"), ann.digest("data"));
    bob.pipeline("pull experiment.toml").success();
    bob.pipeline("verify experiment.toml").success();
    let status = bob.pipeline("remote status experiment.toml --size --json").json();
    assert_eq!(status["results"], 2);
    let left = walk(folder.path()).into_iter();
    let left = left.filter(|path| path.to_string_lossy().contains(".new-"));
    assert_eq!(left.count(), 0);
}

#[test]
#[ignore = "needs an SFTP server: cargo xtask test-remotes"]
fn of_eight_pushes_at_once_one_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("cache")).expect("ours");
    let user = || user(&folder, &server());
    one_of_eight_pushes_wins(user, &user());
}

#[test]
fn what_hangs_ends_with_whoever_asks_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let user = user(&folder, "echo $$ > pid.new; mv pid.new pid; exec sleep 600");
    for signal in [Signal::INT, Signal::KILL] {
        let plan = user.start("plan experiment.toml --remote");
        eventually("ssh is asked", || user.path("pid").exists());
        let ssh = user.read("pid").trim().parse().expect("its number");
        assert!(is_alive(ssh));
        plan.signal(signal);
        plan.wait();
        eventually("ssh has ended", || !is_alive(ssh));
        fs::remove_file(user.path("pid")).expect("ours");
    }
}

#[test]
fn what_ssh_says_is_a_warning_and_the_run_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    for (ssh, words) in [
        (
            "echo 'ann@lab: Permission denied (publickey).' >&2; exit 255",
            "failed: ann@lab: Permission denied (publickey).",
        ),
        ("echo 'Welcome to the lab'", "failed: it does not speak SFTP"),
        ("exit 0", "the connection to lab failed: "),
    ] {
        let user = user(&folder, ssh);
        let ran = user.pipeline("run experiment.toml");
        ran.success();
        assert!(ran.stderr.contains(words), "{ran}");
        assert_eq!(user.read("calls").lines().count(), 1, "it is not asked again");
    }
    let user = user(&folder, "").set("PIPELINE_SSH", "/nowhere/ssh");
    let ran = user.pipeline("run experiment.toml");
    assert!(ran.stderr.contains("ssh does not start"), "{ran}");
}
