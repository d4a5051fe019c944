//! What the main thread does while work goes on elsewhere: it hears of the work, passes signals on, and ends what
//! is late.
//!
//! Shared by a run and a rerun. Does not depend on what the work is, and prints nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{getppid, getsid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGSTOP, SIGTERM, SIGTSTP};

use crate::progress::Reporter;
use crate::stage_name::StageName;
use crate::worker::Leash;

/// How often time-outs are looked at and bars are drawn.
const TICK: Duration = Duration::from_millis(100);
/// Two signals within this time are one request to stop: `timeout`, for one, signals the program, and then its
/// whole group.
const ECHO: Duration = Duration::from_millis(250);

/// Waits for work on other threads.
pub struct Supervisor<T> {
    sender: Sender<Message<T>>,
    receiver: Receiver<Message<T>>,
    workers: BTreeMap<StageName, Watched>,
    stopping: Arc<AtomicBool>,
}

/// What was heard.
pub enum Heard<T> {
    /// Something from a thread that works.
    Told(T),
    /// Somebody asked for the first time that the work stops. The workers know.
    StopWanted,
    /// Nothing for now.
    Nothing,
}

enum Message<T> {
    Told(T),
    Asked(Request),
}

/// What a signal asks for.
enum Request {
    Stop,
    Suspend,
}

/// A worker that runs, or will soon.
struct Watched {
    worker: Leash,
    limit: Option<Duration>,
    deadline: Option<Instant>,
}

impl<T: Send + 'static> Supervisor<T> {
    /// With nothing to wait for yet.
    pub fn new() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver, workers: BTreeMap::new(), stopping: Arc::default() }
    }

    /// From now on signals end nothing by themselves: they are requests to the supervisor. SIGINT, SIGTERM and
    /// SIGHUP ask to stop, SIGTSTP asks to pause.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen(&self) -> anyhow::Result<()> {
        // Under nohup, and in a shell without job control, these stay ignored.
        let optional = [SIGHUP, SIGTSTP].into_iter().filter(|signal| !is_ignored(*signal));
        let wanted: Vec<_> = [SIGINT, SIGTERM].into_iter().chain(optional).collect();
        let mut signals =
            signal_hook::iterator::Signals::new(wanted).context("cannot listen to signals")?;
        let sender = self.sender.clone();
        let listen = move || {
            let mut last: Option<Instant> = None;
            for signal in &mut signals {
                let request = match signal {
                    SIGTSTP => Request::Suspend,
                    _ if last.replace(Instant::now()).is_some_and(|last| last.elapsed() < ECHO) => {
                        continue;
                    }
                    _ => Request::Stop,
                };
                if sender.send(Message::Asked(request)).is_err() {
                    break;
                }
            }
        };
        spawn("signals", listen)
    }

    /// Does some work on a thread of its own. What it tells, and what it returns, is heard. If it panics, `panicked`
    /// is heard in its place.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn spawn(
        &self,
        name: &str,
        work: impl FnOnce(&dyn Fn(T)) -> T + Send + 'static,
        panicked: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<()> {
        let sender = self.sender.clone();
        spawn(name, move || {
            let tell = |what| drop(sender.send(Message::Told(what)));
            let end = catch_unwind(AssertUnwindSafe(|| work(&tell)));
            tell(end.unwrap_or_else(|_| panicked()));
        })
    }

    /// Passes signals on to this worker. Its time runs from [`Supervisor::starts`] on.
    pub fn watch(&mut self, stage: &StageName, worker: Leash, limit: Option<Duration>) {
        self.workers.insert(stage.clone(), Watched { worker, limit, deadline: None });
    }

    /// Now the worker starts: waiting for another process did not count.
    pub fn starts(&mut self, stage: &StageName) {
        if let Some(watched) = self.workers.get_mut(stage) {
            watched.deadline = watched.limit.and_then(|limit| Instant::now().checked_add(limit));
        }
    }

    /// It is over.
    pub fn forget(&mut self, stage: &StageName) {
        self.workers.remove(stage);
    }

    /// Whether somebody asked the work to stop.
    pub fn stopping(&self) -> &Arc<AtomicBool> {
        &self.stopping
    }

    /// Waits for news, but not for long.
    pub fn next(&mut self, reporter: &mut dyn Reporter) -> Heard<T> {
        // It cannot be disconnected: this has a sender, too.
        let heard = match self.receiver.recv_timeout(TICK) {
            Ok(Message::Told(what)) => Heard::Told(what),
            Ok(Message::Asked(Request::Stop)) => self.stop(),
            Ok(Message::Asked(Request::Suspend)) => self.suspend(),
            Err(_) => Heard::Nothing,
        };
        self.end_what_is_late();
        reporter.tick();
        heard
    }

    /// The first request asks workers to write a checkpoint and leave; the second ends them.
    fn stop(&self) -> Heard<T> {
        let workers = self.workers.values().map(|watched| &watched.worker);
        if self.stopping.swap(true, Ordering::Relaxed) {
            workers.for_each(Leash::kill);
            return Heard::Nothing;
        }
        workers.for_each(Leash::stop);
        Heard::StopWanted
    }

    /// Stops the workers, which the terminal does not reach in their own process groups, then this process. When it
    /// is continued, so are they, and the time between does not count.
    fn suspend(&mut self) -> Heard<T> {
        // As the system itself does for such a process: with no shell above it, nobody could continue it.
        if getsid(getppid()).ok() != getsid(None).ok() {
            return Heard::Nothing;
        }
        self.workers.values().for_each(|watched| watched.worker.suspend());
        let since = Instant::now();
        let _ = signal_hook::low_level::raise(SIGSTOP);
        let paused = since.elapsed();
        for watched in self.workers.values_mut() {
            watched.deadline = watched.deadline.and_then(|deadline| deadline.checked_add(paused));
            watched.worker.resume();
        }
        Heard::Nothing
    }

    fn end_what_is_late(&mut self) {
        let now = Instant::now();
        for watched in self.workers.values_mut() {
            if watched.deadline.take_if(|deadline| *deadline <= now).is_some() {
                watched.worker.time_out();
            }
        }
    }
}

/// A thread, or an error: the standard library's own `spawn` panics where there is none.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).context(
        "cannot start a thread: the limit on processes is reached (`ulimit -u`, or pids.max of a container)",
    )
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action the call only writes the present one, to memory that is ours.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
