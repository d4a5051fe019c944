//! One job, from its spec to its end, in a process of its own; and then what it goes on with.
//!
//! Does not depend on a manifest: what another process would need on another machine.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pipeline_stages::Cores;
use pipeline_stages::message::Event;
use signal_hook::consts::SIGUSR1;

use super::advance::Advance;
use super::executor::{Executor, JobReport};
use super::following;
use super::job::{self, JobEnd, JobEvent};
use super::scheduled::{JobEnding, JobLine};
use super::spec::{JobPlace, JobSpec};
use super::supervisor::{Heard, Supervisor};
use super::threads::Threads;
use crate::cache::{Cache, JobFolder, JobJournal, KnownResult, Owner, StatIndex};
use crate::digest::Digest;
use crate::events::{Outcome, RunEvent};
use crate::key::StageKey;
use crate::launcher::{InAllocation, Plain};
use crate::manifest::Stage;
use crate::progress::Reporter;
use crate::stage_name::StageName;

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

/// Runs a job, and what it goes on with; reports how each ended. Returns how the last one did.
pub(crate) fn run_job(spec: JobSpec, reporter: &mut dyn Reporter) -> anyhow::Result<JobExit> {
    let cache = Arc::new(Cache::open(&spec.cache)?);
    cache.prepare().map_err(job::with_advice)?;
    let mut supervisor = Supervisor::new();
    // First of all: a signal would end it without a word. SIGUSR1 means that the time of its allocation is nearly up.
    supervisor.listen_also_to(if spec.place.is_some() { &[SIGUSR1] } else { &[] })?;
    let index = Arc::new(StatIndex::at(cache.layout().stat_index()));
    let mut process = Process { cache, index, supervisor, reporter };
    let (mut exit, mut next) = process.run(spec)?;
    while let Some(spec) = next {
        (exit, next) = process.run(spec)?;
    }
    Ok(exit)
}

/// What the jobs of this process have in common.
struct Process<'r> {
    cache: Arc<Cache>,
    index: Arc<StatIndex>,
    supervisor: Supervisor<JobReport>,
    reporter: &'r mut dyn Reporter,
}

