//! Caches that not everybody may write, of a group, and on several file systems.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use super::{NUMBERS, everything, has_data, run_with, shown, store};
use crate::support::{Ended, Sandbox, names, skipped, walk};

#[test]
fn a_cache_that_cannot_be_written_is_left_alone() {
    let project = Sandbox::of_an_ordinary_user(NUMBERS);
    run_with(&project, 300_000);
    run_with(&project, 100_000);
    let folders = |mode: u32| {
        for folder in ["locks", "store", "records", "tmp", ""] {
            fs::set_permissions(project.cache(folder), fs::Permissions::from_mode(mode))
                .expect("ours");
        }
    };
    folders(0o555);
    let before = everything(&project);
    let (look, ended) =
        (project.pipeline("gc --keep-days 0 -n"), project.pipeline("gc --keep-days 0"));
    let is_same = everything(&project) == before;
    folders(0o755);
    assert_snapshot!(shown(&look), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] would be removed, [size] left
    ");
    assert_snapshot!(ended, @r"
    status 2
    --- stderr
    error: cannot open the lock [project]/cache/locks/gc: Permission denied (os error 13)
    the cache cannot be written: fix its permissions, or use another cache with --cache
    ");
    assert!(is_same);
    // Its owner can, although artifacts are read-only.
    assert_eq!(project.pipeline("gc --keep-days 0").code(), Some(0));
    assert_eq!(store(&project), 2);
}

#[test]
fn a_result_whose_artifact_cannot_leave_stays_as_a_whole() {
    let project = Sandbox::of_an_ordinary_user(NUMBERS);
    run_with(&project, 300_000);
    run_with(&project, 100_000);
    let set = |mode: u32| {
        fs::set_permissions(project.cache("store"), fs::Permissions::from_mode(mode))
            .expect("ours");
    };
    set(0o555);
    let ended = project.pipeline("gc --keep-days 0");
    set(0o755);
    assert_snapshot!(shown(&ended), @r"
    status 1
    --- stderr
    not removed: 2 items that belong to another user, or are in folders that you cannot write
    --- stdout
    what  number  size
    indexes  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] removed, [size] left
    ");
    assert_eq!(store(&project), 4);
    assert!(has_data(&project, "300000"), "its record stays, too");
}

const GROUP: u32 = 54_321;
const ONE: u32 = 54_322;
const OTHER: u32 = 54_323;

/// A stage whose artifact has a folder.
const FOLDER: &str = "[experiment]\nname = \"x\"\n[stages.folder]\nkind = \"command\"\nenvironment = { A = \"1\" }\nshell = 'mkdir \"$PIPELINE_OUTPUT/d\"; echo $A > \"$PIPELINE_OUTPUT/d/o\"'\n";

/// Root plays two members of a group who share a cache. `None` for whoever is not root.
fn of_a_group() -> Option<Sandbox> {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can play two users");
        return None;
    }
    let project = Sandbox::of_an_ordinary_user(FOLDER);
    fs::create_dir(project.cache("")).expect("writable");
    std::os::unix::fs::chown(project.cache(""), None, Some(GROUP)).expect("root may chown");
    fs::set_permissions(project.cache(""), fs::Permissions::from_mode(0o2770)).expect("ours");
    for folder in [project.folder().parent().expect("a folder"), &project.folder()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("root");
    }
    Some(project)
}

fn run_as(project: &Sandbox, user: u32, arguments: &str) -> Ended {
    let mut command = project.command(arguments);
    command.uid(user).gid(GROUP);
    project.start_command(command).wait()
}

