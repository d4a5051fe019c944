//! `pipeline why`: what changed since the last record of a stage, from what to what.

use std::process::ExitCode;

use super::plan::state_reason;
use super::{Project, print};
use crate::cache::Record;
use crate::cli::StageArguments;
use crate::key::Change;
use crate::plan::{Plan, PlanState};
use crate::reason::Reason;
use crate::stage_name::StageName;

pub(crate) fn run(arguments: &StageArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let name = project.find(&arguments.stage)?;
    let plan = project.plan(&project.select(&[name.to_string()])?);
    if let Some(state) = plan.state(name) {
        print(&explain(&project, &plan, name, state))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(project: &Project, plan: &Plan, name: &StageName, state: &PlanState) -> String {
    match state {
        PlanState::Fresh(record) => format!(
            "{name} is fresh: artifact {}, made {}\nit ran then because:\n{}",
            record.output.digest.short(),
            crate::format::ago(record.finished),
            reason_lines(project, &record.reason),
        ),
        PlanState::Dirty { reason, .. } => {
            format!("{name} will run because:\n{}", reason_lines(project, reason))
        }
        PlanState::Waiting { on, reason } => {
            let names: Vec<&str> = on.iter().map(StageName::as_str).collect();
            let names = names.join(", ");
            let mut text = match reason {
                Some(reason) => format!(
                    "{name} will run after {names}, because:\n{}",
                    reason_lines(project, reason)
                ),
                None => format!("{name} will run if the output of {names} changes\n"),
            };
            for input in roots(plan, on) {
                match plan.state(&input) {
                    Some(PlanState::Dirty { reason, .. }) => text.push_str(&format!(
                        "{input} will run because:\n{}",
                        reason_lines(project, reason)
                    )),
                    Some(state @ PlanState::Blocked(_)) => text.push_str(&blocked(&input, state)),
                    _ => {}
                }
            }
            text
        }
        PlanState::Blocked(_) => blocked(name, state),
    }
}

fn blocked(name: &StageName, state: &PlanState) -> String {
    format!("{name} cannot run:\n  {}\n", state_reason(state))
}

/// The dirty and the blocked stages behind these, directly or not.
fn roots(plan: &Plan, on: &[StageName]) -> Vec<StageName> {
    let mut found = Vec::new();
    let mut open: Vec<StageName> = on.iter().rev().cloned().collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        match plan.state(&name) {
            Some(PlanState::Dirty { .. } | PlanState::Blocked(_)) => found.push(name),
            Some(PlanState::Waiting { on, .. }) => open.extend(on.iter().rev().cloned()),
            _ => {}
        }
    }
    found
}

fn reason_lines(project: &Project, reason: &Reason) -> String {
    let Reason::Changed { changes } = reason else { return format!("  {reason}\n") };
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("  {change}\n"));
        text.push_str(&through(project, change));
    }
    text
}

/// Why the content of an input changed: the reason that the stage behind it ran for.
fn through(project: &Project, change: &Change) -> String {
    let Change::Input { from, new: Some(digest), .. } = change else { return String::new() };
    let experiment = &project.manifest.experiment.name;
    match project.cache.last_record(experiment, from.as_str()) {
        Some(Record { output, reason, .. }) if output.digest == *digest => {
            format!("    {from} ran because: {reason}\n")
        }
        _ => String::new(),
    }
}
