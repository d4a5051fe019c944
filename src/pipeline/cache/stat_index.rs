//! Digests of files outside the cache, remembered by their stat: a file that has not been touched is
//! not read again.
//!
//! Disposable: what is missing, stale or damaged in it is hashed again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::stat::Stat;
use super::{disk, durable, file_digest};
use crate::digest::Digest;

/// The first line has the checksum of all that follow it after this.
const HEADER: &str = "pipeline stat index 3 ";

/// A larger file is not one, in bytes: that would be of ten million files.
const LARGEST: u64 = 2 << 30;

/// A file changed this shortly before it was hashed could change again within the clock's grain and keep
/// its stat, so its digest is not remembered.
const SETTLED_SECONDS: u64 = 2;

/// The digests that are remembered. Read once, when the first one is asked for; threads share it.
#[derive(Debug)]
pub(crate) struct StatIndex {
    path: PathBuf,
    memory: OnceLock<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By device and inode: what a file was before it is never again.
    known: HashMap<(u64, u64), (Stat, Digest)>,
    /// Whether there is something that the file does not have.
    is_new: bool,
}

impl StatIndex {
    /// The index in this file. Nothing is read yet.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, memory: OnceLock::new() }
    }

    /// Writes the index, if there is something new in it.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let Some(memory) = self.memory.get() else { return Ok(()) };
        let mut memory = lock(memory);
        if !memory.is_new {
            return Ok(());
        }
        durable::write_file(&self.path, memory.text().as_bytes())?;
        memory.is_new = false;
        Ok(())
    }

    /// The digest of a file with this stat.
    pub(super) fn digest(&self, path: &Path, stat: &Stat) -> anyhow::Result<Digest> {
        self.digest_by(stat, || file_digest::digest_file(path))
    }

    fn digest_by(
        &self,
        stat: &Stat,
        digest: impl FnOnce() -> anyhow::Result<Digest>,
    ) -> anyhow::Result<Digest> {
        if let Some(digest) = self.memory().digest(stat) {
            return Ok(digest);
        }
        // By the time before it is read: what is written while that takes seconds could keep the stat, too.
        let is_settled = is_settled(stat, SystemTime::now());
        let digest = digest()?;
        if is_settled {
            let mut memory = self.memory();
            memory.known.insert((stat.device, stat.inode), (*stat, digest));
            memory.is_new = true;
        }
        Ok(digest)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(self.memory.get_or_init(|| Mutex::new(Memory::read(&self.path))))
    }
}

impl Memory {
    /// An empty one when the file is missing or damaged.
    fn read(path: &Path) -> Self {
        let bytes = disk::read(path, LARGEST).unwrap_or_default();
        Self::parse(&String::from_utf8(bytes).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let parts = text.strip_prefix(HEADER).and_then(|text| text.split_once('\n'));
        match parts {
            Some((checksum, lines)) if checksum == checksum_of(lines) => {
                Self { known: lines.lines().filter_map(parse_line).collect(), is_new: false }
            }
            _ => Self::default(),
        }
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.known.values().map(format_line).collect();
        lines.sort();
        with_checksum(&lines.concat())
    }

    fn digest(&self, stat: &Stat) -> Option<Digest> {
        let (known, digest) = self.known.get(&(stat.device, stat.inode))?;
        (known == stat).then_some(*digest)
    }
}

fn with_checksum(lines: &str) -> String {
    format!("{HEADER}{}\n{lines}", checksum_of(lines))
}

fn checksum_of(lines: &str) -> String {
    Digest::from(blake3::hash(lines.as_bytes())).to_string()
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_settled(stat: &Stat, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    let newest = stat.modified_nanoseconds.max(stat.changed_nanoseconds);
    now - newest > i128::from(SETTLED_SECONDS) * 1_000_000_000
}

fn format_line((stat, digest): &(Stat, Digest)) -> String {
    let Stat { device, inode, mode, size, modified_nanoseconds, changed_nanoseconds } = stat;
    format!(
        "{device} {inode} {mode} {size} {modified_nanoseconds} {changed_nanoseconds} {digest}\n"
    )
}

fn parse_line(line: &str) -> Option<((u64, u64), (Stat, Digest))> {
    let mut fields = line.split(' ');
    let stat = Stat {
        device: fields.next()?.parse().ok()?,
        inode: fields.next()?.parse().ok()?,
        mode: fields.next()?.parse().ok()?,
        size: fields.next()?.parse().ok()?,
        modified_nanoseconds: fields.next()?.parse().ok()?,
        changed_nanoseconds: fields.next()?.parse().ok()?,
    };
    let digest = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some(((stat.device, stat.inode), (stat, digest)))
}

/// Whether an index with these lines knows a file. No fuzzer can guess its checksum: it is put right here. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_stat_index(lines: &str) -> bool {
    let text = with_checksum(lines);
    let memory = Memory::parse(&text);
    assert!(Memory::parse(&format!("{text} ")).known.is_empty(), "a letter is too much");
    let again = Memory::parse(&memory.text());
    assert_eq!(again.known, memory.known);
    !memory.known.is_empty()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::digest::FieldHasher;

    #[test]
    fn a_fresh_file_is_not_remembered_because_it_could_change_unseen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        fs::write(&path, "1").expect("writable");
        let index = StatIndex::at(folder.path().join("stat.idx"));
        let digest = || {
            let stat = Stat::of(&fs::metadata(&path).expect("there"));
            index.digest(&path, &stat).expect("readable")
        };
        let one = digest();
        assert!(index.memory().known.is_empty());
        fs::write(&path, "2").expect("writable");
        assert_ne!(digest(), one);
    }

