//! Artifacts that are checked: intact, damaged, gone.

use std::fs;

use insta::assert_snapshot;

use crate::manifests::WORDS;
use crate::support::{Sandbox, names};

/// A project that has run.
fn project() -> Sandbox {
    let project = Sandbox::new(WORDS);
    project.pipeline("run experiment.toml").success();
    project
}

/// Changes a byte of an artifact, and nothing of its size.
fn damage(project: &Sandbox, stage: &str, file: &str) {
    let artifact = project.artifact(stage);
    project.unprotect(&artifact);
    let mut bytes = fs::read(artifact.join(file)).expect("readable");
    bytes[0] ^= 1;
    fs::write(artifact.join(file), bytes).expect("it is ours");
}

#[test]
fn intact() {
    let project = project();
    assert_snapshot!(project.pipeline("verify experiment.toml"), @"");
    let new = Sandbox::new(WORDS);
    assert_snapshot!(new.pipeline("verify experiment.toml"), @"");
    assert!(!new.path("cache").exists(), "looking writes nothing");
}

#[test]
fn damage_is_named_by_stage_and_file_and_put_into_quarantine() {
    let project = project();
    damage(&project, "words", "text");
    // No run would see it: the size is the same.
    assert_eq!(project.pipeline("run experiment.toml").success().matches("fresh").count(), 4);
    assert_snapshot!(project.pipeline("verify experiment.toml"), @"");
    assert_eq!(names(&project.cache("quarantine")).len(), 1);
    // It is gone now, and what reads it is not known.
    assert_snapshot!(project.pipeline("verify experiment.toml"), @"");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"");
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(0));
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(0));
}

#[test]
fn every_kind_of_damage() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "files"

[stages.files]
kind = "command"
shell = 'cd "$PIPELINE_OUTPUT"; mkdir -p a/b; for i in 1 2 3 4; do echo $i > a/b/$i; done; ln -s a link'

[stages.same]
kind = "command"
shell = 'cd "$PIPELINE_OUTPUT"; mkdir -p a/b; for i in 1 2 3 4; do echo $i > a/b/$i; done; ln -s a link; true'
"#,
    );
    project.pipeline("run experiment.toml").success();
    let artifact = project.artifact("files");
    project.unprotect(&artifact);
    fs::write(artifact.join("a/b/1"), "longer than it was").expect("ours");
    fs::remove_file(artifact.join("a/b/2")).expect("ours");
    fs::write(artifact.join("a/new"), "").expect("ours");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(artifact.join("a/b/3"), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::remove_file(artifact.join("link")).expect("ours");
    std::os::unix::fs::symlink("elsewhere", artifact.join("link")).expect("ours");
    assert_snapshot!(project.pipeline("verify experiment.toml"), @"");
}

#[test]
fn as_json() {
    let project = project();
    damage(&project, "count", "number");
    let ended = project.pipeline("verify experiment.toml --json");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(project.filter(&format!("{:#}", ended.json())), @"");
}

#[test]
fn everything_in_the_cache() {
    let project = project();
    project.edit("to be or not to be", "something else");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("verify --all"), @"");
    // An old result that no manifest asks for any more, and one whose record is lost.
    project.edit("something else", "to be or not to be");
    damage(&project, "words", "text");
    damage(&project, "other", "text");
    let head = fs::read_to_string(project.cache("heads/words/other")).expect("it ran");
    let record = format!("cache/records/{}/{}.json", &head[..2], head.trim());
    fs::remove_file(project.path(&record)).expect("ours");
    project.write("cache/records/00/nonsense.json", "{}");
    project.edit("to be or not to be", "something else");
    assert_snapshot!(project.pipeline("verify --all --cache cache"), @"");
    assert_snapshot!(project.pipeline("verify experiment.toml --all"), @"");
}

#[test]
fn without_the_listing_the_stage_is_named_alone() {
    let project = project();
    project.unprotect(&project.cache("listings"));
    fs::remove_dir_all(project.cache("listings")).expect("ours");
    damage(&project, "other", "text");
    assert_snapshot!(project.pipeline("verify experiment.toml"), @"");
}

#[test]
fn a_cache_that_can_not_be_written_is_checked_all_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    damage(&project, "other", "text");
    let set_mode = |mode: u32| {
        for folder in ["cache", "cache/locks", "cache/store"] {
            fs::set_permissions(project.path(folder), fs::Permissions::from_mode(mode)).expect("ours");
        }
    };
    set_mode(0o555);
    assert_snapshot!(project.pipeline("verify experiment.toml"), @"");
    set_mode(0o755);
    assert!(!project.path("cache/quarantine").exists());
}

#[test]
fn beside_a_run_that_makes_the_same_again() {
    // Many checks and a run that mends at once: nothing that is whole is ever taken for damaged.
    let project = project();
    let runs = (0..4).map(|number| {
        let shell = format!("echo {number}; echo other > \"$PIPELINE_OUTPUT/text\"");
        let manifest = format!(
            "[experiment]\nname = \"r{number}\"\n[stages.other]\nkind = \"command\"\nshell = '{shell}'\n"
        );
        project.write(&format!("r{number}.toml"), manifest);
        project.start(&format!("run r{number}.toml"))
    });
    let checks = (0..8).map(|_| project.start("verify --all --cache cache"));
    let all: Vec<_> = runs.chain(checks).collect();
    for one in all {
        let ended = one.wait();
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
    assert!(!project.cache("quarantine").exists());
}

#[test]
fn what_can_not_be_checked() {
    let project = project();
    for arguments in [
        "verify",
        "verify experiment.toml --tolerance 0.1",
        "verify experiment.toml --rerun count --tolerance -1",
        "verify experiment.toml --rerun count --tolerance nan",
        "verify --rerun count --all",
        "verify experiment.toml --keep",
    ] {
        let ended = project.pipeline(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments}: {ended}");
    }
}
