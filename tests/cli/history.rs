//! What is recorded of runs, and what is shown of it.

use std::fs;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::support::{Sandbox, eventually, names, walk};

/// A number, and twice the number; a stage that fails where it is odd.
const NUMBERS: &str = r#"
include = ["common.toml"]

[experiment]
name = "numbers"

[stages.number]
kind = "command"
environment = { NUMBER = "2" }
shell = 'echo "$NUMBER" > "$PIPELINE_OUTPUT/n"'

[stages.twice]
kind = "command"
inputs = { n = "number" }
output = "metrics"
shell = 'read n < "$PIPELINE_INPUT_N/n"; echo "{\"twice\": $((2 * n))}" > "$PIPELINE_OUTPUT/metrics.json"'
"#;

const COMMON: &str = "# http://ann:s3cret@host/\n[stages.even]\nkind = \"command\"\ninputs = { n = \"number\" }\nshell = 'read n < \"$PIPELINE_INPUT_N/n\"; test $((n % 2)) = 0'\n";

fn project() -> Sandbox {
    let project = Sandbox::new(NUMBERS);
    project.write("common.toml", COMMON);
    project
}

/// The names of the recorded runs.
fn runs(project: &Sandbox) -> Vec<String> {
    names(&project.cache("history/runs/numbers"))
}

/// Every file of the history, with its bytes.
fn files(project: &Sandbox) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = walk(&project.cache("history")).into_iter().filter(|path| path.is_file());
    let mut files: Vec<_> =
        files.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    files.sort();
    files
}

