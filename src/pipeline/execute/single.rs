//! One job, from its spec to its end, in a process of its own.
//!
//! Does not depend on a manifest: what another process would need on another machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::executor::{Executor, Report, Threads};
use super::job::{self, JobEnd};
use super::spec::{JobSpec, Work};
use super::supervisor::{Heard, Supervisor};
use crate::cache::{Cache, Pinned, StatIndex};
use crate::events::{Outcome, RunEvent};
use crate::launcher::Plain;
use crate::progress::Reporter;

/// Runs a job, and reports how it ended.
pub(crate) fn run_job(spec: JobSpec, reporter: &mut dyn Reporter) -> anyhow::Result<Outcome> {
    let cache = Arc::new(Cache::open(&spec.cache)?);
    cache.prepare().map_err(job::with_advice)?;
    // Before its inputs are looked for.
    let inputs = spec.inputs.iter().map(|(_, _, stored)| Pinned::Artifact(stored.digest));
    cache.pin(inputs.chain([Pinned::Key(spec.work.key)]), |_| {}).map_err(job::with_advice)?;
    let mut supervisor = Supervisor::new();
    supervisor.listen()?;
    let index = Arc::new(StatIndex::at(cache.layout().stat_index()));
    let executor = Threads { cache, index, launcher: Arc::new(Plain), waker: supervisor.waker() };
    let JobSpec { declaration, work: Work { key, .. }, experiment, .. } = spec.clone();
    let started = Instant::now();
    reporter.event(&RunEvent::Begin { experiment, stages: 1 });
    let limit = declaration.execution.timeout_seconds.map(Duration::from_secs);
    supervisor.watch(&declaration.name, executor.start(spec)?, limit);
    let end = loop {
        match supervisor.next(reporter) {
            Heard::Report(stage, Report::Event(event)) => {
                if let Some(event) = event.for_reporters(&declaration, key) {
                    if let RunEvent::Start { .. } = event {
                        supervisor.starts(&stage);
                    }
                    reporter.event(&event);
                }
            }
            Heard::Report(_, Report::End(end)) => break end,
            Heard::StopWanted => reporter.event(&RunEvent::Stopping),
            Heard::Nothing => {}
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let outcome = match end {
        JobEnd::Reused(record) => {
            Outcome::Fresh { digest: record.output.digest, metrics: record.metrics }
        }
        JobEnd::Ran(record) => Outcome::Ran {
            digest: record.output.digest,
            unchanged: false,
            forced: false,
            seconds,
            metrics: record.metrics,
        },
        JobEnd::Stopped | JobEnd::LookAgain => Outcome::Stopped,
        // Other attempts are for whoever shares the machine out, and starts this again.
        JobEnd::Failed { message, log, .. } => Outcome::Failed { message, log, seconds },
        JobEnd::LostInput { artifact, .. } => {
            let digest = artifact.short();
            let message =
                format!("its input {digest} was damaged, or is gone: run the stage that makes it");
            Outcome::Failed { message, log: Vec::new(), seconds }
        }
    };
    let complete = matches!(outcome, Outcome::Fresh { .. } | Outcome::Ran { .. });
    let event = RunEvent::End {
        stage: declaration.name,
        key: complete.then_some(key),
        is_news: complete,
        ran_on: None,
        outcome: outcome.clone(),
    };
    reporter.event(&event);
    reporter.event(&RunEvent::Done { seconds, complete });
    Ok(outcome)
}
