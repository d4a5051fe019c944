//! The loop that runs a plan: what is ready starts, as far as there are slots; what ends makes more ready.
//!
//! All decisions are made on the main thread; a [`job`] has a thread of its own and sends messages.
//! Knows no terminal: what happens goes to a [`Reporter`](crate::progress::Reporter).

mod job;
mod queue;
mod rerun;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use pipeline_stages::WorkerProgram;
use pipeline_stages::message::Event;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cache::{Cache, Record};
use crate::events::{Outcome, RunEvent};
use crate::facts::World;
use crate::graph::Graph;
use crate::key::{self, Part, StageKey};
use crate::manifest::Manifest;
use crate::plan::{self, Facts, State};
use crate::progress::Reporter;
use crate::reason::Reason;
use crate::stage_name::StageName;
use crate::worker::Leash;
use job::{Job, JobEnd, JobEvent};
use queue::Queue;

pub use rerun::{Outputs, Rerun, RerunEnd, Scratch, as_recorded};

/// How often time-outs are looked at and bars are drawn.
const TICK: Duration = Duration::from_millis(100);
/// Two signals within so short a time are one request to stop: `timeout`, for one, signals the program, and then its
/// whole group.
const ECHO: Duration = Duration::from_millis(250);

/// How a run is done.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many stages run at once. `None`: as many as there are cores, but one training at a time,
    /// because a training uses all of them.
    pub jobs: Option<usize>,
    /// Whether a failure stops only what depends on it.
    pub keep_going: bool,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Each stage that was asked for, or is needed by one, with how it ended.
    pub stages: Vec<(StageName, Outcome)>,
    /// Seconds from beginning to end.
    pub seconds: f64,
    /// Whether somebody asked the run to stop.
    pub stopped: bool,
}

impl Summary {
    /// Whether all that was asked for is there.
    pub fn complete(&self) -> bool {
        self.stages
            .iter()
            .all(|(_, outcome)| matches!(outcome, Outcome::Fresh { .. } | Outcome::Ran { .. }))
    }
}

enum Message {
    Job(StageName, JobEvent),
    End(StageName, JobEnd),
    Signal,
}

/// Where a stage is.
enum Progress {
    /// It has not been looked at, or its inputs are not there.
    Pending,
    /// It must run, and waits for a slot.
    Ready { reason: Reason, key: StageKey, parts: Vec<Part> },
    /// A job works on it.
    Running {
        leash: Leash,
        started: Instant,
        timeout: Option<Duration>,
        /// From the start of its worker: waiting for another process does not count.
        deadline: Option<Instant>,
    },
    /// It is over.
    Ended { outcome: Outcome, record: Option<Box<Record>> },
}

/// Runs these stages, which are closed under inputs and in topological order.
///
/// # Errors
/// When the run can't begin. That stages fail is in the [`Summary`].
pub fn execute(
    manifest: &Manifest,
    graph: &Graph,
    cache: &Arc<Cache>,
    selected: &[StageName],
    options: &Options,
    reporter: &mut dyn Reporter,
) -> anyhow::Result<Summary> {
    let world = World::look(cache, manifest, selected);
    world.refuse_obstacles(manifest)?;
    let (sender, receiver) = channel();
    let mut run = Run {
        manifest,
        graph,
        cache,
        world,
        options,
        reporter,
        stages: selected.iter().map(|name| (name.clone(), Progress::Pending)).collect(),
        order: selected.to_vec(),
        queue: Queue::new(selected, graph),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        sender,
        stopping: Arc::new(AtomicBool::new(false)),
        failed: false,
        working: false,
    };
    let started = Instant::now();
    run.report(RunEvent::Begin {
        experiment: manifest.experiment.name.clone(),
        stages: selected.len(),
    });
    run.run_to_end(&receiver)?;
    let summary = run.summary(started);
    run.report(RunEvent::Done { seconds: summary.seconds, complete: summary.complete() });
    Ok(summary)
}

