//! An ordinary user, whose new files nobody else may read: the whole way, without root's privileges.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::manifests::{TRAINING, WORDS};
use crate::support::{Running, Sandbox, eventually, names, skipped, walk};

#[test]
fn run_again_edit_and_stop_early() {
    let project = Sandbox::of_an_ordinary_user(WORDS);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report ran, other ran");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words fresh, count fresh, report fresh, other fresh");
    project.edit("to be or not to be", "six words that are not those");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report fresh, other fresh");
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
}

#[test]
fn what_has_failed_in_a_cache_that_cannot_be_written_has_no_log() {
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    project.edit("to be or not to be", "to be");
    let folders = || {
        let all = walk(&project.cache("")).into_iter().chain([project.cache("")]);
        all.filter(|path| path.is_dir() && !path.is_symlink() && !path.ends_with("pins"))
    };
    let set = |mode| {
        folders()
            .for_each(|path| fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours"))
    };
    set(0o555);
    let ended = project.pipeline("run experiment.toml");
    set(0o755);
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stdout.contains("words: ") && !ended.stdout.contains("whole log"), "{ended}");
}

#[test]
fn what_nobody_may_change_is_read_only() {
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    let artifact = project.artifact("words");
    let mode =
        |path: &std::path::Path| path.metadata().expect("readable").permissions().mode() & 0o777;
    assert_eq!(mode(&artifact.join("text")), 0o400);
    assert_eq!(mode(&artifact), 0o500);
}

#[test]
fn damage_is_put_out_of_the_way() {
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    let artifact = project.artifact("words");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "to be").expect("it can be written now");
    project.edit("wc -w", "wc -c");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report ran, other fresh");
    assert_eq!(project.quarantined().len(), 1);
}

