//! `pipeline log`: what a stage wrote to its log when it ran last.

use std::fs;
use std::process::ExitCode;

use anyhow::bail;

use super::{Project, print};
use crate::cli::StageArguments;
use crate::plan::State;

/// Runs the command.
pub fn run(arguments: &StageArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let name = project.find(&arguments.stage)?;
    let plan = project.plan(&project.select(std::slice::from_ref(&arguments.stage))?);
    let current = match plan.state(name) {
        Some(State::Fresh(record)) => Some(record.key),
        Some(State::Dirty { key, .. }) => Some(*key),
        _ => None,
    };
    // A stage that failed has a log under its current key; one whose key moved on, under its last.
    let last = project.cache.head(&project.manifest.experiment.name, name.as_str());
    let paths = current.into_iter().chain(last).map(|key| project.cache.layout().log(&key));
    for path in paths {
        if let Ok(text) = fs::read(&path) {
            let text = String::from_utf8_lossy(&text);
            if text.is_empty() {
                eprintln!("{name} wrote nothing to its log ({})", path.display());
            }
            print(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    bail!("'{name}' has no log: it has not run yet")
}
