//! Results of the cache to a remote: first the bytes, then the list of files, and the record last.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use super::blobs::{Compressed, decoded, encoding_of};
use super::index::{Bytes, Index, MOST_BYTES, large_files, small_files};
use super::name::{Encoding, MOST_RECORD_BYTES, Name};
use super::progress::UploadProgress;
use super::pull::NotPulled;
use super::transport::{Content, Download, Put, Remote, RemoteFailure, Sent, get_all, in_part};
use crate::cache::{Cache, Listing, Record, Stored, Watch, digest_open_file, on_threads};
use crate::digest::Digest;
use crate::signing::{MOST_SIGNATURE_BYTES, Signer, Statement};

/// How many files of one artifact are sent at once.
const MOST_AT_ONCE: usize = 8;

/// Why a file cannot be compressed.
const NO_ROOM: &str = "cannot write a compressed copy";

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is there now.
    New,
    /// It was there, and what was missing of its artifact is, too.
    Completed,
    /// It was there, and is signed now.
    Signed,
    /// A result of the key was there.
    Existed,
    /// A result of the key was there, whose artifact has other bytes.
    OtherBytes,
    /// It was there with another record, which whoever pushes does not sign: who trusts only them does not get it.
    Unsigned,
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
    /// Who answers for what was made here.
    pub(super) signer: Option<&'a Signer>,
}

