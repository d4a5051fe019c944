//! What lies below a folder, and the digest of a file.
//!
//! Times, owners and all permission bits but one are not content: they differ between machines and umasks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, bail};

use super::Listing;
use crate::digest::Digest;

/// How much an artifact holds. Cheap to find out again, and different after most damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Extent {
    /// Files and links; folders are not counted.
    pub files: u64,
    /// Bytes in files.
    pub bytes: u64,
}

impl Extent {
    /// How much these are.
    pub fn of<'a>(kinds: impl Iterator<Item = &'a EntryKind>) -> Self {
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
pub struct Entry {
    /// The path below the top.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
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
    Ok(Extent::of(entries(top)?.iter().map(|entry| &entry.kind)))
}

/// The digest of a folder, and how much it holds.
///
/// # Errors
/// When something in it can't be read.
pub fn digest_folder(top: &Path) -> anyhow::Result<(Digest, Extent)> {
    let listing = Listing::of(top)?;
    Ok((listing.digest(), listing.extent()))
}

/// The digest of a file's bytes.
///
/// # Errors
/// When it can't be read.
pub fn digest_file(path: &Path) -> anyhow::Result<Digest> {
    digest_file_watched(path, &Watch::default())
}

/// The digest of a file's bytes, with somebody who watches.
///
/// # Errors
/// When it can't be read, or was stopped.
pub fn digest_file_watched(path: &Path, watch: &Watch) -> anyhow::Result<Digest> {
    let hash = || -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(Watched { file: File::open(path)?, watch })?;
        Ok(hasher.finalize().into())
    };
    hash().with_context(|| format!("can't read {}", path.display()))
}

/// What another thread sees and does of a long reading.
#[derive(Debug, Default)]
pub struct Watch {
    /// Bytes that were read so far.
    pub read: AtomicU64,
    /// Set to end it early, with an error.
    pub stop: AtomicBool,
}

struct Watched<'a> {
    file: File,
    watch: &'a Watch,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let count = self.file.read(buffer)?;
        self.watch.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
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

/// The bytes of a path, which is what paths are sorted by.
pub fn path_bytes(path: &Path) -> &[u8] {
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
