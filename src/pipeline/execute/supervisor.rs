//! What the main thread does while work runs elsewhere: it hears of the work, passes signals on, and ends what
//! is late.
//!
//! Shared by a run and a rerun. Does not depend on what the work is, and prints nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGSTOP, SIGTERM, SIGTSTP};

use super::handle::{Handle, Kill, Waker, spawn};
use crate::progress::Reporter;
use crate::stage_name::StageName;

/// How often time-outs are looked at and bars are drawn.
const TICK: Duration = Duration::from_millis(100);
/// How often the memory of running work is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(500);
/// Two signals within this time are one request to stop: `timeout`, for one, signals the program, and then its
/// whole group.
const ECHO: Duration = Duration::from_millis(250);

/// Waits for work that runs elsewhere and reports `T`.
pub(crate) struct Supervisor<T> {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    work: BTreeMap<StageName, Supervised<T>>,
    reports: VecDeque<(StageName, T)>,
    /// The signal that asked for an end.
    stopping: Option<i32>,
    memory_seen: Instant,
    /// Ends the thread that listens to signals.
    signals: Option<signal_hook::iterator::Handle>,
}

impl<T> Drop for Supervisor<T> {
    fn drop(&mut self) {
        if let Some(signals) = &self.signals {
            signals.close();
        }
    }
}

/// What was heard.
pub(crate) enum Heard<T> {
    /// What the work on a stage reports.
    Report(StageName, T),
    /// Somebody asked for the first time that the work stops. It was passed on.
    StopWanted,
    /// Nothing for now.
    Nothing,
}

enum Message {
    Woken,
    Asked(Request),
}

/// What a signal asks for.
enum Request {
    /// By this signal.
    Stop(i32),
    Suspend,
}

/// Work that runs.
struct Supervised<T> {
    handle: Box<dyn Handle<T>>,
    limit: Option<Duration>,
    deadline: Option<Instant>,
}

impl<T> Supervisor<T> {
    /// With nothing to wait for yet.
    pub(crate) fn new() -> Self {
        let (sender, receiver) = channel();
        let (work, reports) = (BTreeMap::new(), VecDeque::new());
        let memory_seen = Instant::now();
        Self { sender, receiver, work, reports, stopping: None, memory_seen, signals: None }
    }

    /// For work that can report something at any time.
    pub(crate) fn waker(&self) -> Waker {
        let sender = self.sender.clone();
        Waker::new(move || {
            let _ = sender.send(Message::Woken);
        })
    }

    /// From now on signals end nothing by themselves: they are requests to the supervisor. SIGINT, SIGTERM and
    /// SIGHUP ask to stop, SIGTSTP asks to pause. Where it has listened before, it takes up what was asked since its last work
    /// ended.
    pub(crate) fn listen(&mut self) -> anyhow::Result<()> {
        self.listen_also_to(&[])
    }

    /// The same; these ask to stop, too.
    pub(crate) fn listen_also_to(&mut self, others: &[i32]) -> anyhow::Result<()> {
        if self.signals.is_some() {
            while let Ok(message) = self.receiver.try_recv() {
                match message {
                    Message::Asked(Request::Stop(signal)) => drop(self.stop(signal)),
                    Message::Asked(Request::Suspend) => drop(self.suspend()),
                    Message::Woken => {}
                }
            }
            return Ok(());
        }
        // Under nohup, and in a shell without job control, these stay ignored.
        let optional = [SIGHUP, SIGTSTP].into_iter().filter(|signal| !is_ignored(*signal));
        let others = others.iter().copied();
        let wanted: Vec<_> = [SIGINT, SIGTERM].into_iter().chain(optional).chain(others).collect();
        let mut signals =
            signal_hook::iterator::Signals::new(wanted).context("cannot listen to signals")?;
        self.signals = Some(signals.handle());
        let sender = self.sender.clone();
        let listen = move || {
            let mut last: Option<Instant> = None;
            for signal in &mut signals {
                let request = match signal {
                    SIGTSTP => Request::Suspend,
                    _ if last.replace(Instant::now()).is_some_and(|last| last.elapsed() < ECHO) => {
                        continue;
                    }
                    signal => Request::Stop(signal),
                };
                if sender.send(Message::Asked(request)).is_err() {
                    break;
                }
            }
        };
        spawn("signals", listen)
    }

    /// Waits for this work from now on. Its time runs from [`Supervisor::starts`] on.
    pub(crate) fn watch(
        &mut self,
        stage: &StageName,
        handle: Box<dyn Handle<T>>,
        limit: Option<Duration>,
    ) {
        self.work.insert(stage.clone(), Supervised { handle, limit, deadline: None });
    }

