//! How a file, folder or link differs from what it was: for listings, records and messages.
//!
//! Does not read files.

use std::fmt;
use std::path::PathBuf;

use pipeline_stages::path_text;
use serde::{Deserialize, Serialize};

/// How one path differs between two listings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// The path below the folder; empty for what was listed itself.
    #[serde(with = "path_text")]
    pub(crate) path: PathBuf,
    #[serde(flatten)]
    pub(crate) how: How,
}

/// How a path differs from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub(crate) enum How {
    /// It did not exist.
    Added,
    /// It no longer exists.
    Missing,
    /// A file with other bytes.
    Changed {
        /// Its size before, in bytes.
        old_bytes: u64,
        /// Its size now.
        new_bytes: u64,
    },
    /// A file that was written to, or replaced, regardless of its content now.
    Written,
    /// The same bytes, but it became a program, or is not one any more.
    Mode,
    Permissions,
    /// A link with another target.
    Link,
    /// A file became a folder or a link, or the reverse.
    Kind,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::Missing => f.write_str("missing"),
            Self::Changed { old_bytes, new_bytes } if old_bytes == new_bytes => {
                f.write_str("other bytes, of the same size")
            }
            Self::Changed { old_bytes, new_bytes } => {
                write!(f, "other bytes: {new_bytes} in place of {old_bytes}")
            }
            Self::Written => f.write_str("written to, or replaced"),
            Self::Mode => f.write_str("the executable bit changed"),
            Self::Permissions => f.write_str("other permissions"),
            Self::Link => f.write_str("a link with another target"),
            Self::Kind => f.write_str("another type of entry: file, folder or link"),
        }
    }
}

/// The first of some differences, and how many more there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Differences {
    /// The first ones.
    pub(crate) first: Vec<Difference>,
    /// How many more there are.
    pub(crate) more: usize,
}

impl Differences {
    /// How many are named.
    const NAMED: usize = 3;

    /// In short; `None` if there are none.
    pub(crate) fn of(mut all: Vec<Difference>) -> Option<Self> {
        let more = all.len().saturating_sub(Self::NAMED);
        all.truncate(Self::NAMED);
        (!all.is_empty()).then_some(Self { first: all, more })
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Difference { path, how }) in self.first.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match path.as_os_str().is_empty() {
                true => write!(f, "{comma}{how}")?,
                false => write!(f, "{comma}{} {how}", path.display())?,
            }
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_differences_are_shown_in_short() {
        let difference = |path: &str| Difference { path: path.into(), how: How::Added };
        let text = |paths: &[&str]| {
            let all = paths.iter().map(|path| difference(path)).collect();
            Differences::of(all).map(|differences| differences.to_string())
        };
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[""]).as_deref(), Some("added"));
        assert_eq!(text(&["a", "b"]).as_deref(), Some("a added, b added"));
        let five = text(&["a", "b", "c", "d", "e"]);
        assert_eq!(five.as_deref(), Some("a added, b added, c added and 2 more"));
    }
}
