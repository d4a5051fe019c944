//! A hold on work that runs elsewhere, and the work that runs on a thread of this process.
//!
//! Does not depend on what the work is.

use std::cell::Cell;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::cache::Watch;
use crate::machine;
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

/// How long the thread of work that is ended may take to come to its own end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is wanted of work on a thread of this process, which runs a worker.
#[derive(Default)]
pub(crate) struct Wanted {
    /// A hold on its worker.
    pub(crate) worker: WorkerHandle,
    /// Set when it is asked to stop.
    pub(crate) stopping: AtomicBool,
    /// Stopped when it is to end at once.
    pub(crate) watch: Watch,
}

/// Work on a thread of this process, which runs a worker.
pub(crate) struct Thread<T> {
    reports: Receiver<T>,
    wanted: Arc<Wanted>,
    /// When somebody wanted it to end at once.
    killed: Cell<Option<Instant>>,
    /// What is reported where it does not end by then.
    stopped: fn() -> T,
    /// Whether killing it ends its worker alone, for the first time.
    finishes: Cell<bool>,
}

impl<T: Send + 'static> Thread<T> {
    /// Starts the work. It is given a way to report, and what is wanted of it; what it returns is reported last. If it panics, `panicked`
    /// is reported in its place.
    ///
    /// Where it does not end soon after it was [killed](Kill::Wanted), `stopped` is: it may wait for a disk, a lock or another program,
    /// and ends with this process. What it leaves then is what a crash leaves.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn start(
        name: &str,
        waker: Waker,
        work: impl FnOnce(&dyn Fn(T), &Wanted) -> T + Send + 'static,
        panicked: impl FnOnce() -> T + Send + 'static,
        stopped: fn() -> T,
    ) -> anyhow::Result<Self> {
        let (sender, reports) = channel();
        let wanted = Arc::<Wanted>::default();
        let handle = Self {
            reports,
            wanted: Arc::clone(&wanted),
            killed: Cell::default(),
            stopped,
            finishes: Cell::default(),
        };
        on_idle_thread(name, move || {
            let report = |what| {
                let _ = sender.send(what);
                waker.wake();
            };
            let end = catch_unwind(AssertUnwindSafe(|| work(&report, &wanted)));
            report(end.unwrap_or_else(|_| panicked()));
        })?;
        Ok(handle)
    }

    /// Where it is [killed](Kill::Wanted) once, its worker ends, and what it does itself comes to its end: for work of which somebody else
    /// bounds the time.
    pub(crate) fn that_finishes(self) -> Self {
        self.finishes.set(true);
        self
    }
}

impl<T> Handle<T> for Thread<T> {
    fn poll(&mut self) -> Option<T> {
        let is_late = || self.killed.get().is_some_and(|killed| killed.elapsed() >= PATIENCE);
        self.reports.try_recv().ok().or_else(|| is_late().then(self.stopped))
    }

    fn stop(&self) {
        self.wanted.stopping.store(true, Ordering::Relaxed);
        self.wanted.worker.stop();
    }

    fn kill(&self, why: Kill) {
        match why {
            Kill::Wanted if self.finishes.take() => self.wanted.worker.kill(),
            Kill::Wanted => {
                self.wanted.watch.stop.store(true, Ordering::Relaxed);
                self.killed.set(self.killed.get().or_else(|| Some(Instant::now())));
                self.wanted.worker.kill();
            }
            Kill::TimedOut => self.wanted.worker.time_out(),
        }
    }

    fn suspend(&self) {
        self.wanted.worker.suspend();
    }

    fn resume(&self) {
        self.wanted.worker.resume();
    }

    fn has_processes(&self) -> bool {
        self.wanted.worker.runs()
    }

    fn look_at_memory(&self) {
        self.wanted.worker.look_at_memory();
    }

    fn memory(&self) -> Option<u64> {
        self.wanted.worker.memory()
    }
}

/// Work for a thread.
type Task = Box<dyn FnOnce() + Send>;

/// Does this on a thread that has done its work, or else on a new one of this name: for a short stage, making a thread and ending it
/// would be a twentieth of the work.
fn on_idle_thread(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    static IDLE: Mutex<Vec<Sender<Task>>> = Mutex::new(Vec::new());
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let work: Task = Box::new(work);
    let Some(thread) = idle().pop() else {
        let (sender, more) = channel::<Task>();
        return machine::spawn(name, move || {
            for work in iter::once(work).chain(more) {
                work();
                idle().push(sender.clone());
            }
        });
    };
    // It waits for as long as this process lives.
    thread.send(work).map_err(|_| anyhow!("internal error: an idle thread has ended"))
}
