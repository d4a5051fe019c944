//! The tasks of arrays: which one a job was submitted as, and what a scheduler calls it.

use serde::{Deserialize, Serialize};

use super::scheduler::{Scheduler, Trouble};
use crate::cache::JobFolder;

/// The task of an array that a job is, once that was submitted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The token of the array.
    pub(super) token: String,
    pub(super) index: usize,
}

impl Task {
    /// The id of a job of which nobody knows whether a scheduler has it.
    pub(super) fn find(
        scheduler: &dyn Scheduler,
        folder: &JobFolder,
        token: &str,
    ) -> Result<Option<String>, Trouble> {
        let task: Option<Self> = folder.task().and_then(|text| serde_json::from_slice(&text).ok());
        let Some(Self { token, index }) = task else { return scheduler.find(token) };
        Ok(scheduler.find(&token)?.map(|array| id(&array, index)))
    }
}

/// The id of a task.
pub(super) fn id(array: &str, index: usize) -> String {
    format!("{array}_{index}")
}
