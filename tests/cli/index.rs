//! The index of a run with nothing to do: it saves time, and never hides that something changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::{Sandbox, walk};

const MANIFEST: &str = r#"
include = ["more.toml"]

[experiment]
name = "indexed"

[stages.first]
kind = "command"
shell = 'cat notes > "$PIPELINE_OUTPUT/text"'
files = ["notes"]

[stages.second]
kind = "command"
inputs = { first = "first" }
shell = 'wc -c < "$PIPELINE_INPUT_FIRST/text" > "$PIPELINE_OUTPUT/text"'
"#;

const MORE: &str = r#"
[stages.third]
kind = "command"
shell = 'echo 3 > "$PIPELINE_OUTPUT/text"'
"#;

const FRESH: &str = "first fresh, second fresh, third fresh";

/// A project whose last run left an index.
fn project() -> Sandbox {
    let project = Sandbox::new(MANIFEST);
    project.write("more.toml", MORE);
    project.write("notes", "some\n");
    // Old enough for its digest to be remembered.
    let old = SystemTime::now() - Duration::from_secs(3600);
    let notes = fs::File::options().write(true).open(project.path("notes")).expect("ours");
    notes.set_modified(old).expect("ours");
    assert_eq!(run(&project), "first ran, second ran, third ran");
    project
}

fn run(project: &Sandbox) -> String {
    project.pipeline("run experiment.toml").success()
}

fn indexes(project: &Sandbox) -> Vec<PathBuf> {
    let found = walk(&project.cache("indexes"));
    found.into_iter().filter(|path| path.is_file()).collect()
}

/// The one file below a folder of the cache whose content has this text.
fn file_with(project: &Sandbox, bucket: &str, text: &str) -> PathBuf {
    let has = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|content| content.contains(text));
    walk(&project.cache(bucket)).into_iter().find(has).expect("it exists")
}

#[test]
fn a_run_leaves_an_index_which_the_next_one_uses() {
    let project = project();
    let [index] = indexes(&project).try_into().expect("one");
    let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).expect("there");
    let before = written(&index);
    assert_eq!(run(&project), FRESH);
    // What it read from there it did not write again.
    assert_eq!(written(&index), before);
    // Other words are another question.
    project.pipeline("run experiment.toml third").success();
    project.pipeline("run experiment.toml --set experiment.seed=2").success();
    assert_eq!(indexes(&project).len(), 3);
}

#[test]
fn an_index_that_is_lost_or_damaged_is_none() {
    let project = project();
    let [index] = indexes(&project).try_into().expect("one");
    let whole = fs::read(&index).expect("readable");
    for place in [0, 30, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&index, &damaged).expect("ours");
        assert_eq!(run(&project), FRESH, "byte {place}");
        assert_eq!(fs::read(&index).expect("readable").len(), whole.len(), "it is made again");
    }
    fs::remove_dir_all(project.cache("indexes")).expect("ours");
    assert_eq!(run(&project), FRESH);
    // Of an earlier state: it does not say that its results exist.
    fs::remove_dir_all(project.cache("records")).expect("ours");
    assert_eq!(run(&project), "first ran, second ran, third ran");
}

#[test]
fn whatever_changes_is_seen() {
    type Change = fn(&Sandbox);
    let changes: [(&str, Change, &str); 9] = [
        (
            "a file that a stage reads",
            |project| project.write("notes", "more words\n"),
            "first ran, second ran, third fresh",
        ),
        (
            "the manifest",
            |project| project.edit("wc -c", "wc -l"),
            "first fresh, second ran, third fresh",
        ),
        (
            "what it includes",
            |project| project.write("more.toml", MORE.replace("echo 3", "echo 4")),
            "first fresh, second fresh, third ran",
        ),
        (
            "a record is gone",
            |project| fs::remove_file(file_with(project, "records", "\"third\"")).expect("ours"),
            "first fresh, second fresh, third ran",
        ),
        (
            "a record is other bytes",
            |project| fs::write(file_with(project, "records", "\"third\""), "{}").expect("ours"),
            "first fresh, second fresh, third ran",
        ),
        (
            "an artifact is gone",
            |project| {
                let text = file_with(project, "store", "3\n");
                let artifact = text.parent().expect("a folder");
                fs::rename(artifact, project.path("away")).expect("ours");
            },
            "first fresh, second fresh, third ran",
        ),
        ("a file is gone", |project| fs::remove_file(project.path("notes")).expect("ours"), ""),
        (
            "the head is gone",
            |project| fs::remove_file(project.cache("heads/indexed/third")).expect("ours"),
            FRESH,
        ),
        (
            "the link is gone",
            |project| fs::remove_file(project.cache("latest/indexed/third")).expect("ours"),
            FRESH,
        ),
    ];
    for (what, change, expected) in changes {
        let project = project();
        assert_eq!(run(&project), FRESH, "before: {what}");
        change(&project);
        let ended = project.pipeline("run experiment.toml");
        match expected {
            "" => assert_eq!(ended.code(), Some(2), "{what}: {ended}"),
            expected => {
                assert_eq!(ended.success(), expected, "{what}");
                assert!(project.cache("heads/indexed/third").exists(), "{what}");
                assert!(project.cache("latest/indexed/third").exists(), "{what}");
                assert_eq!(run(&project), FRESH, "after: {what}");
            }
        }
    }
}

#[test]
fn what_verify_takes_away_is_made_again() {
    let project = project();
    assert_eq!(run(&project), FRESH);
    let text = file_with(&project, "store", "3\n");
    let mut mode = fs::metadata(&text).expect("there").permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "it is ours")]
    mode.set_readonly(false);
    fs::set_permissions(&text, mode).expect("ours");
    fs::write(&text, "4\n").expect("ours");
    assert_eq!(run(&project), FRESH, "a run with nothing to do reads no artifact");
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(1));
    assert_eq!(run(&project), "first fresh, second fresh, third ran");
}

#[test]
fn another_path_to_an_included_file_may_lead_elsewhere_later() {
    let project = project();
    std::os::unix::fs::symlink("more.toml", project.path("alias.toml")).expect("ours");
    project.edit("[\"more.toml\"]", "[\"more.toml\", \"alias.toml\"]");
    assert_eq!(run(&project), FRESH);
    fs::remove_file(project.path("alias.toml")).expect("ours");
    project.write("alias.toml", MORE.replace("third", "fourth").replace("echo 3", "echo 4"));
    assert_eq!(run(&project), "first fresh, second fresh, third fresh, fourth ran");
}

#[test]
fn what_is_asked_otherwise_is_found_out_again() {
    let project = project();
    assert_eq!(run(&project), FRESH);
    assert_eq!(
        project.pipeline("run experiment.toml --set stages.first.shell=\"false\"").code(),
        Some(1)
    );
    let project = project.set("PIPELINE_DEVICE", "nonsense");
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(2));
}

#[test]
fn a_warning_is_shown_each_time() {
    let project = Sandbox::new(&format!(
        "{MANIFEST}\n[stages.fourth]\nkind = \"command\"\nrun = [\"cp\", \"notes\", \"{{output}}\"]\n"
    ));
    project.write("more.toml", MORE);
    project.write("notes", "some\n");
    for _ in 0..3 {
        let ended = project.pipeline("run experiment.toml");
        assert!(ended.to_string().contains("warning"), "{ended}");
    }
}
