//! Why a stage must run: a type, so that a record can keep it and a command can explain it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::Change;

/// Why a stage must run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// There is no record of it.
    NeverRan,
    /// There is a record, but its artifact is gone.
    ArtifactGone { digest: Digest },
    /// There is a record, but it is damaged.
    RecordDamaged,
    /// There was a record, which no longer counts.
    Withdrawn { because: String },
    /// It has a result, and somebody asked for another run.
    Forced,
    /// Something that enters its key changed.
    Changed { changes: Vec<Change> },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("no earlier run"),
            Self::ArtifactGone { digest } => {
                write!(f, "its artifact {} is gone from the cache or damaged", digest.short())
            }
            Self::RecordDamaged => f.write_str("its record is damaged"),
            Self::Withdrawn { because } => write!(f, "its record was withdrawn: {because}"),
            Self::Forced => f.write_str("asked for with --force"),
            Self::Changed { changes } => {
                let texts: Vec<String> = changes.iter().map(Change::to_string).collect();
                f.write_str(&texts.join("; "))
            }
        }
    }
}
