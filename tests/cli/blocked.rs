//! A stage that reads a missing file: it is shown with its line, and blocks only the stages that need it.

use insta::assert_snapshot;

use crate::support::Sandbox;

/// `archive` needs a file that somebody has to get first; `both` needs it and `own`.
const WAITING_FOR_A_FILE: &str = r#"
[experiment]
name = "later"

[stages.archive]
kind = "download"
url = "file:data/pretrained.zip"
unverified = true

[stages.own]
kind = "command"
shell = 'echo own > "$PIPELINE_OUTPUT/text"'

[stages.unpacked]
kind = "unpack"
archive = "archive"
format = "gz"

[stages.both]
kind = "command"
inputs = { unpacked = "unpacked", own = "own" }
run = ["true"]
"#;

#[test]
fn commands_that_look_show_it() {
    let project = Sandbox::new(WAITING_FOR_A_FILE);
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r#"
    status 0
    --- stdout
    archive   blocked  line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    own       dirty    no earlier run
    unpacked  waiting  on archive; no earlier run
    both      waiting  on own, unpacked; no earlier run

    later: 1 would run, 0 are fresh, 3 cannot run (blocked: archive)
    "#);
    assert_snapshot!(project.pipeline("graph experiment.toml"), @r#"
    status 0
    --- stdout
    later

    1  ⊘ archive   download
       ○ own       command
    2  ◌ unpacked  unpack    ← archive
    3  ◌ both      command   ← own, unpacked

    ● fresh   ○ dirty: must run   ◌ waiting: runs if its inputs change
    ⊘ blocked: archive, line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    "#);
    assert_snapshot!(project.pipeline("status experiment.toml"), @r#"
    status 0
    --- stdout
    stage     kind      state    last run  took  artifact  size
    archive   download  blocked  never
    own       command   dirty    never
    unpacked  unpack    waiting  never
    both      command   waiting  never

    archive is blocked, line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    cache: [project]/cache
    "#);
    assert_snapshot!(project.pipeline("why experiment.toml archive"), @r#"
    status 0
    --- stdout
    archive cannot run:
      line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    "#);
    assert_snapshot!(project.pipeline("why experiment.toml both"), @r#"
    status 0
    --- stdout
    both will run after own, unpacked, because:
      no earlier run
    own will run because:
      no earlier run
    archive cannot run:
      line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    "#);
    assert_snapshot!(project.pipeline("path experiment.toml archive"), @r#"
    status 2
    --- stderr
    error: 'archive' does not have a known artifact: line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    "#);
    assert_snapshot!(project.pipeline("metrics experiment.toml"), @r"
    status 0
    --- stdout
    no result yet: archive, own, unpacked, both (`pipeline run experiment.toml`)
    ");
    let json = project.pipeline("plan experiment.toml --json").json();
    assert_snapshot!(project.filter(&json["stages"][0].to_string()), @r#"{"because":{"line":7,"message":"cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)"},"kind":"download","stage":"archive","state":"blocked"}"#);
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(1));
    for format in ["dot", "mermaid", "json"] {
        let shown = project.pipeline(&format!("graph experiment.toml --format {format}"));
        assert!(shown.printed().contains("blocked"), "{format}");
    }
    assert!(!project.path("cache").exists(), "looking writes nothing");
}

#[test]
fn what_does_not_need_it_runs() {
    let project = Sandbox::new(WAITING_FOR_A_FILE);
    assert_snapshot!(project.pipeline("run experiment.toml own").success(), @r#"own ran"#);
    assert_snapshot!(project.pipeline("plan experiment.toml own").printed(), @r#"
    own  fresh

    later: the only stage is fresh; nothing would run
    "#);
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 0
    --- stdout
    own  intact  [digest]  4 B

    not checked, as not fresh: archive, unpacked, both
    later: 1 intact; 4 B read in [time]
    "#);
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun archive"), @r#"
    status 2
    --- stderr
    error: 'archive' cannot run: line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    "#);
}

#[test]
fn what_needs_it_fails_before_anything_runs() {
    let project = Sandbox::new(WAITING_FOR_A_FILE);
    let refused = project.pipeline("run experiment.toml --keep-going");
    assert_snapshot!(refused, @r#"
    status 2
    --- stderr
    error: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
     --> experiment.toml:7:7
      |
    7 | url = "file:data/pretrained.zip"
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^

    error: 1 mistake in experiment.toml; nothing was run
    "#);
    assert_eq!(refused.to_string(), project.pipeline("run experiment.toml both").to_string());
    assert!(!project.path("cache").exists(), "nothing was written");
}

#[test]
fn once_the_file_exists_everything_runs() {
    let project = Sandbox::new(WAITING_FOR_A_FILE);
    let gzip = [
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xe7, 2, 0, 0x20, 0x30,
        0x3a, 0x36, 6, 0, 0, 0,
    ];
    project.write("data/pretrained.zip", gzip);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @r#"archive ran, own ran, unpacked ran, both ran"#);
    std::fs::remove_file(project.path("data/pretrained.zip")).expect("ours");
    // It has a result, but whether that still counts cannot be known.
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r#"
    archive   blocked  line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    own       fresh
    unpacked  waiting  on archive
    both      waiting  on unpacked

    later: 0 would run, 1 is fresh, 3 cannot run (blocked: archive)
    "#);
    assert_snapshot!(project.pipeline("log experiment.toml archive"), @r#"
    status 0
    --- stderr
    this is the log of an earlier run; 'archive' is blocked now: line 7: cannot read [project]/data/pretrained.zip: No such file or directory (os error 2)
    archive wrote nothing to its log ([project]/cache/logs/[..]/[digest].log)
    archive took [time], cpu [time], memory [size], read 0 B, written 26 B
    "#);
}

#[test]
fn near_names_and_wrong_kinds_of_paths_are_shown_at_their_lines() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "paths"

[stages.missing]
kind = "dataset"
format = "image-folder"
path = "fotos"

[stages.file]
kind = "dataset"
format = "image-folder"
path = "script.py"

[stages.command]
kind = "command"
run = ["true"]
files = ["script.py", "photos/tarin"]

[stages.folder]
kind = "download"
url = "file:photos"
unverified = true
"#,
    );
    project.write("photos/train/a", "");
    project.write("script.py", "");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 2
    --- stderr
    error: cannot read [project]/fotos: No such file or directory (os error 2)
     --> experiment.toml:8:8
      |
    8 | path = "fotos"
      |        ^^^^^^^
      |
      = help: did you mean 'photos'?

    error: 'path' must be a folder, but [project]/script.py is a file
      --> experiment.toml:13:8
       |
    13 | path = "script.py"
       |        ^^^^^^^^^^^

    error: cannot read [project]/photos/tarin: No such file or directory (os error 2)
      --> experiment.toml:18:23
       |
    18 | files = ["script.py", "photos/tarin"]
       |                       ^^^^^^^^^^^^^^
       |
       = help: did you mean 'photos/train'?

    error: 'url' must be a file, but [project]/photos is a folder
      --> experiment.toml:22:7
       |
    22 | url = "file:photos"
       |       ^^^^^^^^^^^^^

    error: 4 mistakes in experiment.toml; nothing was run
    "#);
    assert_snapshot!(project.pipeline("plan experiment.toml missing").printed(), @r"
    missing  blocked  line 8: cannot read [project]/fotos: No such file or directory (os error 2); did you mean 'photos'?

    paths: 0 would run, 0 are fresh, 1 cannot run (blocked: missing)
    ");
}
