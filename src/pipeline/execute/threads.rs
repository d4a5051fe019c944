//! Jobs of this process, on threads of their own.

use std::sync::Arc;
use std::time::Duration;

use pipeline_stages::message::Event;

use super::executor::{Executor, JobReport};
use super::handle::{Handle, Thread, Waker};
use super::job::{Job, JobEnd, JobEvent};
use super::scheduled::withdraw;
use super::spec::JobSpec;
use crate::cache::{Cache, StatIndex};
use crate::launcher::Launcher;
use crate::manifest::Executors;

/// Runs each job on a thread of this process.
pub(crate) struct Threads {
    /// The cache of all of them.
    pub(crate) cache: Arc<Cache>,
    /// The memory of files outside it.
    pub(crate) index: Arc<StatIndex>,
    /// How their workers are started.
    pub(crate) launcher: Arc<dyn Launcher>,
    /// Whom their reports wake.
    pub(crate) waker: Waker,
    /// How long they wait for another process that has their key.
    pub(crate) patience: Duration,
    /// Where their stages may have jobs that wait in queues, and need not any more. `None` where this is such a job itself.
    pub(crate) elsewhere: Option<Arc<Executors>>,
}

impl Executor for Threads {
    fn start(&self, spec: JobSpec) -> anyhow::Result<Box<dyn Handle<JobReport>>> {
        let (cache, index) = (Arc::clone(&self.cache), Arc::clone(&self.index));
        let (launcher, patience) = (Arc::clone(&self.launcher), self.patience);
        let elsewhere = self.elsewhere.clone();
        let name = spec.declaration.name.to_string();
        let is_scheduled = spec.place.is_some();
        let handle = Thread::start(
            &name,
            self.waker.clone(),
            move |report, wanted| {
                let (cache, index, launcher) = (&*cache, &*index, &*launcher);
                let report = |event| report(JobReport::Event(event));
                let withdrawn = elsewhere.and_then(|all| withdraw(cache, &all, &spec.work.key));
                if let Some(text) = withdrawn {
                    report(JobEvent::Worker(Event::Note { text }));
                }
                let job = Job { spec: &spec, cache, index, launcher, wanted, patience };
                JobReport::End(job.run(&report))
            },
            || JobReport::End(JobEnd::failed("internal error: its thread panicked")),
            || JobReport::End(JobEnd::Stopped),
        )?;
        // A scheduler that signals it a second time is not impatient: until its third one, a result may be recorded.
        Ok(Box::new(if is_scheduled { handle.that_finishes() } else { handle }))
    }
}
