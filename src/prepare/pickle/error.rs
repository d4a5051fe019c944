//! Why a pickle cannot be read.

use std::fmt;

/// What is wrong with a pickle, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickleError {
    /// The offset of the instruction, in bytes from the start of the pickle.
    pub offset: usize,
    /// What is wrong, for people.
    pub problem: String,
}

impl fmt::Display for PickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the pickle is damaged or not supported, at its byte {}: {}",
            self.offset, self.problem
        )
    }
}

impl std::error::Error for PickleError {}