impl Process<'_> {
    /// Runs one of them. Returns how it ended, and the one after it.
    fn run(&mut self, spec: JobSpec) -> anyhow::Result<(JobExit, Option<JobSpec>)> {
        let cache = Arc::clone(&self.cache);
        let key = spec.work.key;
        let mut journal = None;
        let mut checkpoint = None;
        if let Some(place) = &spec.place {
            let folder =
                cache.job(&key).context("the folder of this job is gone: its end was seen")?;
            // Nobody followed it, and its scheduler has it twice, or starts it again.
            match JobEnding::last(&folder).filter(JobEnding::is_final) {
                Some(JobEnding::Recorded { .. }) => return Ok((JobExit::Fresh, None)),
                Some(_) => bail!("this job has ended before, without a result"),
                None => {}
            }
            if place.inherits {
                print_into(&folder)?;
            }
            checkpoint = cache.checkpoint_digest(&key);
            journal = Some(Journal::begin(&folder, checkpoint)?);
        }
        self.reporter.event(&RunEvent::Begin { experiment: spec.experiment.clone(), stages: 1 });
        // Before its inputs are looked for.
        let is_pinned = cache.pin_while(spec.pins(), &mut |text| {
            if let Some(text) = text {
                let event = JobEvent::Worker(Event::Note { text: text.to_owned() });
                self.pass_on(event, &spec.declaration, key, &mut journal);
            }
            self.supervisor.waits_on(self.reporter)
        });
        let is_pinned = is_pinned.map_err(job::with_advice)?;
        let executor = Threads {
            cache: Arc::clone(&cache),
            index: Arc::clone(&self.index),
            launcher: if journal.is_some() { Arc::new(InAllocation) } else { Arc::new(Plain) },
            waker: self.supervisor.waker(),
            patience: if journal.is_some() { PATIENCE } else { Duration::MAX },
            elsewhere: None,
        };
        let JobSpec { declaration, place, .. } = spec.clone();
        let started = Instant::now();
        let limit = declaration.execution.timeout_seconds.map(Duration::from_secs);
        // What comes next is compared with what this one has asked for, and not with what it was given.
        let mut given = spec.clone();
        if journal.is_some() {
            take_allocated_cores(&mut given);
        }
        let end = if is_pinned {
            self.supervisor.watch(&declaration.name, executor.start(given)?, limit);
            self.wait(&declaration, key, &mut journal)
        } else {
            // Somebody has asked it to stop meanwhile.
            JobEnd::Stopped
        };
        self.supervisor.forget(&declaration.name);
        let mut next = None;
        // Also where it finds its own result: it may have been ended between that and its submissions.
        if let JobEnd::Ran { result, .. } | JobEnd::Reused(result) = &end
            && journal.is_some()
            && !self.supervisor.stopping()
        {
            // Before its last word: whoever hears that finds what comes next.
            next = self.begin_next(&spec, result, &mut journal);
        }
        if let Some(journal) = &mut journal {
            let time_up = self.supervisor.was_asked_by(SIGUSR1);
            let inherits = place.as_ref().is_some_and(|place| place.inherits);
            let advanced = matches!(end, JobEnd::Stopped)
                && (inherits
                    || journal.advance.is_further() && cache.checkpoint_digest(&key) != checkpoint);
            let ending = end.ending(time_up, advanced);
            // Before its last word: after that, the folder may be the one of another job, as it may where this one had lost its lock.
            let token = place.as_ref().map(|place| &place.token);
            let is_own = |folder: &JobFolder| {
                let there = JobPlace::of_job(&folder.spec()).ok().flatten();
                there.as_ref().map(|place| &place.token) == token
            };
            let folder = cache.job(&key).filter(is_own);
            // Where another process has recorded its result meanwhile, that stays the last word.
            let is_other = !matches!(ending, JobEnding::Recorded { .. });
            let recorded = folder.as_ref().filter(|_| is_other).and_then(JobEnding::recorded);
            let ending = recorded.unwrap_or(ending);
            if let Some(folder) = folder.filter(|_| ending.is_final()) {
                let _ = folder.set_ended();
            }
            journal.add(&JobLine::Ends(ending));
            let requeue = place.and_then(|place| place.requeue);
            if let (JobEnd::Stopped, Some(command), true) = (&end, requeue, time_up && advanced) {
                // Where that fails, whoever follows it submits another one.
                let status =
                    Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).status();
                if status.is_ok_and(|status| status.success()) {
                    self.reporter.event(&RunEvent::Note {
                        stage: declaration.name.clone(),
                        text: "its time is up: it is put back into the queue".to_owned(),
                    });
                }
            }
        }
        Ok((self.report_end(declaration.name, key, end, started), next))
    }

    /// Begins what becomes ready with a result. Returns what this process goes on with.
    fn begin_next(
        &mut self,
        spec: &JobSpec,
        result: &KnownResult,
        journal: &mut Option<Journal>,
    ) -> Option<JobSpec> {
        let (cache, index) = (Arc::clone(&self.cache), Arc::clone(&self.index));
        let mut say = |text: String| {
            let event = JobEvent::Worker(Event::Note { text });
            self.pass_on(event, &spec.declaration, spec.work.key, journal);
        };
        let next = following::begin(spec, result, &cache, &index, &mut say);
        next.unwrap_or_else(|error| {
            say(following::left(&format!("{error:#}")));
            None
        })
    }

    /// Waits for the end of a stage that runs, and passes on what it reports.
    fn wait(&mut self, stage: &Stage, key: StageKey, journal: &mut Option<Journal>) -> JobEnd {
        loop {
            match self.supervisor.next(self.reporter) {
                Heard::Report(name, JobReport::Event(event)) => {
                    if let JobEvent::Starts { .. } = event {
                        self.supervisor.starts(&name);
                    }
                    self.pass_on(event, stage, key, journal);
                }
                Heard::Report(_, JobReport::End(end)) => return end,
                Heard::StopWanted => {
                    self.reporter.event(&RunEvent::Stopping { jobs: 0, submission: None });
                }
                Heard::Nothing => {}
            }
        }
    }

    fn pass_on(
        &mut self,
        event: JobEvent,
        stage: &Stage,
        key: StageKey,
        journal: &mut Option<Journal>,
    ) {
        journal.iter_mut().for_each(|journal| journal.event(&event));
        let event = event.for_reporters(stage, key);
        event.into_iter().for_each(|event| self.reporter.event(&event));
    }

    /// Reports how a stage ended.
    fn report_end(
        &mut self,
        stage: StageName,
        key: StageKey,
        end: JobEnd,
        started: Instant,
    ) -> JobExit {
        let seconds = started.elapsed().as_secs_f64();
        let failed = |message: String| Outcome::Failed { message, log: Vec::new(), seconds };
        let (outcome, exit) = match end {
            JobEnd::Reused(record) => {
                let (digest, metrics) = (record.output.digest, record.metrics);
                (Outcome::Fresh { digest, metrics, same_as: None }, JobExit::Fresh)
            }
            JobEnd::Ran { result, part, .. } => {
                let ran = Outcome::Ran {
                    digest: result.output.digest,
                    unchanged: false,
                    forced: false,
                    seconds,
                    part,
                    metrics: result.metrics,
                };
                (ran, JobExit::Ran)
            }
            JobEnd::Stopped | JobEnd::Left | JobEnd::LookAgain => {
                (Outcome::Stopped, JobExit::Stopped)
            }
            JobEnd::Held => {
                (failed("another process does the same work".to_owned()), JobExit::Held)
            }
            // Other attempts are for whoever shares the machine out, and starts this again.
            JobEnd::Failed { message, log, .. } => {
                (Outcome::Failed { message, log, seconds }, JobExit::Failed)
            }
            JobEnd::LostInput { artifact, .. } => {
                let digest = artifact.short();
                let message = format!(
                    "its input {digest} was damaged, or is gone: run the stage that makes it"
                );
                (failed(message), JobExit::LostInput)
            }
        };
        let complete = matches!(exit, JobExit::Fresh | JobExit::Ran);
        self.reporter.event(&RunEvent::End {
            stage,
            key: complete.then_some(key),
            is_news: complete,
            ran_on: None,
            outcome,
        });
        self.reporter.event(&RunEvent::Done { seconds, complete, detached: false });
        exit
    }
}