/// Three results of one of them, of which the last is needed.
fn make_three(project: &Sandbox) {
    for number in [1, 2, 3] {
        let set = format!("--set stages.folder.environment.A=\"{number}\"");
        let ended = run_as(project, ONE, &format!("run experiment.toml {set}"));
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}

#[test]
fn whoever_pins_first_pins_for_the_group() {
    let Some(project) = of_a_group() else { return };
    let run = "run experiment.toml --set stages.folder.environment.A";
    assert_eq!(run_as(&project, ONE, "run experiment.toml").code(), Some(0));
    // An earlier version left none, and this does not make the folders of a cache.
    fs::remove_dir_all(project.cache("pins")).expect("root");
    let ended = run_as(&project, ONE, "verify experiment.toml");
    assert_eq!(ended.code(), Some(0), "{ended}");
    let mode = fs::metadata(project.cache("pins")).expect("it pinned").mode();
    assert_eq!(mode & 0o2770, 0o2770, "{mode:o}");
    let ended = run_as(&project, OTHER, &format!("{run}=\"2\""));
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[test]
fn a_member_of_a_group_cleans_for_all() {
    let Some(project) = of_a_group() else { return };
    let start = |user: u32, arguments: &str| run_as(&project, user, arguments);
    make_three(&project);
    assert_eq!(store(&project), 3);
    let would = start(OTHER, "gc --keep-days 0 --dry-run --json").json();
    let ended = start(OTHER, "gc --keep-days 0");
    assert_snapshot!(shown(&ended).replace(&own_number(&ended), "[n]"), @r"
    status 1
    --- stderr
    not removed: [size] of 2 items with folders of another user: this leaves its place, and takes room in [project]/cache/tmp until the next run of that user
    --- stdout
    what  number  size
    indexes  3  [size]

    kept, as it is needed:
      1 item, [size]: the latest run of [project]/experiment.toml (x)

    [project]/cache: [size] removed, [size] left
    ");
    assert_eq!(store(&project), 1);
    // A look says the same, and what takes room still is not counted as removed.
    assert_eq!(would["not-removed"].as_array().map(Vec::len), Some(1), "{would:#}");
    let indexes = would["removed"][0]["bytes"].as_u64().filter(|bytes| *bytes > 0);
    assert_eq!(would["removed-bytes"].as_u64(), indexes, "{would:#}");
    // What the other one could not remove, its owner does.
    assert_eq!(names(&project.cache("tmp")).len(), 1);
    assert_eq!(start(ONE, "run experiment.toml").code(), Some(0));
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
}

#[test]
fn what_only_another_member_can_empty_makes_no_room() {
    let Some(project) = of_a_group() else { return };
    make_three(&project);
    let ended = run_as(&project, OTHER, "gc --max-size 1B");
    assert_eq!(ended.code(), Some(1), "{ended}");
    // Moved away, it would take as much room, and tomorrow something else would go.
    assert_eq!((store(&project), names(&project.cache("tmp")).len()), (3, 0), "{ended}");
    run_as(&project, ONE, "gc --max-size 1B");
    assert_eq!((store(&project), names(&project.cache("tmp")).len()), (1, 0));
}

/// The number of the trash, where something of it is named.
fn own_number(ended: &Ended) -> String {
    let name = ended.stderr.split("/tmp/").nth(1).unwrap_or_default();
    let name = name.split('/').next().unwrap_or_default();
    if name.is_empty() { "no trash".to_owned() } else { name.to_owned() }
}

#[test]
fn a_bucket_on_another_file_system_is_cleaned() {
    let elsewhere = match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => folder,
        Err(_) => return skipped("there is no other file system"),
    };
    let project = Sandbox::new(NUMBERS);
    let device = |path: &Path| fs::metadata(path).expect("a folder").dev();
    if device(elsewhere.path()) == device(&project.folder()) {
        return skipped("there is no other file system");
    }
    fs::create_dir(project.cache("")).expect("writable");
    std::os::unix::fs::symlink(elsewhere.path(), project.cache("tmp")).expect("writable");
    run_with(&project, 300_000);
    run_with(&project, 100_000);
    assert_eq!(project.pipeline("gc --keep-days 0").code(), Some(0));
    assert_eq!(store(&project), 2);
    let left =
        walk(&project.cache("")).into_iter().filter(|path| path.to_string_lossy().contains("gone"));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0].map(PathBuf::from));
    assert_eq!(project.pipeline("run experiment.toml").success(), "data fresh, size fresh");
}
