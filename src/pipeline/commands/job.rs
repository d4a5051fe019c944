//! `pipeline __job`: one job from a file that another process wrote, with its events on standard output.

use std::process::ExitCode;

use super::INTERRUPTED;
use crate::cache::Layout;
use crate::cli::JobArguments;
use crate::events::Outcome;
use crate::execute::{self, JobSpec};
use crate::progress::{Reporters, RunningFiles, Style, reporter};

pub(crate) fn run(arguments: &JobArguments) -> anyhow::Result<ExitCode> {
    let spec = JobSpec::read(&arguments.spec)?;
    let running = RunningFiles::new(Layout::new(spec.cache.clone()));
    let mut reporters = Reporters(vec![reporter(Style::Json), Box::new(running)]);
    Ok(match execute::run_job(spec, &mut reporters)? {
        Outcome::Fresh { .. } | Outcome::Remote { .. } | Outcome::Ran { .. } => ExitCode::SUCCESS,
        Outcome::Stopped => ExitCode::from(INTERRUPTED),
        Outcome::Failed { .. } | Outcome::Skipped { .. } => ExitCode::FAILURE,
    })
}
