//! Results that are pushed while a run goes on: a thread sends what was committed, and no stage waits for it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::pull::NotPulled;
use super::push::{Pushed, What};
use super::shared::SharedCache;
use super::transport::RemoteFailure;
use crate::cache::{Cache, Watch, on_threads};
use crate::events::{Outcome, RunEvent};
use crate::key::StageKey;
use crate::manifest::PushPolicy;
use crate::progress::Reporter;
use crate::signals::StopFlag;
use crate::stage_name::StageName;
use crate::visible::note;

/// How many results are sent at once.
const MOST_AT_ONCE: usize = 4;

/// How often a result is sent that the remote does not take although it works.
const MOST_TRIES: u32 = 3;

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
    /// How often it was sent, and not taken although the remote works.
    tries: u32,
}

/// Pushes what a run makes.
pub(crate) struct LivePush {
    work: Arc<Pushing>,
    policy: PushPolicy,
    kinds: HashMap<StageName, &'static str>,
    /// The command that sends the rest.
    command: String,
    thread: Option<(Sender<Wanted>, JoinHandle<()>)>,
    stopping: Option<Instant>,
}

/// What the thread works with.
struct Pushing {
    shared: Arc<SharedCache>,
    cache: Arc<Cache>,
    watch: Watch,
    state: Mutex<PushState>,
}

#[derive(Default)]
struct PushState {
    /// How many results wait, or are being sent.
    waiting: usize,
    failed: usize,
    /// How many are there with a record of somebody else.
    unsigned: usize,
    /// How many keys have other bytes there.
    other_bytes: usize,
    /// The first reason.
    reason: Option<String>,
    /// Why the last one of those that wait was not sent.
    away: Option<String>,
    /// Whether anything was sent, or was there.
    has_worked: bool,
    /// Whether anything was sent.
    has_written: bool,
    /// Why nothing can be sent.
    barred: Option<RemoteFailure>,
}

