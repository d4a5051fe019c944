//! `pipeline log`: what a stage wrote to its log when it ran last.

use std::fs;
use std::process::ExitCode;

use anyhow::bail;

use super::plan::{state_name, state_reason};
use super::{Project, note, print_raw};
use crate::cli::StageArguments;
use crate::plan::PlanState;

pub(crate) fn run(arguments: &StageArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let name = project.find(&arguments.stage)?;
    let plan = project.plan(&project.select(&[name.to_string()])?);
    let state = plan.state(name);
    let current = match state {
        Some(PlanState::Fresh(record)) => Some(record.key),
        Some(PlanState::Dirty { key, .. }) => Some(*key),
        _ => None,
    };
    // A stage that failed has a log under its current key; one whose key changed, under its last.
    let last = project.cache.head(&project.manifest.experiment.name, name.as_str());
    for key in current.into_iter().chain(last) {
        let path = project.cache.layout().log(&key);
        let Ok(bytes) = fs::read(&path) else { continue };
        if let Some(state) = state.filter(|_| current != Some(key)) {
            let (state, why) = (state_name(state), state_reason(state));
            note(&format!("this is the log of an earlier run; '{name}' is {state} now: {why}"));
        }
        if bytes.is_empty() {
            note(&format!("{name} wrote nothing to its log ({})", path.display()));
        }
        print_raw(&bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    bail!("'{name}' does not have a log: it has not run yet")
}
