//! Jobs that a person cancels, by `pipeline cancel`.

use std::fs;

use insta::assert_snapshot;
use rustix::process::{Signal, kill_process};

use super::{RUN, jobs, project, steps, submitted, two_stages, worker, works};
use crate::support::{MANIFEST, Sandbox, names};

/// How long jobs that work are waited for, in milliseconds.
const PATIENCE: &str = "PIPELINE_CANCEL_PATIENCE";

/// Two jobs in the queue that nobody follows.
fn left_in_the_queue() -> Sandbox {
    let project = two_stages();
    project.write("hold", "");
    project.pipeline("run experiment.toml --detach").success();
    project
}

#[test]
fn the_jobs_of_stages_are_cancelled_in_the_queue() {
    let project = left_in_the_queue();
    assert_snapshot!(project.pipeline("cancel experiment.toml a"), @r"
    status 0
    --- stdout
    a: its job 1 of fake was cancelled
    ");
    assert_eq!((&*project.read("cancelled"), jobs(&project).len()), ("1\n", 1));
    assert_snapshot!(project.pipeline("cancel experiment.toml"), @r"
    status 0
    --- stdout
    b: its job 2 of fake was cancelled
    ");
    assert_snapshot!(project.pipeline("cancel experiment.toml"), @r"
    status 0
    --- stderr
    none of these stages has a job, as they are now (jobs for other values: `pipeline status` has the command)
    ");
    assert_eq!((&*project.read("cancelled"), jobs(&project)), ("1\n2\n", Vec::new()));
    fs::remove_file(project.path("hold")).expect("ours");
    assert_eq!(project.pipeline("run experiment.toml").success(), "a ran, b ran");
    assert_eq!(submitted(&project), 4);
}

#[test]
fn a_job_that_works_is_cancelled_and_continued_by_the_next_one() {
    let project = project("slow").set("FAKE_LEARN_STEPS", "200").set(PATIENCE, "60000");
    project.pipeline(&format!("{RUN} simclr --detach")).success();
    works(&project);
    let cancelled = project.pipeline("cancel experiment.toml");
    assert_eq!(cancelled.printed(), "simclr: its job 1 of fake was cancelled\n", "{cancelled}");
    assert_eq!(jobs(&project), [""; 0]);
    let ended = project.pipeline(&format!("{RUN} simclr"));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert!(ended.stderr.contains("continues from its checkpoint"), "{ended}");
    assert_eq!((submitted(&project), steps(&project)), (2, 200));
}

#[test]
fn a_run_replaces_the_job_that_was_cancelled_before_and_still_writes_its_checkpoint() {
    let project = project("slow").set("FAKE_LEARN_STEPS", "200").set(PATIENCE, "0");
    project.pipeline(&format!("{RUN} simclr --detach")).success();
    works(&project);
    let worker = worker(&project);
    kill_process(worker, Signal::STOP).expect("ours");
    let cancelled = project.pipeline("cancel experiment.toml");
    let said = "simclr: its job 1 of fake was asked to end, and still writes its checkpoint\n";
    assert_eq!(cancelled.printed(), said, "{cancelled}");
    let run = project.start(&format!("{RUN} simclr"));
    run.wait_for("simclr (pretrain-simclr) runs");
    kill_process(worker, Signal::CONT).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.success(), "data fresh, simclr ran");
    let replaced = "its job 1, which was cancelled before this run, is replaced by a new one";
    assert!(ended.stderr.contains(replaced), "{ended}");
    assert!(ended.stderr.contains("continues from its checkpoint"), "{ended}");
    assert_eq!((submitted(&project), steps(&project)), (2, 200));
}

#[test]
fn a_run_that_follows_a_job_which_is_cancelled_submits_no_other_one() {
    // Whether or not it still writes its checkpoint when nobody waits for that any more.
    for patience in ["0", "60000"] {
        let project = project("slow").set("FAKE_LEARN_STEPS", "200").set(PATIENCE, patience);
        let run = project.start(&format!("{RUN} simclr"));
        run.wait_for("simclr (pretrain-simclr) runs");
        works(&project);
        project.pipeline("cancel experiment.toml simclr").success();
        let ended = run.wait();
        assert_eq!(ended.results(), "data ran, simclr failed", "{ended}");
        assert_eq!(submitted(&project), 1, "{ended}");
        // It may have heard its last word before.
        let said =
            ["its job ended or was cancelled, and another process saw", "somebody cancelled it"];
        assert!(said.iter().any(|said| ended.stderr.contains(said)), "{ended}");
    }
}

#[test]
fn a_job_that_was_never_handed_to_its_scheduler_is_none() {
    let project = left_in_the_queue();
    let folders = jobs(&project).into_iter().map(|key| project.cache("jobs").join(key));
    let folders: Vec<_> = folders.collect();
    let remove = |name| {
        folders.iter().for_each(|job| fs::remove_file(job.join(name)).expect("it is there"));
    };
    // As whoever was killed before it had the receipts.
    remove("submitted");
    let cancelled = project.pipeline("cancel experiment.toml");
    assert_eq!(cancelled.code(), Some(1), "{cancelled}");
    assert!(cancelled.stderr.contains("a: nobody knows the id of its job"), "{cancelled}");
    remove("handed-over");
    let cancelled = project.pipeline("cancel experiment.toml");
    assert_eq!(cancelled.code(), Some(0), "{cancelled}");
    assert!(cancelled.stderr.starts_with("none of these stages has a job"), "{cancelled}");
    fs::remove_file(project.path("hold")).expect("ours");
}

#[test]
fn what_is_not_to_be_cancelled_stays() {
    let project = left_in_the_queue();
    // That of the stage as it was: it may be wanted by somebody else.
    project.edit("echo b >", "echo other >");
    project.pipeline("cancel experiment.toml b").success();
    assert_eq!(jobs(&project).len(), 2);
    let cancel = "cancel = \"./sched cancel {ids}\"";
    project.edit(cancel, "cancel = \"echo {ids} is not yours >&2; exit 1\"");
    assert_snapshot!(project.pipeline("cancel experiment.toml"), @r"
    status 1
    --- stderr
    a: its job 1 of fake could not be cancelled: 1 is not yours
    ");
    project.edit("[executors.fake]", "[executors.other]");
    let manifest = project.read(MANIFEST).replace("executor = \"fake\"", "executor = \"other\"");
    project.write(MANIFEST, manifest);
    assert_snapshot!(project.pipeline("cancel experiment.toml"), @r"
    status 1
    --- stderr
    a: its job 1 of fake stays, as this manifest does not have that executor
    ");
    assert_eq!(names(&project.path("queue")).len(), 2);
    assert_eq!(jobs(&project).len(), 2);
    fs::remove_file(project.path("hold")).expect("ours");
}