/// From now on, what this process prints is among what the job prints that it goes on with.
fn print_into(folder: &JobFolder) -> anyhow::Result<()> {
    let file = folder.open_output()?;
    rustix::stdio::dup2_stdout(&file)?;
    Ok(rustix::stdio::dup2_stderr(&file)?)
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
    advance: Advance,
    /// When it was said last how far it is.
    said: Option<Instant>,
}

impl Journal {
    fn begin(folder: &JobFolder, checkpoint: Option<Digest>) -> anyhow::Result<Self> {
        let mut journal = Self { file: folder.journal()?, advance: Advance::default(), said: None };
        journal.add(&JobLine::Begins { owner: Owner::this_process(), checkpoint });
        let _ = folder.set_waits(None);
        Ok(journal)
    }

    /// Nobody needs what it says: where it cannot be written, the work goes on.
    fn add(&mut self, line: &JobLine) {
        let _ = self.file.add(&line.to_line());
    }

    fn event(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Worker(Event::Progress(progress)) => {
                self.advance.progress(progress);
                if self.said.is_some_and(|said| said.elapsed() < INTERVAL) {
                    return;
                }
                self.said = Some(Instant::now());
            }
            // It is over for whoever waits for its cores, and those are its allocation's.
            JobEvent::GivesBack => return,
            _ => {}
        }
        self.add(&JobLine::Event(event.clone()));
    }
}
