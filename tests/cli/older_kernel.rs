//! Stories of `sandbox` on a kernel that lacks what it needs: system calls answer as if the kernel did not know them.

use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::unix::process::CommandExt;

use insta::assert_snapshot;

use crate::support::{Ended, Sandbox, names, skipped};

const BOXED: &str = "[experiment]\nname = \"boxed\"\n\n[defaults.command]\nsandbox = \"warn\"\n\n\
    [stages.words]\nkind = \"command\"\nshell = 'cat secret.txt > $PIPELINE_OUTPUT/said'\n";

/// A second stage, which reads another file.
const MORE: &str =
    "\n[stages.more]\nkind = \"command\"\nshell = 'cat other.txt > $PIPELINE_OUTPUT/said'\n";

fn project() -> Sandbox {
    let project = Sandbox::new(BOXED);
    project.write("secret.txt", "secret\n");
    project.write("other.txt", "other\n");
    project
}

/// A run for which, and for all that it starts, this system call does not exist (seccomp(2)).
fn run_without(project: &Sandbox, call: libc::c_long, arguments: &str) -> Ended {
    let instruction = |code: u32, skipped_else: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: skipped_else,
        k: value,
    };
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let call = u32::try_from(call).expect("the number of a system call");
    let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let mut instructions = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, number),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call),
        instruction(libc::BPF_RET | libc::BPF_K, 0, unknown),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let mut command = project.command(&format!("run experiment.toml {arguments}"));
    // SAFETY: both calls are bare system calls: they neither allocate nor take a lock. The kernel copies the filter, to which the
    // second argument of the second one leads.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog {
                len: instructions.len() as u16,
                filter: instructions.as_mut_ptr(),
            };
            let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
            let installed = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) == 0;
            if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    project.start_command(command).wait()
}

#[test]
fn on_without_landlock_refuses() {
    let project = project();
    project.edit("\"warn\"", "\"on\"");
    let ended = run_without(&project, libc::SYS_landlock_create_ruleset, "");
    assert_snapshot!(ended, @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    FAIL  words after [time]: sandbox = "on" needs Landlock, which this system does not have: it is in Linux 5.13 and newer, unless it was left out or is not in the list that the kernel was started with (lsm=); with sandbox = "warn" or "off" the stage runs
    --- stdout

    stage  result  time  metrics
    words  failed  [time]

    boxed: 1 failed in [time]; `pipeline log experiment.toml words` shows the whole log
    "#);
    assert!(names(&project.cache("store")).is_empty(), "the program did not run");
    // The others need none.
    let set = "--set defaults.command.sandbox=warn";
    let ended = run_without(&project, libc::SYS_landlock_create_ruleset, set);
    assert!(ended.stderr.contains("does not declare all that it does: read secret.txt"), "{ended}");
    assert_snapshot!(ended.success(), @"words ran");
}

#[test]
fn warn_says_once_where_it_cannot_observe() {
    let project = project();
    project.write("experiment.toml", format!("{BOXED}{MORE}"));
    let ended = run_without(&project, libc::SYS_seccomp, "--jobs 1");
    assert_snapshot!(ended, @r#"
    status 0
    --- stderr
          words (command) runs: no earlier run
          words: sandbox = "warn" does not see anything here: this system does not have seccomp's user notification (Linux 5.5 and newer)
    done  words in [time]
          more (command) runs: no earlier run
    done  more in [time]
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    more  ran  [time]

    boxed: 2 ran in [time]
    "#);
    let said = |stage: &str| fs::read_to_string(project.artifact(stage).join("said"));
    assert_eq!(said("words").expect("it ran"), "secret\n");
    assert_eq!(said("more").expect("it ran"), "other\n");
}

#[test]
fn on_enforces_where_it_cannot_observe_and_says_that_it_cannot_name() {
    let project = project();
    project.edit("\"warn\"", "\"on\"");
    let ended = run_without(&project, libc::SYS_seccomp, "");
    if ended.stderr.contains("needs Landlock") {
        return skipped("this kernel does not have Landlock, so no sandbox was tried");
    }
    assert_snapshot!(ended, @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    FAIL  words after [time]: 'sh -c cat secret.txt > $PIPELINE_OUTPUT/said' ended with exit status 1
          what the sandbox refused, if anything, cannot be named here: this system does not have seccomp's user notification (Linux 5.5 and newer)
          what it had written is kept in [project]/cache/failed/[digest]
          the last lines of its log:
          | cat: secret.txt: Permission denied
    --- stdout

    stage  result  time  metrics
    words  failed  [time]

    boxed: 1 failed in [time]; `pipeline log experiment.toml words` shows the whole log
    "#);
}
