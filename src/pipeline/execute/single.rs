//! One job, from its spec to its end, in a process of its own.
//!
//! Does not depend on a manifest: what another process would need on another machine.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pipeline_stages::Cores;
use pipeline_stages::message::{Event, Progress};
use signal_hook::consts::SIGUSR1;

use super::executor::{Executor, Report, Threads};
use super::job::{self, JobEnd, JobEvent};
use super::scheduled::{JobEnding, JobLine};
use super::spec::JobSpec;
use super::supervisor::{Heard, Supervisor};
use crate::cache::{Cache, JobFolder, JobJournal, Owner, Pinned, StatIndex};
use crate::events::{Outcome, RunEvent};
use crate::launcher::{InAllocation, Plain};
use crate::progress::Reporter;

/// How long a job in an allocation waits for another process that has its key: as long as somebody who only looks has it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often its journal has how far it is.
const INTERVAL: Duration = Duration::from_secs(1);
/// What schedulers say of the cores that a job may use.
const ALLOCATED_CORES: [&str; 5] =
    ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NSLOTS", "LSB_DJOB_NUMPROC", "NCPUS"];

/// How the process of a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobExit {
    Ran,
    Failed,
    Stopped,
    /// There was a result already.
    Fresh,
    /// Another process works on its key.
    Held,
    LostInput,
}

