//! A cache that something else changed: what is missing or damaged costs work, never the run.

use std::fs;

use insta::assert_snapshot;

use crate::manifests::WORDS;
use crate::support::{Sandbox, names, walk};

/// A project that has run.
fn project() -> Sandbox {
    let project = Sandbox::new(WORDS);
    project.pipeline("run experiment.toml").success();
    project
}

#[test]
fn an_artifact_that_is_gone_is_made_again() {
    let project = project();
    let artifact = project.artifact("count");
    project.unprotect(&artifact);
    fs::remove_dir_all(&artifact).expect("it is ours");
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r"
    words   fresh
    count   dirty    its artifact [digest] is gone from the cache or damaged
    report  waiting  on count
    other   fresh

    words: 1 would run, 1 more if what they read changes, 2 are fresh
    ");
    // What is made again is the same, so nothing after it runs.
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stderr
          count (command) runs: its artifact [digest] is gone from the cache or damaged
    done  count in [time], with the same output as before
    --- stdout

    stage  result  time  metrics
    words  fresh
    count  ran  [time]
    report  fresh  words 6
    other  fresh

    words: 3 fresh, 1 ran in [time]
    "#);
}

#[test]
fn all_artifacts_can_be_deleted() {
    let project = project();
    project.unprotect(&project.cache("store"));
    fs::remove_dir_all(project.cache("store")).expect("it is ours");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report ran, other ran");
}

#[test]
fn a_truncated_file_is_found_by_the_stage_that_needs_it() {
    let project = project();
    let artifact = project.artifact("words");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "to be").expect("it is ours");
    project.edit("wc -w", "wc -c");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stderr
          count: the artifact [digest] is damaged; it was moved to quarantine/ and its stage runs again
          words (command) runs: its artifact [digest] is gone from the cache or damaged
    done  words in [time], with the same output as before
          count (command) runs: shell: "echo count >> ran; wc -w < \"$PIPELINE_INPUT_WORDS/text\" | tr -d \" \" > \"$PIPELINE_OUTPUT/number\"" -> "echo count >> ran; wc -c < \"$PIPELINE_INPUT_WORDS/text\" | tr -d \" \" > \"$PIPELINE_OUTPUT/number\""
    done  count in [time]
          report (command) runs: the content of input 'inputs.count' changed, through stage 'count'
    done  report in [time]
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    count  ran  [time]
    report  ran  [time]  words 19
    other  fresh

    words: 1 fresh, 3 ran in [time]
    "#);
    assert_eq!(names(&project.cache("quarantine")).len(), 1);
    let text = fs::read_to_string(project.artifact("words").join("text")).expect("it is back");
    assert_eq!(text, "to be or not to be\n");
}

#[test]
fn a_missing_file_is_found_by_the_stage_that_needs_it() {
    let project = project();
    let artifact = project.artifact("count");
    project.unprotect(&artifact);
    fs::remove_file(artifact.join("number")).expect("it is ours");
    project.edit("\\\"words\\\"", "\\\"count\\\"");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words fresh, count ran, report ran, other fresh");
}

#[test]
fn several_readers_of_a_damaged_artifact_wait_for_it() {
    let reader = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\ninputs = {{ words = \"words\" }}\nshell = 'echo {name} >> ran'\n"
        )
    };
    let readers: String = ["a", "b", "c", "d", "e"].map(reader).concat();
    let words = "[stages.words]\nkind = \"command\"\nshell = 'echo words >> ran; echo text > \"$PIPELINE_OUTPUT/text\"'\n";
    for jobs in 1..=3 {
        let project = Sandbox::new(&format!("[experiment]\nname = \"readers\"\n{words}{readers}"));
        project.pipeline("run experiment.toml words").success();
        let artifact = project.artifact("words");
        project.unprotect(&artifact);
        fs::write(artifact.join("text"), "").expect("it is ours");
        let ended = project.pipeline(&format!("run experiment.toml --jobs {jobs}"));
        assert_eq!(ended.success(), "words ran, a ran, b ran, c ran, d ran, e ran", "{ended}");
        assert_eq!(names(&project.cache("quarantine")).len(), 1);
        let ran = project.read("ran");
        let mut ran: Vec<&str> = ran.lines().collect();
        ran.sort_unstable();
        assert_eq!(ran, ["a", "b", "c", "d", "e", "words", "words"]);
    }
}

