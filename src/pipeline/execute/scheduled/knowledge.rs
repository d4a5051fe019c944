//! What a scheduler said last, and when it is asked next.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::alike::Alike;
use super::scheduler::{JobState, Trouble};
use crate::key::StageKey;
use crate::manifest::Stage;

/// How often a scheduler is asked where its jobs are: soon after something changed, and then less and less often.
pub(super) const SOONEST: Duration = Duration::from_secs(2);
pub(super) const LATEST: Duration = Duration::from_secs(30);
/// The pause before a scheduler that did not answer is asked again to take a job: longer each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause before a scheduler that does not answer is asked again, whatever it is asked.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What a scheduler answers, or why it does not.
pub(super) type Answer = Result<HashMap<String, JobState>, Trouble>;

/// What a scheduler was asked, and has not answered yet.
pub(super) struct Question {
    pub(super) answer: Receiver<Answer>,
    /// Whether it is about several jobs that have not said themselves that they were stopped.
    pub(super) is_about_several: bool,
}

/// What a scheduler said last.
pub(super) struct Knowledge {
    pub(super) states: HashMap<String, JobState>,
    /// How often it was asked, and the number of the question that it has answered last: what happens after a question, its answer may
    /// not know.
    pub(super) asked: u64,
    pub(super) answers: u64,
    /// When it is asked next, and how long after that again.
    pub(super) next: Instant,
    pub(super) interval: Duration,
    /// Since when it does not answer.
    pub(super) silent: Option<Instant>,
    /// Whether that was said.
    pub(super) has_said: bool,
    /// Until when it is not asked to take one, as it did not answer, or is full, and how long it is spared then.
    pub(super) spared: Option<Instant>,
    /// Why jobs wait, as far as that was said.
    pub(super) said: HashSet<String>,
    /// Whether it has said that it is full.
    pub(super) was_full: bool,
    /// What it may never take, what it was asked for last at the end: all others go before that.
    doubts: Vec<Doubt>,
    pause: Duration,
}

/// Jobs that ask for the same, one of which was refused in words that may mean that the scheduler is full.
struct Doubt {
    alike: Alike,
    /// That one, where there was no other job of this user.
    alone: Option<StageKey>,
}

impl Knowledge {
    pub(super) fn new() -> Self {
        Self {
            states: HashMap::new(),
            asked: 0,
            answers: 0,
            next: Instant::now(),
            interval: SOONEST,
            silent: None,
            has_said: false,
            spared: None,
            said: HashSet::new(),
            was_full: false,
            doubts: Vec::new(),
            pause: FIRST_PAUSE,
        }
    }

    /// It has not answered at this time, or has said nothing, and is asked again after a pause that is longer each time. Returns for how
    /// long that has been so.
    pub(super) fn was_silent(&mut self, at: Instant, longest: Duration) -> Duration {
        self.interval = (self.interval * 2).min(longest);
        self.next = at + self.interval;
        at.duration_since(*self.silent.get_or_insert(at))
    }

    /// Whether it is not asked to take a job now: each one that is asked in vain takes a minute.
    pub(super) fn takes_none(&self) -> bool {
        self.spared.is_some_and(|until| Instant::now() < until)
    }

    /// It did not answer when it was to take a job, or has no room for it, at this time.
    pub(super) fn took_none(&mut self, at: Instant) {
        self.spared = Some(at + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    pub(super) fn has_taken_one(&mut self, alike: &Alike) {
        self.doubts.retain(|doubt| doubt.alike != *alike);
        self.answers_again();
    }

    /// It is asked to take others at once.
    fn answers_again(&mut self) {
        (self.spared, self.pause) = (None, FIRST_PAUSE);
    }

    /// It has refused this job, and may be full; `is_empty`: it has no other one of this user. Returns whether it never takes this one:
    /// that was so twice.
    pub(super) fn may_be_full(&mut self, alike: Alike, key: StageKey, is_empty: bool) -> bool {
        let alone = is_empty.then_some(key);
        let doubts = self.doubts.extract_if(.., |doubt| doubt.alike == alike);
        let is_second = doubts.last().is_some_and(|doubt| is_empty && doubt.alone == alone);
        self.doubts.push(Doubt { alike, alone: alone.filter(|_| !is_second) });
        if is_second {
            self.answers_again();
        } else {
            self.took_none(Instant::now());
        }
        is_second
    }

    /// How late such a job goes: 0 where nothing is known against it.
    pub(super) fn turn(&self, stage: &Stage) -> usize {
        if self.doubts.is_empty() {
            return 0;
        }
        let alike = Alike::of(stage);
        self.doubts.iter().position(|doubt| doubt.alike == alike).map_or(0, |place| place + 1)
    }

    /// One of its jobs has ended: one that was full may take another one.
    pub(super) fn has_room(&mut self) {
        if self.was_full {
            self.spared = None;
        }
    }

    /// Something has changed: it is asked soon.
    pub(super) fn is_old(&mut self) {
        self.interval = SOONEST;
        self.next = self.next.min(Instant::now() + SOONEST);
    }
}
