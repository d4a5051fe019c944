//! How a run is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cache::Links;
use crate::manifest::{Executors, RunLimits};
use crate::remote::SharedCache;
use crate::stage_name::StageName;

/// How a run is done.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// How many stages run at once. `None`: as many as there are cores for them.
    pub(crate) jobs: Option<usize>,
    /// What all of them together may take of the machine.
    pub(crate) limits: RunLimits,
    /// Whether a failure stops only what depends on it.
    pub(crate) keep_going: bool,
    /// The stages that run although they have results.
    pub(crate) force: BTreeSet<StageName>,
    /// Where stages can run, beside here.
    pub(crate) executors: Executors,
    /// The executor of the kinds that learn, where their stages do not say another one.
    pub(crate) executor: Option<String>,
    /// Whether it ends when what is ready has been submitted.
    pub(crate) detach: bool,
    /// The links for people to the results of its stages, where the manifest is a part of one: those of the others stay.
    pub(crate) links: Option<Links>,
    /// The cache that others share.
    pub(crate) shared: Option<Arc<SharedCache>>,
}