    /// Now its worker starts: waiting for another process did not count.
    pub(crate) fn starts(&mut self, stage: &StageName) {
        if let Some(work) = self.work.get_mut(stage) {
            work.deadline = work.limit.and_then(|limit| Instant::now().checked_add(limit));
        }
    }

    /// Whether running work has processes on this machine: not what runs elsewhere, or whose program has ended.
    pub(crate) fn has_processes(&self, stage: &StageName) -> bool {
        self.work.get(stage).is_some_and(|work| work.handle.has_processes())
    }

    /// The most memory that running work was seen to have, in bytes.
    pub(crate) fn memory(&self, stage: &StageName) -> Option<u64> {
        self.work.get(stage)?.handle.memory()
    }

    /// It is over.
    pub(crate) fn forget(&mut self, stage: &StageName) {
        self.work.remove(stage);
    }

    /// Whether somebody asked the work to stop.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether this signal asked for it first.
    pub(crate) fn was_asked_by(&self, signal: i32) -> bool {
        self.stopping == Some(signal)
    }

    /// Waits for news, but not for long.
    pub(crate) fn next(&mut self, reporter: &mut dyn Reporter) -> Heard<T> {
        // First a signal: reports could follow each other without an end.
        let message = self.receiver.try_recv().ok();
        let message = match (message, self.poll()) {
            (Some(message), _) => Some(message),
            (None, true) => None,
            (None, false) => self.receiver.recv_timeout(TICK).ok(),
        };
        let heard = match message {
            Some(Message::Asked(Request::Stop(signal))) => self.stop(signal),
            Some(Message::Asked(Request::Suspend)) => self.suspend(),
            Some(Message::Woken) | None => match self.reports.pop_front() {
                Some((stage, report)) => Heard::Report(stage, report),
                None => Heard::Nothing,
            },
        };
        self.end_what_is_late();
        self.look_at_memory();
        reporter.tick();
        heard
    }

    /// Collects what there is to report, one from each piece of work, so that none is kept waiting by another.
    fn poll(&mut self) -> bool {
        if self.reports.is_empty() {
            for (stage, work) in &mut self.work {
                self.reports.extend(work.handle.poll().map(|report| (stage.clone(), report)));
            }
        }
        !self.reports.is_empty()
    }

    /// The first request asks for a checkpoint and an end; the second ends everything at once.
    fn stop(&mut self, signal: i32) -> Heard<T> {
        let handles = self.work.values().map(|work| &work.handle);
        if self.stopping.is_some() {
            handles.for_each(|handle| handle.kill(Kill::Wanted));
            return Heard::Nothing;
        }
        self.stopping = Some(signal);
        handles.for_each(|handle| handle.stop());
        Heard::StopWanted
    }

    /// Stops the workers, which the terminal does not reach in their own process groups, then this process. When it
    /// is continued, so are they, and the time between does not count.
    fn suspend(&mut self) -> Heard<T> {
        // As the system itself does for such a process: with no shell above it, nobody could continue it.
        if !is_parent_in_our_session() {
            return Heard::Nothing;
        }
        self.work.values().for_each(|work| work.handle.suspend());
        let since = Instant::now();
        let _ = signal_hook::low_level::raise(SIGSTOP);
        let paused = since.elapsed();
        for work in self.work.values_mut() {
            work.deadline = work.deadline.and_then(|deadline| deadline.checked_add(paused));
            work.handle.resume();
        }
        Heard::Nothing
    }

    /// What runs for less than half a second may be missed: the system counts the memory of its processes one by one.
    fn look_at_memory(&mut self) {
        if self.memory_seen.elapsed() >= MEMORY_INTERVAL {
            self.work.values().for_each(|work| work.handle.look_at_memory());
            self.memory_seen = Instant::now();
        }
    }

    fn end_what_is_late(&mut self) {
        let now = Instant::now();
        for work in self.work.values_mut() {
            if work.deadline.take_if(|deadline| *deadline <= now).is_some() {
                work.handle.kill(Kill::TimedOut);
            }
        }
    }
}

/// Whether the parent belongs to the session of this process. In a container the number of both can be zero: that of a
/// session whose leader is outside of it.
fn is_parent_in_our_session() -> bool {
    // SAFETY: these calls only return numbers.
    unsafe { libc::getsid(libc::getppid()) == libc::getsid(0) }
}

/// Whether this process was started with a signal ignored.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action the call only writes the present one, to memory that is ours.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
