//! What an artifact is called in the store, and how much it contains.

use super::entry::Extent;
use crate::digest::Digest;

/// An artifact in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Stored {
    /// The digest of its content, which is its name.
    pub(crate) digest: Digest,
    /// How much it contains.
    #[serde(flatten)]
    pub(crate) extent: Extent,
}
