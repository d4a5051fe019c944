//! `pipeline __job`: one job from a file that another process wrote. Its events are on standard output; for one that runs elsewhere,
//! there are lines for people.

use std::process::ExitCode;

use anyhow::ensure;

use crate::cache::Layout;
use crate::cli::JobArguments;
use crate::execute::{self, JobExit, JobSpec};
use crate::progress::{Reporters, RunningFiles, Style, reporter};
use crate::signals::INTERRUPTED;

pub(crate) fn run(arguments: &JobArguments) -> anyhow::Result<ExitCode> {
    let spec = JobSpec::read(&arguments.spec)?;
    let token = spec.place.as_ref().map(|place| &place.token);
    ensure!(
        arguments.token.is_none() || arguments.token.as_ref() == token,
        "{} is another job of the same key: the end of this one was seen",
        arguments.spec.display()
    );
    let running = RunningFiles::of_job(Layout::new(spec.cache.clone()));
    let style = if spec.place.is_some() { Style::Plain } else { Style::Json };
    let mut reporters = Reporters(vec![reporter(style), Box::new(running)]);
    // 2 is for what cannot be done at all: the job of another build.
    Ok(ExitCode::from(match execute::run_job(spec, &mut reporters)? {
        JobExit::Ran => 0,
        JobExit::Failed => 1,
        JobExit::Fresh => 3,
        JobExit::Held => 4,
        JobExit::LostInput => 5,
        JobExit::Stopped => INTERRUPTED,
    }))
}