impl Pusher<'_> {
    /// Pushes a result, unless there is one of its key. Of one without its artifact, others know that it exists, and what it
    /// measured. Where it is there, what is missing of its artifact is sent.
    pub(super) fn push(&self, record: &Record, what: What) -> Result<Pushed, NotPulled> {
        let name = Name::record(&record.key);
        let text = record.for_others().text()?;
        let signer = self.signer.filter(|_| record.made_here);
        if self.remote.size(&name)?.is_some() {
            return self.push_again(signer, record, what, &text);
        }
        if what == What::Result {
            self.push_artifact(&record.output)?;
        }
        // Before the record, which counts at once: where another one is faster, this is a signature of nothing that is there.
        if let Some(signer) = signer {
            self.sign(signer, &Statement::new(&record.key, &text))?;
        }
        match self.remote.put(&name, &Content::Bytes(&text))? {
            Put::New => Ok(Pushed::New),
            Put::Existed => self.push_again(signer, record, what, &text),
        }
    }

    /// Of a result whose key has a record there: signs that, if it is this one and somebody signs, and sends what is missing of its
    /// artifact.
    fn push_again(
        &self,
        signer: Option<&Signer>,
        record: &Record,
        what: What,
        text: &[u8],
    ) -> Result<Pushed, NotPulled> {
        if signer.is_none() && what == What::Record {
            return Ok(Pushed::Existed);
        }
        let name = Name::record(&record.key);
        let Some(there) = get_all(self.remote, &name, MOST_RECORD_BYTES)? else {
            return Ok(Pushed::Existed);
        };
        let is_same = there == text;
        if !is_same {
            let there = Record::of_key(&there, &record.key).ok_or_else(|| damaged_there(&name))?;
            if there.output.digest != record.output.digest {
                return Ok(Pushed::OtherBytes);
            }
        }
        let is_signed = match signer {
            Some(signer) if is_same => self.sign(signer, &Statement::new(&record.key, text))?,
            _ => false,
        };
        let is_completed = what == What::Result && self.push_artifact(&record.output)?;
        Ok(match signer {
            Some(_) if !is_same => Pushed::Unsigned,
            _ if is_completed => Pushed::Completed,
            _ if is_signed => Pushed::Signed,
            _ => Pushed::Existed,
        })
    }

    /// Puts the signature of a statement there, unless it is there. Returns whether that is new.
    fn sign(&self, signer: &Signer, statement: &Statement) -> Result<bool, NotPulled> {
        let name = Name::signature(&statement.digest(), &signer.public().id());
        match get_all(self.remote, &name, MOST_SIGNATURE_BYTES)? {
            Some(there) if signer.public().has_signed(statement, &there) => Ok(false),
            Some(_) => Err(damaged_there(&name).into()),
            None => {
                let text = signer.sign(statement);
                Ok(self.remote.put(&name, &Content::Bytes(text.as_bytes()))? == Put::New)
            }
        }
    }

    /// Sends what is missing there of an artifact. Returns whether that was anything.
    fn push_artifact(&self, artifact: &Stored) -> Result<bool, NotPulled> {
        let digest = &artifact.digest;
        let name = Name::index(digest);
        let index = get_all(self.remote, &name, MOST_BYTES)?;
        let index = index.map(|bytes| Index::decode(&bytes, artifact));
        let index = index.transpose().map_err(|_| damaged_there(&name))?;
        let top = self.cache.artifact(digest);
        let listing = self.cache.listing(digest)?;
        if listing.digest() != *digest {
            return Err(damaged(&top).into());
        }
        let is_new = AtomicBool::new(index.is_none());
        let large = large_files(&listing);
        let blobs = on_threads(&large, MOST_AT_ONCE, |bytes| {
            let known = index.as_ref().and_then(|index| index.encoding(&bytes.content));
            Ok((bytes.content, self.push_large(&top, bytes, known, &is_new)?))
        });
        let blobs = blobs.into_iter().collect::<Result<BTreeMap<_, _>, NotPulled>>()?;
        self.push_small(digest, &top, &listing, index.is_some(), &is_new)?;
        if index.is_none() {
            let text = Index::new(listing, blobs).encode()?;
            self.remote.put(&name, &Content::Bytes(&text))?;
        }
        Ok(is_new.into_inner())
    }

    /// Sends a large file, unless its bytes are there: as they are `known` to be kept there, if that is known. Returns how they are
    /// kept.
    fn push_large(
        &self,
        top: &Path,
        bytes: &Bytes<'_>,
        known: Option<Encoding>,
        is_new: &AtomicBool,
    ) -> Result<Encoding, NotPulled> {
        self.check_stopped()?;
        let Some((path, _)) = bytes.files.first() else { return Ok(Encoding::Plain) };
        let path = top.join(path);
        let read = || format!("cannot read {}", path.display());
        let file = File::open(&path).map_err(|error| unread(&path, error))?;
        let encoding = match known {
            Some(known) => known,
            None => encoding_of(&file, bytes.bytes).with_context(read)?,
        };
        let name = Name::blob(&bytes.content, encoding);
        let there = self.remote.size(&name)?;
        if encoding == Encoding::Plain && there.is_some_and(|there| there != bytes.bytes) {
            return Err(damaged_there(&name).into());
        }
        if there.is_some() && encoding == Encoding::Zstd && known.is_none() {
            self.check_whole(&name, std::slice::from_ref(bytes))?;
        }
        let progress = UploadProgress::new(&self.watch.read, bytes.bytes);
        if there.is_none() {
            is_new.store(true, Ordering::Relaxed);
            match encoding {
                Encoding::Plain => {
                    let again = file.try_clone().with_context(read)?;
                    let found = digest_open_file(again, &Watch::default()).with_context(read)?;
                    self.check(&path, bytes, found)?;
                    let sent = Sent { file: &file, bytes: bytes.bytes, progress: &progress };
                    self.remote.put(&name, &Content::NamedFile(sent))?;
                }
                Encoding::Zstd => {
                    let mut compressed = Compressed::begin(self.cache).context(NO_ROOM)?;
                    let found = compressed.add(&path).with_context(read)?;
                    self.check(&path, bytes, found)?;
                    let (file, length) = compressed.finish().context(NO_ROOM)?;
                    let sent = Sent { file: &file, bytes: length, progress: &progress };
                    self.remote.put(&name, &Content::File(sent))?;
                }
            }
        }
        progress.finish();
        Ok(encoding)
    }

    /// Sends the small files together. Those of an artifact whose list is there were there before it.
    fn push_small(
        &self,
        artifact: &Digest,
        top: &Path,
        listing: &Listing,
        has_list: bool,
        is_new: &AtomicBool,
    ) -> Result<(), NotPulled> {
        let small = small_files(listing);
        let name = Name::pack(artifact);
        if small.iter().all(|bytes| bytes.bytes == 0) {
            return Ok(());
        }
        if self.remote.size(&name)?.is_some() {
            return if has_list { Ok(()) } else { self.check_whole(&name, &small) };
        }
        is_new.store(true, Ordering::Relaxed);
        let mut compressed = Compressed::begin(self.cache).context(NO_ROOM)?;
        for bytes in &small {
            self.check_stopped()?;
            let Some((path, _)) = bytes.files.first() else { continue };
            let path = top.join(path);
            let found = compressed.add(&path).map_err(|error| unread(&path, error))?;
            self.check(&path, bytes, found)?;
        }
        let (file, length) = compressed.finish().context(NO_ROOM)?;
        let bytes = small.iter().map(|bytes| bytes.bytes).sum();
        let progress = UploadProgress::new(&self.watch.read, bytes);
        let sent = Sent { file: &file, bytes: length, progress: &progress };
        self.remote.put(&name, &Content::File(sent))?;
        progress.finish();
        Ok(())
    }

    /// Fails where half of what is compressed may have this name, and it is not all of these contents: how many bytes it must have
    /// depends on who compresses it.
    fn check_whole(&self, name: &Name, contents: &[Bytes<'_>]) -> Result<(), NotPulled> {
        if !self.remote.may_have_halves()? {
            return Ok(());
        }
        let bytes = contents.iter().map(|bytes| bytes.bytes).sum();
        let Some(mut download) = Download::open(self.remote, name.clone(), bytes)? else {
            return Err(in_part(name).into());
        };
        let same = decoded(&mut download, bytes).and_then(|mut reader| {
            for bytes in contents {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(reader.by_ref().take(bytes.bytes))?;
                if Digest::from(hasher.finalize()) != bytes.content {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        match (same, download.failure.take()) {
            (Ok(true), _) => Ok(()),
            (Err(_), Some(failure)) => Err(failure.into()),
            _ => Err(in_part(name).into()),
        }
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

/// What is here in the place of an artifact, or of a file of it, is something else.
#[derive(Debug)]
pub(super) struct DamagedHere(PathBuf);

impl fmt::Display for DamagedHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.display();
        write!(f, "{path} is damaged, and was not pushed: `pipeline verify` says more")
    }
}

impl std::error::Error for DamagedHere {}

fn damaged(path: &Path) -> anyhow::Error {
    DamagedHere(path.to_owned()).into()
}

/// Why a file of an artifact is not read. One that is missing is damage.
fn unread(path: &Path, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => damaged(path),
        _ => anyhow::Error::from(error).context(format!("cannot read {}", path.display())),
    }
}

fn damaged_there(name: &Name) -> RemoteFailure {
    RemoteFailure::wrong(format!("{name} is damaged there: remove it there, and push again"))
}
