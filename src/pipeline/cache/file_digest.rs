//! The digest of a file's bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context;

use crate::digest::Digest;

/// The digest of a file's bytes.
pub(crate) fn digest_file(path: &Path) -> anyhow::Result<Digest> {
    digest_file_watched(path, &Watch::default())
}

/// The digest of a file's bytes, with somebody who watches.
fn digest_file_watched(path: &Path, watch: &Watch) -> anyhow::Result<Digest> {
    let hash = || digest_open_file(File::open(path)?, watch);
    hash().with_context(|| format!("cannot read {}", path.display()))
}

/// The digest of the bytes of a file that is open, with somebody who watches.
pub(crate) fn digest_open_file(file: File, watch: &Watch) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(Watched { file, watch })?;
    Ok(hasher.finalize().into())
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
