//! What the commands that only look print.

use std::process::{Command, Stdio};

use insta::assert_snapshot;

use crate::caching::{TRAINING, WORDS};
use crate::support::{Sandbox, pipeline};

/// A training that has run, and whose learning rate was edited since.
fn edited() -> Sandbox {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.edit("learning-rate = 0.02", "learning-rate = 0.03");
    project
}

#[test]
fn plan() {
    let project = edited();
    assert_snapshot!(project.pipeline("plan experiment.toml"), @"");
    assert_snapshot!(project.pipeline("plan experiment.toml --exit-code simclr"), @"");
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(1));
    let json = project.pipeline("plan experiment.toml --json").json();
    assert_eq!(json["experiment"], "training");
    assert_eq!(json["fresh"], false);
    assert_eq!(json["stages"][2]["state"], "dirty");
    assert_snapshot!(json["stages"][2]["why"], @"");
}

#[test]
fn graph_for_people() {
    let project = edited();
    assert_snapshot!(project.pipeline("graph experiment.toml"), @"");
}

#[test]
fn graph_for_other_programs() {
    let project = edited();
    assert_snapshot!(project.pipeline("graph experiment.toml --format dot"), @"");
    assert_snapshot!(project.pipeline("graph experiment.toml --format mermaid"), @"");
    let json = project.pipeline("graph experiment.toml --format json").json();
    assert_snapshot!(project.filter(&format!("{:#}", json["stages"][3])), @"");
}

#[test]
fn why() {
    let project = edited();
    assert_snapshot!(project.pipeline("why experiment.toml simclr").printed(), @"");
    assert_snapshot!(project.pipeline("why experiment.toml train").printed(), @"");
    assert_snapshot!(project.pipeline("why experiment.toml evaluate").printed(), @"");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("why experiment.toml evaluate").printed(), @"");
}

#[test]
fn status() {
    let project = edited();
    project.edit("[stages.evaluate]", "[stages.new-evaluate]");
    assert_snapshot!(project.pipeline("status experiment.toml").printed(), @"");
    let json = project.pipeline("status experiment.toml --json").json();
    assert_eq!(json["cache"], project.path("cache").to_string_lossy().as_ref());
    assert_eq!(json["stages"][0]["last-run"]["stage"], "data");
    assert_eq!(json["stages"][3]["last-run"], serde_json::Value::Null);
}

#[test]
fn metrics() {
    let project = Sandbox::new(WORDS);
    assert_snapshot!(project.pipeline("metrics experiment.toml").printed(), @"");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("metrics experiment.toml").printed(), @"");
    assert_snapshot!(project.pipeline("metrics experiment.toml --json").printed(), @"");
}

#[test]
fn log_and_path() {
    let project = edited();
    let log = project.pipeline("log experiment.toml simclr").printed();
    assert_eq!(log.lines().count(), 20);
    assert!(log.starts_with("step 0\nstep 1\n"), "{log}");
    assert_snapshot!(project.pipeline("log experiment.toml data"), @"");
    assert_snapshot!(project.pipeline("path experiment.toml simclr"), @"");
    assert_snapshot!(project.pipeline("path experiment.toml train"), @"");
    let new = Sandbox::new(WORDS);
    assert_snapshot!(new.pipeline("log experiment.toml words"), @"");
}

#[test]
fn kinds() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("kinds"), @"");
    assert_snapshot!(project.pipeline("kinds unpack"), @"");
    assert_snapshot!(project.pipeline("kinds evaluate"), @"");
    assert_snapshot!(project.pipeline("kinds trian"), @"");
    for kind in pipeline_stages::KINDS {
        let text = project.pipeline(&format!("kinds {}", kind.name)).printed();
        assert!(text.starts_with(&format!("{} -> ", kind.name)), "{text}");
    }
}

#[test]
fn init_writes_a_manifest_that_plans() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("init new"), @"");
    assert_snapshot!(project.pipeline("plan new/pipeline.toml").printed(), @"");
    // Its first stages run without libtorch.
    assert_snapshot!(project.pipeline("run new/pipeline.toml noisy").success(), @"");
    project.write("new/pipeline.toml", "mine");
    assert_snapshot!(project.pipeline("init new"), @"");
    assert_eq!(project.read("new/pipeline.toml"), "mine");
}

#[test]
fn completions_for_every_shell() {
    let project = Sandbox::new("");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = project.pipeline(&format!("completions {shell}"));
        assert!(script.status.success() && script.stdout.contains("keep-going"), "{shell}");
    }
}

#[test]
fn events_as_json() {
    let project = Sandbox::new(WORDS);
    let ended = project.pipeline("run experiment.toml --jobs 1 --progress json count");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended}");
    let mut shown = String::new();
    for line in ended.stdout.lines() {
        let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON in every line");
        if let Some(seconds) = event.get_mut("seconds") {
            assert!(seconds.is_f64());
            *seconds = "[seconds]".into();
        }
        shown.push_str(&format!("{event}\n"));
    }
    assert_snapshot!(project.filter(&shown), @"");
}

#[test]
fn progress_of_every_style_ends_in_the_same_table() {
    for style in ["auto", "plain", "bars", "none"] {
        let project = Sandbox::new(WORDS);
        let ended = project.pipeline(&format!("run experiment.toml --progress {style}"));
        let expected = "words ran, other ran, count ran, report ran";
        assert_eq!(ended.success(), expected, "{style}: {ended}");
        if style == "none" {
            assert_eq!(ended.stderr, "");
        }
    }
}

#[test]
fn whoever_reads_only_the_first_line_is_no_error() {
    let project = Sandbox::new(WORDS);
    for arguments in ["graph experiment.toml", "kinds", "completions bash", "run experiment.toml"] {
        let mut head = Command::new("sh");
        head.args(["-c", &format!("'{}' {arguments} | head -n 1", pipeline().display())]);
        project.dress(&mut head);
        let ended = project.start_command(head).wait();
        assert!(ended.status.success() && !ended.stderr.contains("panic"), "{arguments}: {ended}");
    }
    // Nobody reads at all.
    for arguments in ["graph experiment.toml", "kinds", "run experiment.toml"] {
        let mut child = project.command(arguments);
        let mut child =
            child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panic"), "{arguments}: {said}");
    }
}
