//! As what a job was handed over to a scheduler: remembered before that, for whoever finds no receipt.

use serde::{Deserialize, Serialize};

use crate::cache::JobFolder;

/// What a scheduler was handed for a job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedOver {
    /// The token of the job, or of the array that it is a task of.
    pub(super) token: String,
    /// Its place in the array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
}

impl HandedOver {
    /// That of the job in a folder, where nobody has the answer.
    pub(super) fn of(folder: &JobFolder) -> Option<Self> {
        serde_json::from_slice(&folder.handed_over()?).ok()
    }

    /// What the scheduler calls it, where this is the id of what it was handed.
    pub(super) fn id(&self, taken: &str) -> String {
        id_of(taken, self.index)
    }
}

/// What a scheduler calls a job, or the task with this index of an array.
pub(super) fn id_of(taken: &str, index: Option<usize>) -> String {
    index.map_or_else(|| taken.to_owned(), |index| format!("{taken}_{index}"))
}
