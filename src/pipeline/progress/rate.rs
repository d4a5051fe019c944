//! How fast work is done.

use std::time::{Duration, Instant};

/// Work per second since a stage started, or since it went on from a checkpoint.
#[derive(Debug)]
pub(super) enum Rate {
    /// What was seen first and last of it.
    Seen { first: Option<(Instant, u64)>, last: Option<(Instant, u64)> },
    /// What another process saw.
    Known(Option<f64>),
}

impl Default for Rate {
    fn default() -> Self {
        Self::Seen { first: None, last: None }
    }
}

impl Rate {
    pub(super) fn update(&mut self, done: u64) {
        if let Self::Seen { first, last } = self {
            *last = Some((Instant::now(), done));
            *first = first.or(*last);
        }
    }

    /// Units per second, once there is something to compute it from.
    pub(super) fn per_second(&self) -> Option<f64> {
        let (first, last) = match self {
            Self::Seen { first, last } => (*first, *last),
            Self::Known(rate) => return *rate,
        };
        let ((first, start), (last, done)) = (first?, last?);
        let elapsed = last.duration_since(first);
        (elapsed > Duration::from_millis(200) && done > start)
            .then(|| (done - start) as f64 / elapsed.as_secs_f64())
    }
}
