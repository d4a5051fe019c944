//! What a remote says of an artifact: its files, and how they are kept. Pure.
//!
//! The listing proves itself by the digest of the artifact. Large files are kept by their content, so that artifacts share them; the
//! small ones of an artifact are kept together, so that thousands of them are one request.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::name::Encoding;
use super::transport::RemoteFailure;
use crate::cache::{EntryKind, Listing, Stored};
use crate::digest::Digest;

/// Files below this many bytes are kept together.
pub(super) const PACK_BELOW: u64 = 64 << 10;

/// The most bytes of what is said of an artifact, compressed or not: about a million files. Several are in memory at once.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// How the numbers and names of a compressed text may be far from each other: what a decoder must remember, as a power of two.
pub(super) const WINDOW_LOG: u32 = 23;

/// What a remote says of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Index {
    /// Files below this many bytes are in the pack.
    pack_below: u64,
    /// The large files, each with how its bytes are kept.
    blobs: BTreeMap<Digest, Encoding>,
    pub(super) listing: Listing,
}

/// The bytes of one or several files of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bytes<'i> {
    pub(super) content: Digest,
    pub(super) bytes: u64,
    /// The files that have them, and whether each is a program.
    pub(super) files: Vec<(&'i Path, bool)>,
}

impl Index {
    /// What is said of an artifact with these files.
    pub(super) fn new(listing: Listing, blobs: BTreeMap<Digest, Encoding>) -> Self {
        Self { pack_below: PACK_BELOW, blobs, listing }
    }

    /// The bytes that are kept together, in the order in which they are, each once.
    pub(super) fn packed(&self) -> Vec<Bytes<'_>> {
        contents(&self.listing, |bytes| bytes < self.pack_below)
    }

    /// How the bytes of a large file are kept.
    pub(super) fn encoding(&self, content: &Digest) -> Option<Encoding> {
        self.blobs.get(content).copied()
    }

    /// The bytes that are kept by themselves, each with how.
    ///
    /// # Errors
    /// When that is not said of one of them.
    pub(super) fn large(&self) -> Result<Vec<(Bytes<'_>, Encoding)>, RemoteFailure> {
        let large = contents(&self.listing, |bytes| bytes >= self.pack_below).into_iter();
        let encoded = large.map(|bytes| {
            let encoding = self.blobs.get(&bytes.content).copied();
            let unknown = || RemoteFailure::wrong("it does not say how a file is kept");
            encoding.map(|encoding| (bytes, encoding)).ok_or_else(unknown)
        });
        encoded.collect()
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let text = serde_json::to_vec(self).context("an index is plain data")?;
        Ok(zstd::encode_all(&*text, 3)?)
    }

    /// Reads one from its bytes. What it says is what is said of this artifact, and nothing in it leads out of a folder.
    ///
    /// # Errors
    /// When it is damaged, or of something else.
    pub(super) fn decode(bytes: &[u8], artifact: &Stored) -> Result<Self, RemoteFailure> {
        let decode = || -> anyhow::Result<Self> {
            use std::io::Read;
            let mut decoder = zstd::Decoder::new(bytes)?;
            decoder.window_log_max(WINDOW_LOG)?;
            let mut text = Vec::new();
            decoder.take(MOST_BYTES + 1).read_to_end(&mut text)?;
            ensure!(text.len() as u64 <= MOST_BYTES, "it is too long");
            Ok(serde_json::from_slice(&text)?)
        };
        let index =
            decode().map_err(|_| RemoteFailure::wrong("the list of its files is damaged"))?;
        // No two files are at one place in the pack, however much is said to be small.
        let is_of = index.listing.digest() == artifact.digest
            && index.listing.extent() == artifact.extent
            && index.pack_below <= PACK_BELOW;
        match is_of && index.listing.is_of_a_folder() {
            true => Ok(index),
            false => Err(RemoteFailure::wrong("the list of its files is that of something else")),
        }
    }
}

/// The large files of an artifact with these files.
pub(super) fn large_files(listing: &Listing) -> Vec<Bytes<'_>> {
    contents(listing, |bytes| bytes >= PACK_BELOW)
}

/// The small ones.
pub(super) fn small_files(listing: &Listing) -> Vec<Bytes<'_>> {
    contents(listing, |bytes| bytes < PACK_BELOW)
}

fn contents(listing: &Listing, is_wanted: impl Fn(u64) -> bool) -> Vec<Bytes<'_>> {
    let mut found: Vec<Bytes<'_>> = Vec::new();
    let mut places: BTreeMap<(Digest, u64), usize> = BTreeMap::new();
    for (path, kind, content) in listing.entries() {
        let (EntryKind::File { executable, bytes }, Some(content)) = (kind, content) else {
            continue;
        };
        if !is_wanted(*bytes) {
            continue;
        }
        let place = *places.entry((*content, *bytes)).or_insert_with(|| {
            found.push(Bytes { content: *content, bytes: *bytes, files: Vec::new() });
            found.len() - 1
        });
        found[place].files.push((path, *executable));
    }
    found
}

/// Whether this text, compressed, is what a remote says of an artifact: of the one that it describes. For fuzzing: no fuzzer can guess
/// a digest.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_index(text: &[u8]) -> bool {
    let Ok(index) = serde_json::from_slice::<Index>(text) else { return false };
    let (digest, extent) = (index.listing.digest(), index.listing.extent());
    let Ok(bytes) = zstd::bulk::compress(text, 1) else { return false };
    let read = Index::decode(&bytes, &Stored { digest, extent });
    read.is_ok_and(|read| {
        let packed: u64 = read.packed().iter().map(|bytes| bytes.bytes).sum();
        read.large().is_ok() && packed <= extent.bytes
    })
}
