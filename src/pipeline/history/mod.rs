//! What runs did: a file for each run that did something, written while it runs, and how such files are read.
//!
//! Results are found through it, under whatever parameters a stage had. Nothing depends on it: without it, less is found.
//! Does not depend on how stages are run.

mod git;
mod line;
mod recorder;
mod run;
mod uses;

pub(crate) use git::Commit;
pub(crate) use line::Ended;
pub(crate) use recorder::{Asked, Recorder};
pub(crate) use run::{Run, RunStage, names_and_keys};
pub(crate) use uses::UsesOfRuns;
