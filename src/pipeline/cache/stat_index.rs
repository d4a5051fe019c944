//! Digests of files outside the cache, remembered by their stat: a file that has not been touched is
//! not read again.
//!
//! Disposable: what is missing, stale or damaged in it is hashed anew.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::{durable, file_digest};
use crate::digest::{Digest, Encoder};

const HEADER: &str = "pipeline stat index 1";
const DOMAIN: &str = "pipeline 2026-11 outside folder";

/// Python writes its compiled modules here when they are used: no content of anybody's.
const PYTHON_CACHE: &str = "__pycache__";

/// A file changed this shortly before it was hashed could change again within the clock's grain and keep
/// its stat, so its digest is not remembered.
const SETTLED_SECONDS: u64 = 2;

/// What tells a file from its earlier self without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified_nanoseconds: i128,
    changed_nanoseconds: i128,
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_nanoseconds: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_nanoseconds: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        let newest = self.modified_nanoseconds.max(self.changed_nanoseconds);
        now - newest > i128::from(SETTLED_SECONDS) * 1_000_000_000
    }
}

/// The digests that are remembered.
#[derive(Debug, Default)]
pub struct StatIndex {
    known: HashMap<Stat, Digest>,
    dirty: bool,
}

impl StatIndex {
    /// Reads the index; an empty one when it is missing or damaged.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Self::default();
        }
        Self { known: lines.filter_map(parse_line).collect(), dirty: false }
    }

    /// Writes the index, if there is something new in it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&mut self, path: &Path) -> anyhow::Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let mut lines: Vec<String> = self.known.iter().map(format_line).collect();
        lines.sort();
        durable::write_file(path, format!("{HEADER}\n{}\n", lines.join("\n")).as_bytes())?;
        self.dirty = false;
        Ok(())
    }

    /// The digest of a file, or of a folder with all that is in it. Links are followed.
    ///
    /// # Errors
    /// When something can't be read.
    pub fn digest(&mut self, path: &Path) -> anyhow::Result<Digest> {
        self.digest_below(path, &mut Vec::new())
    }

    fn digest_below(&mut self, path: &Path, above: &mut Vec<(u64, u64)>) -> anyhow::Result<Digest> {
        let metadata =
            fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
        if metadata.is_file() {
            return self.digest_file(path, &metadata);
        }
        if !metadata.is_dir() {
            bail!("{} is neither a file nor a folder", path.display());
        }
        let identity = (metadata.dev(), metadata.ino());
        if above.contains(&identity) {
            bail!("{} is a link to a folder above it", path.display());
        }
        above.push(identity);
        let mut encoder = Encoder::new(DOMAIN);
        for entry in sorted_listing(path)? {
            let name = entry.file_name().context("a listing has names")?.to_owned();
            if name == PYTHON_CACHE {
                continue;
            }
            let digest = self.digest_below(&entry, above)?;
            let tag = if entry.is_dir() { "folder" } else { "file" };
            encoder.bytes(name.as_encoded_bytes()).text(tag).digest(&digest);
        }
        above.pop();
        Ok(encoder.finish())
    }

    fn digest_file(&mut self, path: &Path, metadata: &Metadata) -> anyhow::Result<Digest> {
        let stat = Stat::of(metadata);
        if let Some(digest) = self.known.get(&stat) {
            return Ok(*digest);
        }
        let digest = file_digest::digest_file(path)?;
        if stat.settled(SystemTime::now()) {
            self.known.insert(stat, digest);
            self.dirty = true;
        }
        Ok(digest)
    }
}

fn sorted_listing(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    list().with_context(|| format!("can't list {}", folder.display()))
}

fn format_line((stat, digest): (&Stat, &Digest)) -> String {
    let Stat { device, inode, size, modified_nanoseconds, changed_nanoseconds } = stat;
    format!("{device} {inode} {size} {modified_nanoseconds} {changed_nanoseconds} {digest}")
}

fn parse_line(line: &str) -> Option<(Stat, Digest)> {
    let mut fields = line.split(' ');
    let stat = Stat {
        device: fields.next()?.parse().ok()?,
        inode: fields.next()?.parse().ok()?,
        size: fields.next()?.parse().ok()?,
        modified_nanoseconds: fields.next()?.parse().ok()?,
        changed_nanoseconds: fields.next()?.parse().ok()?,
    };
    let digest = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some((stat, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path) {
        let past = SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::open(path).and_then(|file| file.set_modified(past)).expect("ours");
    }

    #[test]
    fn a_fresh_file_is_not_remembered_because_it_could_change_unseen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        fs::write(&path, "1").expect("writable");
        let mut index = StatIndex::default();
        let one = index.digest(&path).expect("readable");
        assert!(index.known.is_empty());
        fs::write(&path, "2").expect("writable");
        assert_ne!(index.digest(&path).expect("readable"), one);
    }

    #[test]
    fn a_settled_file_is_remembered_across_processes() {
        let stat =
            Stat { device: 1, inode: 2, size: 3, modified_nanoseconds: -4, changed_nanoseconds: 5 };
        assert!(stat.settled(SystemTime::now()));
        let digest = Encoder::new("test").finish();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stat.idx");
        let mut index = StatIndex { known: HashMap::from([(stat, digest)]), dirty: true };
        index.write(&path).expect("writable");
        assert_eq!(StatIndex::read(&path).known, index.known);
    }

    #[test]
    fn a_damaged_index_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stat.idx");
        for text in ["", "something else\n1 2", &format!("{HEADER}\n1 2 x\n\u{1F980}")] {
            fs::write(&path, text).expect("writable");
            assert!(StatIndex::read(&path).known.is_empty());
        }
    }

    #[test]
    fn a_folder_has_the_digest_of_its_names_and_contents() {
        let folder = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("writable");
        write("a", "1");
        let mut index = StatIndex::default();
        let mut digest = || index.digest(folder.path()).expect("readable");
        let one = digest();
        age(&folder.path().join("a"));
        assert_eq!(digest(), one, "times are not content");
        write("b", "1");
        let two = digest();
        assert_ne!(two, one);
        fs::create_dir(folder.path().join("__pycache__")).expect("writable");
        assert_eq!(digest(), two, "what Python leaves is not content");
        fs::rename(folder.path().join("b"), folder.path().join("c")).expect("ours");
        assert_ne!(digest(), two);
    }

    #[test]
    fn a_link_to_a_folder_above_is_an_error_and_not_a_loop() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("up")).expect("writable");
        let error = StatIndex::default().digest(folder.path()).expect_err("a loop");
        assert!(error.to_string().contains("is a link to a folder above it"));
    }
}
