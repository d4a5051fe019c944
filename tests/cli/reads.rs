//! What a stage reads is what its key says: files and folders outside the cache, and its inputs in the store.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use insta::assert_snapshot;

use crate::support::{MANIFEST, Sandbox};

/// A command that reads `files`; `script` is what its shell does.
fn reader(files: &str, script: &str) -> Sandbox {
    Sandbox::new(&format!(
        "[experiment]\nname = \"reads\"\n\n[stages.copy]\nkind = \"command\"\nfiles = {files}\nshell = '{script}'\n"
    ))
}

const COPY: &str = r#"cp -r src "$PIPELINE_OUTPUT/""#;

fn plan(project: &Sandbox) -> String {
    project.pipeline("plan experiment.toml").printed().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_changed_files_of_a_folder_are_listed() {
    let project = reader("[\"src\"]", COPY);
    project.write("src/main.py", "1\n");
    project.write("src/data/x", "1\n");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy ran");
    let chmod = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(project.path("src/main.py"), permissions).expect("ours");
    };
    chmod(0o755);
    assert_snapshot!(plan(&project), @"copy  dirty  src changed: main.py the executable bit changed");
    chmod(0o644);
    assert_snapshot!(plan(&project), @"copy  fresh");
    symlink("x", project.path("src/data/link")).expect("ours");
    project.write("src/main.py", "22\n");
    assert_snapshot!(plan(&project), @"copy  dirty  src changed: data/link added, main.py other bytes: 3 in place of 2");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy ran");
    project.write("src/data/y", "1\n");
    fs::remove_file(project.path("src/data/link")).expect("ours");
    symlink("y", project.path("src/data/link")).expect("ours");
    assert_snapshot!(plan(&project), @"copy  dirty  src changed: data/link a link with another target, data/y added");
    assert_snapshot!(project.pipeline("why experiment.toml copy").printed(), @r"
    copy will run because:
      src changed: data/link a link with another target, data/y added
    ");
}

#[test]
fn what_editors_and_file_managers_leave_behind_changes_nothing() {
    let project = reader(
        "[\"src\"]",
        &format!(
            "{COPY}; touch src/.main.py.swp src/.DS_Store; mkdir -p src/__pycache__; touch src/__pycache__/main.pyc"
        ),
    );
    project.write("src/main.py", "1\n");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy ran");
    assert_snapshot!(plan(&project), @"copy  fresh");
    fs::remove_file(project.path("src/.main.py.swp")).expect("the stage made it");
    project.write("src/main.py~", "0\n");
    project.write("src/.git/HEAD", "0\n");
    assert_snapshot!(plan(&project), @"copy  fresh");
    project.write("src/__pycache__/settings", "0\n");
    assert_snapshot!(plan(&project), @"copy  dirty  src changed: __pycache__/settings added");
}

#[test]
fn a_manifest_adds_what_is_left_out() {
    let project = reader("[\"src\"]\nignore = [\"*.log\", \"runs/*\"]", COPY);
    project.write("src/main.py", "1\n");
    project.write("src/runs/x", "1\n");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy ran");
    project.write("src/deep.log", "1\n");
    project.write("src/runs/y", "1\n");
    assert_snapshot!(plan(&project), @"copy  fresh");
    project.edit("\"*.log\", ", "");
    assert_snapshot!(plan(&project), @r#"copy  dirty  ignore: ["*.log","runs/*"] -> ["runs/*"]; src changed: deep.log added"#);
    project.edit("runs/*", "../runs");
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r#"
    status 2
    --- stderr
    error: '../runs' in 'ignore' cannot match anything: write a name ('*.log'), or a path from the folder ('runs/*.log') without '.', '..' and '**'; '*' stays within one name
     --> experiment.toml:7:11
      |
    7 | ignore = ["../runs"]
      |           ^^^^^^^^^
      |
      = help: ignore: What it does not read in the folders among `files`: names (`*.log`), or paths from the folder (`runs/*.log`). What editors, file managers and Python leave behind is left out in any case: docs/manifest.md has the list.

    error: 1 mistake in experiment.toml; nothing was run
    "#);
}

#[test]
fn a_project_that_reads_its_own_folder_does_not_read_its_cache() {
    let project = reader("[\".\"]", r#"cp notes "$PIPELINE_OUTPUT/""#);
    project.write("notes", "1\n");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy ran");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy fresh");
}

#[test]
fn a_file_that_changed_and_changed_back_is_seen() {
    let project = reader(
        "[\"src\"]",
        r#"sleep 0.05; echo 2 > src/notes; cp src/notes "$PIPELINE_OUTPUT/"; echo 1 > src/notes"#,
    );
    project.write("src/notes", "1\n");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 1
    --- stderr
          copy (command) runs: no earlier run
    FAIL  copy after [time]: src changed while the stage read it (notes written to, or replaced), so the result is not recorded
          what it had written is kept in [project]/cache/failed/[digest]
    --- stdout

    stage  result  time  metrics
    copy  failed  [time]

    reads: 1 failed in [time]; `pipeline log experiment.toml copy` shows the whole log
    "#);
    assert_snapshot!(plan(&project), @"copy  dirty  no earlier run");
}

/// Another file under its name while it is read.
const FILE: &str = "mv src/notes src/kept; echo 2 > src/notes; cp -r src \"$PIPELINE_OUTPUT/\"; mv src/kept src/notes";
/// Another folder.
const FOLDER: &str = "mv src kept; mkdir src; echo 2 > src/notes; cp -r src \"$PIPELINE_OUTPUT/\"; rm -r src; mv kept src";

#[test]
fn what_was_moved_away_and_back_is_seen() {
    // A file alone does not know of the folder above the one that it is in.
    for (files, script) in [("[\"src\"]", FILE), ("[\"src/notes\"]", FILE), ("[\"src\"]", FOLDER)] {
        let project = reader(files, &format!("sleep 0.05; {script}"));
        project.write("src/notes", "1\n");
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.results(), "copy failed", "{files} {script}: {ended}");
        assert!(ended.stderr.contains("changed while the stage read it"), "{ended}");
    }
}

#[test]
fn another_change_time_alone_is_a_note() {
    let project =
        reader("[\"notes\"]", r#"sleep 0.05; chmod 644 notes; cp notes "$PIPELINE_OUTPUT/""#);
    project.write("notes", "1\n");
    fs::set_permissions(project.path("notes"), fs::Permissions::from_mode(0o644)).expect("ours");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stderr
          copy (command) runs: no earlier run
          copy: notes has another change time (ctime) than before the stage ran, and the same bytes
    done  copy in [time]
    --- stdout

    stage  result  time  metrics
    copy  ran  [time]

    reads: 1 ran in [time]
    "#);
}

#[test]
fn a_checkpoint_of_other_files_is_not_continued() {
    let project = reader(
        "[\"notes\"]",
        r#"cat notes >> "$PIPELINE_CHECKPOINT/seen"; cp "$PIPELINE_CHECKPOINT/seen" "$PIPELINE_OUTPUT/"; test -e again || { touch again; sleep 0.05; echo 2 > notes; echo 1 > notes; exit 1; }"#,
    );
    project.write("notes", "1\n");
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(1));
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy ran");
    let seen = fs::read_to_string(project.artifact("copy").join("seen")).expect("readable");
    assert_eq!(seen, "1\n", "not what the first run wrote, which read something else");
}

#[test]
fn what_has_no_content_that_lasts_is_refused_at_its_line() {
    let project = reader("[\"src\"]", COPY);
    project.write("src/main.py", "1\n");
    let made = std::process::Command::new("mkfifo").arg(project.path("src/pipe")).status();
    assert!(made.expect("mkfifo runs").success());
    assert_snapshot!(plan(&project), @r#"copy  blocked  line 6: [project]/src/pipe is a named pipe: it does not have lasting content, and only files and folders on a disk can be read from outside the cache; copy what the stage needs of it into a file"#);
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 2
    --- stderr
    error: [project]/src/pipe is a named pipe: it does not have lasting content, and only files and folders on a disk can be read from outside the cache; copy what the stage needs of it into a file
     --> experiment.toml:6:10
      |
    6 | files = ["src"]
      |          ^^^^^

    error: 1 mistake in experiment.toml; nothing was run
    "#);
    project.edit("[\"src\"]", "[\"/proc/kmsg\"]");
    if cfg!(target_os = "linux") {
        assert_snapshot!(plan(&project), @r#"copy  blocked  line 6: /proc/kmsg is made up by the kernel whenever it is read: it does not have lasting content, and only files and folders on a disk can be read from outside the cache; copy what the stage needs of it into a file"#);
    }
}

/// `b` writes into what it reads, and `c` reads the same.
fn writer(script: &str) -> Sandbox {
    Sandbox::new(&format!(
        r#"
[experiment]
name = "writer"

[stages.a]
kind = "command"
shell = 'echo a >> ran; echo 1111 > "$PIPELINE_OUTPUT/x"'

[stages.b]
kind = "command"
inputs = {{ a = "a" }}
shell = 'chmod -R u+w "$PIPELINE_INPUT_A"; cd "$PIPELINE_INPUT_A"; {script}; cp -r . "$PIPELINE_OUTPUT/y"'

[stages.c]
kind = "command"
inputs = {{ a = "a" }}
shell = 'cp "$PIPELINE_INPUT_A/x" "$PIPELINE_OUTPUT/z"'
"#
    ))
}

#[test]
fn a_stage_that_writes_into_its_input_fails_and_the_input_is_made_again() {
    let project = writer("echo 2222 > x");
    assert_snapshot!(project.pipeline("run experiment.toml b"), @r#"
    status 1
    --- stderr
          a (command) runs: no earlier run
    done  a in [time]
          b (command) runs: no earlier run
    FAIL  b after [time]: the stage, or something beside it, wrote into its input 'inputs.a' (x other bytes, of the same size; it is in quarantine/ now, and is made again when it is needed); a stage must leave its inputs as they are, so the result is not recorded
          what it had written is kept in [project]/cache/failed/[digest]
    --- stdout

    stage  result  time  metrics
    a  ran  [time]
    b  failed  [time]

    writer: 1 ran, 1 failed in [time]; `pipeline log experiment.toml b` shows the whole log
    "#);
    assert_eq!(project.quarantined().len(), 1);
    assert_eq!(project.pipeline("run experiment.toml c").success(), "a ran, c ran");
    let read = fs::read_to_string(project.artifact("c").join("z")).expect("readable");
    assert_eq!(read, "1111\n");
    assert_snapshot!(project.pipeline("plan experiment.toml b").printed(), @r#"
    a  fresh
    b  dirty  no earlier run

    writer: 1 would run, 1 is fresh
    "#);
}

/// `b` writes into `a` and goes on until `c` is done, which was made from what `b` wrote, also by way of `d`.
const SPOILT: &str = r#"
[experiment]
name = "spoilt"

[stages.a]
kind = "command"
shell = 'echo 1111 > "$PIPELINE_OUTPUT/x"'

[stages.b]
kind = "command"
inputs = { a = "a" }
shell = """
cp "$PIPELINE_INPUT_A/x" "$PIPELINE_OUTPUT/"
[ ! -e again ] || exit 0
chmod u+w "$PIPELINE_INPUT_A/x"
echo 2222 > "$PIPELINE_INPUT_A/x"
touch again
while [ ! -e c-ran ]; do sleep 0.01; done
sleep 0.5
"""

[stages.wait]
kind = "command"
shell = "while [ ! -e again ]; do sleep 0.01; done"

[stages.d]
kind = "command"
inputs = { a = "a", wait = "wait" }
shell = 'cp "$PIPELINE_INPUT_A/x" "$PIPELINE_OUTPUT/"'

[stages.c]
kind = "command"
inputs = { a = "a", d = "d" }
shell = """
cat "$PIPELINE_INPUT_A/x" "$PIPELINE_INPUT_D/x" > "$PIPELINE_OUTPUT/both"
touch c-ran
"""
"#;

#[test]
fn what_others_read_of_it_meanwhile_does_not_count() {
    let project = Sandbox::new(SPOILT);
    let ended = project.pipeline("run experiment.toml --jobs 4");
    assert_eq!(ended.results(), "a ran, b failed, wait ran, d skipped, c skipped", "{ended}");
    assert!(ended.stderr.contains(" no longer counts: spoilt/c, spoilt/d"), "{ended}");
    assert_eq!(
        project.pipeline("run experiment.toml").success(),
        "a ran, b ran, wait fresh, d ran, c ran"
    );
    let both = fs::read_to_string(project.artifact("c").join("both")).expect("readable");
    assert_eq!(both, "1111\n1111\n");
}

#[test]
fn what_it_spoilt_is_made_again_in_the_same_run_where_that_goes_on() {
    let project = Sandbox::new(SPOILT);
    let ended = project.pipeline("run experiment.toml --jobs 4 --keep-going");
    assert_eq!(ended.results(), "a ran, b failed, wait ran, d ran, c ran", "{ended}");
    let both = fs::read_to_string(project.artifact("c").join("both")).expect("readable");
    assert_eq!(both, "1111\n1111\n");
}

#[test]
fn a_result_that_replaces_a_damaged_artifact_withdraws_what_was_made_from_it() {
    let project = writer("true");
    project.pipeline("run experiment.toml").success();
    let artifact = project.artifact("a");
    project.unprotect(&artifact);
    fs::write(artifact.join("x"), "2222\n").expect("ours");
    // `c` reads the damaged artifact, then `a` runs again under another key and gives the right bytes.
    project.edit("$PIPELINE_OUTPUT/z", "$PIPELINE_OUTPUT/zz");
    assert_eq!(project.pipeline("run experiment.toml c").success(), "a fresh, c ran");
    project.edit("echo a >> ran;", "echo aa >> ran;");
    let ended = project.pipeline("run experiment.toml c");
    assert_eq!(ended.success(), "a ran, c ran");
    assert!(ended.stderr.contains(" no longer counts: writer/b, writer/c"), "{ended}");
    let read = fs::read_to_string(project.artifact("c").join("zz")).expect("readable");
    assert_eq!(read, "1111\n");
}

#[test]
fn every_way_of_writing_into_an_input_is_seen() {
    for (script, told) in [
        ("echo 2222 > x", "x other bytes, of the same size"),
        ("echo more >> x", "x other bytes: 10 in place of 5"),
        ("touch new", "new added"),
        ("chmod +x x", "x the executable bit changed"),
        ("cp x /tmp/unused-$$ && mv x y && rm /tmp/unused-$$", "x missing"),
        ("rm x && ln -s y x", "x another type of entry: file, folder or link"),
        // And if the stage itself fails.
        ("echo more >> x; exit 3", "x other bytes: 10 in place of 5"),
    ] {
        let project = writer(script);
        let ended = project.pipeline("run experiment.toml b");
        assert_eq!(ended.code(), Some(1), "{script}: {ended}");
        assert!(ended.to_string().contains(told), "{script}: {ended}");
        assert_eq!(project.quarantined().len(), 1, "{script}");
        assert_eq!(project.pipeline("run experiment.toml c").success(), "a ran, c ran", "{script}");
    }
}

#[test]
fn an_input_with_the_same_bytes_is_an_input() {
    for script in ["touch x", "echo 1111 > x", "cp x y; mv y x"] {
        let project = writer(script);
        assert_eq!(project.pipeline("run experiment.toml b").success(), "a ran, b ran", "{script}");
        assert_eq!(project.pipeline("run experiment.toml c").success(), "a fresh, c ran");
    }
}

#[test]
fn a_project_in_a_folder_whose_name_is_not_text_works() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let project = Sandbox::new("");
    let folder = project.folder().join(name);
    fs::create_dir(&folder).expect("ours");
    let text = r#"
[experiment]
name = "latin"

[stages.a]
kind = "command"
files = ["notes"]
shell = 'cp notes "$PIPELINE_OUTPUT/"; cp notes "$PIPELINE_OUTPUT"/$(printf "b\351")'

[stages.b]
kind = "command"
run = ["cp", "-r", "{inputs.a}", "{output}/copy"]
inputs = { a = "a" }
"#;
    fs::write(folder.join(MANIFEST), text).expect("ours");
    fs::write(folder.join("notes"), "1\n").expect("ours");
    let run = |arguments: &str| {
        let mut command = project.command(arguments);
        command.current_dir(&folder);
        project.start_command(command).wait()
    };
    assert_eq!(run("run experiment.toml --cache cache").success(), "a ran, b ran");
    assert_eq!(run("run experiment.toml --cache cache").success(), "a fresh, b fresh");
    for arguments in [
        "verify experiment.toml --json",
        "verify experiment.toml --rerun b",
        "status experiment.toml --json",
        "plan experiment.toml --json",
        "why experiment.toml a",
        "log experiment.toml a",
        "path experiment.toml b",
    ] {
        let ended = run(&format!("{arguments} --cache cache"));
        assert!(ended.status.success(), "{arguments}: {ended}");
    }
}
