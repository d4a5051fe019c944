//! What happens in a run, as the main thread reports it to whoever shows it.
//!
//! These are the objects of `--progress json`, one a line.

use pipeline_stages::message::{Measured, Metrics, Progress};
use serde::Serialize;

use crate::digest::Digest;
use crate::key::StageKey;
use crate::reason::Reason;
use crate::stage_name::StageName;

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum RunEvent {
    /// The run begins.
    Begin {
        /// The experiment.
        experiment: String,
        /// How many stages were asked for, with all they need.
        stages: usize,
    },
    /// A stage begins.
    Start {
        /// The stage.
        stage: StageName,
        /// Its kind.
        kind: &'static str,
        /// Its key.
        key: StageKey,
        /// Why it runs.
        why: Reason,
        /// Whether it goes on from the checkpoint of an interrupted run.
        resumes: bool,
    },
    /// A stage that has a result runs again, in scratch, to compare.
    Again {
        /// The stage.
        stage: StageName,
        /// Its kind.
        kind: &'static str,
    },
    /// Another process works on the same key: its result will be used.
    Wait {
        /// The stage.
        stage: StageName,
    },
    /// How far a stage is.
    Progress {
        /// The stage.
        stage: StageName,
        /// How far.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A stage measured a number on its way.
    Measured {
        /// The stage.
        stage: StageName,
        /// What, and after how many steps.
        #[serde(flatten)]
        measured: Measured,
    },
    /// A stage has something to say.
    Note {
        /// The stage.
        stage: StageName,
        /// What.
        text: String,
    },
    /// A stage is done, one way or another.
    End {
        /// The stage.
        stage: StageName,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// Somebody asked the run to stop.
    Stopping,
    /// The run is over.
    Done {
        /// Seconds from its beginning.
        seconds: f64,
        /// Whether all that was asked for is there.
        complete: bool,
    },
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Its result was there.
    Fresh {
        /// The artifact.
        digest: Digest,
        /// What it measured when it ran.
        metrics: Metrics,
    },
    /// It ran.
    Ran {
        /// The artifact.
        digest: Digest,
        /// Whether the artifact is the one that it produced before.
        unchanged: bool,
        /// How long it took.
        seconds: f64,
        /// What it measured.
        metrics: Metrics,
    },
    /// It failed.
    Failed {
        /// Why, in words.
        message: String,
        /// The last lines of its log.
        log: Vec<String>,
        /// How long it took.
        seconds: f64,
    },
    /// It was asked to stop. A checkpoint is kept where its kind makes one.
    Stopped,
    /// It did not run.
    Skipped {
        /// The failed or skipped input that it needs; `None` when the run was stopped.
        because: Option<StageName>,
    },
}
