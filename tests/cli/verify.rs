//! Artifacts that are checked: intact, damaged, gone.

use std::fs;

use insta::assert_snapshot;

use crate::manifests::WORDS;
use crate::support::{Ended, Sandbox};

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
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 0
    --- stdout
    words  intact  [digest]  19 B
    count  intact  [digest]  2 B
    report  intact  [digest]  13 B
    other  intact  [digest]  6 B

    words: 4 intact; 40 B read in [time]
    "#);
    let new = Sandbox::new(WORDS);
    assert_snapshot!(new.pipeline("verify experiment.toml"), @r#"
    status 0
    --- stdout
    not checked, as not fresh: words, count, report, other
    words: nothing to check; 0 B read in [time]
    "#);
    assert!(!new.path("cache").exists(), "looking writes nothing");
}

#[test]
fn damage_is_named_by_stage_and_file_and_put_into_quarantine() {
    let project = project();
    damage(&project, "words", "text");
    // No run would see it: the size is the same.
    assert_eq!(project.pipeline("run experiment.toml").success().matches("fresh").count(), 4);
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 1
    --- stdout
    words  damaged  [digest]  moved to quarantine/[digest]-0
      text: other bytes, of the same size
    count  intact  [digest]  2 B
    report  intact  [digest]  13 B
    other  intact  [digest]  6 B

    the record of words/count was withdrawn: it was made from the artifact [digest], which is damaged
    the record of words/report was withdrawn: it was made from the artifact [digest], whose own record was withdrawn
    if you know that the damage came later, `verify --restore` brings these records back
    words: 3 intact, 1 damaged; 21 B read in [time]
    `pipeline run experiment.toml` makes again what is missing now
    "#);
    assert_eq!(project.quarantined().len(), 1);
    // It is gone now, and what reads it is not known.
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 1
    --- stdout
    words  gone  [digest]  its record exists, the artifact is missing
    other  intact  [digest]  6 B

    not checked, as not fresh: count, report
    words: 1 intact, 1 gone; 6 B read in [time]
    `pipeline run experiment.toml` makes again what is missing now
    "#);
    // What was made from the damaged text may be wrong, so it runs again.
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @r#"words ran, count ran, report ran, other fresh"#);
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
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 1
    --- stdout
    files, same  damaged  [digest]  moved to quarantine/[digest]-0
      a/b/1: other bytes: 18 in place of 2
      a/b/2: missing
      a/b/3: the executable bit changed
      a/new: added
      link: a link with another target

    files: 1 damaged; 0 B read in [time]
    `pipeline run experiment.toml` makes again what is missing now
    "#);
}

