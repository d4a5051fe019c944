//! As what a job was handed over to a scheduler: remembered before that, for whoever finds no receipt.

use std::io;

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
    /// That of the job with this token in a folder, where nobody has the answer. `None` where it was not handed over.
    ///
    /// # Errors
    /// When that cannot be told now: it is not submitted before.
    pub(super) fn of(folder: &JobFolder, token: &str) -> io::Result<Option<Self>> {
        let remembered = match folder.handed_over() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(Vec::new()),
            other => other?,
        };
        // What is damaged says that it was handed over: by its own token, as long as it was not in an array.
        let alone = || Self { token: token.to_owned(), index: None };
        Ok(remembered.map(|text| serde_json::from_slice(&text).unwrap_or_else(|_| alone())))
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
