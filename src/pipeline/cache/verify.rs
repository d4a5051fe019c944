//! Whether artifacts still hold the bytes of their digest. Those that don't go to the quarantine.
//!
//! Artifacts never change, so they are read without a lock; only what looks damaged is looked at again under
//! the lock of the artifact, since another process may be mending it. On a cache that can't be written,
//! damage is found and stays where it is.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::layout::Layout;
use super::listing::{Difference, Listing};
use super::store;
use super::tree::{self, Entry, EntryKind, Extent, Watch};
use crate::digest::Digest;

/// What an artifact turned out to be.
#[derive(Debug)]
pub enum Verdict {
    /// It holds the bytes of its digest.
    Intact(Extent),
    /// It does not.
    Damaged(Damage),
    /// It is not there.
    Gone,
    /// It can't be read, so that nothing is known of it.
    Unreadable(String),
}

/// What is known of a damaged artifact.
#[derive(Debug)]
pub struct Damage {
    /// What differs from the artifact that it was. `None` where no listing of that one is left.
    pub files: Option<Vec<Difference>>,
    /// Where it was moved, or why it stays in the store.
    pub moved: Result<PathBuf, String>,
}

/// Artifacts that are to be checked.
pub struct Check<'a> {
    layout: &'a Layout,
    artifacts: Vec<(Digest, Found)>,
    /// All files of all artifacts. Threads take one after the other.
    files: Vec<PathBuf>,
    bytes: u64,
}

/// What lies in the place of an artifact.
enum Found {
    /// A folder. Its files are from this place on in the list of all files.
    Folder { entries: Vec<Entry>, first_file: usize },
    /// Nothing, or nothing that could be listed.
    Verdict(Verdict),
}

impl<'a> Check<'a> {
    /// Looks what there is to read. No file is read yet.
    pub fn new(layout: &'a Layout, digests: impl IntoIterator<Item = Digest>) -> Self {
        let mut check = Self { layout, artifacts: Vec::new(), files: Vec::new(), bytes: 0 };
        for digest in digests {
            let found = check.look(&digest);
            check.artifacts.push((digest, found));
        }
        check
    }

    fn look(&mut self, digest: &Digest) -> Found {
        let place = self.layout.artifact(digest);
        if fs::symlink_metadata(&place).is_err() {
            return Found::Verdict(Verdict::Gone);
        }
        match tree::entries(&place) {
            Ok(entries) => {
                let first_file = self.files.len();
                for Entry { path, kind } in &entries {
                    if let EntryKind::File { bytes, .. } = kind {
                        self.bytes += bytes;
                        self.files.push(place.join(path));
                    }
                }
                Found::Folder { entries, first_file }
            }
            Err(error) => Found::Verdict(Verdict::Unreadable(format!("{error:#}"))),
        }
    }

    /// How many bytes there are to read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads everything, with as many threads as there are cores. The verdicts are in the order of the
    /// digests that were given.
    pub fn run(self, watch: &Watch) -> Vec<(Digest, Verdict)> {
        let contents = hash_all(&self.files, watch);
        let layout = self.layout;
        let verdicts = self.artifacts.into_iter().map(|(digest, found)| {
            let verdict = match found {
                Found::Verdict(verdict) => verdict,
                Found::Folder { entries, first_file } => {
                    let mut contents = contents[first_file..].iter();
                    let listing = Listing::with_digests(entries, |path| {
                        let content = contents.next().and_then(OnceLock::get);
                        let unread = || Err(format!("{} was not read", path.display()));
                        content.cloned().unwrap_or_else(unread).map_err(anyhow::Error::msg)
                    });
                    match listing {
                        Ok(listing) if listing.digest() == digest => {
                            Verdict::Intact(listing.extent())
                        }
                        _ => settle(layout, &digest),
                    }
                }
            };
            (digest, verdict)
        });
        verdicts.collect()
    }
}

/// The digests of these files, or why one could not be read.
fn hash_all(files: &[PathBuf], watch: &Watch) -> Vec<OnceLock<Result<Digest, String>>> {
    let contents: Vec<OnceLock<_>> = files.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(file), Some(content)) = (files.get(index), contents.get(index)) else {
                return;
            };
            let digest = tree::digest_file_watched(file, watch);
            let _ = content.set(digest.map_err(|error| format!("{error:#}")));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 1..cores.min(files.len()) {
            // Where the system has no thread left, the others do the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    contents
}

/// Looks again at an artifact that looked damaged, and moves it away if it is.
fn settle(layout: &Layout, digest: &Digest) -> Verdict {
    let lock = store::lock(layout, digest);
    let place = layout.artifact(digest);
    let listing = match Listing::of(&place) {
        Ok(listing) => listing,
        Err(_) if fs::symlink_metadata(&place).is_err() => return Verdict::Gone,
        Err(error) => return Verdict::Unreadable(format!("{error:#}")),
    };
    if listing.digest() == *digest {
        return Verdict::Intact(listing.extent());
    }
    let whole = Listing::read(&layout.listing(digest), digest);
    let moved = lock.and_then(|_lock| store::quarantine(layout, digest));
    Verdict::Damaged(Damage {
        files: whole.map(|whole| whole.differences(&listing)),
        moved: match moved {
            Ok(Some(path)) => Ok(path),
            Ok(None) => Err("it is gone meanwhile".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        },
    })
}
