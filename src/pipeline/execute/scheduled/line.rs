//! What a job that runs elsewhere reports in its journal: an object a line, read by whoever follows it, now or later.

use serde::{Deserialize, Serialize};

use super::super::job::{JobEnd, JobEvent};
use crate::cache::{JobFolder, Owner};
use crate::digest::Digest;
use crate::manifest::Failing;

/// A line of the journal of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JobLine {
    /// Its process has begun. Once more where the scheduler started it again.
    Begins {
        #[serde(flatten)]
        owner: Owner,
        /// What is in the checkpoint that it continues from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<Digest>,
    },
    Event(JobEvent),
    Ends(JobEnding),
}

/// How the process of a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub(crate) enum JobEnding {
    /// Its result is recorded: by this job, or by another process before it.
    Recorded {
        reused: bool,
    },
    /// Another process works on its key.
    Held,
    /// It was asked to stop.
    Stopped {
        /// Whether its time is nearly up, by the signal that said so.
        time_up: bool,
        /// Whether its checkpoint is further than when it began.
        advanced: bool,
    },
    Failed {
        message: String,
        log: Vec<String>,
        failing: Failing,
    },
    LostInput {
        artifact: Digest,
        was_damaged: bool,
    },
}

impl JobEnding {
    /// The last word of a job, where its process has ended and has not begun again.
    pub(crate) fn last(folder: &JobFolder) -> Option<Self> {
        match serde_json::from_slice(&folder.last_event().ok()?) {
            Ok(JobLine::Ends(ending)) => Some(ending),
            _ => None,
        }
    }

    /// What a process has said at its end that has recorded the result, where none has begun or ended since: whatever another one says that
    /// had lost its lock to that one.
    pub(crate) fn recorded(folder: &JobFolder) -> Option<Self> {
        let lines = folder.events(0).ok()?;
        let mut lines = lines.rsplit(|byte| *byte == b'\n');
        let last = lines.find_map(|line| match serde_json::from_slice(line).ok()? {
            JobLine::Event(_) => None,
            line => Some(line),
        });
        match last? {
            JobLine::Ends(ending @ Self::Recorded { .. }) => Some(ending),
            _ => None,
        }
    }

    /// Whether it does not go on: one that was stopped may be put back into the queue, and beside one that found its key held another one works.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Stopped { .. } | Self::Held)
    }
}

impl JobEnd {
    /// The last word of the process of a job. `time_up` and `advanced` are those of [`JobEnding::Stopped`].
    pub(crate) fn ending(&self, time_up: bool, advanced: bool) -> JobEnding {
        match self {
            Self::Reused(_) => JobEnding::Recorded { reused: true },
            Self::Ran { .. } => JobEnding::Recorded { reused: false },
            Self::Held => JobEnding::Held,
            Self::Stopped | Self::Left | Self::LookAgain => {
                JobEnding::Stopped { time_up, advanced }
            }
            Self::Failed { message, log, failing } => {
                JobEnding::Failed { message: message.clone(), log: log.clone(), failing: *failing }
            }
            Self::LostInput { artifact, was_damaged } => {
                JobEnding::LostInput { artifact: *artifact, was_damaged: *was_damaged }
            }
        }
    }
}

impl JobLine {
    /// As a line of the journal.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}
