//! The bodies of the stage kinds that need no torch.
//!
//! Does not depend on the cache or the manifest: a body gets a request and fills a folder.

mod bisection;
mod body;
pub mod certificates;
mod checkpoint;
mod command;
mod corrupt_labels;
pub mod credentials;
mod csv;
mod dataset;
mod download;
#[cfg(test)]
mod fixture;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod gzip;
mod import_weights;
mod mersenne_twister;
mod numpy_random;
mod pickle;
pub mod proxy;
#[cfg(test)]
mod reference;
mod replace_images;
#[cfg(test)]
mod samples;
mod split;
pub mod state_dict_file;
mod summarize;
mod training_order;
mod unpack;
mod web_page;
mod zip_error;
mod zip_names;

pub use command::missing_program;
pub use download::retry_after;

use std::process::ExitCode;

use pipeline_stages::message::Metrics;
use pipeline_stages::worker::{self, Context};
use pipeline_stages::{KindConfig, PrepareStage};

use body::Body;

/// Runs the body of a stage.
pub(crate) fn run(stage: &PrepareStage, context: &Context) -> anyhow::Result<Metrics> {
    pipeline_stages::match_prepare_stage!(stage, parameters => parameters.run(context))
}

/// Runs a worker process.
pub fn serve() -> ExitCode {
    worker::serve("pipeline", |stage, context| match stage {
        KindConfig::Prepare(stage) => run(stage, context),
        KindConfig::Learn(_) => {
            anyhow::bail!("a stage of kind '{}' needs pipeline-learn", stage.info().name)
        }
    })
}
