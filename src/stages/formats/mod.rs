//! The artifacts on disk. Every tensor is a safetensors file, so that Python's safetensors package
//! opens it; everything else is JSON or CSV.
//!
//! Depends on the files and their shapes, not on who writes them or where they are.

mod check_dataset;
mod dataset;
mod evaluations;
mod features;
mod labels;
mod layout;
mod metrics;
mod model;
mod predictions;
mod purified_labels;
mod sample_losses;
mod samples_writer;
mod split;
mod tensors;
#[cfg(test)]
mod tests;

pub use check_dataset::check_dataset;
pub use dataset::{
    DatasetInfo, ImageShape, MOST_IMAGE_PIXELS, Part, Samples, Storage, write_samples,
};
pub use evaluations::{EvaluationRow, Evaluations};
pub use features::{FeatureFile, FeaturesInfo, FeaturesWriter};
pub use labels::{Labels, NoiseReport, check_labels};
pub use metrics::{CurveTable, write_metrics};
pub use model::{InputCrop, ModelInfo, WEIGHTS_FILE, weights_file};
pub use predictions::{Judged, PREDICTIONS_FILE, Predictions, PredictionsWriter};
pub use purified_labels::{Purification, PurifiedLabels};
pub use sample_losses::{SAMPLE_LOSSES_FILE, SampleLosses};
pub use samples_writer::SamplesWriter;
pub use split::{SampleSplit, SplitIndices};
pub use tensors::{NamedTensor, TensorFile, read_json, write_json, write_tensors};
