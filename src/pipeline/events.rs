//! What happens in a run, as the main thread reports it to a reporter.
//!
//! These are the objects of `--progress json`, one a line.

use std::fmt;

use pipeline_stages::ArtifactType;
use pipeline_stages::message::{Measured, Metrics, Progress, RanOn};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cache::Owner;
use crate::digest::Digest;
use crate::key::StageKey;
use crate::reason::Reason;
use crate::stage_name::StageName;

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub(crate) enum RunEvent {
    Begin {
        experiment: String,
        /// How many stages were asked for, with all they need.
        stages: usize,
    },
    Start {
        stage: StageName,
        kind: &'static str,
        key: StageKey,
        why: Reason,
        /// Whether it continues from the checkpoint of an interrupted run.
        resumes: bool,
        /// Which process does it, where it is a job of an executor.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
        #[serde(skip)]
        setup: Setup,
    },
    /// A stage that has a result runs again, in scratch, to compare.
    Again { stage: StageName, kind: &'static str },
    /// Another stage of this run has the same key and must run: what becomes of it becomes of both.
    Same { stage: StageName, same_as: StageName },
    /// A stage failed in a way after which it is tried again.
    Attempt {
        stage: StageName,
        /// Which attempt comes next, from 2.
        attempt: u32,
        /// How many there are at most.
        of: u32,
        /// Why the last one failed, in words.
        why: String,
        /// The last lines of its log, which the next one replaces.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        log: Vec<String>,
        /// Whether nothing else runs beside the next one.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        alone: bool,
        /// Whether the next one has all of the GPU that it runs on.
        #[serde(rename = "own-gpu", skip_serializing_if = "std::ops::Not::not")]
        own_gpu: bool,
    },
    /// A stage is a job of an executor now, in the queue of its scheduler.
    Queued {
        stage: StageName,
        executor: String,
        /// What the scheduler calls it.
        job: String,
    },
    /// Another process works on the same key: its result will be used.
    Wait { stage: StageName },
    Progress {
        stage: StageName,
        #[serde(flatten)]
        progress: Progress,
    },
    /// A stage measured a number on its way.
    Measured {
        stage: StageName,
        /// What, and after how many steps.
        #[serde(flatten)]
        measured: Measured,
    },
    /// A remark of a stage.
    Note { stage: StageName, text: String },
    /// A remark about the run.
    Remark { text: String },
    /// A stage ended.
    End {
        stage: StageName,
        /// The key of its result, where it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<StageKey>,
        /// Whether that is another result than the one that the stage had last.
        #[serde(skip)]
        is_news: bool,
        /// What it ran on, where that matters.
        #[serde(skip_serializing_if = "Option::is_none")]
        ran_on: Option<RanOn>,
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// Somebody asked the run to stop.
    Stopping {
        /// How many jobs go on elsewhere.
        #[serde(skip_serializing_if = "is_zero")]
        jobs: usize,
        /// For how long it waits, where a scheduler is taking a job at that moment.
        #[serde(skip_serializing_if = "Option::is_none")]
        submission: Option<Patience>,
    },
    Done {
        /// Seconds from its beginning.
        seconds: f64,
        /// Whether every stage that was asked for has a result.
        complete: bool,
        /// Whether it was detached: it is not complete, nothing has failed, and what was left goes on elsewhere.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        detached: bool,
    },
}

/// For how many seconds something is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Patience {
    pub(crate) most: u64,
    /// Once somebody has asked a second time.
    pub(crate) again: u64,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a stage that starts is, for trackers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setup {
    /// What its result will be.
    pub(crate) output: ArtifactType,
    /// The seed, where it draws random numbers.
    pub(crate) seed: Option<u64>,
    /// The parameters that enter its key.
    pub(crate) parameters: Map<String, Value>,
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Its result existed already.
    Fresh {
        digest: Digest,
        /// What it measured when it ran.
        metrics: Metrics,
        /// The stage with the same key that made it in this run, where one did.
        #[serde(rename = "same-as", skip_serializing_if = "Option::is_none")]
        same_as: Option<StageName>,
    },
    /// Its result existed already. Its artifact is only on a remote.
    Remote {
        digest: Digest,
        /// What it measured when it ran.
        metrics: Metrics,
    },
    Ran {
        digest: Digest,
        /// Whether the artifact is the one that it produced before.
        unchanged: bool,
        /// Whether it had a result, and ran because somebody asked for it.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        forced: bool,
        seconds: f64,
        /// The part of its work, from 0 to 1, that the seconds are of, where it continued from a checkpoint; 0 where it is not known.
        #[serde(rename = "share", skip_serializing_if = "Option::is_none")]
        part: Option<f64>,
        metrics: Metrics,
    },
    Failed {
        /// Why, in words.
        message: String,
        /// The last lines of its log.
        log: Vec<String>,
        seconds: f64,
    },
    /// It was asked to stop. A checkpoint is kept where its kind makes one.
    Stopped,
    /// It goes on elsewhere, and the run did not wait for it.
    Left,
    /// A job that goes on elsewhere begins it with what it makes.
    Following {
        /// The input that it waits for.
        after: StageName,
    },
    /// It is ready, and the run did not wait until jobs that go on give back what it takes. No job begins it.
    Waiting(WaitsFor),
    Skipped {
        /// The failed or skipped input that it needs; `None` where the run had been stopped, or another stage had failed.
        because: Option<StageName>,
    },
}

/// What a stage waits for, of what a run counts: jobs have some of it, and what they leave may be kept for a stage before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged, rename_all_fields = "kebab-case")]
pub(crate) enum WaitsFor {
    /// That its executor takes another job.
    Place {
        executor: String,
        /// How many jobs run there at once.
        max_jobs: u32,
    },
    /// What the user counts.
    Resource {
        /// Its name.
        resource: String,
        /// How much of it the stage takes.
        takes: u32,
        /// How much of it a run may use.
        there_is: u32,
    },
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { executor, max_jobs } => write!(f, "max-jobs of {executor} is {max_jobs}"),
            Self::Resource { resource, takes, there_is } => {
                write!(f, "for {takes} of {resource}, of which a run may use {there_is}")
            }
        }
    }
}
