//! Runs that flush their results once, at their end.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;

use crate::manifests::WORDS;
use crate::support::{Ended, Sandbox, names, skipped};

/// Runs the program after another start of the machine: with another file in the place of the kernel's number of this one. `None`
/// where nobody may put it there.
fn after_restart(project: &Sandbox, arguments: &str) -> Option<Ended> {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    project.write("boot", "00000000-0000-0000-0000-000000000000\n");
    let program = project.command(arguments);
    let mut command = Command::new("unshare");
    let script = format!("mount --bind \"$0\" {BOOT} || exit 77; exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script]).arg(project.path("boot"));
    command.arg(program.get_program()).args(program.get_args());
    project.dress(&mut command);
    let can_mount = Command::new("unshare").args(["--mount", "true"]).output();
    let ended = can_mount.is_ok_and(|output| output.status.success());
    let ended = ended.then(|| project.start_command(command).wait());
    ended.filter(|ended| ended.code() != Some(77))
}

#[test]
fn what_a_lazy_run_did_not_flush_is_checked_after_another_start_of_the_machine() {
    let project = Sandbox::new(WORDS);
    let run = "run experiment.toml --durability=lazy";
    assert_snapshot!(project.pipeline(run).success(), @"words ran, count ran, report ran, other ran");
    let [flushed] = names(&project.cache("flushed")).try_into().expect("one run");
    let Some(planned) = after_restart(&project, "plan experiment.toml") else {
        return skipped("another start of the machine: this user cannot mount");
    };
    assert_snapshot!(planned.printed(), @r"
    words   fresh
    count   fresh
    report  fresh
    other   fresh

    words: all 4 stages are fresh; nothing would run
    ");
    fs::remove_file(project.cache("flushed").join(flushed)).expect("ours");
    let later = |arguments: &str| after_restart(&project, arguments).expect("as before");
    let json = later("plan experiment.toml --json").json();
    let stages = json["stages"].as_array().cloned().unwrap_or_default();
    assert!(stages.iter().all(|stage| stage["expected-seconds"].is_f64()), "{json}");
    assert_snapshot!(later("plan experiment.toml").printed(), @r"
    words   dirty    its artifact was not flushed to the disk (--durability=lazy)
    count   waiting  on words
    report  waiting  on count
    other   dirty    its artifact was not flushed to the disk (--durability=lazy)

    words: 2 would run, 2 more if what they read changes, 0 are fresh
    ");
    let artifact = project.artifact("other");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "").expect("ours");
    // What is whole counts again, and what is torn is made again.
    assert_snapshot!(later("run experiment.toml"), @r#"
    status 0
    --- stderr
          other (command) runs: its artifact was not flushed to the disk (--durability=lazy)
    done  other in [time], with the same output as before
    --- stdout

    stage  result  time  metrics
    words  fresh
    count  fresh
    report  fresh  words 6
    other  ran  [time]

    words: 3 fresh, 1 ran in [time]
    "#);
    assert_snapshot!(later("run experiment.toml").success(), @"words fresh, count fresh, report fresh, other fresh");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words fresh, count fresh, report fresh, other fresh");
}
