//! What the reader of a manifest knows of all stages when it reads one.

use std::collections::HashSet;

use super::execution::StageExecution;
use super::values::Value;

/// What holds for all stages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'s> {
    /// How they are run, unless they set it themselves.
    pub(super) execution: &'s StageExecution,
    /// The axes of `--sweep`.
    pub(super) swept: &'s [&'s str],
    /// The values of the files in whose place others are from the command line.
    pub(super) replaced: &'s [Value<'s>],
    /// The stages as they are written that are read. `None`: all.
    pub(super) part: Option<&'s HashSet<&'s str>>,
    /// Whether `${AXIS}` is replaced wherever it is: the manifest itself has a matrix.
    pub(super) replaces_axes: bool,
    /// The names of all axes.
    pub(super) axes: &'s [&'s str],
}

impl<'s> Settings<'s> {
    /// Those of a whole manifest, which nothing on the command line changes.
    pub(super) fn new(execution: &'s StageExecution) -> Self {
        Self { execution, swept: &[], replaced: &[], part: None, replaces_axes: false, axes: &[] }
    }
}
