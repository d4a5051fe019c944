//! The part of a file that was downloaded: its bytes in the checkpoint folder, their checksums, and the version
//! that the server sent.
//!
//! Each mirror has its own, so that an interrupted transfer from the second mirror survives a new
//! attempt at the first. Does not depend on the network.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use pipeline_stages::worker::Context;
use serde::{Deserialize, Serialize};

use super::checksum::{Digests, Hashes};
use super::retry::{DownloadFailure, ours};

/// Enough of a file to recognise a web page.
const BEGINNING: usize = 256;

/// Bytes per read. A request to stop is noticed once per read.
const BUFFER: usize = 256 << 10;

/// The version of a file, from the headers of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    /// Its `ETag`, if strong: only a strong one confirms that two parts belong together.
    pub(super) etag: Option<String>,
    /// Its `Last-Modified`.
    pub(super) last_modified: Option<String>,
    /// Its size in bytes.
    pub(super) size: Option<u64>,
}

/// A partial file.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    hashes: Hashes,
    beginning: Vec<u8>,
    version: Version,
    origin: Origin,
    /// The most bytes that it can have.
    most: u64,
}

/// Whether all bytes are of one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// They are: of one version of the file.
    OneTransfer,
    /// They are not: if the server sent wrong or no versions, they may not belong together.
    Pieces,
}

impl Partial {
    /// What an earlier process downloaded from this URL, or an empty file. It can grow to `most` bytes.
    ///
    /// # Errors
    /// When the checkpoint folder cannot be used; when the stage is asked to stop.
    pub(super) fn open(
        context: &Context,
        url: &str,
        most: u64,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<Self, DownloadFailure> {
        let path = path_of(&context.checkpoint, url);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut partial = Self {
            file: ours(file, "open", &path)?,
            length: 0,
            hashes: Hashes::default(),
            beginning: Vec::new(),
            version: Version::default(),
            origin: Origin::OneTransfer,
            most,
            path,
        };
        match partial.read_version() {
            Some(version) => {
                partial.version = version;
                partial.hash_what_is_there(context, progress)?;
                if partial.length > most {
                    partial.start_over()?;
                } else if partial.length > 0 {
                    partial.origin = Origin::Pieces;
                }
            }
            None => partial.start_over()?,
        }
        Ok(partial)
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// The version of the file that these bytes are of.
    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// Whether it has all bytes, according to the size from the server.
    pub(super) fn is_complete(&self) -> bool {
        self.length > 0 && self.version.size == Some(self.length)
    }

    /// Whether all bytes are of one transfer.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Records that another transfer continues the last one.
    pub(super) fn goes_on(&mut self) {
        self.origin = Origin::Pieces;
    }

    /// The first bytes.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// The checksums of its bytes.
    pub(super) fn digests(&self) -> Digests {
        self.hashes.digests()
    }

    /// Empties it.
    pub(super) fn start_over(&mut self) -> Result<(), DownloadFailure> {
        ours(self.file.set_len(0), "empty", &self.path)?;
        self.length = 0;
        self.hashes = Hashes::default();
        self.beginning.clear();
        self.version = Version::default();
        self.origin = Origin::OneTransfer;
        Ok(())
    }

    /// Starts over with another version of the file.
    ///
    /// # Errors
    /// When the version cannot be written, or the file is too large.
    pub(super) fn start_version(&mut self, version: Version) -> Result<(), DownloadFailure> {
        // In this order: a crash in between leaves an empty file, never the bytes of another version.
        self.start_over()?;
        if version.size.is_some_and(|size| size > self.most) {
            return Err(self.too_large());
        }
        let path = self.version_path();
        let text =
            serde_json::to_vec(&version).map_err(|error| DownloadFailure::Ours(error.into()))?;
        ours(std::fs::write(&path, text), "write", &path)?;
        self.version = version;
        Ok(())
    }

    /// Adds the next bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), DownloadFailure> {
        if self.length.saturating_add(bytes.len() as u64) > self.most {
            self.start_over()?;
            return Err(self.too_large());
        }
        ours(self.file.write_all(bytes), "write", &self.path)?;
        self.take_note(bytes);
        Ok(())
    }

    fn too_large(&self) -> DownloadFailure {
        DownloadFailure::lasting(format!(
            "the file has more than {} bytes: if that is right, raise max-bytes",
            self.most
        ))
    }

    /// Moves the file to its destination.
    pub(super) fn finish(
        self,
        to: &Path,
        context: &Context,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<(), DownloadFailure> {
        match std::fs::rename(&self.path, to) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                self.copy_to(to, context, progress)?;
            }
            moved => ours(moved, "write", to)?,
        }
        self.remove()
    }

