//! The manifest that is not named, stages without it, and what a command prints to type next.

use insta::assert_snapshot;

use crate::manifests::WORDS;
use crate::support::{Ended, Sandbox};

/// A project whose manifest has the name that is looked for, with a folder below it.
fn project() -> Sandbox {
    let project = Sandbox::new("");
    project.write("pipeline.toml", WORDS);
    project.write("below/further/notes", "");
    project
}

/// Runs the program in a folder of the project.
fn within(project: &Sandbox, folder: &str, arguments: &str) -> Ended {
    let mut command = project.command(arguments);
    command.current_dir(project.path(folder));
    project.start_command(command).wait()
}

#[test]
fn the_nearest_manifest_is_taken() {
    let project = project();
    assert_snapshot!(project.pipeline("run --progress none"), @r"
    status 0
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    count  ran  [time]
    report  ran  [time]  words 6
    other  ran  [time]

    words: 4 ran in [time]
    ");
    assert_snapshot!(within(&project, "below/further", "metrics"), @r"
    status 0
    --- stdout
    report  words  6
    ");
    assert_snapshot!(within(&project, "below/further", "path words count"), @r"
    status 0
    --- stdout
    words	[project]/cache/store/[digest]
    count	[project]/cache/store/[digest]
    ");
    assert_snapshot!(within(&project, "below/further", "verify report"), @r"
    status 0
    --- stdout
    report  intact  [digest]  13 B

    words: 1 intact; 13 B read in [time]
    ");
    project.write("below/pipeline.toml", WORDS.replace("words", "others"));
    assert_snapshot!(within(&project, "below/further", "plan others"), @r"
    status 0
    --- stdout
    others  dirty  no earlier run

    others: 1 would run, 0 are fresh
    ");
    // What a manifest is called decides, not whether it exists.
    assert_snapshot!(within(&project, "below/further", "plan missing.toml"), @r"
    status 2
    --- stderr
    error: cannot read missing.toml: No such file or directory (os error 2); `pipeline init` writes a manifest to start from
    ");
    assert_snapshot!(project.pipeline("plan words pipeline.toml"), @r"
    status 2
    --- stderr
    error: pipeline.toml has no stage 'pipeline.toml'; a manifest is named before stages
    ");
}

#[test]
fn export_takes_it_too() {
    let project = project();
    project.pipeline("run").success();
    assert_eq!(
        within(&project, "below", "export out").printed(),
        "out: 4 stages, the artifacts of 1 of them\n"
    );
    assert_eq!(
        within(&project, "below", "export words text").printed(),
        "text: words, directory\n"
    );
    assert!(project.path("below/text/text").exists());
}

#[test]
fn a_command_that_does_not_exist_has_a_near_name() {
    let refused = project().pipeline("rnu");
    assert_eq!(refused.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("a similar subcommand exists: 'run'"), "{refused}");
}

#[test]
fn there_may_be_no_manifest_at_all() {
    let project = Sandbox::new(WORDS);
    assert_snapshot!(project.pipeline("run"), @r"
    status 2
    --- stderr
    error: no manifest is named, and there is no pipeline.toml in [project] or above: name a .toml file, or write a manifest with `pipeline init`
    ");
    project.write("manifest", WORDS);
    assert_snapshot!(project.pipeline("run manifest"), @r"
    status 2
    --- stderr
    error: no manifest is named, and there is no pipeline.toml in [project] or above: name a .toml file, or write a manifest with `pipeline init`; 'manifest' is taken for a stage, as it does not end in .toml
    ");
}

#[test]
fn a_dry_run_is_a_plan() {
    let project = project();
    let plan = project.pipeline("plan count");
    let dry = project.pipeline("run -n count");
    assert_eq!((dry.code(), &dry.stdout, &dry.stderr), (Some(0), &plan.stdout, &plan.stderr));
    let json = project.pipeline("run --dry-run --progress json pipeline.toml").json();
    assert_eq!(json, project.pipeline("plan --json").json());
    assert_eq!(project.read("ran"), "");
}

#[test]
fn what_to_type_next_keeps_the_options() {
    let project = project();
    let set = "--set stages.report.shell=\"false\" --cache below/c";
    assert_snapshot!(project.pipeline(&format!("run report {set}")), @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    done  words in [time]
          count (command) runs: no earlier run
    done  count in [time]
          report (command) runs: no earlier run
    FAIL  report after [time]: 'sh -c false' ended with exit status 1
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    count  ran  [time]
    report  failed  [time]

    words: 2 ran, 1 failed in [time]; `pipeline log report --cache below/c --set 'stages.report.shell="false"'` shows the whole log
    "#);
    assert_snapshot!(project.pipeline(&format!("metrics report {set}")), @r#"
    status 0
    --- stdout
    no result yet: report (`pipeline run report --cache below/c --set 'stages.report.shell="false"'`)
    "#);
    assert_snapshot!(project.pipeline(&format!("path pipeline.toml report {set}")), @r#"
    status 2
    --- stderr
    error: 'report' does not have an artifact for this manifest: no earlier run; `pipeline run pipeline.toml report --cache below/c --set 'stages.report.shell="false"'` makes it
    "#);
    assert_snapshot!(project.pipeline(&format!("verify --rerun report {set}")), @r#"
    status 2
    --- stderr
    error: 'report' has no result to compare with: no earlier run; `pipeline run report --cache below/c --set 'stages.report.shell="false"'` makes it
    "#);
}

#[test]
fn verify_takes_stages() {
    let project = project();
    project.pipeline("run").success();
    assert_snapshot!(project.pipeline("verify words other"), @r"
    status 0
    --- stdout
    words  intact  [digest]  19 B
    other  intact  [digest]  6 B

    words: 2 intact; 25 B read in [time]
    ");
    for arguments in ["--all words", "--restore pipeline.toml words", "--rerun count words"] {
        let ended = project.pipeline(&format!("verify {arguments}"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.contains("'words' cannot be named here"), "{ended}");
    }
}
