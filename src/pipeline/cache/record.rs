//! A record: what is known of one execution of a stage key. Writing it is what commits the execution.

use std::fs;
use std::path::Path;

use anyhow::Context;
use pipeline_stages::ArtifactType;
use pipeline_stages::message::Metrics;
use serde::{Deserialize, Serialize};

use super::durable;
use super::store::Stored;
use crate::key::{Part, StageKey};
use crate::reason::Reason;

/// What is known of one execution of a stage key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// The key.
    pub key: StageKey,
    /// What the key was made of.
    pub parts: Vec<Part>,
    /// What the stage was called, and in which experiment.
    pub stage: String,
    /// The experiment.
    pub experiment: String,
    /// Why it ran.
    pub reason: Reason,
    /// The type of the artifact.
    pub artifact: ArtifactType,
    /// The artifact.
    pub output: Stored,
    /// What the stage measured.
    pub metrics: Metrics,
    /// Seconds from its start to the end of its commit; of the last part, where it was interrupted.
    pub seconds: f64,
    /// When it ended: seconds since 1970, UTC.
    pub finished: u64,
    /// Where it ran.
    pub host: String,
    /// The device that it ran on, where it chose one.
    pub device: Option<String>,
    /// The version of the program.
    pub version: String,
}

impl Record {
    /// Reads a record. `None` when there is none; a damaged one counts as none.
    pub fn read(path: &Path, key: &StageKey) -> Option<Self> {
        let text = fs::read(path).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        (record.key == *key && StageKey::of(&record.parts) == *key).then_some(record)
    }

    /// Writes a record, durably and in one step.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).context("a record is plain data")?;
        text.push(b'\n');
        durable::write_file(path, &text)
    }
}