#[test]
fn folders_in_an_artifact_and_programs_in_it() {
    let project = Sandbox::of_an_ordinary_user(
        r#"
[experiment]
name = "tools"

[stages.tools]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
mkdir -p bin/deep empty
printf '#!/bin/sh\necho hello\n' > bin/deep/hello
chmod +x bin/deep/hello
ln -s deep/hello bin/hello
'''

[stages.use]
kind = "command"
inputs = { tools = "tools" }
shell = '"$PIPELINE_INPUT_TOOLS/bin/hello" > "$PIPELINE_OUTPUT/said"'
"#,
    );
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"tools ran, use ran");
    let said = fs::read_to_string(project.artifact("use").join("said")).expect("readable");
    assert_eq!(said, "hello\n");
    // The same output in another umask has the same digest.
    let other = Sandbox::new(&project.read("experiment.toml"));
    other.pipeline("run experiment.toml").success();
    assert_eq!(project.digest("tools"), other.digest("tools"));
    assert!(walk(&project.artifact("tools")).len() == walk(&other.artifact("tools")).len());
}

#[test]
fn training() {
    let project = Sandbox::of_an_ordinary_user(TRAINING);
    // `pipeline-learn` is beside `pipeline`.
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data ran, simclr ran, train ran, evaluate ran");
}

/// Two members of a group who share a cache, each with a umask without rights for the group. Root plays both.
struct Group(Sandbox);

impl Group {
    const GROUP: u32 = 54_321;
    const ONE: u32 = 54_322;
    const OTHER: u32 = 54_323;

    /// `None` for whoever is not root.
    fn new(manifest: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("only root can play two users");
            return None;
        }
        let project = Sandbox::of_an_ordinary_user(manifest);
        fs::create_dir(project.cache("")).expect("writable");
        std::os::unix::fs::chown(project.cache(""), None, Some(Self::GROUP)).expect("root");
        fs::set_permissions(project.cache(""), Permissions::from_mode(0o2770)).expect("ours");
        for folder in [project.folder().parent().expect("a folder"), &project.folder()] {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("root");
        }
        Some(Self(project))
    }

    fn start(&self, user: u32, arguments: &str) -> Running {
        let mut command = self.0.command(arguments);
        command.uid(user).gid(Self::GROUP);
        self.0.start_command(command)
    }
}

#[test]
fn a_group_shares_a_cache() {
    let Some(group) = Group::new(
        "[experiment]\nname = \"x\"\n\
         [stages.a]\nkind = \"command\"\n\
         shell = 'mkdir \"$PIPELINE_OUTPUT/d\"; echo hello > \"$PIPELINE_OUTPUT/d/o\"; chmod 600 \"$PIPELINE_OUTPUT/d/o\"; test -e fast || sleep 60'\n\
         [stages.b]\nkind = \"command\"\ninputs = { a = \"a\" }\n\
         shell = 'cat \"$PIPELINE_INPUT_A\"/d/o > \"$PIPELINE_OUTPUT/o\"'\n",
    ) else {
        return;
    };
    let project = &group.0;
    // The first member is killed in the middle: nothing of theirs blocks the other.
    let run = group.start(Group::ONE, "run experiment.toml");
    eventually("the first stage works", || !walk(&project.cache("tmp")).is_empty());
    eventually("it has written", || {
        walk(&project.cache("tmp")).iter().any(|path| path.ends_with("d/o"))
    });
    run.signal(Signal::KILL);
    run.wait();
    project.write("fast", "");
    let ended = group.start(Group::OTHER, "run experiment.toml").wait();
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_eq!(ended.success(), "a ran, b ran");
    // The first member damages what the second made, in a way that a run sees; the first makes it again.
    let artifact = fs::canonicalize(project.cache("latest/x/a")).expect("a link for people");
    let file = artifact.join("d/o");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("root");
    fs::write(&file, "").expect("root");
    project.edit("{ a = \"a\" }\nshell = 'cat", "{ a = \"a\" }\nshell = 'cat -u");
    let ended = group.start(Group::ONE, "run experiment.toml").wait();
    assert_eq!(ended.success(), "a ran, b ran", "{ended}");
    let ended = group.start(Group::OTHER, "verify experiment.toml").wait();
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[test]
fn what_a_run_with_nothing_to_do_writes_is_the_groups_too() {
    let Some(group) = Group::new(
        "[experiment]\nname = \"x\"\n\
         [stages.a]\nkind = \"command\"\nshell = 'echo hello > \"$PIPELINE_OUTPUT/o\"'\n",
    ) else {
        return;
    };
    let project = &group.0;
    assert_eq!(group.start(Group::ONE, "run experiment.toml").wait().success(), "a ran");
    // As a run leaves it that others finish: links, locks and an index are made by the next one.
    for folder in ["latest", "indexes", "locks"] {
        fs::remove_dir_all(project.cache(folder)).expect("root");
    }
    assert_eq!(group.start(Group::ONE, "run experiment.toml").wait().success(), "a fresh");
    let store = project.cache("store");
    let entries = walk(&project.cache("")).into_iter().filter(|path| !path.starts_with(&store));
    for path in entries.filter(|path| !path.is_symlink()) {
        let mode = path.metadata().expect("readable").permissions().mode();
        let least = if path.is_dir() { 0o2770 } else { 0o660 };
        assert_eq!(mode & least, least, "{}: {mode:o}", path.display());
    }
    project.edit("echo hello", "echo hallo");
    assert_eq!(group.start(Group::OTHER, "run experiment.toml").wait().success(), "a ran");
    assert_eq!(names(&project.cache("latest")), ["x"]);
    let cleaned = group.start(Group::OTHER, "gc --keep-days 0").wait();
    assert_eq!(cleaned.code(), Some(0), "{cleaned}");
}

#[test]
fn who_has_lost_the_lock_to_another_member_records_nothing() {
    // One file that the other member may remove, and one that they may not.
    let Some(group) = Group::new(
        "[experiment]\nname = \"x\"\n\
         [stages.a]\nkind = \"command\"\n\
         shell = 'cd \"$PIPELINE_OUTPUT\"; echo x > x; mkdir -m 755 sub; echo y > sub/y; cd -; until test -e \"go-$(id -u)\"; do sleep 0.02; done'\n",
    ) else {
        return;
    };
    let project = &group.0;
    let one = group.start(Group::ONE, "run experiment.toml");
    eventually("it has written", || {
        walk(&project.cache("tmp")).iter().any(|path| path.ends_with("sub/y"))
    });
    let work = names(&project.cache("tmp")).remove(0);
    project.lose_locks(work.split('-').next().expect("a key"));
    project.write(&format!("go-{}", Group::OTHER), "");
    let other = group.start(Group::OTHER, "run experiment.toml").wait();
    assert_eq!(other.success(), "a ran");
    let records = walk(&project.cache("records"));
    let record = records.iter().find(|path| path.is_file()).expect("it has a record");
    let recorded = fs::read(record).expect("readable");
    project.write(&format!("go-{}", Group::ONE), "");
    assert_eq!(one.wait().success(), "a fresh");
    assert_eq!(fs::read(record).expect("readable"), recorded);
    let store = project.cache("store");
    let stored = names(&store).into_iter().map(|artifact| names(&store.join(artifact)));
    assert_eq!(stored.collect::<Vec<_>>(), [["sub", "x"]]);
    let ended = group.start(Group::OTHER, "verify experiment.toml").wait();
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[test]
fn an_output_that_cannot_be_read_is_the_programs_fault() {
    let project = Sandbox::of_an_ordinary_user(
        r#"
[experiment]
name = "unreadable"

[stages.closed]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
mkdir closed listed
touch good bad listed/file
chmod 000 bad closed
chmod 444 listed
'''
"#,
    );
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(1), "{ended}");
    let words = "cannot be read: bad (mode 000), closed (mode 000), listed/file;";
    assert!(ended.stderr.contains(words), "{ended}");
    assert!(!ended.stderr.contains("--cache"), "no advice about the cache: {ended}");
}