/// Runs a job, and reports how it ended.
pub(crate) fn run_job(mut spec: JobSpec, reporter: &mut dyn Reporter) -> anyhow::Result<JobExit> {
    let cache = Arc::new(Cache::open(&spec.cache)?);
    cache.prepare().map_err(job::with_advice)?;
    let key = spec.work.key;
    let mut supervisor = Supervisor::new();
    // First of all: a signal would end it without a word. SIGUSR1 means that the time of its allocation is nearly up.
    supervisor.listen_also_to(if spec.place.is_some() { &[SIGUSR1] } else { &[] })?;
    // Before its inputs are looked for.
    let inputs = spec.inputs.iter().map(|(_, _, stored)| Pinned::Artifact(stored.digest));
    cache.pin(inputs.chain([Pinned::Key(key)]), |_| {}).map_err(job::with_advice)?;
    let mut journal = None;
    if spec.place.is_some() {
        let folder = cache.job(&key).context("the folder of this job is gone: its end was seen")?;
        // Nobody followed it, and its scheduler has it twice, or starts it again.
        match JobEnding::last(&folder).filter(JobEnding::is_final) {
            Some(JobEnding::Recorded { .. }) => return Ok(JobExit::Fresh),
            Some(_) => bail!("this job has ended before, without a result"),
            None => {}
        }
        journal = Some(Journal::begin(&folder)?);
        take_allocated_cores(&mut spec);
    }
    let checkpoint = cache.checkpoint_files(&key);
    let index = Arc::new(StatIndex::at(cache.layout().stat_index()));
    let executor = Threads {
        cache: Arc::clone(&cache),
        index,
        launcher: if journal.is_some() { Arc::new(InAllocation) } else { Arc::new(Plain) },
        waker: supervisor.waker(),
        patience: if journal.is_some() { PATIENCE } else { Duration::MAX },
    };
    let JobSpec { declaration, experiment, place, .. } = spec.clone();
    let started = Instant::now();
    reporter.event(&RunEvent::Begin { experiment, stages: 1 });
    let limit = declaration.execution.timeout_seconds.map(Duration::from_secs);
    supervisor.watch(&declaration.name, executor.start(spec)?, limit);
    let end = loop {
        match supervisor.next(reporter) {
            Heard::Report(stage, Report::Event(event)) => {
                journal.iter_mut().for_each(|journal| journal.event(&event));
                if let Some(event) = event.for_reporters(&declaration, key) {
                    if let RunEvent::Start { .. } = event {
                        supervisor.starts(&stage);
                    }
                    reporter.event(&event);
                }
            }
            Heard::Report(_, Report::End(end)) => break end,
            Heard::StopWanted => reporter.event(&RunEvent::Stopping { jobs: 0 }),
            Heard::Nothing => {}
        }
    };
    if let Some(journal) = &mut journal {
        let time_up = supervisor.was_asked_by(SIGUSR1);
        let advanced = journal.has_advanced() && cache.checkpoint_files(&key) != checkpoint;
        let ending = end.ending(time_up, advanced);
        // Before its last word: after that, the folder may be the one of another job.
        if let Some(folder) = cache.job(&key).filter(|_| ending.is_final()) {
            let _ = folder.set_ended();
        }
        journal.add(&JobLine::Ends(ending));
        let requeue = place.and_then(|place| place.requeue);
        if let (JobEnd::Stopped, Some(command), true) = (&end, requeue, time_up && advanced) {
            // Where that fails, whoever follows it submits another one.
            let status = Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).status();
            if status.is_ok_and(|status| status.success()) {
                reporter.event(&RunEvent::Note {
                    stage: declaration.name.clone(),
                    text: "its time is up: it is put back into the queue".to_owned(),
                });
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let failed = |message: String| Outcome::Failed { message, log: Vec::new(), seconds };
    let (outcome, exit) = match end {
        JobEnd::Reused(record) => {
            let (digest, metrics) = (record.output.digest, record.metrics);
            (Outcome::Fresh { digest, metrics }, JobExit::Fresh)
        }
        JobEnd::Ran { result, .. } => {
            let ran = Outcome::Ran {
                digest: result.output.digest,
                unchanged: false,
                forced: false,
                seconds,
                metrics: result.metrics,
            };
            (ran, JobExit::Ran)
        }
        JobEnd::Stopped | JobEnd::Left | JobEnd::LookAgain => (Outcome::Stopped, JobExit::Stopped),
        JobEnd::Held => (failed("another process does the same work".to_owned()), JobExit::Held),
        // Other attempts are for whoever shares the machine out, and starts this again.
        JobEnd::Failed { message, log, .. } => {
            (Outcome::Failed { message, log, seconds }, JobExit::Failed)
        }
        JobEnd::LostInput { artifact, .. } => {
            let digest = artifact.short();
            let message =
                format!("its input {digest} was damaged, or is gone: run the stage that makes it");
            (failed(message), JobExit::LostInput)
        }
    };
    let complete = matches!(exit, JobExit::Fresh | JobExit::Ran);
    let event = RunEvent::End {
        stage: declaration.name,
        key: complete.then_some(key),
        is_news: complete,
        ran_on: None,
        outcome,
    };
    reporter.event(&event);
    reporter.event(&RunEvent::Done { seconds, complete });
    Ok(exit)
}

/// A stage that uses many cores and does not say how many has those of its allocation, and not all of the machine.
fn take_allocated_cores(spec: &mut JobSpec) {
    let stage = &mut spec.declaration;
    if stage.stage.cores() == Cores::Many && stage.execution.execution.threads.is_none() {
        let mut said = ALLOCATED_CORES.iter().filter_map(|name| std::env::var(name).ok());
        stage.execution.execution.threads = said.find_map(|cores| cores.parse().ok());
    }
}

/// What the job says for whoever follows it.
struct Journal {
    file: JobJournal,
    /// How far it was when it began, and how far it is.
    first: Option<Progress>,
    last: Option<Progress>,
    /// When it was said last how far it is.
    said: Option<Instant>,
}

impl Journal {
    fn begin(folder: &JobFolder) -> anyhow::Result<Self> {
        let mut journal = Self { file: folder.journal()?, first: None, last: None, said: None };
        journal.add(&JobLine::Begins { host: Owner::this_process().host });
        Ok(journal)
    }

    /// Nobody needs what it says: where it cannot be written, the work goes on.
    fn add(&mut self, line: &JobLine) {
        let _ = self.file.add(&line.to_line());
    }

    fn event(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Worker(Event::Progress(progress)) => {
                self.first.get_or_insert_with(|| progress.clone());
                self.last = Some(progress.clone());
                if self.said.is_some_and(|said| said.elapsed() < INTERVAL) {
                    return;
                }
                self.said = Some(Instant::now());
            }
            // It is over for whoever waits for its cores, and those are its allocation's.
            JobEvent::Hashed => return,
            _ => {}
        }
        self.add(&JobLine::Event(event.clone()));
    }

    /// Whether it is further than when it began, as far as it says that.
    fn has_advanced(&self) -> bool {
        match (&self.first, &self.last) {
            (Some(first), Some(last)) => last.done > first.done,
            _ => true,
        }
    }
}
