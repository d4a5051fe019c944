//! Folders of a cache that this user cannot list: what is in them is not taken for what is not there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::{Sandbox, names};

const ONE: &str = r#"
[experiment]
name = "one"

[stages.one]
kind = "command"
shell = 'echo 1 > "$PIPELINE_OUTPUT/number"'
"#;

/// Gives a folder this mode while something is done.
fn with_mode<T>(folder: &Path, mode: u32, act: impl FnOnce() -> T) -> T {
    let before = fs::metadata(folder).expect("it exists").permissions();
    fs::set_permissions(folder, Permissions::from_mode(mode)).expect("ours");
    let done = act();
    fs::set_permissions(folder, before).expect("ours");
    done
}

#[test]
fn what_cannot_be_listed_may_need_everything() {
    let project = Sandbox::of_an_ordinary_user(ONE);
    project.pipeline("run experiment.toml").success();
    // Only its head says that the result is needed.
    let history = project.cache("history");
    fs::rename(history, project.path("history")).expect("ours");
    let shard = project.cache("records").join(&names(&project.cache("records"))[0]);
    let shard = shard.as_path();
    for (folder, mode) in [
        (&*project.cache("heads"), 0o300),
        (&*project.cache("heads/one"), 0o300),
        (&*project.cache("heads/one"), 0o600),
        (&*project.cache("store"), 0o300),
        (&*project.cache("records"), 0o300),
        (shard, 0o300),
        (shard, 0o600),
        (&*project.cache("pins"), 0o300),
    ] {
        for gc in ["gc --keep-days 0", "gc --keep-days 0 --dry-run"] {
            let ended = with_mode(folder, mode, || project.pipeline(gc));
            assert_eq!(ended.code(), Some(2), "{}: {ended}", folder.display());
            assert!(ended.stderr.contains("error: cannot "), "{ended}");
        }
        assert_eq!(names(&project.cache("store")).len(), 1, "{}", folder.display());
    }
    project.pipeline("gc --keep-days 0").printed();
    assert_eq!(names(&project.cache("store")).len(), 1, "its head is read");
}

#[test]
fn a_history_that_cannot_be_listed_is_not_an_empty_one() {
    let project = Sandbox::of_an_ordinary_user(ONE);
    project.pipeline("run experiment.toml").success();
    let runs = project.cache("history/runs/one");
    for looks in ["history experiment.toml", "results experiment.toml one", "gc"] {
        let ended = with_mode(&runs, 0o300, || project.pipeline(looks));
        assert_eq!(ended.code(), Some(2), "{looks}: {ended}");
        let said = ["error: cannot ", "cache/history/runs/one", "Permission denied"];
        assert!(said.iter().all(|said| ended.stderr.contains(said)), "{ended}");
    }
    // Those of other experiments are known.
    project.write("other.toml", ONE.replace("\"one\"", "\"other\""));
    project.pipeline("run other.toml").success();
    let ended = with_mode(&runs, 0o300, || project.pipeline("history"));
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.starts_with("warning: cannot list "), "{ended}");
    assert!(ended.stdout.contains(" other "), "{ended}");
    // Nothing of what is to be done depends on it.
    let ended = with_mode(&runs, 0o300, || project.pipeline("status experiment.toml"));
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[test]
fn what_is_not_looked_at_is_neither_intact_nor_without_size() {
    let project = Sandbox::of_an_ordinary_user(ONE);
    project.pipeline("run experiment.toml").success();
    let store = project.cache("store");
    let ended = with_mode(&store, 0o300, || project.pipeline("verify --all"));
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stdout.contains("store cannot be read: not checked"), "{ended}");
    let is_complete = || project.pipeline("cache size --json").json()["is-complete"].clone();
    assert_eq!(is_complete(), true);
    assert_eq!(with_mode(&store, 0o600, is_complete), false);
    assert_eq!(with_mode(&project.cache(""), 0o300, is_complete), false);
}

#[test]
fn a_folder_that_cannot_be_listed_may_be_of_somebody_else() {
    let project = Sandbox::of_an_ordinary_user(ONE);
    project.pipeline("run experiment.toml").success();
    // Made by that user.
    let other = project.path("other");
    fs::rename(project.cache("tmp"), &other).expect("ours");
    fs::write(other.join("thesis"), "").expect("ours");
    let run = || project.pipeline("run experiment.toml -C other");
    let ended = with_mode(&other, 0o300, run);
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("name another folder with --cache"), "{ended}");
    assert_eq!(names(&other), ["thesis"]);
}

#[test]
fn what_people_have_among_the_links_stays_also_where_it_cannot_be_seen() {
    let project = Sandbox::of_an_ordinary_user(ONE);
    project.pipeline("run experiment.toml").success();
    let links = project.cache("latest/one");
    fs::write(links.join("notes"), "").expect("ours");
    project.edit("echo 1", "echo 2");
    with_mode(&links, 0o300, || project.pipeline("run experiment.toml")).success();
    assert_eq!(names(&links), ["notes", "one"]);
    assert_eq!(names(&project.cache("latest")), ["one"]);
}

#[test]
fn a_folder_whose_disk_is_not_mounted_is_not_an_empty_one() {
    for folder in ["heads", "history", "pins", "records"] {
        let project = Sandbox::new(ONE);
        project.pipeline("run experiment.toml").success();
        let (place, away) = (project.cache(folder), project.path("away"));
        fs::rename(&place, &away).expect("ours");
        symlink(project.path("disk"), &place).expect("a link");
        let ended = project.pipeline("gc --keep-days 0");
        assert_eq!(ended.code(), Some(2), "{folder}: {ended}");
        assert!(ended.stderr.contains("is its disk mounted?"), "{folder}: {ended}");
        fs::rename(&away, project.path("disk")).expect("ours");
        assert_eq!(project.pipeline("run experiment.toml").success(), "one fresh");
    }
}
