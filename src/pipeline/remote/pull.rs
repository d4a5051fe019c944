//! Artifacts from a remote into the cache. Every byte is checked: what is wrong or missing there never counts here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pipeline_stages::worker::with_disk_advice;

use super::blobs::{BLOCK_BYTES, decoded};
use super::index::{Bytes, Index, MOST_BYTES, PACK_BELOW};
use super::name::{Encoding, Name};
use super::source::Source;
use super::transport::{Download, Remote, RemoteFailure, get_all};
use crate::cache::{
    Adopted, Cache, EntryKind, Incoming, KeptFile, Reception, Record, Watch, Withdrawn, on_threads,
};
use crate::digest::Digest;

/// How many files of one artifact are read at once.
const MOST_AT_ONCE: usize = 8;

/// What has arrived of a file of at least this many bytes is kept where a pull ends early, and continued by the next one.
const KEPT_FROM: u64 = if cfg!(test) { 96 << 10 } else { 64 << 20 };

/// How often a process that waits for another one looks whether it is done.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Why a result was not pulled, or not pushed.
#[derive(Debug)]
pub(crate) enum NotPulled {
    /// For what the remote is, or has.
    There(RemoteFailure),
    /// For this machine, or its cache.
    Here(anyhow::Error),
    /// Somebody asked for it.
    Stopped,
}

impl From<RemoteFailure> for NotPulled {
    fn from(failure: RemoteFailure) -> Self {
        Self::There(failure)
    }
}

impl From<anyhow::Error> for NotPulled {
    fn from(error: anyhow::Error) -> Self {
        Self::Here(error)
    }
}

impl NotPulled {
    /// An entry of an artifact was not made. For names that cannot be here, it is the remote that is wrong.
    fn unwritten(error: io::Error) -> Self {
        use io::ErrorKind::{AlreadyExists, InvalidFilename, InvalidInput, NotADirectory};
        match error.kind() {
            AlreadyExists | InvalidFilename | InvalidInput | NotADirectory => {
                RemoteFailure::wrong(format!("it has a name that cannot be made here: {error}"))
                    .into()
            }
            _ => Self::Here(with_disk_advice(
                anyhow::Error::from(error).context("cannot write the artifact"),
            )),
        }
    }
}

/// The large files that the cache has, by their content: they are not read from a remote again.
#[derive(Debug, Default)]
pub(super) struct StoredFiles(Mutex<Option<HashMap<Digest, PathBuf>>>);

impl StoredFiles {
    fn find(&self, cache: &Cache, content: &Digest) -> Option<PathBuf> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get_or_insert_with(|| cache.stored_files(PACK_BELOW));
        files.get(content).cloned()
    }

    /// An artifact was added to the cache.
    fn add(&self, cache: &Cache, record: &Record, index: &Index) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(files) = &mut *files else { return };
        let top = cache.artifact(&record.output.digest);
        for (bytes, _) in index.large().into_iter().flatten() {
            files.extend(bytes.files.first().map(|(path, _)| (bytes.content, top.join(path))));
        }
    }
}

/// Pulls results.
pub(super) struct Puller<'a> {
    pub(super) remote: &'a dyn Remote,
    pub(super) cache: &'a Cache,
    pub(super) stored: &'a StoredFiles,
    /// Counts the bytes that were written, and ends it early.
    pub(super) watch: &'a Watch,
}

/// How the bytes of a file did not arrive.
enum Broken {
    Read(io::Error),
    Write(io::Error),
    Other,
    Stopped,
}