#[test]
fn runs_that_did_something_are_listed() {
    let project = project();
    assert_snapshot!(project.pipeline("history"), @r"
    status 0
    --- stderr
    no run is recorded in [project]/cache
    ");
    project.pipeline("run experiment.toml twice").success();
    project
        .pipeline("run experiment.toml --set stages.number.environment.NUMBER=\"3\" --keep-going");
    project.pipeline("run experiment.toml --only x=1");
    project.pipeline("run experiment.toml --force number --jobs 1").success();
    assert_snapshot!(project.pipeline("history").printed(), @r#"
    run  began  took  result  stages  asked
    [run]  just now  [time]  complete  2 ran  --force number
    [run]  just now  [time]  failed  2 ran, 1 failed  --set 'stages.number.environment.NUMBER="3"'
    [run]  just now  [time]  complete  2 ran  twice
    "#);
    assert_eq!(
        project.pipeline("history experiment.toml").stdout,
        project.pipeline("history").stdout
    );
    let json = project.pipeline("history --json").json();
    assert_eq!(json.as_array().map(Vec::len), Some(3));
    assert_eq!(json[1]["state"], "failed");
    let stages = json[1]["stages"].as_array().expect("a list");
    assert!(stages.iter().any(|one| one["stage"] == "even" && one["outcome"] == "failed"));
}

#[test]
fn a_run_that_found_nothing_to_do_moves_one_time() {
    let project = project();
    project.pipeline("run experiment.toml").success();
    assert_eq!(runs(&project).len(), 1);
    project.pipeline("run experiment.toml").success();
    let before = files(&project);
    let checked = project.cache("history/checked/numbers");
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let file = fs::File::options().write(true).open(&checked).expect("it found nothing to do");
    file.set_modified(long_ago).expect("ours");
    project.pipeline("run experiment.toml").success();
    assert_eq!(files(&project), before);
    assert_ne!(fs::metadata(&checked).and_then(|file| file.modified()).ok(), Some(long_ago));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    file.set_modified(later).expect("ours");
    let shown = project.pipeline("history experiment.toml").printed();
    assert!(shown.ends_with("a run found nothing to do just now\n"), "{shown}");
    // Stages that have other results again are news, although nothing ran.
    project.pipeline("run experiment.toml --set stages.number.environment.NUMBER=\"4\"").success();
    project.pipeline("run experiment.toml").success();
    assert_eq!(runs(&project).len(), 3);
    let shown = project.pipeline("history").printed();
    assert!(shown.contains("complete  other results, nothing ran"), "{shown}");
}

#[test]
fn one_run_in_full() {
    let project = project();
    project.pipeline("run experiment.toml").success();
    project.pipeline("run experiment.toml --set stages.number.environment.NUMBER=\"3\" --jobs 1");
    let json = project.pipeline("history --json").json();
    let id = json[0]["run"].as_str().expect("a name");
    let shown = project.pipeline(&format!("history show {id}")).printed();
    let lines = shown.lines().filter(|line| !line.starts_with("by "));
    assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
    run  [run], failed
    experiment  numbers
    manifest  experiment.toml
    folder  [project]
    asked for  --set 'stages.number.environment.NUMBER="3"'
    began  [moment], just now
    took  [time]
    stages  2 ran, 1 failed of 3

    number  ran  [time]  [digest]
    twice  ran  [time]  [digest]
    even  failed  [time]  [digest]  'sh -c read n < "$PIPELINE_INPUT_N/n"; test $((n % 2)) = 0' ended with exit status 1
    "#);
    let text = project.pipeline(&format!("history show {id} --manifest")).stdout;
    let hidden = COMMON.replace("ann:s3cret", "**********");
    assert_eq!(text, format!("==> experiment.toml <==\n{NUMBERS}==> common.toml <==\n{hidden}"));
    let json = project.pipeline(&format!("history show {id} --json")).json();
    assert_eq!(json["texts"][1]["text"], hidden);
    assert_eq!(json["planned"], 3);
    for (path, bytes) in files(&project) {
        assert!(!String::from_utf8_lossy(&bytes).contains("s3cret"), "{}", path.display());
    }
    assert_snapshot!(project.pipeline("history show 1999"), @r"
    status 2
    --- stderr
    error: there is no run '1999'; `pipeline history` lists all
    ");
    assert_eq!(project.pipeline("history show 2").code(), Some(2), "it is two runs");
    // The plan and the text of the manifest are there once.
    assert_eq!(names(&project.cache("history/manifests")).len(), 1);
}

#[test]
fn a_killed_run_leaves_what_it_had_started() {
    let project = Sandbox::new(
        "[experiment]\nname = \"numbers\"\n[stages.slow]\nkind = \"command\"\nshell = 'touch begun; sleep 60'\n",
    );
    let run = project.start("run experiment.toml");
    eventually("the record", || {
        project.path("begun").exists() && project.pipeline("history").stdout.contains("1 started")
    });
    let shown = project.pipeline("history").printed();
    assert!(shown.contains("running  1 started"), "{shown}");
    run.signal(Signal::KILL);
    run.wait();
    let shown = project.pipeline("history").printed();
    assert!(shown.contains("killed  1 started"), "{shown}");
    let id = runs(&project)[0].trim_end_matches(".jsonl").to_owned();
    let shown = project.pipeline(&format!("history show {id}")).stdout;
    assert!(shown.contains("\nslow  started  "), "{shown}");
    // A damaged one is left out.
    project.write("cache/history/runs/numbers/20010101-000000.jsonl", "{\"line\":");
    assert_eq!(project.pipeline("history --json").json().as_array().map(Vec::len), Some(1));
}

#[test]
fn the_commit_of_the_manifest() {
    let project = Sandbox::new("").set("GIT_LITERAL_PATHSPECS", "1");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        project.dress(command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    // Where there is no Git, nothing is recorded of it.
    if !git(&["init"]) {
        return;
    }
    let commit = || assert!(git(&["add", "-A"]) && git(&["commit", "-m", "some"]));
    let run = |number: u32| {
        let set = format!("--set stages.number.environment.NUMBER=\"{number}\"");
        project.command(&format!("run deep/experiment.toml {set}"))
    };
    let recorded = || {
        let runs = project.pipeline("history --json").json();
        (runs[0]["git"]["commit"].as_str().map(str::len), runs[0]["git"]["dirty"].clone())
    };
    let is_dirty = |number| {
        project.start_command(run(number)).wait().success();
        let (commit, dirty) = recorded();
        assert_eq!(commit, Some(40));
        dirty.as_bool().expect("it is known")
    };
    project.write(".gitignore", "ignored.toml\n");
    commit();
    project.write("common.toml", COMMON);
    project.write("deep/experiment.toml", NUMBERS.replace("common", "../common"));
    assert!(is_dirty(2), "it was never committed");
    commit();
    for other in ["deep/Cargo.toml", "deep/ignored.toml"] {
        project.write(other, "");
    }
    assert!(!is_dirty(4), "the others are not of the experiment");
    project.write("common.toml", COMMON.replace("ann", "bob"));
    assert!(is_dirty(6), "what it includes changed");
    commit();
    assert!(!is_dirty(8));
    assert!(git(&["rm", "--cached", "common.toml"]) && git(&["commit", "-m", "without it"]));
    assert!(is_dirty(10), "what it includes is not committed any more");
    commit();
    project.write("deep/Cargo.toml", "changed");
    assert!(is_dirty(12), "another file of the folder changed");
    // The commit is known where the rest takes long.
    let path = std::env::var("PATH").unwrap_or_default();
    for (number, case) in [(14, "*status*) sleep 3"), (16, "*ls-files*) exit 128")] {
        let text =
            format!("#!/bin/sh\ncase $* in {case};; esac\nPATH=${{PATH#*:}} exec git \"$@\"\n");
        project.write_program("bin/git", &text);
        let mut other = run(number);
        other.env("PATH", format!("{}:{path}", project.path("bin").display()));
        project.start_command(other).wait().success();
        assert_eq!(recorded(), (Some(40), serde_json::Value::Null), "{case}");
        project.write("deep/Cargo.toml", "");
    }
}

#[test]
fn without_a_history_everything_works() {
    let project = project();
    project.write("history", "not a folder");
    std::os::unix::fs::symlink("../history", {
        fs::create_dir(project.path("cache")).expect("a folder");
        project.cache("history")
    })
    .expect("a link");
    project.pipeline("run experiment.toml").success();
    project.pipeline("run experiment.toml").success();
    assert_eq!(project.read("history"), "not a folder");
    for looks in ["history", "history experiment.toml", "results experiment.toml twice"] {
        let ended = project.pipeline(looks);
        assert_eq!(ended.code(), Some(0), "{looks}: {ended}");
    }
}
