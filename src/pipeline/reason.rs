//! Why a stage must run: a type, so that a record can keep it and a command can explain it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::change::Change;

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
    /// There is a record, which another version of the program wrote. The stage fails, rather than replace it.
    RecordOfOtherVersion,
    /// There is a record, but it cannot be read now. The stage fails, rather than replace it.
    RecordInaccessible,
    /// There was a record, which no longer counts.
    Withdrawn { because: String },
    /// There may have been one that was withdrawn: that cannot be seen now.
    WithdrawalUnknown { because: String },
    /// There is a record, but its artifact was not flushed to the disk. It counts if that is whole.
    Uncertain,
    /// Its artifact is only on a remote, which was away when it was needed.
    OutOfReach,
    /// It has a result, and somebody asked for another run.
    Forced,
    /// Something that enters its key changed.
    Changed { changes: Vec<Change> },
}

impl Reason {
    /// Whether a record was withdrawn, or may have been: none from elsewhere counts then.
    pub(crate) const fn is_withdrawal(&self) -> bool {
        matches!(self, Self::Withdrawn { .. } | Self::WithdrawalUnknown { .. })
    }
}

/// Each change; of instances that were added to a port or removed from it, only how many there are, where there are several.
fn in_words(changes: &[Change]) -> Vec<String> {
    let group =
        |change: &Change| change.among_instances().map(|(port, verb)| (port.to_owned(), verb));
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for instance in changes.iter().filter_map(group) {
        *counts.entry(instance).or_default() += 1;
    }
    let texts = changes.iter().filter_map(|change| {
        let Some((port, verb)) = group(change) else { return Some(change.to_string()) };
        // All of them are where the first one is.
        match counts.insert((port.clone(), verb), 0) {
            Some(0) => None,
            Some(1) | None => Some(change.to_string()),
            Some(count) => Some(format!("{count} instances of input '{port}' {verb}")),
        }
    });
    texts.collect()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("no earlier run"),
            Self::ArtifactGone { digest } => {
                write!(f, "its artifact {} is gone from the cache or damaged", digest.short())
            }
            Self::RecordDamaged => f.write_str("its record is damaged"),
            Self::RecordOfOtherVersion => {
                f.write_str("its record is of another version of pipeline; --force replaces it")
            }
            Self::RecordInaccessible => f.write_str("its record cannot be read"),
            Self::Withdrawn { because } => write!(f, "its record was withdrawn: {because}"),
            Self::WithdrawalUnknown { because } => {
                write!(f, "whether its record was withdrawn is not known: {because}")
            }
            Self::Uncertain => {
                f.write_str("its artifact was not flushed to the disk (--durability=lazy)")
            }
            Self::OutOfReach => f.write_str("its artifact is only on the remote, which is away"),
            Self::Forced => f.write_str("asked for with --force"),
            Self::Changed { changes } => {
                let mut texts = in_words(changes);
                let others = texts.len().saturating_sub(MOST_CHANGES);
                texts.truncate(MOST_CHANGES);
                f.write_str(&texts.join("; "))?;
                match others {
                    0 => Ok(()),
                    1 => f.write_str("; and 1 other change"),
                    others => write!(f, "; and {others} other changes"),
                }
            }
        }
    }
}
