//! `pipeline plan`: what would run, and why, without running it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{MOST_INSTANCES, Project, instances_in_words, print, print_json, warn};
use crate::cli::PlanArguments;
use crate::format;
use crate::plan::{Blocked, Plan, PlanState};
use crate::stage_name::StageName;

pub(crate) fn run(arguments: &PlanArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let selected = project.select(&arguments.stages)?;
    warn(&project, &selected);
    let plan = project.plan(&selected);
    project.check_fit(&plan)?;
    if arguments.json {
        print_json(&to_json(&project, &plan))?;
    } else {
        print(&to_text(&project, &plan, arguments.all))?;
    }
    let would_run = arguments.exit_code && !plan.is_all_fresh();
    Ok(if would_run { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The name of a state, the same in all commands.
pub(crate) fn state_name(state: &PlanState) -> &'static str {
    match state {
        PlanState::Fresh(_) => "fresh",
        PlanState::Dirty { .. } => "dirty",
        PlanState::Waiting { .. } => "waiting",
        PlanState::Blocked(_) => "blocked",
    }
}

/// Why a stage is in its state; empty for a fresh one.
pub(crate) fn state_reason(state: &PlanState) -> String {
    match state {
        PlanState::Fresh(_) => String::new(),
        PlanState::Dirty { reason, .. } => reason.to_string(),
        PlanState::Waiting { on, reason } => {
            let known = reason.as_ref().map_or_else(String::new, |reason| format!("; {reason}"));
            format!("on {}{known}", in_short(on))
        }
        PlanState::Blocked(Blocked { line, file, message }) => match file {
            None => format!("line {line}: {message}"),
            Some(file) => format!("{file}:{line}: {message}"),
        },
    }
}

/// The names of stages; where there are many instances of one, how many.
fn in_short(stages: &[StageName]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    stages.iter().for_each(|stage| *counts.entry(stage.template()).or_default() += 1);
    let mut words: Vec<String> = Vec::new();
    for stage in stages {
        match counts.get_mut(stage.template()) {
            Some(count) if *count > MOST_INSTANCES => {
                words.push(format!("{count} instances of {}", stage.template()));
                *count = 0;
            }
            Some(0) => {}
            _ => words.push(stage.to_string()),
        }
    }
    words.join(", ")
}

pub(crate) fn state_json(state: &PlanState) -> Value {
    match state {
        PlanState::Fresh(record) => {
            json!({ "state": "fresh", "key": record.key, "artifact": record.output.digest })
        }
        PlanState::Dirty { reason, key, .. } => {
            json!({ "state": "dirty", "key": key, "why": reason })
        }
        PlanState::Waiting { on, reason } => json!({ "state": "waiting", "on": on, "why": reason }),
        PlanState::Blocked(why) => json!({ "state": "blocked", "because": why }),
    }
}

/// A line for each stage; one with the counts for a stage of many instances, unless `all` of them are shown.
fn to_text(project: &Project, plan: &Plan, all: bool) -> String {
    let mut instances: BTreeMap<&str, Vec<&PlanState>> = BTreeMap::new();
    for (name, state) in plan.iter() {
        instances.entry(name.template()).or_default().push(state);
    }
    let mut rows = Vec::new();
    for (name, state) in plan.iter() {
        let template = name.template();
        match instances.get_mut(template) {
            Some(states) if !all && states.len() > MOST_INSTANCES => {
                rows.push(vec![template.to_owned(), counts(states)]);
                states.clear();
            }
            // It has a line already.
            Some(states) if states.is_empty() => {}
            _ => {
                rows.push(vec![
                    name.to_string(),
                    state_name(state).to_owned(),
                    state_reason(state),
                ]);
            }
        }
    }
    let closing = closing(plan);
    format!("{}\n{}: {closing}\n", format::table(&rows), project.manifest.experiment.name)
}

/// How many instances of a stage are in which state: `140: 3 fresh, 97 to run, 40 waiting`.
fn counts(states: &[&PlanState]) -> String {
    let count =
        |wanted: fn(&PlanState) -> bool| states.iter().filter(|state| wanted(state)).count();
    instances_in_words([
        (count(|state| matches!(state, PlanState::Fresh(_))), "fresh"),
        (count(|state| matches!(state, PlanState::Dirty { .. })), "to run"),
        (count(|state| matches!(state, PlanState::Waiting { .. })), "waiting"),
        (count(|state| matches!(state, PlanState::Blocked(_))), "blocked"),
    ])
}

fn closing(plan: &Plan) -> String {
    let held_up = plan.held_up();
    let (mut fresh, mut runs, mut open, mut blocked) = (0, 0, 0, Vec::new());
    for (name, state) in plan.iter() {
        match state {
            PlanState::Fresh(_) => fresh += 1,
            PlanState::Blocked(_) => blocked.push(name.as_str()),
            PlanState::Waiting { .. } if held_up.contains(name) => {}
            PlanState::Dirty { .. } | PlanState::Waiting { reason: Some(_), .. } => runs += 1,
            PlanState::Waiting { reason: None, .. } => open += 1,
        }
    }
    let mut text = match open {
        0 if runs == 0 && blocked.is_empty() => {
            return format!("all {fresh} stages are fresh; nothing would run");
        }
        0 => format!("{runs} would run, {fresh} are fresh"),
        _ => {
            format!("{runs} would run, {open} more if what they read changes, {fresh} are fresh")
        }
    };
    if !blocked.is_empty() {
        let stuck = blocked.len() + held_up.len();
        let more = blocked.split_off(blocked.len().min(MOST_INSTANCES)).len();
        let others = if more == 0 { String::new() } else { format!(" and {more} others") };
        text.push_str(&format!(", {stuck} cannot run (blocked: {}{others})", blocked.join(", ")));
    }
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
            stage
        })
        .collect();
    json!({ "experiment": project.manifest.experiment.name, "stages": stages, "fresh": plan.is_all_fresh() })
}
