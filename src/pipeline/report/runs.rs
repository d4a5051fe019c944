//! The runs of an experiment that did something, for a page: what was asked, when, where, and how it ended.

use serde::Serialize;

use crate::cache::Cache;
use crate::history::{Commit, Ended, Run};

/// The most runs on a page.
const MOST_RUNS: usize = 20;

/// One run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RunLine {
    run: String,
    state: &'static str,
    /// What was changed about the manifest and selected, as it was typed.
    asked: Vec<String>,
    /// When it began: seconds since 1970, UTC.
    began: u64,
    seconds: Option<f64>,
    host: String,
    git: Option<Commit>,
    /// How many stages ran and succeeded, and how many failed.
    ran: usize,
    failed: usize,
}

/// The newest runs of an experiment, newest first.
pub(super) fn newest(cache: &Cache, experiment: &str) -> anyhow::Result<Vec<RunLine>> {
    let names = cache.runs(experiment)?;
    let runs = names.iter().take(MOST_RUNS).filter_map(|name| Run::read(cache, experiment, name));
    Ok(runs.map(RunLine::of).collect())
}

impl RunLine {
    fn of(run: Run) -> Self {
        let ran = run.count(|stage| matches!(stage.ended, Some(Ended::Ran { .. })));
        let failed = run.count(|stage| matches!(stage.ended, Some(Ended::Failed { .. })));
        Self {
            state: run.state.name(),
            asked: run.header.asked,
            began: run.header.owner.since,
            seconds: run.seconds,
            host: run.header.owner.host,
            git: run.git,
            ran,
            failed,
            run: run.run,
        }
    }
}