impl PushState {
    /// How many results are not there.
    fn left(&self) -> usize {
        self.failed + self.waiting
    }
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
        let work = Pushing { shared, cache, watch: Watch::default(), state: Mutex::default() };
        Self { work: Arc::new(work), policy, kinds, command, thread: None, stopping: None }
    }

    /// Whether all that it was told of is there, as far as it is to be: for whoever asks once the run has ended.
    pub(crate) fn has_sent_all(&self) -> impl Fn() -> bool + use<> {
        let work = Arc::clone(&self.work);
        move || work.state().left() == 0
    }

    fn add(&mut self, stage: &StageName, key: StageKey, is_new: bool) {
        let kind = self.kinds.get(stage).copied().unwrap_or_default();
        let what = if self.policy.includes(stage, kind) { What::Result } else { What::Record };
        self.work.state().waiting += usize::from(is_new);
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
        let wanted = Wanted { key, what, is_new, tries: 0 };
        let sent = self.thread.as_ref().map(|(sender, _)| sender.send(wanted));
        if !matches!(sent, Some(Ok(()))) {
            self.work.ended(Some("internal error: the thread that pushes panicked".to_owned()));
        }
    }

    /// The run has ended: waits for what is being sent, unless somebody asked to stop, or asks now.
    fn done(&mut self) {
        let Some((sender, thread)) = self.thread.take() else { return self.say_failures() };
        self.work.watch.stop.store(self.stopping.is_some(), Ordering::Relaxed);
        drop(sender);
        // Without it, the end is only not shortened.
        let stop = StopFlag::listen().ok();
        let began = Instant::now();
        let mut is_silent = true;
        let mut stopped = self.stopping.map(|_| began);
        while !thread.is_finished() {
            if stop.as_ref().is_some_and(StopFlag::is_asked) {
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
                note(&format!(
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
            note(&format!(
                "warning: {} not signed by you, as {} has other records there: `{}` names them",
                in_words_that_were(state.unsigned),
                self.work.shared.address(),
                self.command
            ));
        }
        if state.other_bytes > 0 {
            note(&format!(
                "warning: {} not pushed, as {} has other bytes there: `{}` names them",
                in_words_that_were(state.other_bytes),
                self.work.shared.address(),
                self.command
            ));
        }
        let left = state.left();
        if left > 0 {
            let failure = || Some(self.work.shared.failure()?.reason);
            let reason = state.reason.clone().or(state.away.clone()).or_else(failure);
            let reason = match reason {
                Some(reason) if self.work.is_stopped() => {
                    format!("it was stopped, and before that: {reason}")
                }
                Some(reason) => reason,
                None => "it was stopped".to_owned(),
            };
            note(&format!(
                "warning: {} not pushed to {}: {reason}; `{}` sends what is missing there",
                in_words_that_were(left),
                self.work.shared.address(),
                self.command
            ));
        }
    }
}

impl Pushing {
    fn state(&self) -> std::sync::MutexGuard<'_, PushState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.watch.stop.load(Ordering::Relaxed)
    }

    /// Sends results as they come, new ones first. Those that the remote does not take, as it is away, are sent when it is asked
    /// again, and once more at the end.
    fn send_all(&self, receiver: &Receiver<Wanted>) {
        let mut left: Vec<Wanted> = Vec::new();
        let mut is_last = false;
        while !is_last || !left.is_empty() {
            if !is_last {
                let next = match left.is_empty() {
                    true => receiver.recv().map_err(RecvTimeoutError::from),
                    false => receiver.recv_timeout(self.shared.push_pause().unwrap_or_default()),
                };
                is_last = next == Err(RecvTimeoutError::Disconnected);
                let came = next.into_iter().chain(receiver.try_iter());
                left.extend(came.filter(|wanted| self.is_to_be_sent(wanted)));
                if is_last {
                    self.shared.relent();
                }
            }
            let is_paused = self.shared.push_pause().is_some();
            if is_paused && !is_last {
                continue;
            }
            left.sort_by_key(|wanted| (wanted.tries, !wanted.is_new));
            // At the end of the run, each is told why it is not sent.
            let count = if is_paused { left.len() } else { self.count_now(&left) };
            let rest = left.split_off(count.min(left.len()));
            let again = on_threads(&left, MOST_AT_ONCE, |wanted| self.send(wanted));
            left = rest;
            if !is_last {
                left.extend(again.into_iter().flatten());
            }
        }
    }

    /// Whether a result may not be there. One that the run has not made is counted from now on.
    fn is_to_be_sent(&self, wanted: &Wanted) -> bool {
        let may_lack = || {
            let record = self.cache.usable(&wanted.key)?;
            self.shared.may_lack(&self.cache, &record, wanted.what).then_some(())
        };
        let is_found = !wanted.is_new && may_lack().is_some();
        self.state().waiting += usize::from(is_found);
        wanted.is_new || is_found
    }

    /// How many of these are sent now: one, until the remote takes something; then all new ones, or some of the others.
    fn count_now(&self, left: &[Wanted]) -> usize {
        if !self.state().has_worked || self.shared.failure().is_some() {
            return 1;
        }
        let new = left.iter().take_while(|wanted| wanted.is_new && wanted.tries == 0);
        match new.count() {
            0 => MOST_AT_ONCE,
            new => new,
        }
    }

    /// Sends one. Returns what is to be sent again, as the remote is away or did not take it.
    fn send(&self, wanted: &Wanted) -> Option<Wanted> {
        let is_try = self.shared.push_pause().is_none();
        let push = || {
            if self.is_stopped() {
                return Err(NotPulled::Stopped);
            }
            if let Some(barred) = self.state().barred.clone() {
                return Err(barred.into());
            }
            let record = self.cache.usable(&wanted.key);
            let record = record.ok_or_else(|| anyhow!("the result is no longer in the cache"))?;
            self.shared.push(&self.cache, &record, wanted.what, &self.watch)
        };
        let pushed = push();
        let mut state = self.state();
        let failed = match pushed {
            Ok(pushed) => {
                state.unsigned += usize::from(pushed == Pushed::Unsigned);
                state.other_bytes += usize::from(pushed == Pushed::OtherBytes);
                state.has_worked = true;
                state.has_written |=
                    matches!(pushed, Pushed::New | Pushed::Completed | Pushed::Signed);
                None
            }
            Err(NotPulled::There(failure)) if failure.may_pass() => {
                let tries = wanted.tries + u32::from(is_try && !self.shared.is_away());
                if tries < MOST_TRIES {
                    state.away = Some(failure.reason);
                    return Some(Wanted { tries, ..*wanted });
                }
                Some(failure.reason)
            }
            Err(NotPulled::There(failure)) => {
                // Who may not write this may not write anything, unless something was written.
                if failure.is_lasting && !state.has_written {
                    state.barred.get_or_insert(failure.clone());
                }
                Some(failure.reason)
            }
            Err(NotPulled::Here(error)) => Some(format!("{error:#}")),
            // It is left.
            Err(NotPulled::Stopped) => return None,
        };
        drop(state);
        self.ended(failed);
        None
    }

    /// One is over, or failed for this reason.
    fn ended(&self, failed: Option<String>) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(1);
        if state.waiting == 0 {
            state.away = None;
        }
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

#[cfg(test)]
mod tests {
    use super::super::tests::{Memory, cache, make, model};
    use super::*;
    use crate::cache::Record;
    use crate::signing::Signing;

    /// What sends results of a cache to a remote that is asked again soon.
    fn work(remote: &Arc<Memory>, cache: Cache) -> Pushing {
        let pause = Duration::from_millis(1);
        let shared = SharedCache::over(Box::new(Arc::clone(remote)), Signing::default(), pause);
        let (shared, cache) = (Arc::new(shared), Arc::new(cache));
        Pushing { shared, cache, watch: Watch::default(), state: Mutex::default() }
    }

    fn small(cache: &Cache, stage: &str) -> Record {
        make(cache, stage, |folder| std::fs::write(folder.join("a"), stage).expect("ours"))
    }

    fn large(cache: &Cache, stage: &str) -> Record {
        make(cache, stage, |folder| {
            std::fs::write(folder.join("a"), stage.repeat(70_000)).expect("ours");
        })
    }

    /// Sends results that the run has made, or found. The run ends once this many are left.
    fn send(work: &Pushing, results: &[(&Record, bool)], left: Option<usize>) {
        let (sender, receiver) = channel();
        for (record, is_new) in results {
            let wanted = Wanted { key: record.key, what: What::Result, is_new: *is_new, tries: 0 };
            work.state().waiting += usize::from(*is_new);
            sender.send(wanted).expect("it is open");
        }
        std::thread::scope(|scope| {
            scope.spawn(move || work.send_all(&receiver));
            while left.is_some_and(|left| work.state().waiting != left) {
                std::thread::sleep(POLL);
            }
            drop(sender);
        });
    }

    /// The names that were put, as they came.
    fn puts(remote: &Memory, folder: &str) -> Vec<String> {
        let journal = remote.journal.lock().expect("ours");
        let start = format!("put {folder}");
        journal.iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    #[test]
    fn what_is_never_taken_is_given_up_and_the_others_are_sent() {
        let remote = Arc::new(Memory::default());
        let (_folder, cache) = cache();
        let [first, second] = ["first", "second"].map(|stage| large(&cache, stage));
        let never = small(&cache, "never");
        let fails = |what: &str, name: &super::super::name::Name| {
            let is_it = what == "put" && name.as_str().starts_with("packs/");
            is_it.then(|| RemoteFailure::away("the proxy ends it"))
        };
        remote.fail(Some(fails));
        let work = work(&remote, cache);
        send(&work, &[(&never, true), (&first, true), (&second, true)], Some(0));
        assert_eq!(puts(&remote, "packs/").len(), MOST_TRIES as usize);
        assert_eq!(puts(&remote, "records/").len(), 2);
        let state = work.state();
        assert_eq!((state.failed, state.reason.as_deref()), (1, Some("the proxy ends it")));
    }

    #[test]
    fn what_waits_while_the_remote_is_away_is_never_given_up() {
        let remote = Arc::new(Memory::default());
        let (_folder, cache) = cache();
        let record = small(&cache, "first");
        remote.fail(Some(|_, _| Some(RemoteFailure::away("the cable is cut"))));
        let work = work(&remote, cache);
        let asked = || remote.journal.lock().expect("ours").len();
        std::thread::scope(|scope| {
            scope.spawn(|| send(&work, &[(&record, true)], Some(0)));
            while asked() < 3 * MOST_TRIES as usize {
                std::thread::sleep(POLL);
            }
            remote.fail(None);
        });
        assert_eq!(puts(&remote, "records/").len(), 1);
        assert_eq!(work.state().failed, 0);
    }

    #[test]
    fn who_may_not_write_tries_it_once() {
        let remote = Arc::new(Memory::default());
        let (_folder, cache) = cache();
        let records = ["a", "b", "c", "d", "e"].map(|stage| large(&cache, stage));
        remote.fail(Some(|what, _| {
            (what == "put").then(|| RemoteFailure::refused("you may not write").lasting())
        }));
        let work = work(&remote, cache);
        send(&work, &records.each_ref().map(|record| (record, false)), None);
        assert_eq!(puts(&remote, "").len(), 1);
        let state = work.state();
        assert_eq!((state.failed, state.reason.as_deref()), (5, Some("you may not write")));
    }

    #[test]
    fn what_a_run_has_made_goes_before_what_it_has_found() {
        let remote = Arc::new(Memory::default());
        let (_folder, cache) = cache();
        let old = ["a", "b", "c", "d", "e", "f"].map(|stage| small(&cache, stage));
        let new = ["g", "h"].map(|stage| make(&cache, stage, model));
        let all = old.iter().map(|record| (record, false));
        let all: Vec<_> = all.chain(new.iter().map(|record| (record, true))).collect();
        send(&work(&remote, cache), &all, None);
        let sent = puts(&remote, "records/");
        let is_new = |name: &String| new.iter().any(|new| name.contains(&new.key.to_string()));
        assert_eq!(sent.len(), 8);
        assert!(sent[..2].iter().all(is_new), "{sent:?}");
    }

    #[test]
    fn what_is_there_already_is_not_left_by_who_stops() {
        let remote = Arc::new(Memory::default());
        let (_folder, cache) = cache();
        let [known, unknown] = ["known", "unknown"].map(|stage| small(&cache, stage));
        let work = work(&remote, cache);
        send(&work, &[(&known, true)], None);
        work.watch.stop.store(true, Ordering::Relaxed);
        send(&work, &[(&known, false), (&unknown, false)], None);
        let state = work.state();
        assert_eq!((state.waiting, state.failed), (1, 0));
    }
}
