//! Paths that lead to the same place from every folder.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The program runs in another folder than this process, so its paths must be absolute.
pub(super) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}
