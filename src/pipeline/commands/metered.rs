//! Long work that is counted in bytes, while a bar shows how far it is.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::cache::Watch;
use crate::progress::Meter;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Does the work, which counts its bytes in `watch`, while a meter shows how far it is. `what` is the verb.
pub(super) fn metered<T: Send>(
    what: &'static str,
    bytes: u64,
    watch: &Watch,
    work: impl FnOnce() -> T + Send,
) -> T {
    let mut meter = Meter::new(what, bytes);
    let (sender, receiver) = channel();
    let mut work = Some(work);
    let done = std::thread::scope(|scope| {
        let left = &mut work;
        let take = move || left.take().map(|work| sender.send(work()));
        let thread = std::thread::Builder::new().spawn_scoped(scope, take).ok()?;
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Timeout) => {
                    meter.update(watch.read.load(Ordering::Relaxed));
                }
                // It panicked.
                Err(RecvTimeoutError::Disconnected) => match thread.join() {
                    Ok(_) => return None,
                    Err(panic) => std::panic::resume_unwind(panic),
                },
            }
        }
    });
    // Where the system has no thread left, it is done here, and the meter does not move.
    match (done, work) {
        (Some(done), _) => done,
        (None, Some(work)) => work(),
        (None, None) => unreachable!("the thread has taken the work, and sent what came of it"),
    }
}
