//! `pipeline status`: the state of every stage, what goes on, and its last run.

use std::process::ExitCode;

use pipeline_stages::path_text::PathText;
use serde_json::{Value, json};

use super::output::{print_coloured, print_json};
use super::plan::state_json;
use super::project::Project;
use super::status_sheet::{LastRuns, Sheet, States, kind, last_run};
use super::status_watch;
use crate::activity::{Activities, Activity};
use crate::cli::StatusArguments;

pub(crate) fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let chosen = project.choose(&arguments.manifest.stages())?;
    if arguments.watch {
        return status_watch::watch(&project, &chosen, arguments.all, arguments.usage);
    }
    // In this order: what begins meanwhile is what it was a moment ago.
    let activities = Activities::look(&project.cache);
    let plan = project.plan(&project.with_inputs(&chosen));
    let states = States::look(&project, &chosen, &plan, &activities);
    if arguments.json {
        print_json(&to_json(&project, &states))?;
    } else {
        let sheet = Sheet::of(&LastRuns::of(&project, arguments.usage), &states, arguments.all);
        let (table, lines) = sheet.into_text();
        let cache = project.cache.layout().root().display();
        print_coloured(&format!("{table}\n{lines}cache: {cache}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(project: &Project, States { known, others, .. }: &States<'_>) -> Value {
    let stages: Vec<Value> = known
        .iter()
        .map(|(name, known)| {
            let queued = match &known.activity {
                Some(Activity::Queued(job)) => json!(job),
                _ => Value::Null,
            };
            let (running, interrupted, failed) = match &known.activity {
                Some(Activity::Running(running)) => (json!(running), Value::Null, Value::Null),
                Some(Activity::Interrupted(interrupted)) => {
                    // Where only the checkpoint is known, it is one all the same.
                    let found = interrupted.as_ref().map(|found| json!(found));
                    let known = found.unwrap_or_else(|| json!({ "has-checkpoint": true }));
                    (Value::Null, known, Value::Null)
                }
                Some(Activity::Failed(failure)) => (Value::Null, Value::Null, json!(failure)),
                Some(Activity::Queued(_)) | None => (Value::Null, Value::Null, Value::Null),
            };
            let mut stage = state_json(known.state);
            stage["stage"] = json!(name);
            stage["kind"] = json!(kind(project, name));
            stage["running"] = running;
            stage["queued"] = queued;
            stage["interrupted"] = interrupted;
            stage["failed"] = failed;
            stage["last-run"] = json!(last_run(project, name, known.state));
            stage
        })
        .collect();
    json!({
        "experiment": project.manifest.experiment.name,
        "cache": PathText(project.cache.layout().root()),
        "stages": stages,
        "others": others.running,
        "other-jobs": others.queued,
    })
}
