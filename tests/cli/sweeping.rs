//! What killed processes leave in windows of microseconds, and how a later run finds it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::manifests::TRAINING;
use crate::support::{Sandbox, names, walk};

const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);

/// A training that has run, and whose next run has work to do.
fn project() -> Sandbox {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.edit("learning-rate = 0.02", "learning-rate = 0.03");
    project
}

/// The key of a stage's record.
fn key(project: &Sandbox, stage: &str) -> String {
    fs::read_to_string(project.cache("heads/training").join(stage))
        .expect("it ran")
        .trim()
        .to_owned()
}

/// Makes a file as old as one that nobody will rename any more.
fn age(path: &Path) {
    let then = SystemTime::now() - TWO_HOURS;
    File::options().write(true).open(path).and_then(|file| file.set_modified(then)).expect("ours");
}

/// Lets the next run that has work to do look through all of the cache.
fn a_day_later(project: &Sandbox) {
    fs::remove_file(project.cache("locks/sweep")).expect("a run has swept");
}

#[test]
fn files_that_never_got_their_final_name() {
    let project = project();
    let shard = format!("cache/records/{}", &key(&project, "data")[..2]);
    let left = [
        format!("{shard}/.new-abc123"),
        "cache/.new-index1".to_owned(),
        "cache/heads/training/.new-head12".to_owned(),
    ];
    for name in &left {
        project.write(name, "half");
        age(&project.path(name));
    }
    // In `latest` only links are ours: it may be a link to a folder of somebody's.
    let link = project.cache("latest/training/.new-17-data");
    symlink("nowhere", &link).expect("writable");
    let touched = Command::new("touch").args(["-h", "-d", "2 hours ago"]).arg(&link).status();
    assert!(touched.expect("touch runs").success());
    let draft = "cache/latest/training/.new-draft2";
    project.write(draft, "precious");
    age(&project.path(draft));
    let young = format!("{shard}/.new-young1");
    project.write(&young, "somebody writes this now");
    let other = format!("{shard}/notes.txt");
    project.write(&other, "somebody else's");
    age(&project.path(&other));

    // Not on the same day again.
    project.pipeline("run experiment.toml").success();
    assert!(project.path(&left[0]).exists());
    project.edit("learning-rate = 0.03", "learning-rate = 0.04");
    a_day_later(&project);
    project.pipeline("run experiment.toml").success();
    for name in &left {
        assert!(!project.path(name).exists(), "{name}");
    }
    assert!(!link.is_symlink());
    assert!([&young, &other, draft].iter().all(|name| project.path(name).exists()));
}

#[test]
fn checkpoints_of_stages_that_have_finished() {
    let project = project();
    let (done, busy) = (key(&project, "simclr"), key(&project, "data"));
    let unfinished = "0123456789abcdef".repeat(4);
    for name in [&done, &busy, &unfinished] {
        project.write(&format!("cache/partial/{name}/checkpoint/step"), "7");
    }
    project.write("cache/partial/notes/mine", "");
    a_day_later(&project);
    let lock =
        File::options().write(true).open(project.cache("locks").join(&busy)).expect("it ran");
    lock.lock().expect("nobody has it");
    project.pipeline("run experiment.toml").success();
    let mut kept = vec![busy, unfinished, "notes".to_owned()];
    kept.sort();
    assert_eq!(names(&project.cache("partial")), kept);
}

#[test]
fn nothing_else_goes() {
    let project = project();
    let files = || {
        let mut files = walk(&project.cache("records"));
        files.extend(walk(&project.cache("store")));
        files.sort();
        files
    };
    let before = files();
    a_day_later(&project);
    project.pipeline("run experiment.toml").success();
    let after = files();
    assert!(before.iter().all(|path| after.contains(path)));
}
