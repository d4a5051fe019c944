//! Stages that run elsewhere, as jobs of a scheduler. A thread for each executor submits them, follows them, and reports.
//!
//! A job needs nobody: it has all that it is to do in its folder in the cache, and says there what it does. Whoever follows it
//! may be killed; the next run finds the folder, and follows the job from its first word. Does not depend on the graph, or on which
//! scheduler it is.

mod cancelled;
mod command;
mod followed;
mod handed_over;
mod line;
mod scheduler;
mod slurm;
mod together;
mod withdraw;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use pipeline_stages::Cores;
use pipeline_stages::message::Event;

use super::executor::{Executor, Report};
use super::handle::{Handle, Kill, Waker, spawn};
use super::job::{JobEnd, JobEvent};
use super::spec::JobSpec;
use crate::cache::Cache;
use crate::key::StageKey;
use crate::manifest::{ExecutorSettings, SchedulerSettings, Stage};
use cancelled::Cancelled;
use command::CommandScheduler;
use followed::Followed;
use scheduler::{JobState, Scheduler, Submission, Trouble};
use slurm::Slurm;
use together::{Width, script};

pub(crate) use followed::QueuedJob;
pub(crate) use line::{JobEnding, JobLine};
pub(crate) use withdraw::withdraw;

/// How often journals are read.
const TICK: Duration = Duration::from_millis(500);
/// So soon after each other come orders that belong together.
const GATHERING: Duration = Duration::from_millis(100);
/// How many journals are read then: of many jobs, each is read less often.
const JOURNALS: usize = 200;
/// How often a scheduler is asked where its jobs are: soon after something changed, and then less and less often.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(30);
/// The pause before a scheduler that did not answer is asked again to take a job: longer each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause before a scheduler that does not answer is asked again, whatever it is asked.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// For this time, an answer that names none of several jobs is not believed: the commands of a scheduler that is away may end
/// without a mistake, and without a word.
const DOUBT: Duration = Duration::from_secs(300);
/// After this time without an answer of a scheduler, that is worth a line.
const SILENCE: Duration = Duration::from_secs(120);

/// The scheduler of an executor: the one list of them.
fn scheduler(settings: &ExecutorSettings) -> Box<dyn Scheduler> {
    match &settings.scheduler {
        SchedulerSettings::Command(templates) => Box::new(CommandScheduler(templates.clone())),
        SchedulerSettings::Slurm(settings) => Box::new(Slurm(settings.clone())),
    }
}

/// What is wanted of a job.
#[derive(Debug, Clone, Default)]
struct Wish(Arc<AtomicU8>);

impl Wish {
    /// That it goes on, and nobody follows it any more.
    const LEAVE: u8 = 1;
    /// That it ends.
    const CANCEL: u8 = 2;

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn want(&self, what: u8) {
        self.0.fetch_max(what, Ordering::Relaxed);
    }
}

/// Whether its thread keeps to `max-jobs` of an executor by itself: what waits is in an array.
pub(crate) fn keeps_to_most(settings: &ExecutorSettings) -> bool {
    scheduler(settings).arrays().is_some()
}

/// Runs stages as jobs of a scheduler.
pub(crate) struct Scheduled {
    orders: Sender<Followed>,
    waker: Waker,
}

/// How jobs of an executor are run.
pub(crate) struct Terms {
    /// Its name.
    pub(crate) name: String,
    pub(crate) settings: ExecutorSettings,
    /// Whether nobody waits for them any more: what is submitted is left.
    pub(crate) leaves: Arc<AtomicBool>,
    /// Whether jobs that somebody else has submitted are left to them.
    pub(crate) only_new: bool,
}

impl Scheduled {
    pub(crate) fn start(terms: Terms, cache: Arc<Cache>, waker: Waker) -> anyhow::Result<Self> {
        let (orders, receiver) = channel();
        let name = terms.name.clone();
        let scheduler = scheduler(&terms.settings);
        let knowledge = Knowledge::new();
        let desk =
            Desk { terms, cache, scheduler, knowledge, jobs: Vec::new(), width: Width::Wide };
        spawn(&name, move || desk.work(&receiver))?;
        Ok(Self { orders, waker })
    }
}

impl Executor for Scheduled {
    fn start(&self, spec: JobSpec) -> anyhow::Result<Box<dyn Handle<Report>>> {
        let (sender, reports) = channel();
        let wish = Wish::default();
        let reporter = Reporter { sender, waker: self.waker.clone() };
        self.orders
            .send(Followed::new(spec, reporter, wish.clone()))
            .map_err(|_| anyhow!("internal error: the thread of the executor is gone"))?;
        Ok(Box::new(Remote { reports, wish }))
    }
}

