//! Weights and models: `weights.safetensors` with torchvision's state-dict names, and `model.json`.
//!
//! A model can hold several networks of one architecture, whose probabilities are averaged: the second one is in
//! `weights-2.safetensors`, and so on. What starts from a model takes the first.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dataset::ImageShape;
use super::tensors::{read_json, write_json};

/// The file of the tensors, of the first network.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// The file of the tensors of a network of a model, counted from 0.
pub fn weights_file(network: usize) -> String {
    match network {
        0 => WEIGHTS_FILE.to_owned(),
        _ => format!("weights-{}.safetensors", network + 1),
    }
}

/// How an image of any size becomes an input, wherever a model is used: for validation, for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputCrop {
    /// The middle 0.875 of the height and of the width, resized (bicubic, antialiased) to the size of
    /// the input.
    CropThenResize,
    /// The shorter side resized (bilinear, antialiased) to 256/224 of the size of the input, then the
    /// centre square.
    ResizeThenCrop,
    /// The same with a bicubic filter.
    ResizeThenCropBicubic,
}

/// `model.json`: what is needed to rebuild the network around its tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModelInfo {
    /// The architecture of the encoder, by its name in a manifest.
    pub architecture: String,
    /// The shape of an input image.
    pub input: ImageShape,
    /// How images get that shape. Left out if they keep their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_crop: Option<InputCrop>,
    /// How many features the encoder produces.
    pub features: usize,
    /// How many networks there are beside the first one. Left out if there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub further_networks: usize,
    /// The names of the classes of the classifier; empty for an encoder alone.
    pub classes: Vec<String>,
    /// How pixels in [0, 1] were normalised: per channel the mean that was subtracted.
    pub input_mean: Vec<f64>,
    /// How pixels in [0, 1] were normalised: per channel the standard deviation that they were divided by.
    pub input_std: Vec<f64>,
    /// How it was trained: the parameters of its stage.
    pub training: serde_json::Value,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl ModelInfo {
    const FILE: &'static str = "model.json";

    /// Reads the file of an artifact.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        read_json(&artifact.join(Self::FILE))
    }

    /// Writes the file of an artifact.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_json(&artifact.join(Self::FILE), self)
    }
}
