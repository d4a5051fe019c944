//! What a tracker does: it reports a run while it runs, and is sent results later.

use std::path::PathBuf;
use std::sync::Arc;

use super::result::StageResult;
use crate::cache::Cache;
use crate::manifest::Tracking;
use crate::progress::Reporter;

/// What trackers must know to begin.
pub(crate) struct Scene<'m> {
    pub(crate) tracking: &'m Tracking,
    pub(crate) experiment: &'m str,
    /// The manifest, as the user named it.
    pub(crate) manifest: String,
    /// The manifest and the files that it includes.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) cache: &'m Arc<Cache>,
    /// The command that sends what was not delivered.
    pub(crate) resend: String,
}

/// A tracker of a manifest.
pub(crate) trait Tracker {
    /// What people call it, with its place.
    fn name(&self) -> String;

    /// What reports a run to it.
    fn reporter(self: Box<Self>) -> Box<dyn Reporter>;

    /// Sends a result, unless it has it already. Whatever was sent of it before is completed.
    ///
    /// # Errors
    /// When it does not arrive completely.
    fn send(&mut self, result: &StageResult) -> Result<Sent, NotSent>;
}

/// What became of a result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was sent now, without what the tracker cannot have.
    Now { left_out: Vec<String> },
    /// It was there completely.
    Before,
}

/// Why a result was not sent.
#[derive(Debug)]
pub(crate) struct NotSent {
    pub(crate) reason: String,
    /// Whether it is useless to try others.
    pub(crate) is_for_all: bool,
}