/// A hold on a job.
struct Remote {
    reports: Receiver<Report>,
    wish: Wish,
}

impl Handle<Report> for Remote {
    fn poll(&mut self) -> Option<Report> {
        match self.reports.try_recv() {
            Ok(report) => Some(report),
            Err(TryRecvError::Empty) => None,
            // Its end was the last one; there is nobody who could report another.
            Err(TryRecvError::Disconnected) => {
                let message = "internal error: the thread of its executor panicked";
                Some(Report::End(JobEnd::failed(message)))
            }
        }
    }

    fn stop(&self) {
        self.wish.want(Wish::LEAVE);
    }

    fn kill(&self, _why: Kill) {
        self.wish.want(Wish::CANCEL);
    }
}

/// Whom a job is reported to.
struct Reporter {
    sender: Sender<Report>,
    waker: Waker,
}

impl Reporter {
    fn event(&self, event: JobEvent) {
        let _ = self.sender.send(Report::Event(event));
        self.waker.wake();
    }

    fn note(&self, text: String) {
        self.event(JobEvent::Worker(Event::Note { text }));
    }

    fn end(&self, end: JobEnd) {
        let _ = self.sender.send(Report::End(end));
        self.waker.wake();
    }
}

/// What the thread of an executor has before it.
struct Desk {
    terms: Terms,
    cache: Arc<Cache>,
    scheduler: Box<dyn Scheduler>,
    knowledge: Knowledge,
    jobs: Vec<Followed>,
    width: Width,
}

/// What a scheduler said last.
struct Knowledge {
    states: HashMap<String, JobState>,
    /// How often it has answered.
    answers: u64,
    /// When it is asked next, and how long after that again.
    next: Instant,
    interval: Duration,
    /// Since when it does not answer.
    silent: Option<Instant>,
    /// Whether that was said.
    has_said: bool,
    /// Until when it takes no jobs, as it did not answer when it was to take one, and how long it is spared then.
    spared: Option<Instant>,
    pause: Duration,
}

impl Knowledge {
    fn new() -> Self {
        Self {
            states: HashMap::new(),
            answers: 0,
            next: Instant::now(),
            interval: SOONEST,
            silent: None,
            has_said: false,
            spared: None,
            pause: FIRST_PAUSE,
        }
    }

    /// Whether it is not asked to take a job now: each one that is asked in vain takes a minute.
    fn takes_none(&self) -> bool {
        self.spared.is_some_and(|until| Instant::now() < until)
    }

