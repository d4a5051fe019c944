//! `pipeline status`: the state of every stage, and its last run.

use std::process::ExitCode;

use pipeline_stages::path_text::PathText;
use serde_json::{Value, json};

use super::plan::{state_json, state_name, state_reason};
use super::{Project, print, print_json};
use crate::cache::Record;
use crate::cli::ReportArguments;
use crate::format;
use crate::plan::{Plan, PlanState};
use crate::progress::Running;
use crate::stage_name::StageName;

pub(crate) fn run(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let plan = project.plan(&project.select(&[])?);
    if arguments.json {
        print_json(&to_json(&project, &plan))?;
    } else {
        print(&to_text(&project, &plan))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The record of a stage's last run: its own, or an older one that no longer counts.
fn last_run(project: &Project, name: &StageName, state: &PlanState) -> Option<Record> {
    match state {
        PlanState::Fresh(record) => Some((**record).clone()),
        _ => project.cache.last_record(&project.manifest.experiment.name, name.as_str()),
    }
}

/// What any process does for a stage now.
fn running(project: &Project, state: &PlanState) -> Option<Running> {
    match state {
        PlanState::Dirty { key, .. } => Running::read(project.cache.layout(), key),
        _ => None,
    }
}

fn to_text(project: &Project, plan: &Plan) -> String {
    let header = ["stage", "kind", "state", "last run", "took", "artifact", "size"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (name, state) in plan.iter() {
        let kind = project.manifest.stage(name).map_or("", |stage| stage.stage.info().name);
        let mut row = vec![name.to_string(), kind.to_owned(), state_name(state).to_owned()];
        match last_run(project, name, state) {
            Some(record) => row.extend([
                format::ago(record.finished),
                format::seconds(record.seconds),
                record.output.digest.short(),
                format::bytes(record.output.extent.bytes),
            ]),
            None => row.push("never".to_owned()),
        }
        rows.push(row);
    }
    let mut text = format!("{}\n", format::table(&rows));
    for (name, state) in plan.iter() {
        if let PlanState::Blocked(_) = state {
            text.push_str(&format!("{name} is blocked, {}\n", state_reason(state)));
        }
    }
    for (name, state) in plan.iter() {
        if let Some(running) = running(project, state) {
            text.push_str(&format!("{name} {}\n", running.line()));
        }
    }
    text.push_str(&format!("cache: {}\n", project.cache.layout().root().display()));
    text
}

fn to_json(project: &Project, plan: &Plan) -> Value {
    let stages: Vec<Value> = plan
        .iter()
        .map(|(name, state)| {
            let mut stage = state_json(state);
            stage["stage"] = json!(name);
            stage["kind"] =
                json!(project.manifest.stage(name).map(|stage| stage.stage.info().name));
            stage["running"] = json!(running(project, state));
            stage["last-run"] = json!(last_run(project, name, state));
            stage
        })
        .collect();
    json!({
        "experiment": project.manifest.experiment.name,
        "cache": PathText(project.cache.layout().root()),
        "stages": stages,
    })
}
