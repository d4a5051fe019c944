//! What `purify-labels` adds to labels: `given` i64 [N] and `confidence` f32 [N] in `labels.safetensors`, and
//! `purification.json`.

use std::path::Path;

use anyhow::ensure;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::tensors::{float_bytes, integer_bytes, read_json, write_json};

/// Labels after a purification, and what they were before.
#[derive(Debug, Clone, PartialEq)]
pub struct PurifiedLabels {
    /// The labels of the artifact.
    pub labels: Labels,
    /// The labels before.
    pub given: Vec<i64>,
    /// How sure each is, from 0 to 1.
    pub confidence: Vec<f32>,
}

impl PurifiedLabels {
    /// Writes the labels of an artifact.
    ///
    /// # Errors
    /// When the lists do not have the same lengths, or the file cannot be written.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        let samples = self.labels.labels.len();
        ensure!(
            self.given.len() == samples && self.confidence.len() == samples,
            "there are {} labels before and {} confidences of {samples} labels",
            self.given.len(),
            self.confidence.len()
        );
        self.labels.write_with(
            artifact,
            [
                ("given", Dtype::I64, vec![samples], integer_bytes(&self.given).into()),
                ("confidence", Dtype::F32, vec![samples], float_bytes(&self.confidence).into()),
            ],
        )
    }
}

/// `purification.json`: how labels were purified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Purification {
    /// The parameters of the stage.
    pub parameters: serde_json::Value,
    /// Whether clean labels decided.
    pub uses_clean: bool,
    /// Of how many samples.
    pub clean_samples_used: usize,
    /// How many samples were purified.
    pub samples: usize,
    /// How many of them have another label now.
    pub changed_labels: usize,
}

impl Purification {
    const FILE: &'static str = "purification.json";

    /// Reads the file of an artifact.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        read_json(&artifact.join(Self::FILE))
    }

    /// Writes the file of an artifact.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_json(&artifact.join(Self::FILE), self)
    }
}
