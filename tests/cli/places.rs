//! Where the cache is, and places that cannot be written.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;

use crate::manifests::data_set_line;
use crate::support::{MANIFEST, Sandbox, names, skipped, walk};

const ONE: &str = r#"
[experiment]
name = "one"

[stages.one]
kind = "command"
shell = 'echo 1 > "$PIPELINE_OUTPUT/number"'
"#;

/// Where the cache of a call is, as `status` says it.
fn cache_of(project: &Sandbox, arguments: &str) -> String {
    let text = project.pipeline(&format!("status {arguments}")).printed();
    let line = text.lines().last().unwrap_or("").to_owned();
    line.strip_prefix("cache: ").expect("the last line names the cache").to_owned()
}

#[test]
fn the_cache_is_in_the_nearest_folder_that_has_one_or_is_a_repository() {
    let project = Sandbox::new(ONE);
    project.write("experiments/noise/a.toml", ONE);
    assert_eq!(cache_of(&project, MANIFEST), "[project]/cache", "beside .git");
    assert_eq!(cache_of(&project, "experiments/noise/a.toml"), "[project]/cache");
    fs::create_dir(project.path("experiments/cache")).expect("ours");
    assert_eq!(cache_of(&project, "experiments/noise/a.toml"), "[project]/experiments/cache");
    fs::create_dir(project.path("experiments/noise/.git")).expect("ours");
    assert_eq!(cache_of(&project, "experiments/noise/a.toml"), "[project]/experiments/noise/cache");
}

/// Otherwise a run would begin again elsewhere, as if nothing had ever run.
#[test]
fn a_cache_whose_disk_is_not_mounted_is_an_error() {
    let project = Sandbox::new(ONE);
    project.write("experiments/a.toml", ONE);
    symlink("../not-mounted", project.path("experiments/cache")).expect("ours");
    for arguments in [
        "run experiments/a.toml",
        "plan experiments/a.toml",
        "run -C experiments/cache experiment.toml",
    ] {
        let ended = project.pipeline(arguments);
        assert_eq!(ended.code(), Some(2), "{ended}");
        let said = "experiments/cache is a link to ../not-mounted, which does not exist: is its disk mounted?";
        assert!(ended.stderr.contains(said), "{ended}");
    }
    fs::create_dir(project.path("not-mounted")).expect("ours");
    project.pipeline("run experiments/a.toml").success();
    assert_eq!(names(&project.path("not-mounted/store")).len(), 1);
}

#[test]
fn a_cache_can_be_named() {
    let project = Sandbox::new(ONE).set("PIPELINE_CACHE", "of-the-environment");
    assert_eq!(cache_of(&project, MANIFEST), "[project]/of-the-environment");
    assert_eq!(cache_of(&project, "experiment.toml --cache named"), "[project]/named");
    assert_eq!(cache_of(&project, "experiment.toml -C a/deep/one"), "[project]/a/deep/one");
    project.pipeline("run experiment.toml -C a/deep/one").success();
    assert_eq!(names(&project.path("a/deep/one/store")).len(), 1);
    assert!(!project.path("cache").exists());
}

/// The device that a training is given.
const TRAIN: &str = concat!(
    r#"
[experiment]
name = "settings"

[stages.data]
kind = "command"
shell = '"#,
    data_set_line!(),
    r#"'
output = "dataset"

[stages.train]
kind = "train"
data = "data"
architecture = "resnet8"
"#
);

/// Runs the training again, and returns how many threads it had.
fn threads(project: &Sandbox, arguments: &str) -> u64 {
    project.pipeline(&format!("run {arguments} --force train")).success();
    let status = project.pipeline("status experiment.toml train --json").json();
    status["stages"][0]["last-run"]["ran-on"]["threads"].as_u64().expect("a number")
}

