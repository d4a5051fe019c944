//! Whether a remote works. One that has failed is left alone for a pause, and then asked again, by one for all: each time that it
//! fails again, the pause is longer. One that time does not heal is not asked again.

use std::ffi::OsStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::transport::{FailureKind, RemoteFailure};

/// The first pause, which doubles up to the longest, and how many times as long as it that is.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: u32 = 30;

/// How many times as long as a try the pause after it is at least: so that little time is spent with asking.
const PAUSE_OF_TRY: u32 = 10;

/// The environment variable that sets another first pause, in milliseconds: for tests.
const PAUSE: &str = "PIPELINE_REMOTE_PAUSE";

/// The first pause of this process.
pub(super) fn first_pause() -> Duration {
    let set = std::env::var_os(PAUSE);
    let set = set.as_deref().and_then(OsStr::to_str).and_then(|text| text.parse().ok());
    set.map_or(FIRST_PAUSE, |milliseconds: u64| Duration::from_millis(milliseconds.max(1)))
}

/// What became of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// It failed for this reason.
    Away(RemoteFailure),
    /// It works again.
    Back,
}

/// What is known of whether a remote works.
pub(super) struct Outage {
    first_pause: Duration,
    state: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    /// What failed last, where nothing has worked since.
    failed: Option<Failed>,
    /// Whether somebody was told that it does not work, and not yet that it works again.
    is_said: bool,
}

struct Failed {
    failure: RemoteFailure,
    at: Instant,
    pause: Duration,
    /// Since when somebody asks again, who was the first after the pause.
    asked: Option<Instant>,
}

impl Failed {
    /// How much of the pause is left. While somebody asks again, it is another one.
    fn left(&self) -> Option<Duration> {
        let began = self.asked.unwrap_or(self.at);
        self.pause.checked_sub(began.elapsed()).filter(|left| !left.is_zero())
    }
}

