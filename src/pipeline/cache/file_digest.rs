//! The digest of a file's bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::digest::Digest;
use crate::machine;

/// A file with more bytes is hashed by several threads.
const LARGE: u64 = 4 << 20;

/// How much is hashed at once by them: enough for each.
const BLOCK_BYTES: usize = 4 << 20;

/// How many blocks there are: one that is hashed, and one that is read.
const BLOCKS: usize = 2;

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
    let is_large = file.metadata().is_ok_and(|metadata| metadata.len() > LARGE);
    let mut file = Watched { file, watch };
    let mut hasher = blake3::Hasher::new();
    if is_large {
        hash_in_blocks(&mut file, &mut hasher)?;
    }
    // All of it, or what was added since.
    hasher.update_reader(file)?;
    Ok(hasher.finalize().into())
}

/// Hashes what a reader has with all cores, while a thread reads the next block. Where the system has no thread for it, nothing is read.
fn hash_in_blocks(reader: &mut (impl Read + Send), hasher: &mut blake3::Hasher) -> io::Result<()> {
    let (give_back, empty) = channel();
    let (fill, full) = channel::<io::Result<Vec<u8>>>();
    for _ in 0..BLOCKS {
        let _ = give_back.send(Vec::with_capacity(BLOCK_BYTES));
    }
    let read = move || {
        for mut block in empty {
            let count = reader.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block);
            let (block, is_last) = match count {
                Ok(0) => return,
                Ok(_) => (Ok(block), false),
                Err(error) => (Err(error), true),
            };
            if fill.send(block).is_err() || is_last {
                return;
            }
        }
    };
    std::thread::scope(move |scope| {
        if std::thread::Builder::new().spawn_scoped(scope, read).is_err() {
            return Ok(());
        }
        for block in full {
            let mut block = block?;
            match pool() {
                Some(pool) => drop(pool.install(|| hasher.update_rayon(&block))),
                None => drop(hasher.update(&block)),
            }
            block.clear();
            let _ = give_back.send(block);
        }
        Ok(())
    })
}

/// The threads that hash one file together, as many as may compute now. None of them waits for anything else. `None` where the system
/// does not have them.
fn pool() -> Option<Arc<ThreadPool>> {
    static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
    let threads = machine::threads();
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    // The limit of a manifest is known only when that was read.
    if pool.as_ref().is_none_or(|pool| pool.current_num_threads() != threads) {
        *pool = ThreadPoolBuilder::new().num_threads(threads).build().ok().map(Arc::new);
    }
    pool.clone()
}

/// What another thread sees and does of a long reading.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Bytes that were read so far.
    pub(crate) read: AtomicU64,
    /// Set to end it early, with an error.
    pub(crate) stop: AtomicBool,
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
        for bytes in [LARGE, LARGE + 1, 2 * BLOCK_BYTES as u64, 5 * BLOCK_BYTES as u64 + 12_345] {
            let mut file = tempfile::tempfile().expect("a file");
            let content: Vec<u8> = (0..bytes).map(|place| (place * 7 / 3) as u8).collect();
            file.write_all(&content).expect("writable");
            std::io::Seek::rewind(&mut file).expect("seekable");
            let watch = Watch::default();
            let digest = digest_open_file(file, &watch).expect("readable");
            assert_eq!(digest, Digest::from(blake3::hash(&content)), "{bytes}");
            assert_eq!(watch.read.into_inner(), bytes);
        }
    }

    /// Reads some blocks, and then fails.
    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(buffer.len()).ok_or(io::ErrorKind::TimedOut)?;
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_to_its_end_does_not_have_a_digest() {
        for bytes in [0, BLOCK_BYTES, 5 * BLOCK_BYTES / 2] {
            let read = hash_in_blocks(&mut Failing(bytes), &mut blake3::Hasher::new());
            assert_eq!(read.expect_err("it fails").kind(), io::ErrorKind::TimedOut, "{bytes}");
        }
    }
}
