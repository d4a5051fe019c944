//! The digest of a folder: a Merkle hash over (path, kind, executable, size, content), sorted by path.
//!
//! Times, owners and the other permission bits are not content: they differ between machines and umasks.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::digest::{Digest, Encoder};

const DOMAIN: &str = "pipeline 2026-11 artifact tree";

/// How much an artifact holds. Cheap to find out again, and different after most damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Extent {
    /// Files and links; folders are not counted.
    pub files: u64,
    /// Bytes in files.
    pub bytes: u64,
}

/// One entry of a folder tree, relative to its top.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The path below the top.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Its size.
        bytes: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: PathBuf,
    },
}

/// All entries below a folder, sorted by the bytes of their paths.
///
/// # Errors
/// When something can't be read, or is neither a file, a folder nor a link.
pub fn entries(top: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = top.join(&folder);
        let listing =
            fs::read_dir(&path).with_context(|| format!("can't list {}", path.display()))?;
        for entry in listing {
            let entry = entry.with_context(|| format!("can't list {}", path.display()))?;
            let relative = folder.join(entry.file_name());
            let kind = entry_kind(&entry.path())?;
            if kind == EntryKind::Folder {
                folders.push(relative.clone());
            }
            found.push(Entry { path: relative, kind });
        }
    }
    found.sort_by(|a, b| path_bytes(&a.path).cmp(path_bytes(&b.path)));
    Ok(found)
}

/// How much lies below a folder, without reading a file.
///
/// # Errors
/// As [`entries`].
pub fn extent(top: &Path) -> anyhow::Result<Extent> {
    Ok(extent_of(&entries(top)?))
}

/// The digest of a folder, and how much it holds.
///
/// # Errors
/// When something in it can't be read.
pub fn digest_folder(top: &Path) -> anyhow::Result<(Digest, Extent)> {
    let entries = entries(top)?;
    let mut encoder = Encoder::new(DOMAIN);
    for Entry { path, kind } in &entries {
        encoder.bytes(path_bytes(path));
        match kind {
            EntryKind::Folder => encoder.text("folder"),
            EntryKind::Link { target } => encoder.text("link").bytes(path_bytes(target)),
            EntryKind::File { executable, bytes } => {
                let content = digest_file(&top.join(path))?;
                let tag = if *executable { "program" } else { "file" };
                encoder.text(tag).number(*bytes).digest(&content)
            }
        };
    }
    Ok((encoder.finish(), extent_of(&entries)))
}

/// The digest of a file's bytes.
///
/// # Errors
/// When it can't be read.
pub fn digest_file(path: &Path) -> anyhow::Result<Digest> {
    let hash = || -> std::io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(hasher.finalize().into())
    };
    hash().with_context(|| format!("can't read {}", path.display()))
}

fn entry_kind(path: &Path) -> anyhow::Result<EntryKind> {
    let metadata =
        fs::symlink_metadata(path).with_context(|| format!("can't read {}", path.display()))?;
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        Ok(EntryKind::Folder)
    } else if file_type.is_file() {
        let executable = metadata.permissions().mode() & 0o100 != 0;
        Ok(EntryKind::File { executable, bytes: metadata.len() })
    } else if file_type.is_symlink() {
        let target =
            fs::read_link(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(EntryKind::Link { target })
    } else {
        bail!(
            "{} is neither a file, a folder nor a link: it can't be part of an artifact",
            path.display()
        )
    }
}

fn extent_of(entries: &[Entry]) -> Extent {
    let mut extent = Extent::default();
    for entry in entries {
        match entry.kind {
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

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            fs::write(path, content).expect("writable");
        }
        top
    }

    fn digest(top: &tempfile::TempDir) -> Digest {
        digest_folder(top.path()).expect("readable").0
    }

    #[test]
    fn the_same_content_has_the_same_digest_wherever_it_lies() {
        let files = [("a", "1"), ("b/c", "2"), ("b.d", "3")];
        let other_order = [("b.d", "3"), ("b/c", "2"), ("a", "1")];
        assert_eq!(digest(&folder(&files)), digest(&folder(&other_order)));
    }

    #[test]
    fn every_part_of_the_content_counts() {
        let base = digest(&folder(&[("a", "1"), ("b", "2")]));
        for other in [
            folder(&[("a", "1")]),
            folder(&[("a", "1"), ("b", "3")]),
            folder(&[("a", "12"), ("b", "")]),
            folder(&[("a", "2"), ("b", "1")]),
            folder(&[("a", "1"), ("c", "2")]),
            folder(&[("a", "1"), ("b/b", "2")]),
        ] {
            assert_ne!(digest(&other), base);
        }
    }

    #[test]
    fn empty_folders_links_and_the_executable_bit_count() {
        let top = folder(&[("a", "1")]);
        let plain = digest(&top);
        fs::create_dir(top.path().join("empty")).expect("writable");
        let with_folder = digest(&top);
        assert_ne!(with_folder, plain);
        std::os::unix::fs::symlink("a", top.path().join("link")).expect("writable");
        let with_link = digest(&top);
        assert_ne!(with_link, with_folder);
        fs::set_permissions(top.path().join("a"), fs::Permissions::from_mode(0o700)).expect("ours");
        let executable = digest(&top);
        assert_ne!(executable, with_link);
        // Who else may read it is not content.
        fs::set_permissions(top.path().join("a"), fs::Permissions::from_mode(0o755)).expect("ours");
        assert_eq!(digest(&top), executable);
    }

    #[test]
    fn the_extent_counts_files_and_bytes() {
        let top = folder(&[("a", "123"), ("b/c", "45")]);
        assert_eq!(extent(top.path()).expect("readable"), Extent { files: 2, bytes: 5 });
    }
}
