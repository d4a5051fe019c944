//! Two accounts of a group whose runs share the jobs of an executor. Root plays them, each with new files that nobody else may change.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;

use rustix::process::{Signal, kill_process};

use super::{EXECUTOR, RUN, SCHEDULER, jobs, process, submitted, works};
use crate::manifests::TRAINING;
use crate::support::{Running, Sandbox, eventually, skipped};

const GROUP: u32 = 54_331;
const ANN: u32 = 54_332;
const BOB: u32 = 54_333;

/// What they share. `None` where nobody can play them.
fn project() -> Option<Sandbox> {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can play two accounts");
        return None;
    }
    let project = Sandbox::of_an_ordinary_user(&format!("{TRAINING}{EXECUTOR}"));
    let learn = project.path(".bin/pipeline-learn").display().to_string();
    let project = project.with_fake_learn("slow").set("FAKE_LEARN_STEPS", "120");
    let project = project.set("PIPELINE_LEARN", learn);
    // What the scheduler keeps is everybody's; its jobs are of whoever submits them.
    let everybodys =
        SCHEDULER.replacen("verb=$1", "mask=$(umask)\nexport mask\numask 0\nverb=$1", 1);
    let everybodys = everybodys.replacen("\"$2\" &", "(umask $mask; exec \"$2\") &", 1);
    assert_eq!(everybodys.matches("mask").count(), 6, "{everybodys}");
    project.write_program("sched", &everybodys);
    project.write("journal", "");
    for (name, mode) in [("", 0o777), ("journal", 0o666), ("sched", 0o755)] {
        fs::set_permissions(project.path(name), Permissions::from_mode(mode)).expect("root");
    }
    let above = project.folder().parent().expect("a folder").to_owned();
    fs::set_permissions(above, Permissions::from_mode(0o755)).expect("root");
    fs::create_dir(project.cache("")).expect("writable");
    chown(project.cache(""), None, Some(GROUP)).expect("root may chown");
    fs::set_permissions(project.cache(""), Permissions::from_mode(0o2770)).expect("ours");
    Some(project)
}

fn start(project: &Sandbox, account: u32, arguments: &str) -> Running {
    let mut command = project.command(arguments);
    command.uid(account).gid(GROUP);
    project.start_command(command)
}

/// The account that a job runs as.
fn account(project: &Sandbox, job: usize) -> u32 {
    let process = process(project, job).as_raw_nonzero();
    fs::metadata(format!("/proc/{process}")).expect("it runs").uid()
}

#[test]
fn one_follows_the_job_of_the_other_and_another_account_continues_it() {
    let Some(project) = project() else { return };
    let ended = start(&project, ANN, &format!("{RUN} train --detach")).wait();
    assert_eq!(ended.success(), "data ran, simclr left, train following", "{ended}");
    works(&project);
    assert_eq!(account(&project, 1), ANN);
    // Bob's run follows it.
    let run = start(&project, BOB, &format!("{RUN} train"));
    run.wait_for("simclr is job 1 of fake");
    run.wait_for("simclr (pretrain-simclr) runs");
    // Its time is up, and it cannot be put back into the queue: his run submits another one, which continues what hers has done.
    kill_process(process(&project, 1), Signal::USR1).expect("root");
    run.wait_for("simclr is job 2 of fake");
    eventually("the process of the job", || submitted(&project) == 2);
    assert_eq!(account(&project, 2), BOB);
    let ended = run.wait();
    assert_eq!(ended.success(), "data fresh, simclr ran, train ran", "{ended}");
    assert!(ended.stderr.contains("simclr (pretrain-simclr) continues"), "{ended}");
    assert_eq!(jobs(&project), [""; 0]);
    // And what he has made is hers.
    for arguments in
        ["run experiment.toml train", "log experiment.toml simclr", "verify experiment.toml train"]
    {
        start(&project, ANN, arguments).wait().success();
    }
}

#[test]
fn nobody_is_told_how_to_cancel_the_job_of_the_other() {
    let Some(project) = project() else { return };
    project.write("hold", "");
    start(&project, ANN, &format!("{RUN} simclr --detach")).wait().success();
    project.edit("epochs = 10", "epochs = 11");
    let status = |account| start(&project, account, "status experiment.toml simclr").wait().stdout;
    let line = "simclr with other values or inputs is queued as job 1 of fake";
    let (hers, his) = (status(ANN), status(BOB));
    assert!(hers.contains(line) && hers.contains("to cancel it: ./sched cancel 1\n"), "{hers}");
    assert!(his.contains(line) && !his.contains("cancel"), "{his}");
    fs::remove_file(project.path("hold")).expect("ours");
}

#[test]
fn nobody_cancels_the_job_of_the_other() {
    let Some(project) = project() else { return };
    project.write("hold", "");
    start(&project, ANN, &format!("{RUN} simclr --detach")).wait().success();
    let his = start(&project, BOB, "cancel experiment.toml").wait();
    assert_eq!(his.code(), Some(1), "{his}");
    assert_eq!(his.stderr, "simclr: its job 1 of fake is of another account, and stays\n");
    let hers = start(&project, ANN, "cancel experiment.toml").wait();
    assert_eq!(hers.stdout, "simclr: its job 1 of fake was cancelled\n", "{hers}");
    assert_eq!(project.read("cancelled"), "1\n");
    fs::remove_file(project.path("hold")).expect("ours");
}

#[test]
fn one_reads_what_the_job_of_the_other_has_printed() {
    let Some(project) = project() else { return };
    project.edit("cancel = ", "setup = \"echo the module is missing >&2; exit 7\"\ncancel = ");
    project.write("hold", "");
    start(&project, ANN, &format!("{RUN} simclr --detach")).wait().success();
    let run = start(&project, BOB, &format!("{RUN} simclr"));
    run.wait_for("simclr is job 1 of fake");
    fs::remove_file(project.path("hold")).expect("root");
    let ended = run.wait();
    assert_eq!(ended.results(), "data fresh, simclr failed", "{ended}");
    assert!(ended.stderr.contains("the module is missing"), "{ended}");
    assert_eq!(jobs(&project), [""; 0]);
}