#[test]
fn settings_are_those_of_the_command_line_then_the_environment_the_manifest_and_the_users() {
    let project = Sandbox::new(TRAIN).with_fake_learn("").set("HOME", "/nowhere");
    project.write("own.toml", format!("{TRAIN}\n[execution]\nthreads = 3\n"));
    assert_eq!(threads(&project, "experiment.toml"), 4, "as many as the worker likes");
    let home = project.folder().display().to_string();
    let project = project.set("HOME", home);
    project
        .write(".config/pipeline/config.toml", "cache = '~/mine'\nexecution = { threads = 2 }\n");
    assert_eq!(cache_of(&project, MANIFEST), "[project]/mine");
    assert_eq!(threads(&project, "experiment.toml"), 2);
    assert_eq!(threads(&project, "own.toml"), 3);
    let project = project.set("PIPELINE_THREADS", "5").set("PIPELINE_CACHE", "theirs");
    assert_eq!(cache_of(&project, MANIFEST), "[project]/theirs");
    assert_eq!(threads(&project, "own.toml"), 5);
    assert_eq!(threads(&project, "own.toml --set execution.threads=6"), 6);
    let project = project.set("PIPELINE_THREADS", "many");
    assert_snapshot!(project.pipeline("plan own.toml"), @r#"
    status 2
    --- stderr
    error: 'threads' must be a whole number, but is text
     |
     | PIPELINE_THREADS=many
     |                  ^^^^

    error: 1 mistake in own.toml; nothing was run
    "#);
    project.write("xdg/pipeline/config.toml", "execution = { divice = 'cpu' }\n");
    let folder = project.path("xdg").display().to_string();
    let project = project.set("PIPELINE_THREADS", "").set("XDG_CONFIG_HOME", folder);
    assert_snapshot!(project.pipeline("plan own.toml"), @r#"
    status 2
    --- stderr
    error: unknown key 'divice' in 'execution', did you mean 'device'?
     --> [project]/xdg/pipeline/config.toml:1:15
      |
    1 | execution = { divice = 'cpu' }
      |               ^^^^^^

    error: 1 mistake in [project]/xdg/pipeline/config.toml; nothing was run
    "#);
}

#[test]
fn looking_writes_nothing() {
    let project = Sandbox::new(ONE);
    for command in ["plan", "graph", "status", "metrics"] {
        project.pipeline(&format!("{command} experiment.toml")).printed();
    }
    project.pipeline("why experiment.toml one").printed();
    assert!(!project.path("cache").exists());
}

#[test]
fn paths_are_relative_to_the_folder_of_the_manifest() {
    let project = Sandbox::new(ONE);
    let manifest = ONE.replace("echo 1", "cat notes");
    project.write("experiments/a.toml", manifest.replace("kind", "files = [\"notes\"]\nkind"));
    project.write("experiments/notes", "beside the manifest\n");
    assert_snapshot!(project.pipeline("run experiments/a.toml").success(), @"one ran");
    let mut command = project.command("run a.toml");
    command.current_dir(project.path("experiments"));
    assert_snapshot!(project.start_command(command).wait().success(), @"one fresh");
}

fn set_mode_of_folders(top: &Path, mode: u32) {
    for path in walk(top).into_iter().chain([top.to_owned()]) {
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        }
    }
}

#[test]
fn a_cache_that_cannot_be_written_can_still_be_read() {
    let project = Sandbox::of_an_ordinary_user(ONE);
    project.pipeline("run experiment.toml").success();
    set_mode_of_folders(&project.path("cache"), 0o555);
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 0
    --- stdout

    stage  result  time  metrics
    one  fresh

    one: 1 fresh in [time]
    ");
    assert_snapshot!(project.pipeline("status experiment.toml").printed(), @r"
    stage  kind  state  last run  took  artifact  size
    one  command  fresh  just now  [time]  [digest]  2 B

    cache: [project]/cache
    ");
    project.edit("echo 1", "echo 2");
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r#"
    one  dirty  shell: "echo 1 > \"$PIPELINE_OUTPUT/number\"" -> "echo 2 > \"$PIPELINE_OUTPUT/number\""

    one: 1 would run, 0 are fresh
    "#);
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 1
    --- stderr
    FAIL  one after [time]: cannot write into [project]/cache/pins: Permission denied (os error 13)
          the cache cannot be written: fix its permissions, or use another cache with --cache
    --- stdout

    stage  result  time  metrics
    one  failed  [time]

    one: 1 failed in [time]; `pipeline log experiment.toml one` shows the whole log
    ");
}

#[test]
fn a_cache_that_cannot_be_made_is_reported() {
    let project = Sandbox::of_an_ordinary_user(ONE);
    fs::create_dir(project.path("closed")).expect("ours");
    set_mode_of_folders(&project.path("closed"), 0o555);
    assert_snapshot!(project.pipeline("run experiment.toml --cache closed/cache"), @r#"
    status 2
    --- stderr
    error: cannot create the folder [project]/closed/cache: Permission denied (os error 13)
    the cache cannot be written: fix its permissions, or use another cache with --cache
    "#);
}

/// A call of the program that cannot write more than a few kilobytes to one file: as on a full disk, a
/// write fails after a part of it.
fn with_little_room(project: &Sandbox, arguments: &str) -> crate::support::Ended {
    let mut command = Command::new("sh");
    let program = project.command("").get_program().to_string_lossy().into_owned();
    let line = format!("trap '' XFSZ; ulimit -f 8; exec '{program}' {arguments}");
    command.args(["-c", &line]);
    project.dress(&mut command);
    project.start_command(command).wait()
}

#[test]
fn a_limit_on_file_sizes_is_an_error_of_every_command() {
    let project = Sandbox::new(ONE);
    let limited = |blocks: u32, arguments: &str| {
        let mut command = Command::new("sh");
        let program = project.command("").get_program().to_string_lossy().into_owned();
        command.args(["-c", &format!("ulimit -f {blocks}; exec '{program}' {arguments}")]);
        project.dress(&mut command);
        project.start_command(command).wait()
    };
    let usual = project.pipeline("report experiment.toml -o page.html");
    assert!(usual.status.success(), "{usual}");
    let page = project.read("page.html");
    assert_snapshot!(limited(20, "report experiment.toml -o page.html"), @r"
    status 2
    --- stderr
    error: cannot write page.html: File too large (os error 27)
    a file would be larger than is allowed: raise the limit of the shell (`ulimit -f`), or, if it is that of the file system, use another file system; nothing that was committed is lost
    ");
    assert!(project.read("page.html") == page, "the page that was there is whole");
    assert!(!names(&project.folder()).iter().any(|name| name.starts_with(".page.html")));
    let ended = limited(0, "run experiment.toml");
    assert!(ended.status.code().is_some(), "it is not killed by a signal: {ended}");
}

#[test]
fn a_program_that_fails_on_a_full_disk_fails_with_what_to_do() {
    let project = Sandbox::new(
        "[experiment]\nname = \"one\"\n[stages.one]\nkind = \"command\"\n\
         shell = 'head -c 9000000 /dev/zero > $PIPELINE_OUTPUT/many'\n\
         [stages.other]\nkind = \"command\"\nshell = 'exit 1'\n",
    );
    fs::create_dir(project.path("small")).expect("a folder");
    let program = project.command("run experiment.toml --cache small/cache one");
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=3m tmpfs small || exit 77; exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script]);
    command.arg(program.get_program()).args(program.get_args());
    project.dress(&mut command);
    let can_mount = Command::new("unshare").args(["--mount", "true"]).output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        return skipped("a full disk: this user cannot mount");
    }
    let ended = project.start_command(command).wait();
    if ended.code() == Some(77) {
        return skipped("a full disk: nothing can be mounted here");
    }
    assert!(ended.stderr.contains("ended with exit status 1"), "{ended}");
    assert!(ended.stderr.contains("the disk is full: free some space"), "{ended}");
    // Where there is room, it is not said.
    let ended = project.pipeline("run experiment.toml other");
    assert!(ended.stderr.contains("ended with exit status 1"), "{ended}");
    assert!(!ended.to_string().contains("the disk is full"), "{ended}");
}

#[test]
fn a_full_disk_fails_the_stage_that_meets_it() {
    let content = vec![b'x'; 100_000];
    let project = Sandbox::new(&format!(
        "{ONE}\n[stages.download]\nkind = \"download\"\nurl = \"file:big\"\nblake3 = \"{}\"\n",
        blake3::hash(&content)
    ));
    project.write("big", &content);
    let ended = with_little_room(&project, "run experiment.toml --jobs 1");
    // Each worker has a checkpoint folder of its own.
    let shown = ended.to_string();
    let (before, after) =
        shown.split_once("/partial/[digest]/").expect("the file that did not fit");
    let (_, after) = after.split_once('/').expect("the folder of the worker");
    assert_snapshot!(format!("{before}/partial/[digest]/[own]/{after}"), @r#"
    status 1
    --- stderr
          one (command) runs: no earlier run
    done  one in [time]
          download (download) runs: no earlier run
    FAIL  download after [time]: cannot write [project]/cache/partial/[digest]/[own]/[digest].part: File too large (os error 27)
          a file would be larger than is allowed: raise the limit of the shell (`ulimit -f`), or, if it is that of the file system, use another file system; nothing that was committed is lost
    --- stdout

    stage  result  time  metrics
    one  ran  [time]
    download  failed  [time]

    one: 1 ran, 1 failed in [time]; `pipeline log experiment.toml download` shows the whole log
    "#);
    assert_eq!(names(&project.cache("store")).len(), 1, "only the artifact of the other stage");
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"one fresh, download ran");
}

#[test]
fn a_full_disk_in_the_middle_of_a_commit_commits_nothing() {
    // A record holds the parameters: this one has no room.
    let project = Sandbox::new(&format!(
        "{ONE}environment = {{ TEXT = \"{}\" }}\n",
        "a long text, ".repeat(4000)
    ));
    let ended = with_little_room(&project, "run experiment.toml");
    assert_snapshot!(ended, @r#"
    status 1
    --- stderr
          one (command) runs: no earlier run
    FAIL  one after [time]: the output of the stage is whole, in [project]/cache/store/[digest], but it cannot be recorded: cannot write [project]/cache/records/[..]/[digest].json: File too large (os error 27)
          a file would be larger than is allowed: raise the limit of the shell (`ulimit -f`), or, if it is that of the file system, use another file system; nothing that was committed is lost
    --- stdout

    stage  result  time  metrics
    one  failed  [time]

    one: 1 failed in [time]; `pipeline log experiment.toml one` shows the whole log
    "#);
    let records = walk(&project.cache("records"));
    assert!(!records.iter().any(|path| path.is_file()), "no record, whole or half: {records:?}");
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"one ran");
}

#[test]
fn a_folder_with_something_else_is_not_a_cache() {
    let project = Sandbox::new(ONE);
    project.write("photos/holiday.jpg", "");
    let ended = project.pipeline("run experiment.toml --cache photos");
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert!(
        ended.stderr.contains("contains 'holiday.jpg' and is not a cache of pipeline"),
        "{ended}"
    );
    assert!(!project.path("photos/store").exists(), "nothing was made in it");
}

#[test]
fn a_folder_above_called_cache_with_something_else_is_passed_over() {
    let project = Sandbox::new("");
    project.write("home/cache/huggingface/model.bin", "");
    project.write("home/mine/experiment.toml", ONE);
    assert_snapshot!(project.pipeline("run home/mine/experiment.toml").success(), @"one ran");
    assert!(project.path("cache/store").exists() && !project.path("home/cache/store").exists());
    // An empty one counts.
    std::fs::create_dir(project.path("home/mine/cache")).expect("a folder");
    assert_snapshot!(project.pipeline("run home/mine/experiment.toml").success(), @"one ran");
    assert!(project.path("home/mine/cache/store").exists());
    // One of ours with something else in it is not passed over: its results would be made again elsewhere.
    project.write("other/cache/store/a/b", "");
    project.write("other/cache/photo.jpg", "");
    project.write("other/mine/experiment.toml", ONE);
    let refused = project.pipeline("run other/mine/experiment.toml");
    assert!(refused.stderr.contains("contains 'photo.jpg' and is not a cache"), "{refused}");
}

#[test]
fn a_new_cache_stays_out_of_version_control() {
    let project = Sandbox::new(ONE);
    project.pipeline("run experiment.toml --cache new").success();
    let ignored = std::fs::read_to_string(project.path("new/.gitignore"));
    assert_eq!(ignored.ok().as_deref(), Some("*\n"));
}
