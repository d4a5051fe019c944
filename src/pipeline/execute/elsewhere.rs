//! An executor that looks on the remote before a job starts: for the result of its key, and for the artifacts that it reads.
//!
//! Here and not in the body of a job: what runs on another machine may not reach the remote.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pipeline_stages::message::Event;

use super::executor::{Executor, JobReport};
use super::handle::{Handle, Kill, Thread, Waker};
use super::job::{JobEnd, JobEvent, with_advice, withdrawn_note};
use super::options::Options;
use super::spec::JobSpec;
use super::supervisor::Supervisor;
use crate::cache::{Cache, Record, Watch};
use crate::digest::Digest;
use crate::format;
use crate::reason::Reason;
use crate::remote::{NotPulled, SharedCache};

/// How long the remote may take to answer once somebody has asked to stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// An executor that looks on the remote first, where there is one.
pub(super) fn with_remote(
    executor: Rc<dyn Executor>,
    options: &Options,
    cache: &Arc<Cache>,
    supervisor: &Supervisor<JobReport>,
) -> Rc<dyn Executor> {
    let Some(shared) = &options.shared else { return executor };
    let (shared, cache) = (Arc::clone(shared), Arc::clone(cache));
    Rc::new(WithRemote { shared, cache, waker: supervisor.waker(), executor })
}

/// Looks on a remote, and then lets another executor start the job.
struct WithRemote {
    shared: Arc<SharedCache>,
    cache: Arc<Cache>,
    /// Whom the reports wake.
    waker: Waker,
    /// What starts the jobs.
    executor: Rc<dyn Executor>,
}

impl Executor for WithRemote {
    fn start(&self, spec: JobSpec) -> anyhow::Result<Box<dyn Handle<JobReport>>> {
        let inputs = spec.inputs.iter().map(|(_, _, stored)| stored.digest);
        let missing: Vec<Digest> =
            inputs.filter(|digest| !self.cache.has_artifact(digest)).collect();
        let (key, reason) = (spec.work.key, &spec.work.reason);
        let is_own = matches!(reason, Reason::Forced | Reason::Uncertain) || reason.is_withdrawal();
        let may_ask = || !self.shared.has_answered(&key) && self.shared.trouble().is_none();
        let asks = !is_own && (may_ask() || self.shared.incomplete(&self.cache, &key).is_some());
        if missing.is_empty() && !asks {
            return self.executor.start(spec);
        }
        let (shared, cache) = (Arc::clone(&self.shared), Arc::clone(&self.cache));
        let watch = Arc::new(Watch::default());
        let watched = Arc::clone(&watch);
        let thread = Thread::start(
            spec.declaration.name.as_str(),
            self.waker.clone(),
            move |report, _| {
                let report = |event| report(LookingReport::Event(event));
                if asks {
                    shared.ask(&[key]);
                    for (_, text) in shared.take_odd() {
                        let text = format!("{}: {text}", shared.address());
                        report(JobEvent::Worker(Event::Note { text }));
                    }
                    let counts_now = || match shared.incomplete(&cache, &key) {
                        Some(record) => bring_one(&shared, &cache, &record, &watched, &report),
                        None => Ok(shared.known(&cache, &key).is_some()),
                    };
                    match counts_now() {
                        Ok(true) => return LookingReport::End(JobEnd::LookAgain),
                        Ok(false) => {}
                        Err(end) => return LookingReport::End(end),
                    }
                }
                match bring(&shared, &cache, &missing, &watched, &report) {
                    Ok(()) => LookingReport::Inputs,
                    Err(end) => LookingReport::End(end),
                }
            },
            || LookingReport::End(JobEnd::failed("internal error: its thread panicked")),
            || LookingReport::End(JobEnd::Stopped),
        )?;
        let executor = Rc::clone(&self.executor);
        Ok(Box::new(Looking {
            state: Phase::Looking { thread, spec: Box::new(spec) },
            watch,
            leaves_at: Cell::new(None),
            executor,
        }))
    }
}

/// What was found on the remote.
enum LookingReport {
    Event(JobEvent),
    /// All that the job reads.
    Inputs,
    /// The job need not start, or cannot.
    End(JobEnd),
}

/// Brings artifacts into the cache.
///
/// # Errors
/// How the job ends where one of them does not arrive.
fn bring(
    shared: &SharedCache,
    cache: &Cache,
    missing: &[Digest],
    watch: &Watch,
    report: &dyn Fn(JobEvent),
) -> Result<(), JobEnd> {
    let note = |text: String| report(JobEvent::Worker(Event::Note { text }));
    let records: Vec<_> = missing.iter().filter_map(|digest| shared.of_artifact(digest)).collect();
    if !records.is_empty() {
        let bytes = records.iter().map(|record| record.output.extent.bytes).sum();
        let (count, size) = (records.len(), format::bytes(bytes));
        let inputs = if count == 1 { "an input" } else { "inputs" };
        note(format!("brings {inputs} from {} ({size})", shared.address()));
    }
    for record in records {
        if !bring_one(shared, cache, &record, watch, report)? {
            let artifact = record.output.digest;
            report(JobEvent::Damage { artifact, withdrawn: Vec::new() });
            return Err(JobEnd::LookAgain);
        }
    }
    Ok(())
}

