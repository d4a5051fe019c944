//! What a report is about, and how much is in it.

use crate::cache::Cache;
use crate::manifest::Manifest;
use crate::plan::Plan;

/// The most stages and instances of one page.
pub(crate) const MOST_STAGES: usize = 5000;

/// What a report is about.
pub(crate) struct Subject<'p> {
    pub(crate) manifest: &'p Manifest,
    pub(crate) plan: &'p Plan,
    pub(crate) cache: &'p Cache,
    /// The command that makes what is missing.
    pub(crate) command: String,
    /// What the command line changes about the manifest, as somebody would type it.
    pub(crate) changes: Vec<String>,
}

/// How much is in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportScope {
    /// The stages, and what records know of them.
    Graph,
    /// Also what is in their artifacts and logs.
    All,
}
