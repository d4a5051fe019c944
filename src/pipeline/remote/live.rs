//! Results that are pushed while a run goes on: a thread sends what was committed, and no stage waits for it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::pull::NotPulled;
use super::push::{Pushed, What};
use super::shared::SharedCache;
use super::transport::FailureKind;
use crate::cache::{Cache, Watch, on_threads};
use crate::events::{Outcome, RunEvent};
use crate::interrupt::further_signal;
use crate::key::StageKey;
use crate::manifest::PushPolicy;
use crate::progress::Reporter;
use crate::stage_name::StageName;
use crate::visible;

/// How many results are sent at once.
const MOST_AT_ONCE: usize = 4;

/// How often the end of a run looks whether all was sent, or somebody asked to stop.
const POLL: Duration = Duration::from_millis(20);

/// After this time, the end of a run says what it waits for.
const SILENCE: Duration = Duration::from_secs(2);

/// How long what is being sent may take once somebody has asked to stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    key: StageKey,
    what: What,
    /// Whether the run has made it. What it has found may be there already.
    is_new: bool,
}

/// Pushes what a run makes.
pub(crate) struct LivePush {
    work: Arc<Work>,
    policy: PushPolicy,
    kinds: HashMap<StageName, &'static str>,
    /// The command that sends the rest.
    command: String,
    thread: Option<(Sender<Wanted>, JoinHandle<()>)>,
    stopping: Option<Instant>,
}

/// What the thread works with.
struct Work {
    shared: Arc<SharedCache>,
    cache: Arc<Cache>,
    watch: Watch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many results wait, or are being sent.
    waiting: usize,
    failed: usize,
    /// How many are there with a record of somebody else.
    unsigned: usize,
    /// The first reason.
    reason: Option<String>,
    /// Why the last one of those that wait was not sent.
    away: Option<String>,
}

impl LivePush {
    /// Pushes those of these stages, each with its kind, that the policy includes, and of the others the records alone.
    pub(crate) fn new(
        shared: Arc<SharedCache>,
        cache: Arc<Cache>,
        policy: PushPolicy,
        kinds: HashMap<StageName, &'static str>,
        command: String,
    ) -> Self {
        let work = Work { shared, cache, watch: Watch::default(), state: Mutex::default() };
        Self { work: Arc::new(work), policy, kinds, command, thread: None, stopping: None }
    }

    fn add(&mut self, stage: &StageName, key: StageKey, is_new: bool) {
        let kind = self.kinds.get(stage).copied().unwrap_or_default();
        let what = if self.policy.includes(stage, kind) { What::Result } else { What::Record };
        self.work.state().waiting += 1;
        if self.thread.is_none() {
            let (sender, receiver) = channel::<Wanted>();
            let work = Arc::clone(&self.work);
            let thread = std::thread::Builder::new().name("push".to_owned());
            let thread = thread.spawn(move || work.send_all(&receiver));
            match thread {
                Ok(thread) => self.thread = Some((sender, thread)),
                Err(error) => {
                    return self.work.ended(Some(format!("cannot start a thread: {error}")));
                }
            }
        }
        let wanted = Wanted { key, what, is_new };
        let sent = self.thread.as_ref().map(|(sender, _)| sender.send(wanted));
        if !matches!(sent, Some(Ok(()))) {
            self.work.ended(Some("internal error: the thread that pushes panicked".to_owned()));
        }
    }

    /// The run has ended: waits for what is being sent, unless somebody asked to stop, or asks now.
    fn done(&mut self) {
        let Some((sender, thread)) = self.thread.take() else { return self.say_failures() };
        drop(sender);
        let mut is_asked = further_signal(self.stopping);
        let began = Instant::now();
        let mut is_silent = true;
        let mut stopped = self.stopping.map(|_| began);
        while !thread.is_finished() {
            if is_asked() {
                stopped.get_or_insert_with(Instant::now);
            }
            if let Some(stopped) = stopped {
                self.work.watch.stop.store(true, Ordering::Relaxed);
                // It ends with this process. Nothing on a remote counts before it is whole.
                if stopped.elapsed() > PATIENCE {
                    return self.say_failures();
                }
            }
            std::thread::sleep(POLL);
            if is_silent && began.elapsed() > SILENCE {
                is_silent = false;
                let left = in_words(self.work.state().waiting);
                say(&format!(
                    "pushing {left} to {}; Ctrl-C leaves the rest to `{}`",
                    self.work.shared.address(),
                    self.command
                ));
            }
        }
        if thread.join().is_err() {
            self.work.state().reason.get_or_insert("internal error: it panicked".to_owned());
        }
        self.say_failures();
    }

