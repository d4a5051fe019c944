//! What is in a folder, as every stage lists it.
//!
//! Knows no stage.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What is in a folder, in the order of the names' bytes. Hidden entries are left out: file managers and
/// archives of other systems leave some behind (`.DS_Store`, `._data.pt`).
///
/// # Errors
/// When it can't be read.
pub(crate) fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("can't read the folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}
