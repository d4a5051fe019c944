//! The bodies of the stage kinds that need torch: pre-training, training, evaluation.
//!
//! [`kinds`] has their bodies, [`methods`] what happens in a step of each way to train a classifier, [`training`] the loop around the
//! steps, [`data`] the images, [`network`] what is trained. Imports go in this order.
//!
//! On the CPU, results are exact: the same request gives the same bytes, however often it was
//! interrupted and resumed, and with whatever number of threads prepares the images. libtorch's own
//! thread count is another matter; [`device`] says how it is fixed.
//!
//! Does not depend on the cache or on manifests: a body gets a request and fills a folder.

pub mod data;
pub mod device;
pub mod kinds;
pub mod methods;
pub mod network;
pub mod random;
pub mod shim;
mod torch_error;
pub mod training;

use std::process::ExitCode;

use pipeline_stages::message::Metrics;
use pipeline_stages::worker::{self, Context};
use pipeline_stages::{Kind, KindConfig, LearnStage, kind};

/// What a stage kind does: files into the output folder, events on the way.
trait Body {
    /// Does the work of one stage and returns what it measured.
    ///
    /// # Errors
    /// With a message for people: what is wrong, where, what to do. With
    /// [`Stopped`](pipeline_stages::worker::Stopped) when it was asked to stop.
    fn run(&self, context: &Context) -> anyhow::Result<Metrics>;
}

/// What `model.json` says of a training: the kind, the parameters that have an effect, and the seed.
/// Nothing that can differ between two runs of the same stage key, or that may change without a new one.
fn training_record<K: Kind>(parameters: &K, seed: u64) -> serde_json::Value {
    let parameters = kind::key_parameters(parameters);
    serde_json::json!({ "kind": K::NAME, "parameters": parameters, "seed": seed })
}

/// Runs the body of a stage, and reports how much memory of a GPU it took.
///
/// # Errors
/// With the body's own message for people.
pub fn run(stage: &LearnStage, context: &Context) -> anyhow::Result<Metrics> {
    let result = pipeline_stages::match_learn_stage!(stage, parameters => parameters.run(context));
    if let Some(bytes) = device::peak_gpu_memory() {
        context.gpu_memory(bytes);
    }
    result.map_err(torch_error::readable)
}

/// The life of a worker process.
pub fn serve() -> ExitCode {
    worker::serve("pipeline-learn", |stage, context| match stage {
        KindConfig::Learn(stage) => run(stage, context),
        KindConfig::Prepare(_) => {
            anyhow::bail!("a stage of kind '{}' is run by `pipeline` itself", stage.info().name)
        }
    })
}
