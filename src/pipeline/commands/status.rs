//! `pipeline status`: the state of every stage, and its last run.

use std::collections::HashMap;
use std::process::ExitCode;

use pipeline_stages::path_text::PathText;
use serde_json::{Value, json};

use super::plan::state_json;
use super::{Project, print, print_json};
use crate::cache::Record;
use crate::cli::StatusArguments;
use crate::format;
use crate::instances::{self, Row};
use crate::plan::PlanState;
use crate::progress::Running;
use crate::stage_name::StageName;
use crate::state_words::{state_name, state_reason, states_in_words};

pub(crate) fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let chosen = project.choose(&arguments.manifest.stages())?;
    let plan = project.plan(&project.with_inputs(&chosen));
    let states = chosen.into_iter().filter_map(|name| Some((name, plan.state(name)?)));
    let states: Vec<_> = states.collect();
    if arguments.json {
        print_json(&to_json(&project, &states))?;
    } else {
        print(&to_text(&project, &states, arguments.all))?;
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

/// A line for each stage; one for a stage of many instances, unless `all` of them are shown.
fn to_text(project: &Project, states: &[(&StageName, &PlanState)], all: bool) -> String {
    let most = instances::most(all);
    let header = ["stage", "kind", "state", "last run", "took", "artifact", "size"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for row in instances::rows(states.iter().copied(), most) {
        rows.push(match row {
            Row::One(name, state) => line_of_one(project, name, state),
            Row::Many(template, instances) => line_of_many(project, template, &instances),
        });
    }
    let mut text = format!("{}\n", format::table(&rows));
    let blocked = states.iter().filter(|(_, state)| matches!(state, PlanState::Blocked(_)));
    for row in instances::rows(blocked.copied(), most) {
        let line = match row {
            Row::One(name, state) => format!("{name} is blocked, {}", state_reason(state)),
            // What they cannot read is mostly the same for all of them.
            Row::Many(template, instances) => {
                let first = instances.first().map(|(_, state)| state_reason(state));
                let first = first.unwrap_or_default();
                format!("{} of {template} are blocked; the first, {first}", instances.len())
            }
        };
        text.push_str(&format!("{line}\n"));
    }
    for (name, state) in states {
        if let Some(running) = running(project, state) {
            text.push_str(&format!("{name} {}\n", running.line()));
        }
    }
    text.push_str(&format!("cache: {}\n", project.cache.layout().root().display()));
    text
}

fn kind(project: &Project, name: &StageName) -> String {
    let declaration = project.manifest.stage(name);
    declaration.map_or("", |stage| stage.stage.info().name).to_owned()
}

fn line_of_one(project: &Project, name: &StageName, state: &PlanState) -> Vec<String> {
    let mut row = vec![name.to_string(), kind(project, name), state_name(state).to_owned()];
    match last_run(project, name, state) {
        Some(record) => row.extend([
            format::ago(record.finished),
            format::seconds(record.seconds),
            record.output.digest.short(),
            format::bytes(record.output.extent.bytes),
        ]),
        None => row.push("never".to_owned()),
    }
    row
}

/// How many instances are in which state; and of all their last runs, when the newest was, how long they took
/// together, and how large their artifacts are together.
fn line_of_many(
    project: &Project,
    template: &str,
    instances: &[(&StageName, &PlanState)],
) -> Vec<String> {
    let kind = instances.first().map(|(name, _)| kind(project, name)).unwrap_or_default();
    let records = instances.iter().filter_map(|(name, state)| last_run(project, name, state));
    let (mut newest, mut seconds) = (None, 0.0);
    let mut artifacts = HashMap::new();
    for record in records {
        newest = newest.max(Some(record.finished));
        seconds += record.seconds;
        artifacts.insert(record.output.digest, record.output.extent.bytes);
    }
    let last = match newest {
        None => "never ran".to_owned(),
        Some(newest) => format!(
            "last run {}, {} in all, {}",
            format::ago(newest),
            format::seconds(seconds),
            format::bytes(artifacts.values().sum())
        ),
    };
    vec![template.to_owned(), kind, format!("{}; {last}", states_in_words(instances))]
}

fn to_json(project: &Project, states: &[(&StageName, &PlanState)]) -> Value {
    let stages: Vec<Value> = states
        .iter()
        .map(|(name, state)| {
            let mut stage = state_json(state);
            stage["stage"] = json!(name);
            stage["kind"] = json!(kind(project, name));
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
