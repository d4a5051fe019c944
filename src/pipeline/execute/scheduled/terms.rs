//! How jobs of an executor are run.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::manifest::ExecutorSettings;

/// On which terms an executor runs jobs.
pub(crate) struct Terms {
    /// Its name.
    pub(crate) name: String,
    pub(crate) settings: ExecutorSettings,
    /// Whether nobody waits for them any more: what is submitted is left.
    pub(crate) leaves: Arc<AtomicBool>,
    /// Whether jobs that somebody else has submitted are left to them.
    pub(crate) only_new: bool,
}
