//! What runs now, as another process sees it, and a job that another process runs.

use insta::assert_snapshot;
use pipeline::testing;
use rustix::process::Signal;

use crate::manifests::{TRAINING, WORDS};
use crate::support::{MANIFEST, Sandbox, eventually};

/// The line of `status` about what is done for a stage now.
fn running(project: &Sandbox) -> Option<String> {
    let status = project.pipeline("status experiment.toml").stdout;
    status.lines().find(|line| line.contains(" is running")).map(str::to_owned)
}

#[test]
fn status_shows_what_another_process_runs() {
    let project = Sandbox::new(TRAINING).with_fake_learn("slow").set("FAKE_LEARN_STEPS", "100");
    let run = project.start("run experiment.toml simclr");
    eventually("a line with progress, and with what was measured", || {
        running(&project).is_some_and(|line| line.contains("epoch") && line.contains(", loss 0."))
    });
    let line = running(&project).unwrap_or_default();
    let start = format!("; started just now (process {} on ", run.pid().as_raw_pid());
    assert!(line.starts_with("simclr is running: ") && line.contains(&start), "{line}");
    assert!(line.contains(", loss 0."), "{line}");
    let status = project.pipeline("status experiment.toml --json").json();
    let owner = &status["stages"][1]["running"]["owner"];
    assert_eq!(owner["pid"], run.pid().as_raw_pid(), "{status}");

    // A killed process leaves its file, and nobody believes it.
    run.signal(Signal::KILL);
    run.wait();
    assert_eq!(running(&project), None);
    let project = project.set("FAKE_LEARN", "");
    project.pipeline("run experiment.toml simclr").success();
    assert_eq!(crate::support::names(&project.cache("running")), [""; 0]);
}

fn job(project: &Sandbox, stage: &str) -> serde_json::Value {
    let job = testing::job(&project.path(MANIFEST), &project.path("cache"), stage);
    job.expect("a stage without inputs that must run")
}

#[test]
fn a_job_runs_from_a_file_in_a_process_of_its_own() {
    let project = Sandbox::new(WORDS);
    let spec = job(&project, "words");
    project.write("spec.json", spec.to_string());
    let ended = project.pipeline("__job spec.json");
    assert!(ended.status.success(), "{ended}");
    let events = ended.stdout.lines().filter_map(|line| line.split('"').nth(3));
    assert_eq!(events.collect::<Vec<_>>(), ["begin", "start", "end", "done"], "{ended}");
    assert_snapshot!(project.pipeline("run experiment.toml words").success(), @"words fresh");

    // The same again is a hit, and what another build wrote is refused.
    let again = project.pipeline("__job spec.json");
    assert!(again.stdout.contains(r#""outcome":"fresh""#) && again.code() == Some(3), "{again}");
    let mut other = spec;
    other["by"]["contract"] = "another".into();
    project.write("spec.json", other.to_string());
    let ended = project.pipeline("__job spec.json");
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("another build of pipeline"), "{ended}");
}

#[test]
fn a_job_that_fails_says_why_and_fails() {
    let project = Sandbox::new(WORDS);
    project.edit("echo words >> ran", "exit 7; echo words >> ran");
    project.write("spec.json", job(&project, "words").to_string());
    let ended = project.pipeline("__job spec.json");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("ended with exit status 7"), "{ended}");
}
