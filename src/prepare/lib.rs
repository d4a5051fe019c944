//! The bodies of the stage kinds that need no torch.
//!
//! Knows no cache and no manifest: a body gets a request and fills a folder.

mod command;
mod corrupt_labels;
mod dataset;
mod download;
mod split;
mod unpack;

use std::process::ExitCode;

use pipeline_stages::message::Metrics;
use pipeline_stages::worker::{self, Context};
use pipeline_stages::{PrepareStage, Stage};

/// Runs the body of a stage.
///
/// # Errors
/// With the body's own message for people.
pub fn run(stage: &PrepareStage, context: &Context) -> anyhow::Result<Metrics> {
    pipeline_stages::run_prepare_body!(stage, context)
}

/// The life of a worker process.
pub fn serve() -> ExitCode {
    worker::serve("pipeline", |stage, context| match stage {
        Stage::Prepare(stage) => run(stage, context),
        Stage::Learn(_) => {
            anyhow::bail!("a stage of kind '{}' needs pipeline-learn", stage.info().name)
        }
    })
}