/// Brings a result into the cache. Returns whether it has come.
///
/// # Errors
/// How the job ends that needs it, where that is not for what the remote is or has.
fn bring_one(
    shared: &SharedCache,
    cache: &Cache,
    record: &Record,
    watch: &Watch,
    report: &dyn Fn(JobEvent),
) -> Result<bool, JobEnd> {
    let note = |text: String| report(JobEvent::Worker(Event::Note { text }));
    match shared.pull(cache, record, watch) {
        Ok((_, withdrawn)) => {
            withdrawn_note(&record.output.digest, &withdrawn).into_iter().for_each(note);
            Ok(true)
        }
        Err(NotPulled::There(failure)) => {
            note(format!(
                "the result of {} cannot be brought from {}: {failure}; its stage runs again",
                record.stage,
                shared.address()
            ));
            shared.pass_over(&record.key, &failure);
            Ok(false)
        }
        Err(NotPulled::Here(error)) => Err(JobEnd::failed(format!("{:#}", with_advice(error)))),
        Err(NotPulled::Stopped) => Err(JobEnd::Stopped),
    }
}

/// A job before which somebody looks on the remote.
struct Looking {
    state: Phase,
    watch: Arc<Watch>,
    /// From then on it does not wait for the remote: its thread may be in a request that is never answered.
    leaves_at: Cell<Option<Instant>>,
    executor: Rc<dyn Executor>,
}

enum Phase {
    Looking { thread: Thread<LookingReport>, spec: Box<JobSpec> },
    Runs(Box<dyn Handle<JobReport>>),
    Over,
}

impl Looking {
    /// Starts the job, now that it has its inputs.
    fn begin(&mut self) -> Option<JobReport> {
        let Phase::Looking { spec, .. } = std::mem::replace(&mut self.state, Phase::Over) else {
            return None;
        };
        if self.watch.stop.load(Ordering::Relaxed) {
            return Some(JobReport::End(JobEnd::Stopped));
        }
        match self.executor.start(*spec) {
            Ok(handle) => {
                self.state = Phase::Runs(handle);
                None
            }
            Err(error) => Some(JobReport::End(JobEnd::failed(format!("{error:#}")))),
        }
    }

    fn running(&self) -> Option<&dyn Handle<JobReport>> {
        match &self.state {
            Phase::Runs(handle) => Some(&**handle),
            Phase::Looking { .. } | Phase::Over => None,
        }
    }
}

impl Handle<JobReport> for Looking {
    fn poll(&mut self) -> Option<JobReport> {
        match &mut self.state {
            Phase::Looking { thread, .. } => match thread.poll() {
                Some(LookingReport::Event(event)) => Some(JobReport::Event(event)),
                Some(LookingReport::End(end)) => {
                    self.state = Phase::Over;
                    Some(JobReport::End(end))
                }
                Some(LookingReport::Inputs) => self.begin(),
                // What it wrote is in a work folder, which a later run removes.
                None if self.leaves_at.get().is_some_and(|time| time <= Instant::now()) => {
                    self.state = Phase::Over;
                    Some(JobReport::End(JobEnd::Stopped))
                }
                None => None,
            },
            Phase::Runs(handle) => handle.poll(),
            Phase::Over => None,
        }
    }

    fn stop(&self) {
        self.watch.stop.store(true, Ordering::Relaxed);
        self.leaves_at.set(Some(Instant::now() + PATIENCE));
        self.running().into_iter().for_each(|handle| handle.stop());
    }

    fn kill(&self, why: Kill) {
        self.watch.stop.store(true, Ordering::Relaxed);
        self.leaves_at.set(Some(Instant::now()));
        self.running().into_iter().for_each(|handle| handle.kill(why));
    }

    fn suspend(&self) {
        self.running().into_iter().for_each(|handle| handle.suspend());
    }

    fn resume(&self) {
        self.running().into_iter().for_each(|handle| handle.resume());
    }

    fn has_processes(&self) -> bool {
        self.running().is_some_and(|handle| handle.has_processes())
    }

    fn look_at_memory(&self) {
        self.running().into_iter().for_each(|handle| handle.look_at_memory());
    }

    fn memory(&self) -> Option<u64> {
        self.running()?.memory()
    }
}
