//! A hold on work that runs elsewhere, and the work that runs on a thread of this process.
//!
//! Does not depend on what the work is.

use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};

use crate::worker::WorkerHandle;

/// A hold on work that runs elsewhere, and reports `T`. Nothing has a default: whoever wraps another one would forget to ask it.
pub(crate) trait Handle<T> {
    /// The next thing that it reports; the last one is its end. `None` when there is nothing new.
    fn poll(&mut self) -> Option<T>;

    /// Asks it to write a checkpoint and leave.
    fn stop(&self);

    /// Ends it at once.
    fn kill(&self, why: Kill);

    /// Stops its processes until [`Handle::resume`], where it is work of this machine.
    fn suspend(&self);

    /// Continues its processes.
    fn resume(&self);

    /// Whether it has processes on this machine now.
    fn has_processes(&self) -> bool;

    /// Looks how much memory its processes have, where it is work of this machine.
    fn look_at_memory(&self);

    /// The most that was seen, in bytes.
    fn memory(&self) -> Option<u64>;
}

/// Ends the wait of whoever polls: there is something to poll.
#[derive(Clone)]
pub(crate) struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// One that does this.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Ends the wait.
    pub(crate) fn wake(&self) {
        (self.0)();
    }
}

/// Why work is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Somebody asked for it.
    Wanted,
    /// Its time is up.
    TimedOut,
}

/// Work on a thread of this process, which runs a worker.
pub(crate) struct Thread<T> {
    reports: Receiver<T>,
    worker: WorkerHandle,
    stopping: Arc<AtomicBool>,
}

impl<T: Send + 'static> Thread<T> {
    /// Starts the work. It is given a way to report, its hold on its worker, and what is set when it is asked to stop;
    /// what it returns is reported last. If it panics, `panicked` is reported in its place.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn start(
        name: &str,
        waker: Waker,
        work: impl FnOnce(&dyn Fn(T), &WorkerHandle, &Arc<AtomicBool>) -> T + Send + 'static,
        panicked: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, reports) = channel();
        let handle = Self { reports, worker: WorkerHandle::default(), stopping: Arc::default() };
        let (worker, stopping) = (handle.worker.clone(), Arc::clone(&handle.stopping));
        on_idle_thread(name, move || {
            let report = |what| {
                let _ = sender.send(what);
                waker.wake();
            };
            let end = catch_unwind(AssertUnwindSafe(|| work(&report, &worker, &stopping)));
            report(end.unwrap_or_else(|_| panicked()));
        })?;
        Ok(handle)
    }
}

impl<T> Handle<T> for Thread<T> {
    fn poll(&mut self) -> Option<T> {
        self.reports.try_recv().ok()
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.worker.stop();
    }

    fn kill(&self, why: Kill) {
        match why {
            Kill::Wanted => self.worker.kill(),
            Kill::TimedOut => self.worker.time_out(),
        }
    }

    fn suspend(&self) {
        self.worker.suspend();
    }

    fn resume(&self) {
        self.worker.resume();
    }

    fn has_processes(&self) -> bool {
        self.worker.runs()
    }

    fn look_at_memory(&self) {
        self.worker.look_at_memory();
    }

    fn memory(&self) -> Option<u64> {
        self.worker.memory()
    }
}

/// Work for a thread.
type Work = Box<dyn FnOnce() + Send>;

/// Does this on a thread that has done its work, or else on a new one of this name: for a short stage, making a thread and ending it
/// would be a twentieth of the work.
fn on_idle_thread(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    static IDLE: Mutex<Vec<Sender<Work>>> = Mutex::new(Vec::new());
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let work: Work = Box::new(work);
    let Some(thread) = idle().pop() else {
        let (sender, more) = channel::<Work>();
        return spawn(name, move || {
            for work in iter::once(work).chain(more) {
                work();
                idle().push(sender.clone());
            }
        });
    };
    // It waits for as long as this process lives.
    thread.send(work).map_err(|_| anyhow!("internal error: an idle thread has ended"))
}

/// A thread, or an error: the standard library's own `spawn` panics where there is none.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).context(
        "cannot start a thread: the limit on processes is reached (`ulimit -u`, or pids.max of a container)",
    )
}