    /// Copies the file, for an output folder on another filesystem.
    fn copy_to(
        &self,
        to: &Path,
        context: &Context,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<(), DownloadFailure> {
        let from = ours(File::open(&self.path), "open", &self.path)?;
        let mut file = ours(File::create(to), "write", to)?;
        let mut done = 0;
        each_block(&from, &self.path, context, |bytes| {
            ours(file.write_all(bytes), "write", to)?;
            done += bytes.len() as u64;
            progress(done, Some(self.length));
            Ok(())
        })
    }

    /// Removes its files.
    pub(super) fn remove(self) -> Result<(), DownloadFailure> {
        remove_files(&self.path)
    }

    fn version_path(&self) -> PathBuf {
        version_path(&self.path)
    }

    fn read_version(&self) -> Option<Version> {
        serde_json::from_slice(&std::fs::read(self.version_path()).ok()?).ok()
    }

    fn hash_what_is_there(
        &mut self,
        context: &Context,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<(), DownloadFailure> {
        let (file, path) = (ours(self.file.try_clone(), "read", &self.path)?, self.path.clone());
        let length = ours(file.metadata(), "read", &path)?.len();
        each_block(&file, &path, context, |bytes| {
            self.take_note(bytes);
            progress(self.length, Some(length));
            Ok(())
        })
    }

    fn take_note(&mut self, bytes: &[u8]) {
        self.hashes.update(bytes);
        self.length += bytes.len() as u64;
        let room = BEGINNING.saturating_sub(self.beginning.len());
        self.beginning.extend(bytes.iter().take(room));
    }
}

/// Reads a file of this machine from its current position to its end.
fn each_block(
    mut file: &File,
    path: &Path,
    context: &Context,
    mut take: impl FnMut(&[u8]) -> Result<(), DownloadFailure>,
) -> Result<(), DownloadFailure> {
    let mut buffer = vec![0; BUFFER];
    loop {
        context.stop_point()?;
        let read = ours(file.read(&mut buffer), "read", path)?;
        if read == 0 {
            return Ok(());
        }
        take(buffer.get(..read).unwrap_or_default())?;
    }
}

/// Removes the files of a URL.
pub(super) fn forget(checkpoint: &Path, url: &str) -> Result<(), DownloadFailure> {
    remove_files(&path_of(checkpoint, url))
}

fn path_of(checkpoint: &Path, url: &str) -> PathBuf {
    let name = blake3::hash(url.as_bytes()).to_hex();
    checkpoint.join(format!("{}.part", &name[..16]))
}

fn version_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

fn remove_files(path: &Path) -> Result<(), DownloadFailure> {
    for path in [version_path(path), path.to_owned()] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => ours(removed, "remove", &path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::Ordering;

    use serde_json::json;

    use super::*;
    use crate::fixture::Fixture;

    const URL: &str = "https://example.org/a";

    /// The file of an earlier process: several blocks.
    fn interrupted(context: &Context) -> Vec<u8> {
        let bytes = vec![7; 3 * BUFFER + 5];
        let mut partial = Partial::open(context, URL, u64::MAX, &|_, _| {}).expect("a folder");
        partial.start_version(Version::default()).expect("room");
        partial.append(&bytes).expect("room");
        bytes
    }

    fn context(fixture: &Fixture) -> Context {
        fixture.context("download", &json!({"url": URL, "unverified": true}))
    }

    #[test]
    fn the_partial_file_is_checked_with_progress_until_asked_to_stop() {
        let fixture = Fixture::new();
        let context = context(&fixture);
        let size = interrupted(&context).len() as u64;
        let reported = RefCell::new(Vec::new());
        let progress = |done, total| reported.borrow_mut().push((done, total));
        let partial = Partial::open(&context, URL, u64::MAX, &progress).expect("it exists");
        assert_eq!(partial.len(), size);
        assert_eq!(reported.borrow()[0], (BUFFER as u64, Some(size)));
        assert_eq!(reported.borrow().last(), Some(&(size, Some(size))));
        context.stop_flag().store(true, Ordering::Relaxed);
        let stopped = Partial::open(&context, URL, u64::MAX, &|_, _| {}).map(drop);
        assert!(matches!(stopped, Err(DownloadFailure::Stopped)), "{stopped:?}");
    }

    #[test]
    fn a_copy_to_another_filesystem_reports_its_progress_and_stops() {
        let fixture = Fixture::new();
        let context = context(&fixture);
        let bytes = interrupted(&context);
        let to = fixture.output().join("a");
        let partial = Partial::open(&context, URL, u64::MAX, &|_, _| {}).expect("it exists");
        let stop = context.stop_flag();
        partial.copy_to(&to, &context, &|_, _| {}).expect("room");
        assert!(std::fs::read(&to).is_ok_and(|copy| copy == bytes));
        let stop_at_first = |done: u64, total| {
            assert_eq!((done, total), (BUFFER as u64, Some(bytes.len() as u64)));
            stop.store(true, Ordering::Relaxed);
        };
        let stopped = partial.copy_to(&to, &context, &stop_at_first);
        assert!(matches!(stopped, Err(DownloadFailure::Stopped)), "{stopped:?}");
    }

    #[test]
    fn a_partial_file_that_is_too_large_is_dropped() {
        let fixture = Fixture::new();
        let context = context(&fixture);
        interrupted(&context);
        let partial = Partial::open(&context, URL, 1000, &|_, _| {}).expect("it exists");
        assert_eq!((partial.len(), partial.origin()), (0, Origin::OneTransfer));
    }
}
