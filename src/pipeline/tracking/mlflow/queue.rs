//! What waits to be sent: filled by the main thread, which never waits for it, and emptied by the thread that sends.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::body::Words;
use crate::events::Setup;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// The most measured values that wait. More are dropped, and counted.
const MOST_VALUES: usize = 50_000;
/// How long values are collected before they are sent.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the end of a run looks whether somebody asked to stop.
const POLL: Duration = Duration::from_millis(50);

/// What happened to a stage.
#[derive(Debug)]
pub(super) enum StageUpdate {
    Start {
        stage: StageName,
        key: StageKey,
        kind: &'static str,
        setup: Box<Setup>,
        /// Milliseconds since 1970, UTC; also below.
        at: u64,
    },
    Value {
        stage: StageName,
        name: String,
        step: u64,
        value: f64,
        at: u64,
    },
    End {
        stage: StageName,
        ended: Ended,
        at: u64,
    },
}

/// How a stage ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With the result of this key.
    Result(StageKey),
    /// Without one: MLflow's word for it, and what else is to be known.
    Without { status: &'static str, tags: Words },
}

/// Updates on their way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    updates: Vec<StageUpdate>,
    /// How many of them are values.
    values: usize,
    /// Values that had no room.
    dropped: usize,
    /// Stages of which not everything was delivered.
    open: BTreeSet<StageName>,
    /// Why nothing is delivered now.
    failure: Option<String>,
    /// Why something will not be delivered: the first reason.
    refusal: Option<String>,
    /// What the server did not take, although everything else arrived.
    left_out: Vec<String>,
    /// By when everything must be sent, once the run has ended.
    deadline: Option<Instant>,
    /// Whether nothing more will be sent.
    is_done: bool,
}

/// What was not delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undelivered {
    pub(super) stages: usize,
    pub(super) values: usize,
    pub(super) reason: String,
}

impl QueueState {
    fn take(&mut self) -> Vec<StageUpdate> {
        self.values = 0;
        std::mem::take(&mut self.updates)
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happened. Of a stage that `is_wanted`, a delivery is expected.
    pub(super) fn add(&self, update: StageUpdate, is_wanted: bool) {
        let mut state = self.state();
        let stage = match &update {
            StageUpdate::Start { stage, .. } | StageUpdate::End { stage, .. } => stage,
            StageUpdate::Value { stage, .. } => {
                if state.values >= MOST_VALUES && !state.is_done {
                    state.dropped += 1;
                }
                if state.values >= MOST_VALUES || state.is_done {
                    return;
                }
                state.values += 1;
                stage
            }
        };
        if is_wanted && !state.open.contains(stage) {
            let stage = stage.clone();
            state.open.insert(stage);
        }
        state.updates.push(update);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for updates, and takes them all. `None` when the run has ended and there are no more.
    pub(super) fn take(&self) -> Option<Vec<StageUpdate>> {
        let mut state = self.state();
        while state.updates.is_empty() && state.deadline.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.updates.is_empty() {
            return None;
        }
        Some(state.take())
    }

    /// Takes the updates that wait now.
    pub(super) fn take_now(&self) -> Vec<StageUpdate> {
        self.state().take()
    }

    /// Lets values collect for a while, unless the run has ended.
    pub(super) fn collect(&self) {
        self.wait_for_end(INTERVAL);
    }

    /// Waits until the run has ended, at most for this long. Returns by when everything must be sent, if it has.
    pub(super) fn wait_for_end(&self, limit: Duration) -> Option<Instant> {
        let state = self.state();
        let has_ended = |state: &mut QueueState| state.deadline.is_none();
        let waited = self.changed.wait_timeout_while(state, limit, has_ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.deadline
    }

    /// By when everything must be sent, once the run has ended.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.state().deadline
    }

    /// Everything of a stage was delivered.
    pub(super) fn delivered(&self, stage: &StageName) {
        self.state().open.remove(stage);
    }

    /// Remembers why nothing is delivered now; `None` when it works again.
    pub(super) fn set_failure(&self, reason: Option<&str>) {
        self.state().failure = reason.map(str::to_owned);
    }

    /// Remembers why something will not be delivered.
    pub(super) fn set_refusal(&self, reason: &str) {
        self.state().refusal.get_or_insert_with(|| reason.to_owned());
    }

    /// Remembers what the server did not take.
    pub(super) fn leave_out(&self, what: impl IntoIterator<Item = String>) {
        self.state().left_out.extend(what);
    }

    /// What the server did not take.
    pub(super) fn left_out(&self) -> Vec<String> {
        std::mem::take(&mut self.state().left_out)
    }

    /// Nothing more will be sent.
    pub(super) fn done(&self) {
        self.state().is_done = true;
        self.changed.notify_all();
    }

    /// The run has ended: waits until everything is sent, at most for this long, and not after somebody asked to stop.
    pub(super) fn finish(
        &self,
        limit: Duration,
        mut is_asked: impl FnMut() -> bool,
    ) -> Option<Undelivered> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        state.deadline = Some(deadline);
        self.changed.notify_all();
        while !state.is_done && Instant::now() < deadline && !is_asked() {
            let waited = self.changed.wait_timeout(state, POLL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let (stages, values) = (state.open.len(), state.dropped);
        let slow = || "the server did not take everything in time".to_owned();
        let reason =
            state.refusal.as_ref().or(state.failure.as_ref()).cloned().unwrap_or_else(slow);
        (stages + values > 0).then_some(Undelivered { stages, values, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(step: u64) -> StageUpdate {
        let stage = "a".parse().expect("a name");
        StageUpdate::Value { stage, name: "loss".to_owned(), step, value: 1.0, at: 0 }
    }

    #[test]
    fn a_queue_that_nobody_empties_is_bounded_and_never_waits() {
        let queue = Queue::default();
        for step in 0..MOST_VALUES as u64 + 7 {
            queue.add(value(step), true);
        }
        let undelivered = queue.finish(Duration::from_millis(1), || false).expect("something");
        assert_eq!((undelivered.stages, undelivered.values), (1, 7));
        assert!(undelivered.reason.contains("in time"));
        assert_eq!(queue.take().map(|updates| updates.len()), Some(MOST_VALUES));
        assert!(queue.take().is_none(), "the run has ended");
        queue.delivered(&"a".parse().expect("a name"));
        queue.done();
        let undelivered = queue.finish(Duration::from_secs(60), || false).expect("the values");
        assert_eq!((undelivered.stages, undelivered.values), (0, 7));
    }

    #[test]
    fn the_end_waits_no_longer_than_somebody_wants() {
        let queue = Queue::default();
        queue.add(value(1), true);
        let (start, mut asked) = (Instant::now(), 0);
        let is_asked = || {
            asked += 1;
            asked > 3
        };
        let undelivered = queue.finish(Duration::from_secs(60), is_asked).expect("the stage");
        assert_eq!(undelivered.stages, 1);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}
