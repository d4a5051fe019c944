//! The digest of a file's bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::Context;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use super::parallel;
use crate::digest::Digest;
use crate::machine;

/// A file with more bytes is hashed by several threads.
const LARGE: u64 = 4 << 20;

/// How much of a large file a thread hashes by itself: a subtree of BLAKE3's tree, so a power of two.
const PART: u64 = 1 << 20;

/// How much of it is read at once: it stays in the cache of a core until it is hashed.
const PIECE: usize = 128 << 10;

/// How many threads read one file at most: many large files may be hashed at once, each with as many.
const READERS: usize = 8;

/// The digest of a file's bytes.
pub(crate) fn digest_file(path: &Path) -> anyhow::Result<Digest> {
    digest_file_watched(path, &Watch::default())
}

/// How many bytes a sample of a file has, and how many samples a large one.
const SAMPLE: u64 = 1 << 20;
const SAMPLES: u64 = 64;

/// What tells one content of a file from another. Of a large file, only from one that differs in its length or in many places.
pub(super) fn sample_file(path: &Path) -> io::Result<Digest> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes.to_le_bytes());
    let last = bytes.saturating_sub(SAMPLE);
    let step = (last / SAMPLES).max(SAMPLE);
    for from in (0..SAMPLES).map(|sample| sample * step).chain([last]) {
        let mut sample = vec![0; bytes.saturating_sub(from).min(SAMPLE) as usize];
        file.read_exact_at(&mut sample, from)?;
        hasher.update(&sample);
    }
    Ok(hasher.finalize().into())
}

/// The digest of a file's bytes, with somebody who watches.
fn digest_file_watched(path: &Path, watch: &Watch) -> anyhow::Result<Digest> {
    let hash = || digest_open_file(File::open(path)?, watch);
    hash().with_context(|| format!("cannot read {}", path.display()))
}

/// The digest of the bytes of a file that is open, with somebody who watches.
pub(crate) fn digest_open_file(file: File, watch: &Watch) -> io::Result<Digest> {
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    if bytes > LARGE
        && let Some(digest) = digest_in_parts(&file, bytes, watch)?
    {
        return Ok(digest);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(Watched { file, watch })?;
    Ok(hasher.finalize().into())
}

/// The digest of a file of this length, by several threads, of which each reads what it hashes. `None` if the file has another length by
/// now. Not mapped into memory: whoever shortens a mapped file ends the program.
fn digest_in_parts(file: &File, bytes: u64, watch: &Watch) -> io::Result<Option<Digest>> {
    let parts: Vec<u64> = (0..bytes.div_ceil(PART)).map(|part| part * PART).collect();
    let has_failed = AtomicBool::new(false);
    let values = parallel::by_threads(
        &parts,
        machine::threads().min(READERS),
        || vec![0; PIECE],
        |piece, &from| {
            let until = bytes.min(from + PART);
            let goes_on = !has_failed.load(Ordering::Relaxed);
            goes_on.then(|| {
                chaining_value(file, from, until, piece, watch)
                    .inspect_err(|_| has_failed.store(true, Ordering::Relaxed))
            })
        },
    );
    let values: io::Result<Vec<ChainingValue>> = values.into_iter().flatten().collect();
    let values = match values {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        values => values?,
    };
    let is_longer = file.read_at(&mut [0], bytes)? != 0;
    let (left, right) = values.split_at(left_parts(values.len()));
    let digest = hazmat::merge_subtrees_root(&merge(left), &merge(right), Mode::Hash);
    Ok((!is_longer).then(|| digest.into()))
}

/// The chaining value of the bytes of a part of a file.
fn chaining_value(
    file: &File,
    from: u64,
    until: u64,
    piece: &mut [u8],
    watch: &Watch,
) -> io::Result<ChainingValue> {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(from);
    for place in (from..until).step_by(PIECE) {
        let piece = &mut piece[..(until - place).min(PIECE as u64) as usize];
        watch.goes_on()?;
        file.read_exact_at(piece, place)?;
        watch.has_read(piece.len());
        // Not while it is read: a disk that hangs would keep it from others.
        let _turn = Turn::wait();
        hasher.update(piece);
    }
    Ok(hasher.finalize_non_root())
}

/// The chaining value of the tree above these parts, which are not all of the file.
fn merge(parts: &[ChainingValue]) -> ChainingValue {
    if let [part] = parts {
        return *part;
    }
    let (left, right) = parts.split_at(left_parts(parts.len()));
    hazmat::merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
}

/// How many of some parts, at least two, are in the left half of their tree: the largest power of two that leaves one for the right half
/// (BLAKE3 paper, section 2.1).
fn left_parts(parts: usize) -> usize {
    parts.next_power_of_two() / 2
}

/// One of the threads that may compute digests of large files now, all files together.
struct Turn;

/// How many of them do, and who waits for one to end.
static IN_TURN: Mutex<usize> = Mutex::new(0);
static TURN_ENDS: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let in_turn = IN_TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |in_turn: &mut usize| *in_turn >= machine::threads();
        let in_turn = TURN_ENDS.wait_while(in_turn, is_full);
        *in_turn.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *IN_TURN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        TURN_ENDS.notify_one();
    }
}

