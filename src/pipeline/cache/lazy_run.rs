//! Who recorded a result that a power cut can tear.

use serde::{Deserialize, Serialize};

/// The run that recorded a result without waiting for the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LazyRun {
    /// Which start of which machine it was in.
    pub(super) boot: String,
    /// A name of its own.
    pub(super) run: String,
}

impl LazyRun {
    /// The name of the run.
    pub(super) fn name(&self) -> &str {
        &self.run
    }

    /// Whether a run may have this name: when it began, in seconds and nanoseconds, and its process.
    pub(super) fn is_name(name: &str) -> bool {
        let is_number =
            |part: &str| !part.is_empty() && part.bytes().all(|one| one.is_ascii_digit());
        match name.split('-').collect::<Vec<_>>()[..] {
            [began, nanos, process] => {
                [began, nanos, process].into_iter().all(is_number) && nanos.len() == 9
            }
            _ => false,
        }
    }
}
