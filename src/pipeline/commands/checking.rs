//! Checking artifacts while a bar shows how far it is: what `verify` and `verify --rerun` share.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::cache::{Check, Checked, Watch};
use crate::progress::Meter;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Reads the artifacts while a meter shows how far it is.
pub(crate) fn with_meter(check: Check<'_>) -> Checked {
    let mut meter = Meter::new("verify", check.bytes());
    let watch = Watch::default();
    let (sender, receiver) = channel();
    let mut check = Some(check);
    let checked = std::thread::scope(|scope| {
        let (watched, check) = (&watch, &mut check);
        let work = move || check.take().map(|check| sender.send(check.run(watched)));
        std::thread::Builder::new().spawn_scoped(scope, work).ok()?;
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(checked) => return Some(checked),
                Err(RecvTimeoutError::Timeout) => {
                    meter.update(watch.read.load(Ordering::Relaxed));
                }
                // It panicked, and so does the scope.
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    });
    // Where the system has no thread left, it is done here, and the meter does not move.
    let done_here = || check.take().map(|check| check.run(&watch));
    let nothing = || Checked { verdicts: Vec::new(), withdrawn: Ok(Vec::new()) };
    checked.or_else(done_here).unwrap_or_else(nothing)
}
