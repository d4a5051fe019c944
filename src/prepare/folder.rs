//! The entries of a folder that stages read.
//!
//! Does not depend on stages.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pipeline_stages::left_out::{LeftOut, is_of_a_file_manager};

/// Where a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an artifact, whose digest counts everything.
    Artifact,
    /// Outside the cache. The digest of such a folder leaves out some files, so they must not change a result.
    Outside,
}

/// The entries of a folder, in the order of the names' bytes. Hidden entries and files of file managers are left out,
/// and outside the cache also everything that the digest leaves out.
pub(crate) fn entries(folder: &Path, place: Place) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        let counts = place == Place::Artifact || is_in_digest(folder, &name);
        if !hidden && !is_of_a_file_manager(&name) && counts {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Whether two files have the same bytes. Unreadable files differ.
pub(crate) fn same_bytes(one: &Path, other: &Path) -> bool {
    OneFile::new(one).has_bytes_of(other)
}

/// A file that others are compared with. It is read once, and only if another one has its length.
pub(crate) struct OneFile<'p> {
    path: &'p Path,
    hash: OnceCell<Option<blake3::Hash>>,
}

impl<'p> OneFile<'p> {
    pub(crate) fn new(path: &'p Path) -> Self {
        Self { path, hash: OnceCell::new() }
    }

    /// Whether another file has the same bytes. Unreadable files differ.
    pub(crate) fn has_bytes_of(&self, other: &Path) -> bool {
        let length = |path: &Path| path.metadata().map(|metadata| metadata.len()).ok();
        if length(self.path) != length(other) {
            return false;
        }
        let own = self.hash.get_or_init(|| hash(self.path));
        own.is_some() && *own == hash(other)
    }
}

fn hash(path: &Path) -> Option<blake3::Hash> {
    let file = File::open(path).ok()?;
    Some(blake3::Hasher::new().update_reader(file).ok()?.finalize())
}

/// Whether the digest of a folder outside the cache counts an entry of it.
fn is_in_digest(folder: &Path, name: &OsStr) -> bool {
    // The name of the folder matters for the modules in Python's cache.
    let path = Path::new(folder.file_name().unwrap_or_default()).join(name);
    let list = LeftOut::default();
    let is_empty = || entries(&folder.join(name), Place::Outside).is_ok_and(|all| all.is_empty());
    !(list.leaves_out(&path) || list.looks_through(&path) && is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn a_file_is_read_once_for_all_that_are_compared_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for (name, content) in [("one", "12"), ("same", "12"), ("again", "12"), ("other", "13")] {
            std::fs::write(path(name), content).expect("writable");
        }
        std::fs::write(path("longer"), "123").expect("writable");
        let one = path("one");
        let one_file = OneFile::new(&one);
        assert!(one_file.has_bytes_of(&path("same")) && !one_file.has_bytes_of(&path("other")));
        // What is compared from here on is what was read.
        std::fs::write(&one, "13").expect("writable");
        assert!(one_file.has_bytes_of(&path("again")));
        for differs in ["other", "longer", "missing"] {
            assert!(!one_file.has_bytes_of(&path(differs)), "{differs}");
        }
        assert!(!same_bytes(&path("missing"), &path("missing")), "both are missing");
    }

    #[test]
    fn outside_the_cache_only_what_the_digest_counts_is_listed() {
        let test = Fixture::new();
        for path in [
            "cat/1.png",
            "cat~/1.png",
            "notes.txt~",
            "__pycache__/a.pyc",
            "deep/__pycache__/a.pyc",
            "deep/__pycache__/b.png",
            ".git/HEAD",
            ".DS_Store",
            "._cat",
            "__MACOSX/._cat",
            "desktop.ini",
        ] {
            test.write(path, "");
        }
        let names = |folder: &str, place| {
            let paths = entries(&test.folder().join(folder), place).expect("a folder");
            let name = |path: &PathBuf| path.file_name().expect("a name").to_owned();
            paths.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names("", Place::Outside), ["cat", "deep"]);
        assert_eq!(
            names("", Place::Artifact),
            ["__pycache__", "cat", "cat~", "deep", "notes.txt~"]
        );
        assert_eq!(names("deep", Place::Outside), ["__pycache__"]);
        assert_eq!(names("deep/__pycache__", Place::Outside), ["b.png"]);
    }
}