impl Puller<'_> {
    /// Pulls the artifact of a record, and records it. Returns what counts then, and what no longer does: it was made from the
    /// same artifact while that was damaged here.
    pub(super) fn pull(&self, record: &Record) -> Result<(Record, Vec<Withdrawn>), NotPulled> {
        let incoming = loop {
            match self.cache.receive(record)? {
                Reception::Hit(own) => return Ok((*own, Vec::new())),
                Reception::Ready(incoming) => break incoming,
                Reception::Busy => {
                    self.check_stopped()?;
                    std::thread::sleep(LOCK_POLL);
                }
            }
        };
        let index = if incoming.is_sound_here() { None } else { Some(self.fill(&incoming)?) };
        match incoming.adopt().map_err(with_disk_advice)? {
            Adopted::Counts(committed) => {
                if let Some(index) = index {
                    self.stored.add(self.cache, record, &index);
                }
                Ok((committed.record, committed.withdrawn))
            }
            Adopted::OtherBytes => {
                Err(RemoteFailure::wrong("its artifact has other bytes than its record says")
                    .into())
            }
        }
    }

    fn check_stopped(&self) -> Result<(), NotPulled> {
        match self.watch.stop.load(Ordering::Relaxed) {
            true => Err(NotPulled::Stopped),
            false => Ok(()),
        }
    }

    /// Writes the files of an artifact.
    fn fill(&self, incoming: &Incoming) -> Result<Index, NotPulled> {
        let artifact = incoming.record().output;
        let name = Name::index(&artifact.digest);
        let bytes = get_all(self.remote, &name, MOST_BYTES)?;
        let bytes = bytes.ok_or_else(|| RemoteFailure::wrong("its artifact is missing there"))?;
        let index = Index::decode(&bytes, &artifact)?;
        for (path, kind, _) in index.listing.entries() {
            let made = match kind {
                EntryKind::Folder => incoming.create_folder(path),
                EntryKind::Link { target } => incoming.create_link(path, target),
                EntryKind::File { .. } => Ok(()),
            };
            made.map_err(NotPulled::unwritten)?;
        }
        self.unpack(incoming, &index)?;
        let large = index.large()?;
        let done = on_threads(&large, MOST_AT_ONCE, |(bytes, encoding)| {
            self.large_file(incoming, bytes, *encoding)
        });
        done.into_iter().collect::<Result<(), _>>()?;
        Ok(index)
    }

    /// Writes the small files.
    fn unpack(&self, incoming: &Incoming, index: &Index) -> Result<(), NotPulled> {
        let packed = index.packed();
        if packed.iter().all(|bytes| bytes.bytes == 0) {
            return packed.iter().try_for_each(|bytes| {
                let written = self.write(incoming, bytes, &mut io::empty(), None);
                self.judge(written, None, "an empty file")
            });
        }
        let name = Name::pack(&incoming.record().output.digest);
        let shown = name.to_string();
        let bytes = packed.iter().map(|bytes| bytes.bytes).sum();
        let mut download = Download::open(self.remote, name, bytes)?
            .ok_or_else(|| RemoteFailure::wrong("its small files are missing there"))?;
        let written = decoded(&mut download, bytes).map_err(Broken::Read).and_then(|mut reader| {
            packed.iter().try_for_each(|bytes| self.write(incoming, bytes, &mut reader, None))
        });
        self.judge(written, download.failure, &shown)
    }

    fn large_file(
        &self,
        incoming: &Incoming,
        bytes: &Bytes<'_>,
        encoding: Encoding,
    ) -> Result<(), NotPulled> {
        if let Some(path) = self.stored.find(self.cache, &bytes.content)
            && let Ok(mut file) = File::open(path)
        {
            match self.write(incoming, bytes, &mut file, None) {
                // What is damaged here, or just cleaned away, comes from there.
                Err(Broken::Read(_) | Broken::Other) => {
                    // The others are copies of the first, once that is right.
                    if let Some((path, _)) = bytes.files.first() {
                        incoming.remove_file(path).map_err(NotPulled::unwritten)?;
                    }
                }
                written => return self.judge(written, None, "a file"),
            }
        }
        let name = Name::blob(&bytes.content, encoding);
        let first = bytes.files.first().filter(|_| bytes.bytes >= KEPT_FROM);
        let keep = || {
            let (_, executable) = first?;
            let name = name.as_str().rsplit('/').next()?;
            // Where it cannot be kept, it can be fetched.
            incoming.keep(name, *executable).ok()
        };
        let mut is_first = true;
        loop {
            let kept = keep();
            let fetched = self.fetch(incoming, bytes, encoding, &name, kept.as_ref());
            let was_first = std::mem::take(&mut is_first);
            let Some(kept) = kept else { return fetched };
            match &fetched {
                Err(NotPulled::There(failure)) if failure.is_of_one_request() => {
                    kept.forget();
                    // What had arrived earlier may be what is wrong.
                    if was_first && kept.is_continued() {
                        first.iter().for_each(|(path, _)| drop(incoming.remove_file(path)));
                        continue;
                    }
                }
                Err(NotPulled::Here(_)) => kept.forget(),
                // The next pull continues it.
                _ => {}
            }
            return fetched;
        }
    }

    /// Writes a large file: what is kept of it, and the rest from there.
    fn fetch(
        &self,
        incoming: &Incoming,
        bytes: &Bytes<'_>,
        encoding: Encoding,
        name: &Name,
        kept: Option<&KeptFile>,
    ) -> Result<(), NotPulled> {
        let is_plain = encoding == Encoding::Plain;
        let mut source = Source::new(self.remote, name.clone(), bytes.bytes, kept, !is_plain);
        let written = match is_plain {
            true => self.write(incoming, bytes, &mut source, kept),
            false => decoded(&mut source, bytes.bytes)
                .map_err(Broken::Read)
                .and_then(|mut reader| self.write(incoming, bytes, &mut reader, None)),
        };
        if let (Ok(()), Some(kept)) = (&written, kept) {
            // One that is plain has become the file.
            if is_plain { kept.forget_earlier() } else { kept.forget() }
        }
        self.judge(written, source.into_failure(), name.as_str())
    }

    /// What it means for the pull how bytes were written.
    fn judge(
        &self,
        written: Result<(), Broken>,
        failure: Option<RemoteFailure>,
        name: &str,
    ) -> Result<(), NotPulled> {
        written.map_err(|broken| match broken {
            Broken::Stopped => NotPulled::Stopped,
            Broken::Write(error) => NotPulled::unwritten(error),
            Broken::Other => {
                RemoteFailure::wrong(format!("{name} has other bytes than it should")).into()
            }
            Broken::Read(error) => {
                let damaged = || RemoteFailure::wrong(format!("{name} is damaged: {error}"));
                failure.unwrap_or_else(damaged).into()
            }
        })
    }

    /// Writes the next bytes of a reader to all files that have them: to the first, which may be `kept` elsewhere until then, and once
    /// they are right, from it to the others, however many there are.
    fn write(
        &self,
        incoming: &Incoming,
        bytes: &Bytes<'_>,
        reader: &mut dyn Read,
        kept: Option<&KeptFile>,
    ) -> Result<(), Broken> {
        let Some(((first, executable), others)) = bytes.files.split_first() else { return Ok(()) };
        let new;
        let file = match kept {
            Some(kept) => &kept.file,
            None => {
                new = incoming.create_file(first, *executable).map_err(Broken::Write)?;
                &new
            }
        };
        let mut hasher = blake3::Hasher::new();
        let mut left = bytes.bytes;
        let mut block = vec![0; BLOCK_BYTES.min(left as usize)];
        while left > 0 {
            if self.watch.stop.load(Ordering::Relaxed) {
                return Err(Broken::Stopped);
            }
            let most = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = reader.read(&mut block[..most]).map_err(Broken::Read)?;
            if count == 0 {
                return Err(Broken::Other);
            }
            hasher.update(&block[..count]);
            file.write(&block[..count]).map_err(Broken::Write)?;
            left -= count as u64;
            self.watch.read.fetch_add(count as u64, Ordering::Relaxed);
        }
        if Digest::from(hasher.finalize()) != bytes.content {
            return Err(Broken::Other);
        }
        if let Some(kept) = kept {
            incoming.place(kept, first, *executable).map_err(Broken::Write)?;
        }
        for (path, executable) in others {
            if self.watch.stop.load(Ordering::Relaxed) {
                return Err(Broken::Stopped);
            }
            incoming.copy_file(first, path, *executable).map_err(Broken::Write)?;
        }
        Ok(())
    }
}
