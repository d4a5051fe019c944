//! What the main thread does while work runs elsewhere: it hears of the work, passes signals on, and ends what
//! is late.
//!
//! Shared by a run and a rerun. Does not depend on what the work is, and prints nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGSTOP, SIGTSTP};

use super::handle::{Handle, Kill, Waker};
use crate::progress::Reporter;
use crate::signals::{self, Listener, Request};
use crate::stage_name::StageName;

/// How often time-outs are looked at and bars are drawn.
const TICK: Duration = Duration::from_millis(100);
/// How often the memory of running work is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a request to stop waits for the main thread, which may hang, before another one is obeyed without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for work that runs elsewhere and reports `T`.
pub(crate) struct Supervisor<T> {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    work: BTreeMap<StageName, Supervised<T>>,
    reports: VecDeque<(StageName, T)>,
    /// The signal that asked for an end.
    stopping: Option<i32>,
    memory_seen: Instant,
    listener: Option<Listener>,
    /// Since when a request to stop waits.
    waits: Arc<Mutex<Option<Instant>>>,
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
        let (memory_seen, waits) = (Instant::now(), Arc::default());
        let (stopping, listener) = (None, None);
        Self { sender, receiver, work, reports, stopping, memory_seen, listener, waits }
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
        if self.listener.is_some() {
            self.take_up();
            return Ok(());
        }
        let (sender, waits) = (self.sender.clone(), Arc::clone(&self.waits));
        let take = move |request| {
            if let Request::Stop(_) = request {
                let mut waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
                if waits.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return false;
                }
            }
            sender.send(Message::Asked(request)).is_ok()
        };
        self.listener = Some(Listener::start(&[&[SIGTSTP], others].concat(), take)?);
        Ok(())
    }

    /// Listens no longer. Returns whether somebody has asked to stop.
    pub(crate) fn has_stopped(mut self) -> bool {
        self.listener = None;
        self.take_up();
        self.stopping()
    }

    /// Hears what was asked by now.
    fn take_up(&mut self) {
        while let Ok(message) = self.receiver.try_recv() {
            if let Message::Asked(request) = message {
                self.hear(request);
            }
        }
    }

    /// Does what a signal asks for. Returns whether somebody asks for the first time that the work stops.
    fn hear(&mut self, request: Request) -> bool {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match request {
            Request::Stop(signal) => self.stop(signal),
            Request::Pause => {
                self.suspend();
                false
            }
        }
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
            Some(Message::Asked(request)) => match self.hear(request) {
                true => Heard::StopWanted,
                false => Heard::Nothing,
            },
            Some(Message::Woken) | None => match self.reports.pop_front() {
                Some((stage, report)) => Heard::Report(stage, report),
                None => Heard::Nothing,
            },
        };
        self.tend(reporter);
        heard
    }

    /// What must be done now and then, whatever the main thread waits for.
    fn tend(&mut self, reporter: &mut dyn Reporter) {
        self.end_what_is_late();
        self.look_at_memory();
        reporter.tick();
    }

    /// For a main thread that waits for something else than the work: hears signals alone. Returns whether it waits on, as nobody has
    /// asked to stop.
    pub(crate) fn waits_on(&mut self, reporter: &mut dyn Reporter) -> bool {
        self.take_up();
        self.tend(reporter);
        !self.stopping()
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

    /// The first request asks for a checkpoint and an end; the second ends everything at once. Returns whether it is the first.
    fn stop(&mut self, signal: i32) -> bool {
        let handles = self.work.values().map(|work| &work.handle);
        if self.stopping.is_some() {
            handles.for_each(|handle| handle.kill(Kill::Wanted));
            return false;
        }
        self.stopping = Some(signal);
        handles.for_each(|handle| handle.stop());
        true
    }

    /// Stops the workers, which the terminal does not reach in their own process groups, then this process. When it
    /// is continued, so are they, and the time between does not count.
    fn suspend(&mut self) {
        if !signals::can_be_continued() {
            return;
        }
        self.work.values().for_each(|work| work.handle.suspend());
        let since = Instant::now();
        let _ = signal_hook::low_level::raise(SIGSTOP);
        let paused = since.elapsed();
        for work in self.work.values_mut() {
            work.deadline = work.deadline.and_then(|deadline| deadline.checked_add(paused));
            work.handle.resume();
        }
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