#[test]
fn as_json() {
    let project = project();
    damage(&project, "count", "number");
    let ended = project.pipeline("verify experiment.toml --json");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(project.filter(&format!("{:#}", ended.json())), @r#"
    {
      "artifacts": [
        {
          "artifact": "[digest]",
          "bytes": 19,
          "result": "intact",
          "stages": [
            "words"
          ]
        },
        {
          "artifact": "[digest]",
          "files": [
            {
              "how": "changed",
              "new-bytes": 2,
              "old-bytes": 2,
              "path": "number"
            }
          ],
          "left-because": null,
          "quarantine": "[project]/cache/quarantine/[digest]-0",
          "result": "damaged",
          "stages": [
            "count"
          ]
        },
        {
          "artifact": "[digest]",
          "bytes": 13,
          "result": "intact",
          "stages": [
            "report"
          ]
        },
        {
          "artifact": "[digest]",
          "bytes": 6,
          "result": "intact",
          "stages": [
            "other"
          ]
        }
      ],
      "cache": "[project]/cache",
      "damaged-records": [],
      "remarks": [
        "the record of words/report was withdrawn: it was made from the artifact [digest], which is damaged",
        "if you know that the damage came later, `verify --restore` brings these records back"
      ],
      "sound": false,
      "withdrawn": [
        {
          "key": "[digest]",
          "reason": "it was made from the artifact [digest], which is damaged",
          "stage": "words/report"
        }
      ]
    }
    "#);
}

#[test]
fn everything_in_the_cache() {
    let project = project();
    project.edit("to be or not to be", "something else");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("verify --all"), @r#"
    status 0
    --- stdout
    [project]/cache: 7 intact; 70 B read in [time]
    "#);
    // An old result that no manifest asks for any more, and one whose record is lost.
    project.edit("something else", "to be or not to be");
    damage(&project, "words", "text");
    damage(&project, "other", "text");
    let head = fs::read_to_string(project.cache("heads/words/other")).expect("it ran");
    let record = format!("cache/records/{}/{}.json", &head[..2], head.trim());
    fs::remove_file(project.path(&record)).expect("ours");
    project.write("cache/records/00/nonsense.json", "{}");
    project.edit("to be or not to be", "something else");
    assert_snapshot!(project.pipeline("verify --all --cache cache"), @r#"
    status 1
    --- stdout
    (no record)  damaged  [digest]  moved to quarantine/[digest]-0
      text: other bytes, of the same size
    words/words  damaged  [digest]  moved to quarantine/[digest]-0
      text: other bytes, of the same size

    the record of words/count was withdrawn: it was made from the artifact [digest], which is damaged
    the record of words/report was withdrawn: it was made from the artifact [digest], whose own record was withdrawn
    if you know that the damage came later, `verify --restore` brings these records back
    the record records/00/nonsense.json is damaged; moved to quarantine/records/[..]nsense.json.damaged-0
    [project]/cache: 5 intact, 2 damaged; 45 B read in [time]
    the next run that needs it makes again what is missing now
    "#);
    assert_snapshot!(project.pipeline("verify experiment.toml --all"), @r#"
    status 1
    --- stdout
    words/words  gone  [digest]  its record exists, the artifact is missing

    [project]/cache: 5 intact, 1 gone; 45 B read in [time]
    the next run that needs it makes again what is missing now
    "#);
}

#[test]
fn a_record_of_another_version_is_not_damaged() {
    let project = project();
    let head = fs::read_to_string(project.cache("heads/words/other")).expect("it ran");
    let name = format!("cache/records/{}/{}.json", &head[..2], head.trim());
    let text = project.read(&name);
    let (_, fields) = text.split_once("\",\n").expect("a checksum");
    let later = fields.replace("\"stage\": \"other\"", "\"stage\": [\"other\"]");
    assert_ne!(later, fields);
    let checksum = blake3::hash(later.as_bytes()).to_hex();
    let written = format!("{{\n  \"checksum\": \"{checksum}\",\n{later}");
    project.write(&name, &written);
    let shown = project.pipeline("verify --all").to_string();
    let shown = shown.replace(&format!("records/{}/", &head[..2]), "records/[..]/");
    assert_snapshot!(shown, @r"
    status 0
    --- stdout
    the record records/[..]/[digest].json is of another version of pipeline: not checked
    [project]/cache: 4 intact; 40 B read in [time]
    ");
    assert!(project.path(&name).exists(), "it stays where it is");
    let hide = |ended: Ended| {
        ended.to_string().replace(&format!("records/{}/", &head[..2]), "records/[..]/")
    };
    assert_snapshot!(hide(project.pipeline("plan experiment.toml other")), @r#"
    status 0
    --- stdout
    other  dirty  its record is of another version of pipeline; --force replaces it

    words: 1 would run, 0 are fresh
    "#);
    assert_snapshot!(hide(project.pipeline("run experiment.toml other")), @r#"
    status 1
    --- stderr
    FAIL  other after [time]: there is a result of another version of pipeline, which this one cannot read, in [project]/cache/records/[..]/[digest].json: run it with that version, with another --cache, or with --force, which replaces it
    --- stdout

    stage  result  time  metrics
    other  failed  [time]

    words: 1 failed in [time]; `pipeline log experiment.toml other` shows the whole log
    "#);
    assert_eq!(project.read(&name), written, "nothing replaces it");
    project.pipeline("run experiment.toml other --force other").success();
    assert_eq!(project.pipeline("verify --all").success().matches("another version").count(), 0);
}

#[test]
fn a_record_that_cannot_be_read_is_neither_sound_nor_made_again() {
    use std::os::unix::fs::PermissionsExt;
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    let head = fs::read_to_string(project.cache("heads/words/other")).expect("it ran");
    let set_mode = |place: &str, mode: u32| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(project.cache(place), mode).expect("ours");
    };
    let record = format!("records/{}/{}.json", &head[..2], head.trim());
    let hide = |ended: Ended| {
        ended.to_string().replace(&format!("records/{}/", &head[..2]), "records/[..]/")
    };
    set_mode(&record, 0);
    assert_snapshot!(hide(project.pipeline("verify --all")), @r#"
    status 1
    --- stdout
    records/[..]/[digest].json cannot be read: not checked
    [project]/cache: 4 intact; 40 B read in [time]
    "#);
    assert_snapshot!(hide(project.pipeline("verify experiment.toml")), @r#"
    status 1
    --- stdout
    words  intact  [digest]  19 B
    count  intact  [digest]  2 B
    report  intact  [digest]  13 B

    records/[..]/[digest].json cannot be read: not checked
    words: 3 intact; 34 B read in [time]
    "#);
    assert_snapshot!(hide(project.pipeline("plan experiment.toml other")), @r#"
    status 0
    --- stdout
    other  dirty  its record cannot be read

    words: 1 would run, 0 are fresh
    "#);
    assert_snapshot!(hide(project.pipeline("run experiment.toml other")), @r#"
    status 1
    --- stderr
    FAIL  other after [time]: there is a result, whose record cannot be read: [project]/cache/records/[..]/[digest].json
    --- stdout

    stage  result  time  metrics
    other  failed  [time]

    words: 1 failed in [time]; `pipeline log experiment.toml other` shows the whole log
    "#);
    set_mode(&record, 0o644);
    assert_eq!(project.pipeline("run experiment.toml").success().matches("fresh").count(), 4);
    set_mode("records", 0);
    assert_snapshot!(project.pipeline("verify --all"), @r#"
    status 1
    --- stdout
    records cannot be read: not checked
    [project]/cache: 4 intact; 40 B read in [time]
    "#);
    set_mode("records", 0o755);
    set_mode("store", 0);
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 1
    --- stdout
    words  unreadable  [digest]  cannot open [project]/cache/store/[digest]: Permission denied (os error 13)
    count  unreadable  [digest]  cannot open [project]/cache/store/[digest]: Permission denied (os error 13)
    report  unreadable  [digest]  cannot open [project]/cache/store/[digest]: Permission denied (os error 13)
    other  unreadable  [digest]  cannot open [project]/cache/store/[digest]: Permission denied (os error 13)

    words: 4 unreadable; 0 B read in [time]
    "#);
    let plan = project.pipeline("plan experiment.toml");
    assert!(plan.stdout.contains("all 4 stages are fresh"), "nobody knows otherwise: {plan}");
    set_mode("store", 0o755);
    project.pipeline("verify --all").success();
}

#[test]
fn without_the_listing_the_stage_is_named_alone() {
    let project = project();
    project.unprotect(&project.cache("listings"));
    fs::remove_dir_all(project.cache("listings")).expect("ours");
    damage(&project, "other", "text");
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 1
    --- stdout
    words  intact  [digest]  19 B
    count  intact  [digest]  2 B
    report  intact  [digest]  13 B
    other  damaged  [digest]  moved to quarantine/[digest]-0
      which of its files is damaged is not known

    words: 3 intact, 1 damaged; 34 B read in [time]
    `pipeline run experiment.toml` makes again what is missing now
    "#);
}

#[test]
fn a_cache_that_cannot_be_written_is_still_checked() {
    use std::os::unix::fs::PermissionsExt;
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    damage(&project, "other", "text");
    let set_mode = |mode: u32| {
        for folder in ["cache", "cache/locks", "cache/store"] {
            fs::set_permissions(project.path(folder), fs::Permissions::from_mode(mode))
                .expect("ours");
        }
    };
    set_mode(0o555);
    assert_snapshot!(project.pipeline("verify experiment.toml"), @r#"
    status 1
    --- stdout
    words  intact  [digest]  19 B
    count  intact  [digest]  2 B
    report  intact  [digest]  13 B
    other  damaged  [digest]  left where it is: cannot open the lock [project]/cache/locks/store-[digest]: Permission denied (os error 13)
      text: other bytes, of the same size

    words: 3 intact, 1 damaged; 34 B read in [time]
    "#);
    set_mode(0o755);
    assert!(!project.path("cache/quarantine").exists());
}

#[test]
fn beside_a_run_that_makes_the_same_again() {
    // Many checks and runs that produce the same bytes at once: what is intact is never reported as damaged.
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
fn what_cannot_be_checked() {
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