impl Outage {
    /// Of a remote that has not failed.
    pub(super) fn new(first_pause: Duration) -> Self {
        Self { first_pause, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Health> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is left alone now.
    pub(super) fn trouble(&self) -> Option<RemoteFailure> {
        let state = self.state();
        let failed = state.failed.as_ref().filter(|failed| failed.left().is_some());
        failed.map(|failed| failed.failure.clone())
    }

    /// Whether whoever asks now is the first after a pause: until it has an answer, others see why it was left alone.
    ///
    /// # Errors
    /// Why it is left alone now.
    pub(super) fn begin(&self) -> Result<bool, RemoteFailure> {
        match &mut self.state().failed {
            None => Ok(false),
            Some(failed) if failed.left().is_some() => Err(failed.failure.clone()),
            Some(failed) => {
                failed.asked = Some(Instant::now());
                Ok(true)
            }
        }
    }

    /// Whoever was the first has no answer: the next one is.
    pub(super) fn leave(&self) {
        if let Some(failed) = &mut self.state().failed {
            failed.asked = None;
        }
    }

    /// How it has failed, where nothing has worked since.
    pub(super) fn failure(&self) -> Option<RemoteFailure> {
        self.state().failed.as_ref().map(|failed| failed.failure.clone())
    }

    /// For how long it is left alone.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.state().failed.as_ref().and_then(Failed::left)
    }

    /// Notes what became of something that it was asked: how it failed, if it did.
    pub(super) fn note(&self, failure: Option<&RemoteFailure>) {
        let failure = failure.filter(|failure| failure.kind == FailureKind::Away);
        let mut state = self.state();
        let pause = match &state.failed {
            // What was asked for before it failed does not say how it is now.
            Some(failed) if failed.asked.is_none() && failed.left().is_some() => return,
            Some(failed) => {
                let tried = failed.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
                let longest = self.first_pause.saturating_mul(LONGEST_PAUSE);
                (failed.pause * 2).max(tried * PAUSE_OF_TRY).min(longest)
            }
            None => self.first_pause,
        };
        state.failed = failure.map(|failure| Failed {
            failure: failure.clone(),
            at: Instant::now(),
            pause: if failure.is_lasting { Duration::MAX } else { pause },
            asked: None,
        });
    }

    /// The pause is over where it has lasted as long as the first one: nobody can wait for longer.
    pub(super) fn relent(&self) {
        if let Some(failed) = &mut self.state().failed
            && !failed.failure.is_lasting
        {
            failed.pause = failed.pause.min(self.first_pause);
        }
    }

    /// How it fails: while it is left alone, and once the pause is over, where nobody was told. Somebody is told now.
    pub(super) fn take_trouble(&self) -> Option<RemoteFailure> {
        let mut state = self.state();
        let was_said = state.is_said;
        let failed = state.failed.as_ref();
        let failed = failed.filter(|failed| !was_said || failed.left().is_some());
        let failure = failed?.failure.clone();
        state.is_said = true;
        Some(failure)
    }

    /// What became of it, since somebody was told.
    pub(super) fn take_news(&self) -> Option<News> {
        let mut state = self.state();
        let news = match (&state.failed, state.is_said) {
            (Some(failed), false) => News::Away(failed.failure.clone()),
            (None, true) => News::Back,
            _ => return None,
        };
        state.is_said = news != News::Back;
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends the pause.
    fn wait(outage: &Outage) -> Duration {
        let mut state = outage.state();
        let failed = state.failed.as_mut().expect("it has failed");
        let pause = failed.pause;
        failed.asked = None;
        failed.at = failed.at.checked_sub(pause).expect("the machine has run for longer");
        pause
    }

    #[test]
    fn what_fails_is_left_alone_for_longer_each_time_until_it_works() {
        let outage = Outage::new(FIRST_PAUSE);
        outage.note(None);
        outage.note(Some(&RemoteFailure::refused("not this")));
        assert_eq!((outage.trouble(), outage.take_news()), (None, None));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let failure = RemoteFailure::away("the cable is cut");
            outage.note(Some(&failure));
            assert_eq!(outage.trouble(), Some(failure));
            // Of somebody who had asked before.
            outage.note(None);
            outage.note(Some(&RemoteFailure::away("another")));
            assert!(outage.trouble().is_some_and(|trouble| trouble.reason != "another"));
            pauses.push(wait(&outage).as_secs());
            assert_eq!((outage.trouble(), outage.pause()), (None, None));
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        outage.note(None);
        outage.note(Some(&RemoteFailure::away("the cable is cut")));
        assert_eq!(wait(&outage), FIRST_PAUSE, "another outage");
    }

    #[test]
    fn it_is_said_once_that_it_does_not_work_and_once_that_it_does() {
        let outage = Outage::new(FIRST_PAUSE);
        let failure = RemoteFailure::away("the cable is cut");
        for _ in 0..2 {
            outage.note(Some(&failure));
            assert_eq!(outage.take_news(), Some(News::Away(failure.clone())));
            wait(&outage);
            outage.note(Some(&failure));
            assert_eq!(outage.take_news(), None, "the same outage");
            wait(&outage);
            outage.note(None);
            assert_eq!((outage.take_news(), outage.take_news()), (Some(News::Back), None));
        }
        outage.note(Some(&failure));
        wait(&outage);
        outage.note(None);
        assert_eq!(outage.take_news(), None, "nobody has missed it");
        // Whoever says it comes late.
        outage.note(Some(&failure));
        wait(&outage);
        assert_eq!((outage.take_trouble(), outage.take_trouble()), (Some(failure.clone()), None));
        outage.note(Some(&failure));
        assert_eq!((outage.take_trouble(), outage.take_news()), (Some(failure), None));
        wait(&outage);
        outage.note(None);
        assert_eq!((outage.take_trouble(), outage.take_news()), (None, Some(News::Back)));
    }

    #[test]
    fn who_cannot_wait_waits_for_the_first_pause_only() {
        let outage = Outage::new(FIRST_PAUSE);
        outage.note(Some(&RemoteFailure::away("the cable is cut")));
        wait(&outage);
        outage.note(Some(&RemoteFailure::away("the cable is cut")));
        let left = || outage.pause().expect("it is left alone");
        assert!(left() > FIRST_PAUSE);
        outage.relent();
        assert!(left() <= FIRST_PAUSE);
    }

    #[test]
    fn after_a_pause_one_asks_for_all_and_not_for_long() {
        let outage = Outage::new(FIRST_PAUSE);
        let failure = RemoteFailure::away("the cable is cut");
        assert_eq!(outage.begin(), Ok(false), "it works");
        outage.note(Some(&failure));
        assert_eq!(outage.begin(), Err(failure.clone()));
        wait(&outage);
        assert_eq!((outage.begin(), outage.begin()), (Ok(true), Err(failure.clone())));
        assert_eq!(outage.trouble(), Some(failure.clone()));
        outage.leave();
        assert_eq!((outage.begin(), outage.begin()), (Ok(true), Err(failure.clone())));
        // Its answer took a while.
        let asked = Instant::now().checked_sub(Duration::from_secs(9));
        outage.state().failed.as_mut().expect("it has failed").asked = asked;
        outage.note(Some(&failure));
        assert!(wait(&outage) >= Duration::from_secs(90));
        assert_eq!(outage.begin(), Ok(true));
        outage.note(None);
        assert_eq!((outage.begin(), outage.begin()), (Ok(false), Ok(false)));
    }

    #[test]
    fn what_time_does_not_heal_is_not_asked_again() {
        let outage = Outage::new(Duration::ZERO);
        let failure = RemoteFailure::away("access denied").lasting();
        outage.note(Some(&failure));
        outage.relent();
        assert_eq!(outage.begin(), Err(failure));
    }
}
