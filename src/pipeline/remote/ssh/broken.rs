//! Why something did not work on a connection.

use std::io;

/// Why something did not work.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection is lost.
    Connection(io::Error),
    /// There is none.
    Unreachable(String),
    /// The file was opened by a connection that was lost since.
    Stale,
    /// The server says no, in its words.
    Refused(Problem, String),
    /// What is sent cannot be read here.
    Here(io::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Missing,
    Denied,
    Other,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl Broken {
    /// The connection is of no use.
    pub(super) fn useless(why: &str) -> Self {
        Self::Connection(io::Error::other(why))
    }

    /// An answer to another question, or none that there is.
    pub(super) fn other() -> Self {
        Self::useless("it answers something else")
    }
}
