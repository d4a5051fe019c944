//! The links for people: those of the last run's plan, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Sandbox, names};

/// `b` reads `a`, `c` reads `b`, and `d` reads nothing.
const CHAIN: &str = r#"
[experiment]
name = "chain"

[stages.a]
kind = "command"
environment = { A = "1" }
shell = 'echo "$A" > "$PIPELINE_OUTPUT/text"; test ! -e fail'

[stages.b]
kind = "command"
inputs = { a = "a" }
shell = 'cat "$PIPELINE_INPUT_A/text" > "$PIPELINE_OUTPUT/text"'

[stages.c]
kind = "command"
inputs = { b = "b" }
shell = 'cat "$PIPELINE_INPUT_B/text" > "$PIPELINE_OUTPUT/text"; touch begun; test ! -e wait || sleep 60'

[stages.d]
kind = "command"
shell = 'echo d > "$PIPELINE_OUTPUT/text"'
"#;

fn links(project: &Sandbox) -> String {
    names(&project.cache("latest/chain")).join(" ")
}

fn text(project: &Sandbox, stage: &str) -> String {
    project.read(&format!("cache/latest/chain/{stage}/text"))
}

#[test]
fn only_what_is_fresh_has_a_link() {
    let project = Sandbox::new(CHAIN);
    project.pipeline("run experiment.toml").success();
    assert_eq!(links(&project), "a b c d");
    project.write("fail", "");
    project.edit("A = \"1\"", "A = \"2\"");
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(1));
    assert_eq!(links(&project), "d");
    fs::remove_file(project.path("fail")).expect("a file");
    project.pipeline("run experiment.toml").success();
    assert_eq!(links(&project), "a b c d");
    assert_eq!(text(&project, "c"), "2\n");
    // Back again: nothing runs.
    project.edit("A = \"2\"", "A = \"1\"");
    project.pipeline("run experiment.toml").success();
    assert_eq!(text(&project, "c"), "1\n");
    // A stage that is gone, and one with another name.
    project.edit("[stages.d]", "[stages.e]");
    project.pipeline("run experiment.toml").success();
    assert_eq!(links(&project), "a b c e");
    assert_eq!(names(&project.cache("latest")), ["chain"]);
}

#[test]
fn a_run_of_some_stages_leaves_the_links_of_others() {
    let project = Sandbox::new(CHAIN);
    project.pipeline("run experiment.toml").success();
    project.edit("echo d", "echo D");
    project.pipeline("run experiment.toml d").success();
    assert_eq!((links(&project).as_str(), text(&project, "d").as_str()), ("a b c d", "D\n"));
    // `c` reads what changed.
    project.edit("A = \"1\"", "A = \"2\"");
    project.pipeline("run experiment.toml b").success();
    assert_eq!((links(&project).as_str(), text(&project, "b").as_str()), ("a b d", "2\n"));
    project.pipeline("run experiment.toml d").success();
    assert_eq!(links(&project), "a b d");
}

#[test]
fn a_killed_run_leaves_the_links_of_what_was_fresh() {
    let project = Sandbox::new(CHAIN);
    project.pipeline("run experiment.toml").success();
    fs::remove_file(project.path("begun")).expect("it ran");
    project.write("wait", "");
    project.edit("A = \"1\"", "A = \"2\"");
    let run = project.start("run experiment.toml");
    crate::support::eventually("c", || project.path("begun").exists());
    run.signal(rustix::process::Signal::KILL);
    run.wait();
    assert_eq!((links(&project).as_str(), text(&project, "b").as_str()), ("a b d", "2\n"));
}

#[test]
fn what_people_have_there_stays() {
    let project = Sandbox::new(CHAIN);
    project.pipeline("run experiment.toml").success();
    project.write("cache/latest/chain/notes.txt", "mine");
    symlink("c/text", project.cache("latest/chain/best")).expect("writable");
    project.edit("[stages.d]", "[stages.e]");
    project.edit("A = \"1\"", "A = \"2\"");
    project.pipeline("run experiment.toml").success();
    assert_eq!(links(&project), "a b best c e notes.txt");
    assert_eq!(project.read("cache/latest/chain/best"), "2\n");

    // A link in the place of the folder is replaced; what it leads to is not ours.
    fs::rename(project.cache("latest/chain"), project.path("elsewhere")).expect("ours");
    symlink("../../elsewhere", project.cache("latest/chain")).expect("writable");
    let before = names(&project.path("elsewhere"));
    project.pipeline("run experiment.toml").success();
    assert!(!project.cache("latest/chain").is_symlink());
    assert_eq!((links(&project).as_str(), names(&project.path("elsewhere"))), ("a b c e", before));
}

#[test]
fn two_runs_at_once() {
    let project = Sandbox::new(CHAIN);
    let start = |value: usize| {
        project.start(&format!("run experiment.toml --set stages.a.environment.A=\"{value}\""))
    };
    for round in 0..5 {
        let runs: Vec<_> = (0..4).map(|run| start(10 * round + run)).collect();
        for run in runs {
            let ended = run.wait();
            assert!(ended.status.success() && !ended.stderr.contains("latest/"), "{ended}");
        }
        assert_eq!(links(&project), "a b c d");
        assert_eq!(names(&project.cache("latest")), ["chain"]);
    }
}
