//! What a shell offers, and the manual pages.

use insta::assert_snapshot;

use crate::support::{Sandbox, names};

const SWEEP: &str = r#"
[experiment]
name = "sweep"

[matrix]
rate = [0.2, 0.5]

[stages.data]
kind = "command"
shell = "true"

[stages.score]
kind = "command"
inputs = { data = "data" }
shell = "true"
environment = { RATE = "${rate}" }
"#;

/// What is offered for the last of these words.
fn offered(project: &Sandbox, words: &[&str]) -> String {
    let mut command = project.command("");
    command.env("PIPELINE_COMPLETE", "fish").args(["--", "pipeline"]).args(words);
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_shell_offers_what_the_manifest_has() {
    let project = Sandbox::new(SWEEP);
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "sc"]), @r#"score	command"#);
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "score@"]), @r#"
    score@rate=0.2
    score@rate=0.5
    "#);
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "score@r"]), @"
    score@rate=0.2
    score@rate=0.5
    ");
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "--only", "rate=0.5"]), @"rate=0.5");
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "--force", "da"]), @"data	command");
    assert_snapshot!(offered(&project, &["plan", "experiment.toml", "--set", "matrix."]), @"matrix.rate=	The values of this axis");
    assert_snapshot!(offered(&project, &["plan", "experiment.toml", "--set", "defaults.command.out"]), @"
    defaults.command.output=	The type of its output.
    defaults.command.outputs=	What the program must write, as paths in the output folder.
    ");
    assert_snapshot!(offered(&project, &["results", "experiment.toml", "--where", "ra"]), @"
    rate=
    rate=0.2
    rate=0.5
    ");
    assert_snapshot!(offered(&project, &["results", "experiment.toml", "--sort", "ra"]), @"rate");
    assert_snapshot!(offered(&project, &["plan", "exp"]), @r#"experiment.toml"#);
    assert_snapshot!(offered(&project, &["plan", "experiment.toml", "--set", "stages.score.in"]), @r#"stages.score.inputs=	The artifacts that it reads, by name."#);
    assert_snapshot!(offered(&project, &["kinds", "sp"]), @r#"split	Holds training samples out, for validation and as the clean meta set."#);
    project.write("pipeline.toml", SWEEP);
    assert_snapshot!(offered(&project, &["log", "sc"]), @r#"score	command"#);
    project.write("pipeline.toml", "kind = ");
    assert_snapshot!(offered(&project, &["log", "sc"]), @"");
}

#[test]
fn values_of_axes_are_offered_once_and_not_without_end() {
    let values: Vec<_> = (0..600).collect();
    let two = SWEEP
        .replace("rate = [0.2, 0.5]", &format!("rate = {values:?}\nseed = [1, 2]"))
        .replace("RATE = \"${rate}\"", "RATE = \"${rate}\", SEED = \"${seed}\"");
    let project = Sandbox::new(&two);
    let count = |words: &[&str]| offered(&project, words).lines().count();
    assert!(count(&["run", "experiment.toml", "score@"]) <= 1000);
    assert_eq!(count(&["run", "experiment.toml", "--only", ""]), 500);
    // The axes that the word has already.
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "score@seed=1,s"]), @"");
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "score@seed=1,rate=7,"]), @"");
    assert_snapshot!(offered(&project, &["run", "experiment.toml", "score@rate=7,s"]), @r#"
    score@rate=7,seed=1
    score@rate=7,seed=2
    "#);
}

#[test]
fn completions_for_every_shell() {
    let project = Sandbox::new("");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = project.pipeline(&format!("completions {shell}"));
        assert!(script.status.success() && script.stdout.contains("PIPELINE_COMPLETE"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let project = Sandbox::new("");
    std::fs::create_dir(project.path("man")).expect("a folder");
    project.pipeline("__man man").success();
    let pages = names(&project.path("man"));
    assert!(
        ["pipeline.1", "pipeline-run.1"].iter().all(|page| pages.iter().any(|one| one == page))
    );
    assert!(!pages.iter().any(|page| page.contains("__")), "{pages:?}");
    assert!(project.read("man/pipeline-run.1").contains("keep\\-going"));
}
