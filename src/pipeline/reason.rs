//! Why a stage must run: a type, so that a record can keep it and a command can explain it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::Change;

/// How many changes are shown in a line.
const MOST_CHANGES: usize = 4;

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
    /// There is a record, but its artifact was not flushed to the disk. It counts if that is whole.
    Uncertain,
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
            Self::Uncertain => {
                f.write_str("its artifact was not flushed to the disk (--durability=lazy)")
            }
            Self::Forced => f.write_str("asked for with --force"),
            Self::Changed { changes } => {
                let shown = changes.iter().take(MOST_CHANGES).map(Change::to_string);
                f.write_str(&shown.collect::<Vec<_>>().join("; "))?;
                match changes.len().saturating_sub(MOST_CHANGES) {
                    0 => Ok(()),
                    1 => f.write_str("; and 1 other change"),
                    others => write!(f, "; and {others} other changes"),
                }
            }
        }
    }
}
