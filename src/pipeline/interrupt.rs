//! Whether somebody asks to stop while a run that has ended waits for what it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Two signals within this time are one request to stop, as for the stages.
const ECHO: Duration = Duration::from_millis(250);

/// Whether somebody asks from now on to stop. The echo of an earlier request does not count.
pub(crate) fn further_signal(stopping: Option<Instant>) -> impl FnMut() -> bool {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Without it, the end is only not shortened.
        let _ = signal_hook::flag::register(signal, Arc::clone(&asked));
    }
    move || {
        let is_asked = asked.swap(false, Ordering::Relaxed);
        is_asked && stopping.is_none_or(|stopping| stopping.elapsed() > ECHO)
    }
}
