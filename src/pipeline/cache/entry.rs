//! What can be below a folder: files, folders and links.
//!
//! Times, owners and all permission bits but one are not content: they differ between machines and umasks.

use std::path::{Path, PathBuf};

/// How much an artifact holds. Cheap to find out again, and different after most damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Extent {
    /// Files and links; folders are not counted.
    pub(crate) files: u64,
    /// Bytes in files.
    pub(crate) bytes: u64,
}

impl Extent {
    /// How much these are.
    pub(crate) fn of<'a>(kinds: impl Iterator<Item = &'a EntryKind>) -> Self {
        let mut extent = Self::default();
        for kind in kinds {
            match kind {
                EntryKind::Folder => {}
                EntryKind::Link { .. } => extent.files += 1,
                EntryKind::File { bytes, .. } => {
                    extent.files += 1;
                    extent.bytes += bytes;
                }
            }
        }
        extent
    }
}

/// One entry of a folder tree, relative to its top.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The path below the top.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: EntryKind,
    /// Whether it is a file that has another name as well, somewhere.
    pub(crate) has_other_names: bool,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum EntryKind {
    Folder,
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Its size.
        bytes: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        #[serde(with = "pipeline_stages::path_text")]
        target: PathBuf,
    },
}

/// The bytes of a path, which is what paths are sorted by.
pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