struct Run<'a> {
    manifest: &'a Manifest,
    graph: &'a Graph,
    cache: &'a Arc<Cache>,
    world: World<'a>,
    options: &'a Options,
    reporter: &'a mut dyn Reporter,
    stages: BTreeMap<StageName, Progress>,
    order: Vec<StageName>,
    queue: Queue,
    cores: usize,
    sender: Sender<Message>,
    stopping: Arc<AtomicBool>,
    failed: bool,
    working: bool,
}

impl Run<'_> {
    fn run_to_end(&mut self, receiver: &Receiver<Message>) -> anyhow::Result<()> {
        loop {
            self.start_what_is_ready()?;
            if self.queue.running().len() == 0 {
                return Ok(());
            }
            match receiver.recv_timeout(TICK) {
                Ok(message) => self.receive(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.time_out_what_is_late();
            self.reporter.tick();
        }
    }

    /// Ends what is fresh and starts what must run, until nothing more can be said or started now.
    fn start_what_is_ready(&mut self) -> anyhow::Result<()> {
        loop {
            while let Some(name) = self.queue.first_unseen() {
                self.look_at(&name);
            }
            let Some(name) = self.next_to_start() else { return Ok(()) };
            // It may have waited for hours, and the files that it reads may be others now.
            self.look_at(&name);
            if matches!(self.stages.get(&name), Some(Progress::Ready { .. })) {
                self.start(&name)?;
            }
        }
    }

    /// Decides whether a stage must run, all of whose inputs are there.
    fn look_at(&mut self, name: &StageName) {
        let Some(declaration) = self.manifest.stage(name) else {
            return self.queue.ended(name, false);
        };
        if let Err(error) = self.world.look_again(declaration, &self.manifest.folder) {
            return self.end_unreadable(name, format!("{error:#}"));
        }
        let digest_of = |input: &StageName| self.record(input).map(|record| record.output.digest);
        let parts = match self.world.outside(name) {
            Ok(outside) => key::parts(declaration, outside, digest_of),
            Err(obstacle) => {
                let message = obstacle.message.clone();
                return self.end_unreadable(name, message);
            }
        };
        match plan::decide(name, parts, &self.world) {
            State::Fresh(record) => self.end_fresh(name, record),
            State::Dirty { reason, key, parts } => {
                self.stages.insert(name.clone(), Progress::Ready { reason, key, parts });
                self.queue.must_run(name);
            }
            State::Waiting { .. } | State::Blocked(_) => self.queue.ended(name, false),
        }
    }

    fn end_unreadable(&mut self, name: &StageName, message: String) {
        self.failed = true;
        self.end(name, Outcome::Failed { message, log: Vec::new(), seconds: 0.0 }, None);
    }

    fn end_fresh(&mut self, name: &StageName, record: Box<Record>) {
        let outcome =
            Outcome::Fresh { digest: record.output.digest, metrics: record.metrics.clone() };
        self.end(name, outcome, Some(record));
    }

    /// The first stage that is ready, if there is a slot for it.
    fn next_to_start(&self) -> Option<StageName> {
        let stopping = self.stopping.load(Ordering::Relaxed);
        let slots = self.options.jobs.unwrap_or(self.cores);
        if stopping || (self.failed && !self.options.keep_going) {
            return None;
        }
        if self.queue.running().len() >= slots {
            return None;
        }
        let learns = |name: &StageName| {
            let declaration = self.manifest.stage(name);
            declaration.is_some_and(|one| one.stage.info().worker == WorkerProgram::Learn)
        };
        let one_training = self.options.jobs.is_none() && self.queue.running().any(learns);
        self.queue.ready().find(|name| !(one_training && learns(name))).cloned()
    }

    fn start(&mut self, name: &StageName) -> anyhow::Result<()> {
        let Some(Progress::Ready { reason, key, parts }) = self.stages.get(name) else {
            return Ok(());
        };
        let (reason, key, parts) = (reason.clone(), *key, parts.clone());
        self.begin_work()?;
        let mut declaration = self.manifest.stage(name).context("a stage of the manifest")?.clone();
        let inputs = job::inputs(&declaration, self.cache, |input| self.record(input).cloned())?;
        // Trainings that run side by side share the cores.
        if let Some(jobs) = self.options.jobs.filter(|jobs| *jobs > 1) {
            let share = (self.cores / jobs).max(1) as u32;
            declaration.execution.execution.threads.get_or_insert(share);
        }
        let leash = Leash::default();
        let timeout = declaration.execution.timeout_seconds.map(Duration::from_secs);
        let progress = Progress::Running {
            leash: leash.clone(),
            started: Instant::now(),
            timeout,
            deadline: None,
        };
        self.stages.insert(name.clone(), progress);
        self.queue.started(name);
        let job = Job {
            cache: Arc::clone(self.cache),
            experiment: self.manifest.experiment.name.clone(),
            folder: self.manifest.folder.clone(),
            declaration,
            key,
            parts,
            reason,
            inputs,
            leash,
            stopping: Arc::clone(&self.stopping),
        };
        let sender = self.sender.clone();
        let stage = name.clone();
        let thread = move || {
            let tell = |event| drop(sender.send(Message::Job(stage.clone(), event)));
            let run = std::panic::AssertUnwindSafe(|| job.run(tell));
            let end = std::panic::catch_unwind(run).unwrap_or_else(|_| JobEnd::Failed {
                message: "internal error: its thread panicked".to_owned(),
                log: Vec::new(),
            });
            let _ = sender.send(Message::End(stage.clone(), end));
        };
        std::thread::Builder::new()
            .name(name.to_string())
            .spawn(thread)
            .context("can't start a thread")?;
        Ok(())
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Job(stage, event) => self.tell(stage, event),
            Message::End(stage, end) => self.job_ended(&stage, end),
            Message::Signal => self.stop(),
        }
    }

    fn tell(&mut self, stage: StageName, event: JobEvent) {
        let event = match event {
            JobEvent::Waits => RunEvent::Wait { stage },
            JobEvent::Starts { why, resumes } => {
                if let Some(Progress::Running { timeout, deadline, .. }) =
                    self.stages.get_mut(&stage)
                {
                    *deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                }
                let Some(declaration) = self.manifest.stage(&stage) else { return };
                let kind = declaration.stage.info().name;
                RunEvent::Start { stage, kind, why, resumes }
            }
            JobEvent::Worker(Event::Progress(progress)) => RunEvent::Progress { stage, progress },
            JobEvent::Worker(Event::Note { text }) => RunEvent::Note { stage, text },
            JobEvent::Worker(_) => return,
        };
        self.report(event);
    }

    fn job_ended(&mut self, name: &StageName, end: JobEnd) {
        let seconds = match self.stages.get(name) {
            Some(Progress::Running { started, .. }) => started.elapsed().as_secs_f64(),
            _ => 0.0,
        };
        match end {
            JobEnd::Reused(record) => self.end_fresh(name, record),
            JobEnd::Ran(record) => {
                let last = self.world.last(name);
                let outcome = Outcome::Ran {
                    digest: record.output.digest,
                    unchanged: last.is_some_and(|last| last.output.digest == record.output.digest),
                    seconds,
                    metrics: record.metrics.clone(),
                };
                self.end(name, outcome, Some(record))
            }
            JobEnd::Stopped => self.end(name, Outcome::Stopped, None),
            JobEnd::Failed { message, log } => {
                self.failed = true;
                self.end(name, Outcome::Failed { message, log, seconds }, None)
            }
            JobEnd::DamagedInput(damaged) => {
                let text = format!(
                    "the artifact {} is damaged; it was moved to quarantine/ and its stage runs again",
                    damaged.digest.short()
                );
                self.report(RunEvent::Note { stage: name.clone(), text });
                self.begin_again(name);
                let gave_it = |progress: &Progress| {
                    matches!(progress, Progress::Ended { record: Some(record), .. }
                        if record.output.digest == damaged.digest)
                };
                let givers = self.stages.iter().filter(|(_, progress)| gave_it(progress));
                for giver in givers.map(|(giver, _)| giver.clone()).collect::<Vec<_>>() {
                    self.begin_again(&giver);
                }
            }
        }
    }

    /// Lets a stage be looked at anew, and with it those that were about to use its result.
    fn begin_again(&mut self, name: &StageName) {
        for stage in self.queue.begins_again(name).into_iter().chain([name.clone()]) {
            self.stages.insert(stage, Progress::Pending);
        }
    }

    fn end(&mut self, name: &StageName, outcome: Outcome, record: Option<Box<Record>>) {
        if let Some(record) = &record
            && let Err(error) =
                self.cache.set_head(&self.manifest.experiment.name, name.as_str(), record)
        {
            let text = format!("its link under runs/ was not renewed: {error:#}");
            self.report(RunEvent::Note { stage: name.clone(), text });
        }
        self.report(RunEvent::End { stage: name.clone(), outcome: outcome.clone() });
        self.queue.ended(name, record.is_some());
        self.stages.insert(name.clone(), Progress::Ended { outcome, record });
    }

    fn record(&self, name: &StageName) -> Option<&Record> {
        match self.stages.get(name) {
            Some(Progress::Ended { record, .. }) => record.as_deref(),
            _ => None,
        }
    }

    fn leashes(&self) -> impl Iterator<Item = &Leash> {
        self.queue.running().filter_map(|name| match self.stages.get(name) {
            Some(Progress::Running { leash, .. }) => Some(leash),
            _ => None,
        })
    }

    /// The first request asks workers to write a checkpoint and leave; the second ends them.
    fn stop(&mut self) {
        if self.stopping.swap(true, Ordering::Relaxed) {
            self.leashes().for_each(Leash::kill);
        } else {
            self.leashes().for_each(Leash::stop);
            self.report(RunEvent::Stopping);
        }
    }

    fn time_out_what_is_late(&mut self) {
        let now = Instant::now();
        for name in self.queue.running() {
            if let Some(Progress::Running { leash, deadline, .. }) = self.stages.get_mut(name)
                && deadline.take_if(|deadline| *deadline <= now).is_some()
            {
                leash.time_out();
            }
        }
    }

    /// What the first stage that runs needs. A run that does nothing writes nothing and listens to nobody.
    fn begin_work(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.working, true) {
            return Ok(());
        }
        self.cache.prepare().map_err(job::with_advice)?;
        let sender = self.sender.clone();
        signals(move || sender.send(Message::Signal).is_ok())
    }

    fn report(&mut self, event: RunEvent) {
        self.reporter.event(&event);
    }

    /// What every stage came to; those that never started are skipped now.
    fn summary(&mut self, started: Instant) -> Summary {
        for name in self.order.clone() {
            if !matches!(self.stages.get(&name), Some(Progress::Pending | Progress::Ready { .. })) {
                continue;
            }
            let inputs = self.graph.inputs(&name);
            let missing = inputs.into_iter().find(|input| self.record(input).is_none()).cloned();
            let outcome = Outcome::Skipped { because: missing };
            self.report(RunEvent::End { stage: name.clone(), outcome: outcome.clone() });
            self.stages.insert(name, Progress::Ended { outcome, record: None });
        }
        let stages = self.order.iter().filter_map(|name| match self.stages.get(name) {
            Some(Progress::Ended { outcome, .. }) => Some((name.clone(), outcome.clone())),
            _ => None,
        });
        Summary {
            stages: stages.collect(),
            seconds: started.elapsed().as_secs_f64(),
            stopped: self.stopping.load(Ordering::Relaxed),
        }
    }
}

/// From now on SIGINT and SIGTERM end nothing by themselves: each calls `tell`, as long as that is true, but for the
/// echo of one.
fn signals(tell: impl Fn() -> bool + Send + 'static) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .context("can't listen to signals")?;
    std::thread::spawn(move || {
        let mut last: Option<Instant> = None;
        for _ in &mut signals {
            let echo = last.replace(Instant::now()).is_some_and(|last| last.elapsed() < ECHO);
            if !echo && !tell() {
                break;
            }
        }
    });
    Ok(())
}
