//! A manifest without mistakes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::declaration::Stage;
use super::envelope::{Experiment, Tracking};
use super::execution::{RunLimits, StageExecution};
use super::executors::Executors;
use super::lints::Lint;
use super::matrix::Placeholders;
use super::sharing::Sharing;
use super::stages::Stages;
use crate::diagnostic::{Sources, Span};
use crate::stage_name::StageName;

/// A checked manifest: every port is connected to a stage that fits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// The file, as the user named it.
    pub(crate) path: PathBuf,
    /// The folder of the file, absolute: what relative paths in it are relative to.
    pub(crate) folder: PathBuf,
    /// The file and those that it includes, absolute.
    pub(crate) files: Vec<PathBuf>,
    /// Other paths that it includes, and that lead to one of these files now. Absolute.
    pub(crate) aliases: Vec<PathBuf>,
    /// The table `[experiment]`.
    pub(crate) experiment: Experiment,
    /// The stages, in the file's order.
    pub(crate) stages: Stages,
    /// What all stages together may take of the machine.
    pub(crate) limits: RunLimits,
    /// Where stages can run, beside here.
    pub(crate) executors: Executors,
    /// The axes of its matrix that no stage uses, with their places.
    pub(crate) unused_axes: Vec<(String, Span)>,
    /// Where `${...}` is replaced, and what it can be there.
    pub(crate) placeholders: Placeholders,
    /// The cache that others share.
    pub(crate) sharing: Sharing,
    /// Where else to show what a run measures.
    pub(crate) tracking: Tracking,
    /// The warnings that are silenced.
    pub(crate) allowed: BTreeSet<Lint>,
    /// The text, to show places in.
    pub(crate) sources: Sources,
}

impl Manifest {
    pub(crate) fn stage(&self, name: &StageName) -> Option<&Stage> {
        self.stages.get(self.stages.position(name)?)
    }

    /// What relative paths of a stage are relative to: the folder of its file, absolute.
    pub(crate) fn folder_of<'m>(&'m self, stage: &'m Stage) -> &'m Path {
        stage.file.as_ref().map_or(&self.folder, |file| &file.folder)
    }

    /// Whether two stages with the same key would run in the same way, so that one fails where the other does: in the same folder
    /// and sandbox, on the same device, with as much time, memory and as many attempts. When they start does not matter.
    pub(crate) fn run_alike(&self, one: &StageName, other: &StageName) -> bool {
        let terms = |stage: &Stage| StageExecution { priority: 0, ..stage.execution.clone() };
        self.stage(one).zip(self.stage(other)).is_some_and(|(one, other)| {
            one.stage == other.stage
                && self.folder_of(one) == self.folder_of(other)
                && terms(one) == terms(other)
        })
    }
}
