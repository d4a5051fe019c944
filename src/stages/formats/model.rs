//! Weights and models: `weights.safetensors` with torchvision's state-dict names, and `model.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dataset::ImageShape;
use super::tensors::{read_json, write_json};

/// The file of the tensors.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// `model.json`: what one needs to rebuild the network around its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModelInfo {
    /// The architecture of the encoder, as a manifest names it.
    pub architecture: String,
    /// The shape of an input image.
    pub input: ImageShape,
    /// How many features the encoder gives.
    pub features: usize,
    /// The names of the classes of the classifier; empty for an encoder alone.
    pub classes: Vec<String>,
    /// How pixels in [0, 1] were normalised: per channel the mean that was subtracted.
    pub input_mean: Vec<f64>,
    /// How pixels in [0, 1] were normalised: per channel the deviation that they were divided by.
    pub input_deviation: Vec<f64>,
    /// How it was trained: the parameters of its stage.
    pub training: serde_json::Value,
}

impl ModelInfo {
    const FILE: &'static str = "model.json";

    /// Reads the file of an artifact.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        read_json(&artifact.join(Self::FILE))
    }

    /// Writes the file of an artifact.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_json(&artifact.join(Self::FILE), self)
    }
}