    fn say_failures(&self) {
        let state = self.work.state();
        if state.unsigned > 0 {
            say(&format!(
                "warning: {} not signed by you, as {} has other records there: `{}` names them",
                in_words_that_were(state.unsigned),
                self.work.shared.address(),
                self.command
            ));
        }
        let left = state.failed + state.waiting;
        if left > 0 {
            let reason = state.reason.as_deref().or(state.away.as_deref());
            let reason = reason.unwrap_or("it was stopped");
            say(&format!(
                "warning: {} not pushed to {}: {reason}; `{}` sends what is missing there",
                in_words_that_were(left),
                self.work.shared.address(),
                self.command
            ));
        }
    }
}

impl Work {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends results as they come. Those that the remote does not take, as it is away, are sent when it is asked again, and once more
    /// at the end.
    fn send_all(&self, receiver: &Receiver<Wanted>) {
        let mut left: Vec<Wanted> = Vec::new();
        let mut is_last = false;
        while !is_last {
            let next = match left.is_empty() {
                true => receiver.recv().map_err(RecvTimeoutError::from),
                false => receiver.recv_timeout(self.shared.push_pause().unwrap_or_default()),
            };
            is_last = next == Err(RecvTimeoutError::Disconnected);
            left.extend(next.into_iter().chain(receiver.try_iter()));
            if is_last {
                self.shared.relent();
            }
            let is_over = on_threads(&left, MOST_AT_ONCE, |wanted| self.send(wanted));
            let mut is_over = is_over.into_iter();
            left.retain(|_| !is_over.next().unwrap_or_default());
        }
    }

    /// Sends one. Returns whether it is over: not where the remote is away.
    fn send(&self, Wanted { key, what, is_new }: &Wanted) -> bool {
        let pushed = match self.cache.usable(key) {
            _ if self.watch.stop.load(Ordering::Relaxed) => Err(NotPulled::Stopped),
            Some(record) if *is_new || self.shared.may_lack(&self.cache, &record) => {
                self.shared.push(&self.cache, &record, *what, &self.watch)
            }
            Some(_) => Ok(Pushed::Existed),
            None => Err(NotPulled::Here(anyhow!("the result is no longer in the cache"))),
        };
        self.state().unsigned += usize::from(matches!(pushed, Ok(Pushed::Unsigned)));
        let failed = match pushed {
            Ok(_) => None,
            Err(NotPulled::There(failure)) if failure.kind == FailureKind::Away => {
                self.state().away = Some(failure.reason);
                return false;
            }
            Err(NotPulled::There(failure)) => Some(failure.reason),
            Err(NotPulled::Here(error)) => Some(format!("{error:#}")),
            Err(NotPulled::Stopped) => Some("it was stopped".to_owned()),
        };
        self.ended(failed);
        true
    }

    /// One is over, or failed for this reason.
    fn ended(&self, failed: Option<String>) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(1);
        if let Some(reason) = failed {
            state.failed += 1;
            state.reason.get_or_insert(reason);
        }
    }
}

impl Reporter for LivePush {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::End { stage, key: Some(key), outcome: Outcome::Ran { .. }, .. } => {
                self.add(stage, *key, true);
            }
            // Made while no run followed, such as by a job, or while the remote was away.
            RunEvent::End { stage, key: Some(key), outcome: Outcome::Fresh { .. }, .. } => {
                self.add(stage, *key, false);
            }
            RunEvent::Stopping { .. } => self.stopping = Some(Instant::now()),
            RunEvent::Done { .. } => self.done(),
            _ => {}
        }
    }
}

fn in_words(results: usize) -> String {
    if results == 1 { "1 result".to_owned() } else { format!("{results} results") }
}

fn in_words_that_were(results: usize) -> String {
    format!("{} {}", in_words(results), if results == 1 { "was" } else { "were" })
}

fn say(text: &str) {
    // Where standard error is closed, nobody reads it.
    let _ = writeln!(io::stderr(), "{}", visible::text(text));
}
