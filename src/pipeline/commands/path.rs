//! `pipeline path`: the path of the artifact of a stage.

use std::process::ExitCode;

use anyhow::bail;

use super::plan::state_reason;
use super::{Project, print_raw};
use crate::cli::StageArguments;
use crate::plan::PlanState;

pub(crate) fn run(arguments: &StageArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let name = project.find(&arguments.stage)?;
    let plan = project.plan(&project.select(&[name.to_string()])?);
    match plan.state(name) {
        Some(PlanState::Fresh(record)) => {
            let path = project.cache.artifact(&record.output.digest).into_os_string();
            print_raw(&[path.as_encoded_bytes(), b"\n"].concat())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(state @ PlanState::Blocked(_)) => {
            bail!("'{name}' does not have a known artifact: {}", state_reason(state))
        }
        state => {
            let reason = state.map(state_reason).unwrap_or_default();
            bail!(
                "'{name}' does not have an artifact for this manifest: {reason}; \
                 `pipeline run {} {name}` makes it",
                arguments.manifest.words()
            )
        }
    }
}