    #[test]
    fn a_file_that_was_fresh_before_it_was_read_for_seconds_is_not_remembered() {
        let index = StatIndex::at(PathBuf::from("nowhere"));
        let digest = FieldHasher::new("test").finish();
        let changed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
        let changed = changed.as_nanos() as i128;
        let stat = Stat { modified_nanoseconds: changed, changed_nanoseconds: changed, ..STAT };
        let slowly = || {
            std::thread::sleep(Duration::from_millis(1000 * SETTLED_SECONDS + 100));
            Ok(digest)
        };
        assert_eq!(index.digest_by(&stat, slowly).expect("readable"), digest);
        assert!(index.memory().known.is_empty(), "it may have changed within the clock's grain");
    }

    const STAT: Stat = Stat {
        device: 1,
        inode: 2,
        mode: 0o100_644,
        size: 3,
        modified_nanoseconds: -4,
        changed_nanoseconds: 5,
    };

    fn memory_of(stats: &[Stat]) -> Memory {
        let digest = FieldHasher::new("test").finish();
        let known = stats.iter().map(|stat| ((stat.device, stat.inode), (*stat, digest)));
        Memory { known: known.collect(), is_new: true }
    }

    #[test]
    fn a_settled_file_is_remembered_across_processes() {
        assert!(is_settled(&STAT, SystemTime::now()));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stat.idx");
        let index = StatIndex::at(path.clone());
        *index.memory() = memory_of(&[STAT, Stat { inode: 3, ..STAT }]);
        index.write().expect("writable");
        let nowhere = folder.path().join("nowhere");
        let again = StatIndex::at(path);
        let digest = FieldHasher::new("test").finish();
        assert_eq!(again.digest(&nowhere, &STAT).expect("remembered"), digest);
        assert!(again.digest(&nowhere, &Stat { size: 4, ..STAT }).is_err(), "it has changed");
    }

    #[test]
    fn of_a_file_that_changes_only_the_last_digest_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let index = StatIndex::at(folder.path().join("stat.idx"));
        for (size, text) in [(1, "1"), (2, "22")] {
            fs::write(&path, text).expect("writable");
            index.digest(&path, &Stat { size, ..STAT }).expect("readable");
            assert_eq!(index.memory().known.len(), 1);
        }
        fs::remove_file(&path).expect("there");
        assert!(index.digest(&path, &Stat { size: 1, ..STAT }).is_err());
        assert!(index.digest(&path, &Stat { size: 2, ..STAT }).is_ok());
    }

    #[test]
    fn a_damaged_index_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stat.idx");
        let known = |text: &str| {
            fs::write(&path, text).expect("writable");
            Memory::read(&path).known.len()
        };
        let whole = memory_of(&[STAT]).text();
        assert_eq!(known(&whole), 1);
        let old = "pipeline stat index 2";
        for text in ["", old, "something else\n1 2", &format!("{HEADER}\n1 2 x\n\u{1F980}")] {
            assert_eq!(known(text), 0);
        }
        // Also where another digest takes the place of one.
        for (place, letter) in whole.char_indices() {
            let other = if letter == '0' { "1" } else { "0" };
            let mut damaged = whole.clone();
            damaged.replace_range(place..place + letter.len_utf8(), other);
            assert_eq!(known(&damaged), 0, "{damaged}");
            assert_eq!(known(&whole[..place]), 0);
        }
    }
}
