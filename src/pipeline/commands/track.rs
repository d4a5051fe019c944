//! `pipeline track --resend`: send results that exist to the trackers of a manifest.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use anyhow::bail;

use super::output::{note, print};
use super::project::Project;
use crate::cache::Record;
use crate::cli::TrackArguments;
use crate::history::{Commit, Ended, Run};
use crate::key::StageKey;
use crate::plan::PlanState;
use crate::stage_name::StageName;
use crate::tracking::{self, Sent, StageResult, Tracker, is_tracked};

pub(crate) fn run(arguments: &TrackArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let trackers = tracking::trackers(&project.tracking(&arguments.manifest));
    if trackers.is_empty() {
        bail!(
            "{} does not name a tracker: add [tracking] with mlflow = \"http://...\" or tensorboard = \"runs\"",
            project.manifest.path.display()
        );
    }
    project.cache.pin_everything(note);
    let results = results(&project, &project.choose(&arguments.manifest.stages())?)?;
    if results.is_empty() {
        let run = arguments.manifest.command_again("run");
        note(&format!(
            "none of these stages has a result for a tracker: numbers, a model or weights (`{run}`)"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let mut is_complete = true;
    for mut tracker in trackers {
        is_complete &= send(&mut *tracker, &results)?;
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The fresh results that trackers get, each once.
fn results(project: &Project, chosen: &[&StageName]) -> anyhow::Result<Vec<StageResult>> {
    let is_sent =
        |name: &StageName, record: &Record| chosen.contains(&name) && is_tracked(record.artifact);
    let plan = project.plan_here(&project.with_inputs(chosen), is_sent)?;
    let commits = commits(project)?;
    let mut seen = HashSet::new();
    let fresh = chosen.iter().filter_map(|&stage| match plan.state(stage) {
        Some(PlanState::Fresh(record)) if is_tracked(record.artifact) => Some((stage, record)),
        _ => None,
    });
    let results = fresh.filter(|(_, record)| seen.insert(record.key));
    let results = results.map(|(stage, record)| StageResult {
        stage: stage.clone(),
        folder: project.cache.artifact(&record.output.digest),
        commit: commits.get(&record.key).cloned(),
        record: (**record).clone(),
    });
    Ok(results.collect())
}

/// The commit of the newest run that made each result, as far as the history has it.
fn commits(project: &Project) -> anyhow::Result<HashMap<StageKey, Commit>> {
    let mut commits = HashMap::new();
    let experiment = &project.manifest.experiment.name;
    for id in project.cache.runs(experiment)? {
        let Some(run) = Run::read(&project.cache, experiment, &id) else { continue };
        let Some(commit) = run.git else { continue };
        let made = run.stages.iter().filter(|stage| matches!(stage.ended, Some(Ended::Ran { .. })));
        for key in made.filter_map(|stage| stage.key) {
            commits.entry(key).or_insert_with(|| commit.clone());
        }
    }
    Ok(commits)
}

/// Sends these results to a tracker, and reports what became of them. Returns whether it has all of them now.
fn send(tracker: &mut dyn Tracker, results: &[StageResult]) -> anyhow::Result<bool> {
    let name = tracker.name();
    let (mut now, mut before, mut failed) = (0, 0, 0);
    for result in results {
        match tracker.send(result) {
            Ok(Sent::Now { left_out }) => {
                now += 1;
                for what in left_out {
                    note(&format!("warning: {name} did not take {what} ({})", result.stage));
                }
            }
            Ok(Sent::Before) => before += 1,
            Err(failure) => {
                failed += 1;
                note(&format!("warning: {name} did not get {}: {}", result.stage, failure.reason));
                if failure.is_for_all {
                    failed = results.len() - now - before;
                    break;
                }
            }
        }
    }
    let counts = [(now, "sent"), (before, "there already"), (failed, "not sent")];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    print(&format!("{name}: {}\n", counts.join(", ")))?;
    Ok(failed == 0)
}
