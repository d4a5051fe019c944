//! The lines of the record of a run: one JSON object each.
//!
//! A run that is killed leaves whole lines. What cannot be read is skipped: a line of a newer version, or one that a
//! power cut left incomplete.

use std::path::PathBuf;

use pipeline_stages::message::{Hello, RanOn};
use pipeline_stages::path_text;
use serde::{Deserialize, Serialize};

use super::git::Commit;
use crate::cache::Owner;
use crate::digest::Digest;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub(super) enum Line {
    /// The first one.
    Begin(Box<Header>),
    /// What Git knows of the folder of the manifest.
    Git(Commit),
    /// A stage started.
    Start { stage: StageName, key: StageKey, at: u64 },
    /// A stage failed, and is tried again.
    Attempt {
        stage: StageName,
        at: u64,
        /// Which attempt comes next, from 2, and how many there are at most.
        attempt: u32,
        of: u32,
        /// Why the last one failed, in words.
        why: String,
    },
    /// A stage ended that was not fresh at the beginning.
    End {
        stage: StageName,
        /// The key of its result, or the one under which it started.
        key: Option<StageKey>,
        at: u64,
        #[serde(flatten)]
        ended: Ended,
    },
    /// The last one.
    Done {
        at: u64,
        seconds: f64,
        complete: bool,
        stopped: bool,
        /// Whether it left to its jobs what was not complete. Earlier builds did not say it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        detached: bool,
    },
}

/// How a run began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Header {
    /// The build that ran.
    pub(crate) by: Hello,
    pub(crate) experiment: String,
    /// The manifest, as it was named.
    #[serde(with = "path_text")]
    pub(crate) manifest: PathBuf,
    #[serde(with = "path_text")]
    pub(crate) folder: PathBuf,
    /// What was changed about it and selected, as it was typed: `--set stages.train.epochs=3`, `train`.
    pub(crate) asked: Vec<String>,
    /// The text of the manifest, with those that it includes.
    pub(crate) texts: Digest,
    /// The stages that were asked for, with all they need.
    pub(crate) plan: Digest,
    /// The process, the machine, and when it began.
    pub(crate) owner: Owner,
    /// The devices that the process was allowed to see, where that was limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) visible_devices: Option<String>,
}

impl Header {
    /// Whether nothing was changed about the manifest.
    pub(super) fn is_as_written(&self) -> bool {
        !self.asked.iter().any(|word| word.starts_with("--") && !word.starts_with("--only"))
    }

    /// Whether no stages were selected.
    pub(super) fn is_about_all(&self) -> bool {
        let is_selection = |word: &String| !word.starts_with("--") || word.starts_with("--only");
        !self.asked.iter().any(is_selection)
    }
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub(crate) enum Ended {
    /// Its result exists: another process made it meanwhile, or it is the same as before although an input ran.
    Fresh,
    Ran {
        seconds: f64,
        /// What it ran on, where that matters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ran_on: Option<RanOn>,
    },
    Failed {
        seconds: f64,
        /// Why, in words.
        message: String,
    },
    Stopped,
    /// It went on elsewhere.
    Left,
}

/// The stages of a run, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) stages: Vec<PlannedStage>,
}

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PlannedStage {
    pub(super) stage: StageName,
    pub(super) kind: String,
    /// The key of its result, if it had one when the first stage started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<StageKey>,
}

/// A file of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Text {
    pub(super) file: String,
    pub(super) text: String,
}