#[test]
fn bytes_that_rotted_are_mended_when_the_stage_runs_again() {
    let project = project();
    let artifact = project.artifact("words");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "to be or not to bE\n").expect("it is ours");
    fs::remove_dir_all(project.cache("records")).expect("ours");
    project.pipeline("run experiment.toml words").success();
    assert_eq!(project.artifact("words"), artifact);
    let text = fs::read_to_string(artifact.join("text")).expect("readable");
    assert_eq!(text, "to be or not to be\n");
    assert_eq!(names(&project.cache("quarantine")).len(), 1);
}

#[test]
fn a_damaged_record_is_none() {
    for damage in ["", "{}", "{\"key\":", "no JSON at all \u{0}"] {
        let project = project();
        for record in walk(&project.cache("records")) {
            if record.is_file() {
                fs::write(&record, damage).expect("it is ours");
            }
        }
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.success().matches(" ran").count(), 4, "{ended}");
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.success().matches(" fresh").count(), 4, "{ended}");
    }
}

#[test]
fn a_record_of_another_key_is_none() {
    let project = project();
    let records: Vec<_> =
        walk(&project.cache("records")).into_iter().filter(|path| path.is_file()).collect();
    for other in &records[1..] {
        fs::copy(&records[0], other).expect("it is ours");
    }
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success().matches(" ran").count(), 3, "{ended}");
}

#[test]
fn the_memory_of_files_outside_is_disposable() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "outside"

[stages.copy]
kind = "command"
run = ["cp", "notes", "{output}/notes"]
files = ["notes"]
"#,
    );
    project.write("notes", "x\n");
    // Old enough to be remembered.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(project.path("notes")).expect("ours");
    file.set_modified(old).expect("ours");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"copy ran");
    for damage in ["", "nonsense", "pipeline stat index 1\nnonsense\n1 2 3\n", "\u{0}\u{0}"] {
        project.write("cache/stat.idx", damage);
        assert_eq!(project.pipeline("run experiment.toml").success(), "copy fresh", "{damage:?}");
    }
    fs::remove_file(project.cache("stat.idx")).expect("it is there");
    fs::create_dir(project.cache("stat.idx")).expect("ours");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy fresh");
}

#[test]
fn links_and_heads_for_people_can_be_lost() {
    let project = project();
    fs::remove_dir_all(project.cache("runs")).expect("ours");
    fs::remove_dir_all(project.cache("heads")).expect("ours");
    fs::remove_dir_all(project.cache("logs")).expect("ours");
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success().matches(" fresh").count(), 4, "{ended}");
    let link = project.cache("runs/words/report/metrics.json");
    assert_eq!(fs::read_to_string(link).expect("the link is back"), "{\"words\": 6}\n");
    assert_snapshot!(project.pipeline("log experiment.toml report"), @r"
    status 2
    --- stderr
    error: 'report' does not have a log: it has not run yet
    ");
}

#[test]
fn a_newer_cache_is_refused() {
    let project = project();
    project.write("cache/VERSION", "7\n");
    for command in ["run", "plan", "status"] {
        let ended = project.pipeline(&format!("{command} experiment.toml"));
        assert_eq!(ended.code(), Some(2), "{ended}");
    }
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 2
    --- stderr
    error: the cache [project]/cache has layout version 7; this version of pipeline knows 1 and older: use a newer pipeline, or another cache with --cache
    ");
    assert_eq!(project.read("cache/VERSION"), "7\n");
    assert_eq!(project.read("ran").lines().count(), 4, "nothing more ran");
}

#[test]
fn something_else_that_is_called_cache_is_refused() {
    let project = project();
    project.write("cache/VERSION", "3.2-beta\n");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 2
    --- stderr
    error: [project]/cache/VERSION holds '3.2-beta', not a version: is this a cache of pipeline?
    ");
    project.write("cache/VERSION", "");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 2
    --- stderr
    error: [project]/cache/VERSION holds '', not a version: is this a cache of pipeline?
    ");
    project.write("file", "");
    assert_snapshot!(project.pipeline("run experiment.toml --cache file"), @r"
    status 2
    --- stderr
    error: can't read the cache [project]/file: Not a directory (os error 20)
    ");
}
