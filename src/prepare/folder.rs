//! The entries of a folder that stages read.
//!
//! Does not depend on stages.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Whether a name is that of something an operating system leaves beside people's files: macOS's `__MACOSX` folders,
/// `.DS_Store` and `._name`, Windows' `Thumbs.db` and `desktop.ini`. It is never data.
pub(crate) fn is_system_junk(name: &str) -> bool {
    name.starts_with("._") || ["__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"].contains(&name)
}

/// What is in a folder, in the order of the names' bytes. Hidden entries are left out, and what operating
/// systems leave behind.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && !is_system_junk(&name.to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}