    /// It did not answer when it was to take a job.
    fn took_none(&mut self) {
        self.spared = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn has_taken_one(&mut self) {
        (self.spared, self.pause) = (None, FIRST_PAUSE);
    }

    /// Something has changed: it is asked soon.
    fn is_old(&mut self) {
        self.interval = SOONEST;
        self.next = self.next.min(Instant::now() + SOONEST);
    }
}

impl Desk {
    /// Until there is nobody who could give orders, or hear of jobs.
    fn work(mut self, orders: &Receiver<Followed>) {
        let mut first = 0;
        loop {
            match orders.recv_timeout(TICK) {
                Ok(job) => {
                    self.jobs.push(job);
                    self.gather(orders);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is there to hear of them.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.cancel();
            self.ask();
            let count = self.jobs.len();
            let turns = (0..count.min(JOURNALS)).map(|turn| (first + turn) % count);
            let mut room = self.room();
            let ended = turns.filter(|&place| self.step(place, &mut room));
            let mut ended: Vec<usize> = ended.collect();
            first = if count == 0 { 0 } else { (first + JOURNALS) % count };
            ended.sort_unstable();
            ended.into_iter().rev().for_each(|place| drop(self.jobs.remove(place)));
            self.submit();
        }
    }

    /// Takes the orders that come together: what they are about is submitted together.
    fn gather(&mut self, orders: &Receiver<Followed>) {
        self.jobs.extend(orders.try_iter());
        let Some(arrays) = self.scheduler.arrays() else { return };
        let few = self.jobs.len() + arrays.most;
        while self.jobs.len() < few
            && let Ok(job) = orders.recv_timeout(GATHERING)
        {
            self.jobs.push(job);
        }
    }

    /// Follows one job. Returns whether that is over.
    fn step(&mut self, place: usize, room: &mut usize) -> bool {
        let Self { terms, cache, scheduler, knowledge, jobs, .. } = self;
        let Some(job) = jobs.get_mut(place) else { return false };
        if job.is_unwanted() {
            // Together with others, next.
            return false;
        }
        let end = job.step(terms, cache, &**scheduler, knowledge, room);
        let is_over = end.is_some();
        end.into_iter().for_each(|end| job.reporter.end(end));
        is_over
    }

    /// Asks the scheduler where its jobs are, all at once.
    fn ask(&mut self) {
        let knowledge = &mut self.knowledge;
        let ids: Vec<String> = self.jobs.iter().filter_map(Followed::id).collect();
        if ids.is_empty() || Instant::now() < knowledge.next {
            return;
        }
        let is_doubtful = self.scheduler.may_be_mute()
            && ids.len() > 1
            && knowledge.silent.is_none_or(|silent| silent.elapsed() < DOUBT);
        let mut longest = LONGEST_PAUSE;
        let answer = match self.scheduler.states(&ids) {
            Ok(states) if states.is_empty() && is_doubtful => {
                // It is believed one day, and not much later than that.
                longest = LATEST;
                Err(Trouble::Away("it names none of its jobs".to_owned()))
            }
            answer => answer,
        };
        match answer {
            Ok(states) => {
                if states == knowledge.states {
                    knowledge.interval = (knowledge.interval * 5 / 4).min(LATEST);
                } else {
                    knowledge.interval = SOONEST;
                }
                knowledge.states = states;
                knowledge.answers += 1;
                (knowledge.silent, knowledge.has_said) = (None, false);
            }
            Err(trouble) => {
                knowledge.interval = (knowledge.interval * 2).min(longest);
                let silent = *knowledge.silent.get_or_insert_with(Instant::now);
                if silent.elapsed() >= SILENCE && !std::mem::replace(&mut knowledge.has_said, true)
                {
                    let words = trouble.words();
                    let text =
                        format!("its scheduler does not answer, and is asked again: {words}");
                    self.jobs.iter().take(1).for_each(|job| job.reporter.note(text.clone()));
                }
            }
        }
        knowledge.next = Instant::now() + knowledge.interval;
    }

    /// Ends the jobs that somebody wants to end.
    fn cancel(&mut self) {
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let (mut unwanted, others): (Vec<_>, Vec<_>) = jobs.partition(Followed::is_unwanted);
        self.jobs = others;
        let ids: Vec<String> = unwanted.iter().filter_map(Followed::id).collect();
        let cancelled = Cancelled::ask(&*self.scheduler, &ids);
        for job in &mut unwanted {
            let trouble = job.id().and_then(|id| cancelled.trouble(&id));
            let end = job.cancelled(&self.cache, trouble);
            job.reporter.end(end);
        }
    }
}

/// The cores that a job takes, as far as its stage says so: as many as it has threads, where it does not say it otherwise.
fn cpus(stage: &Stage) -> Option<u32> {
    let threads = match stage.stage.cores() {
        Cores::Many => stage.execution.execution.threads,
        Cores::None | Cores::One => None,
    };
    stage.execution.takes.cpus.or(threads)
}

/// Whether a stage would have as many cores and GPUs in a job of its own as it has in that of another one, so that its result is the
/// same in both, and asks for no more memory and time.
pub(super) fn fits_into(stage: &Stage, other: &Stage) -> bool {
    let (takes, there) = (stage.execution.takes, other.execution.takes);
    let is_enough = |wanted: Option<u64>, is: Option<u64>| wanted.is_none() || wanted <= is;
    cpus(stage) == cpus(other)
        && takes.gpus.unwrap_or(0) == there.gpus.unwrap_or(0)
        && is_enough(takes.memory, there.memory)
        && is_enough(stage.execution.time, other.execution.time)
}

/// The time of a job as all schedulers read it: `HH:MM:SS`, with as many hours as it takes.
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What would be submitted to Slurm for a stage with this key, with the options of `sbatch` in it.
///
/// # Errors
/// When the executor is not one of Slurm.
pub(crate) fn slurm_script(
    cache: &Cache,
    stage: &Stage,
    settings: &ExecutorSettings,
    key: &StageKey,
) -> anyhow::Result<String> {
    let SchedulerSettings::Slurm(own) = &settings.scheduler else {
        bail!("this is not an executor of Slurm")
    };
    let (folder, slurm) = (cache.job_place(key), Slurm(own.clone()));
    let (key, token) = (key.to_string(), "TOKEN");
    let job = Submission { stage, key, token: token.to_owned(), folder: &folder, tasks: None };
    let options = slurm.options(&job).into_iter().map(|option| match option.split_once('=') {
        Some((name, value)) if value.contains(' ') => format!("#SBATCH {name}=\"{value}\"\n"),
        _ => format!("#SBATCH {option}\n"),
    });
    let lines = script(settings, None, &[(&folder, token.to_owned())])?;
    Ok(format!("{}\n{}{lines}", slurm.interpreter(), options.collect::<String>()))
}

#[cfg(test)]
mod tests;
