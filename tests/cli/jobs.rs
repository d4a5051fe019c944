//! What runs now, as another process sees it, and a job that another process runs.

use insta::assert_snapshot;
use pipeline::cache::Cache;
use pipeline::execute::{JobSpec, Work};
use pipeline::facts::World;
use pipeline::manifest;
use pipeline::plan::{Plan, State};
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
    eventually("a line with progress", || {
        running(&project).is_some_and(|line| line.contains("epoch"))
    });
    let line = running(&project).unwrap_or_default();
    let start =
        format!("simclr is running, started just now (process {} on ", run.pid().as_raw_pid());
    assert!(line.starts_with(&start) && line.contains(", loss 0."), "{line}");
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

/// The job of a stage without inputs, as a run would start it.
fn job(project: &Sandbox, stage: &str) -> serde_json::Value {
    let (manifest, graph) = manifest::read(&project.path(MANIFEST), &[]).expect("a manifest");
    let cache = Cache::open(&project.path("cache")).expect("a cache");
    let selected: Vec<_> = graph.order().cloned().collect();
    let world = World::look(&cache, &manifest, &selected);
    let plan = Plan::of(&manifest, &graph, &selected, &world);
    let name = stage.parse().expect("a name");
    let Some(State::Dirty { reason, key, parts }) = plan.state(&name) else {
        panic!("it is fresh")
    };
    let work = Work { reason: reason.clone(), key: *key, parts: parts.clone() };
    let declaration = manifest.stage(&name).expect("a stage").clone();
    let spec = JobSpec::of(&manifest, declaration, work, &cache, |_| None).expect("no inputs");
    serde_json::to_value(spec).expect("plain data")
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
    assert!(project.pipeline("__job spec.json").stdout.contains(r#""outcome":"fresh""#));
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