/// What another thread sees and does of a long reading.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Bytes that were read so far.
    pub(crate) read: AtomicU64,
    /// Set to end it early, with an error.
    pub(crate) stop: AtomicBool,
}

impl Watch {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn goes_on(&self) -> io::Result<()> {
        if self.is_stopped() {
            return Err(io::Error::other("stopped"));
        }
        Ok(())
    }

    fn has_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

struct Watched<'a> {
    file: File,
    watch: &'a Watch,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.goes_on()?;
        let count = self.file.read(buffer)?;
        self.watch.has_read(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn samples_tell_files_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let sample = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("writable");
            sample_file(&path).expect("readable")
        };
        // Every byte of a small file counts, and the first and the last one of a large one.
        let mebibyte = SAMPLE as usize;
        for (bytes, places) in [
            (0, vec![]),
            (1, vec![0]),
            (mebibyte + 1, vec![0, mebibyte - 1, mebibyte]),
            (64 * mebibyte, vec![0, 30 * mebibyte, 64 * mebibyte - 1]),
            (100 * mebibyte, vec![0, 100 * mebibyte - 1]),
        ] {
            let mut content = vec![0; bytes];
            let before = sample(&content);
            assert_eq!(sample(&content), before);
            for place in places {
                content[place] = 1;
                assert_ne!(sample(&content), before, "{place} of {bytes}");
                content[place] = 0;
            }
            content.push(0);
            assert_ne!(sample(&content), before, "{bytes}");
        }
    }

    #[test]
    fn a_large_file_has_the_digest_of_its_bytes() {
        let most = 3 * LARGE + 12_345;
        let content: Vec<u8> = (0..most).map(|place| (place * 7 / 3) as u8).collect();
        let lengths = [LARGE, LARGE + 1, LARGE + PIECE as u64, 2 * LARGE, 3 * LARGE - 1, most];
        for bytes in lengths.into_iter().chain((5..=9).map(|parts| parts * PART)) {
            let content = &content[..bytes as usize];
            let watch = Watch::default();
            let digest = digest_open_file(file_of(content), &watch).expect("readable");
            assert_eq!(digest, Digest::from(blake3::hash(content)), "{bytes}");
            assert_eq!(watch.read.into_inner(), bytes);
        }
    }

    #[test]
    fn a_file_whose_length_has_changed_has_no_digest_of_parts() {
        let content = vec![7; 9 * PART as usize];
        let file = file_of(&content);
        let bytes = content.len() as u64;
        for (then, is_known) in [(bytes - 1, false), (bytes, true), (bytes + PART, false)] {
            let digest = digest_in_parts(&file, then, &Watch::default()).expect("readable");
            assert_eq!(digest, is_known.then(|| blake3::hash(&content).into()), "{then}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_shall_stop_has_no_digest() {
        let folder = tempfile::tempdir().expect("a folder");
        let only_written = File::create(folder.path().join("a")).expect("writable");
        only_written.set_len(2 * LARGE).expect("writable");
        let unreadable = digest_open_file(only_written, &Watch::default());
        assert_eq!(unreadable.expect_err("not readable").raw_os_error(), Some(libc::EBADF));

        let watch = Watch { stop: true.into(), ..Watch::default() };
        let stopped = digest_open_file(file_of(&vec![7; 2 * LARGE as usize]), &watch);
        assert_eq!(stopped.expect_err("stopped").to_string(), "stopped");
        assert_eq!(watch.read.into_inner(), 0);
    }

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("writable");
        std::io::Seek::rewind(&mut file).expect("seekable");
        file
    }
}
