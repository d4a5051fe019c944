//! Results of the cache to a remote: first the bytes, then the list of files, and the record last.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::Context;

use super::blobs::{Compressed, encoding_of};
use super::index::{Bytes, Index, large_files, small_files};
use super::name::{Encoding, MOST_RECORD_BYTES, Name};
use super::pull::NotPulled;
use super::transport::{Content, Put, Remote, get_all};
use crate::cache::{Cache, Listing, Record, Watch, digest_open_file, on_threads};
use crate::digest::Digest;

/// How many files of one artifact are sent at once.
const MOST_AT_ONCE: usize = 8;

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is there now.
    New,
    /// A result of the key was there.
    Existed,
}

/// What is pushed of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Record,
    /// The record and the artifact.
    Result,
}

/// Pushes results.
pub(super) struct Pusher<'a> {
    pub(super) remote: &'a dyn Remote,
    pub(super) cache: &'a Cache,
    /// Counts the bytes that were sent, and ends it early.
    pub(super) watch: &'a Watch,
}

impl Pusher<'_> {
    /// Pushes a result, unless there is one of its key. Of one without its artifact, others know that it exists, and what it
    /// measured.
    pub(super) fn push(&self, record: &Record, what: What) -> Result<Pushed, NotPulled> {
        let name = Name::record(&record.key);
        if self.remote.size(&name)?.is_some() {
            if what == What::Record || !self.lacks_artifact(record)? {
                return Ok(Pushed::Existed);
            }
            self.push_artifact(&record.output.digest)?;
            return Ok(Pushed::New);
        }
        if what == What::Result {
            self.push_artifact(&record.output.digest)?;
        }
        // Where and when it waited for a disk is a matter of this cache.
        let text = Record { lazy: None, ..record.clone() }.text()?;
        Ok(match self.remote.put(&name, &Content::Bytes(&text))? {
            Put::New => Pushed::New,
            Put::Existed => Pushed::Existed,
        })
    }

    /// Whether there is a record with this artifact, which is not there.
    fn lacks_artifact(&self, record: &Record) -> Result<bool, NotPulled> {
        let artifact = record.output.digest;
        if self.remote.size(&Name::index(&artifact))?.is_some() {
            return Ok(false);
        }
        let bytes = get_all(self.remote, &Name::record(&record.key), MOST_RECORD_BYTES)?;
        let there = bytes.and_then(|bytes| Record::of_key(&bytes, &record.key));
        Ok(there.is_some_and(|there| there.output.digest == artifact))
    }

    fn push_artifact(&self, artifact: &Digest) -> Result<(), NotPulled> {
        let name = Name::index(artifact);
        if self.remote.size(&name)?.is_some() {
            return Ok(());
        }
        let top = self.cache.artifact(artifact);
        let listing = self.cache.listing(artifact)?;
        if listing.digest() != *artifact {
            return Err(damaged(&top).into());
        }
        let large = large_files(&listing);
        let blobs = on_threads(&large, MOST_AT_ONCE, |bytes| {
            Ok((bytes.content, self.push_large(&top, bytes)?))
        });
        let blobs = blobs.into_iter().collect::<Result<BTreeMap<_, _>, NotPulled>>()?;
        self.push_small(artifact, &top, &listing)?;
        let text = Index::new(listing, blobs).encode()?;
        self.remote.put(&name, &Content::Bytes(&text))?;
        Ok(())
    }

    /// Sends a large file, unless its bytes are there. Returns how they are kept.
    fn push_large(&self, top: &Path, bytes: &Bytes<'_>) -> Result<Encoding, NotPulled> {
        self.check_stopped()?;
        let Some((path, _)) = bytes.files.first() else { return Ok(Encoding::Plain) };
        let path = top.join(path);
        let read = || format!("cannot read {}", path.display());
        let file = File::open(&path).with_context(read)?;
        let encoding = encoding_of(&file, bytes.bytes).with_context(read)?;
        let name = Name::blob(&bytes.content, encoding);
        if self.remote.size(&name)?.is_none() {
            match encoding {
                Encoding::Plain => {
                    let again = file.try_clone().with_context(read)?;
                    let found = digest_open_file(again, &Watch::default()).with_context(read)?;
                    self.check(&path, bytes, found)?;
                    self.remote.put(&name, &Content::NamedFile(&file, bytes.bytes))?;
                }
                Encoding::Zstd => {
                    let mut compressed = Compressed::begin(self.cache).with_context(read)?;
                    let found = compressed.add(&path).with_context(read)?;
                    self.check(&path, bytes, found)?;
                    let (file, length) = compressed.finish().with_context(read)?;
                    self.remote.put(&name, &Content::File(&file, length))?;
                }
            }
        }
        self.watch.read.fetch_add(bytes.bytes, Ordering::Relaxed);
        Ok(encoding)
    }

    /// Sends the small files together.
    fn push_small(
        &self,
        artifact: &Digest,
        top: &Path,
        listing: &Listing,
    ) -> Result<(), NotPulled> {
        let small = small_files(listing);
        let name = Name::pack(artifact);
        if small.iter().all(|bytes| bytes.bytes == 0) || self.remote.size(&name)?.is_some() {
            return Ok(());
        }
        let mut compressed =
            Compressed::begin(self.cache).context("no room for compressed files")?;
        for bytes in &small {
            self.check_stopped()?;
            let Some((path, _)) = bytes.files.first() else { continue };
            let path = top.join(path);
            let read = || format!("cannot read {}", path.display());
            let found = compressed.add(&path).with_context(read)?;
            self.check(&path, bytes, found)?;
            self.watch.read.fetch_add(bytes.bytes, Ordering::Relaxed);
        }
        let (file, length) = compressed.finish().context("cannot compress small files")?;
        self.remote.put(&name, &Content::File(&file, length))?;
        Ok(())
    }

    fn check(&self, path: &Path, bytes: &Bytes<'_>, found: Digest) -> Result<(), NotPulled> {
        if found == bytes.content { Ok(()) } else { Err(damaged(path).into()) }
    }

    fn check_stopped(&self) -> Result<(), NotPulled> {
        match self.watch.stop.load(Ordering::Relaxed) {
            true => Err(NotPulled::Stopped),
            false => Ok(()),
        }
    }
}

fn damaged(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} is damaged, and was not pushed: `pipeline verify` says more",
        path.display()
    )
}
