//! How long a submission is waited for once somebody wants its jobs to end.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::hold::Wish;
use crate::deadline::Stop;

/// Not at once: most submissions end in this time, and their jobs are cancelled then. One that is cut off may have been taken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether somebody wants that.
const LOOK: Duration = Duration::from_millis(100);

/// Submits jobs, each with a wish. The stop that this is given is stopped [some time](PATIENCE) after all of them are to end.
pub(super) fn submit_patiently<T>(wishes: &[Wish], submit: impl FnOnce(&Stop) -> T) -> T {
    let stop = Stop::default();
    let (over, is_over) = channel::<()>();
    let watched = &stop;
    let watch = move || {
        let mut since = None;
        while let Err(RecvTimeoutError::Timeout) = is_over.recv_timeout(LOOK) {
            if wishes.iter().all(|wish| wish.get() == Wish::CANCEL)
                && since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE
            {
                return watched.stop();
            }
        }
    };
    thread::scope(|scope| {
        // Where the system has no thread for that, it is waited for as long as it takes.
        let _ = thread::Builder::new().name("submit".to_owned()).spawn_scoped(scope, watch);
        let answer = submit(&stop);
        drop(over);
        answer
    })
}
