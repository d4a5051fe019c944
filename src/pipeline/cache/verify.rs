//! Whether artifacts still hold the bytes of their digest. Those that don't go to the quarantine.
//!
//! Artifacts never change, so they are read without a lock; only what looks damaged is looked at again under
//! the lock of the artifact, since another process may be mending it. On a cache that cannot be written,
//! damage is found and stays where it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::entry::{Entry, EntryKind, Extent};
use super::file_digest::{Watch, digest_open_file};
use super::folder::Folder;
use super::layout::Layout;
use super::listing::Listing;
use super::lock::Lock;
use super::store;
use crate::difference::Difference;
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
    /// It cannot be read, so that nothing is known of it.
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
    files: Vec<(Arc<Path>, PathBuf)>,
    bytes: u64,
}

/// What lies in the place of an artifact.
enum Found {
    /// A folder. Its files are from this place on in the list of all files.
    Folder { entries: Vec<Entry>, first_file: usize },
    /// Something else than a folder.
    Replaced,
    /// Nothing, or nothing that could be listed.
    Verdict(Verdict),
}

/// What is in the place of an artifact that is not a folder which can be opened.
fn missing_or_replaced(place: &Path, error: &io::Error) -> Found {
    match fs::symlink_metadata(place) {
        Err(_) => Found::Verdict(Verdict::Gone),
        Ok(metadata) if !metadata.is_dir() => Found::Replaced,
        Ok(_) => {
            Found::Verdict(Verdict::Unreadable(format!("cannot open {}: {error}", place.display())))
        }
    }
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
        let folder = match Folder::open(&place) {
            Ok(folder) => folder,
            Err(error) => return missing_or_replaced(&place, &error),
        };
        match folder.entries() {
            Ok(entries) => {
                let place: Arc<Path> = place.into();
                let first_file = self.files.len();
                for Entry { path, kind } in &entries {
                    if let EntryKind::File { bytes, .. } = kind {
                        self.bytes += bytes;
                        self.files.push((Arc::clone(&place), path.clone()));
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
                Found::Replaced => recheck(layout, &digest),
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
                        _ => recheck(layout, &digest),
                    }
                }
            };
            (digest, verdict)
        });
        verdicts.collect()
    }
}

/// The digests of these files, or why one could not be read.
fn hash_all(
    files: &[(Arc<Path>, PathBuf)],
    watch: &Watch,
) -> Vec<OnceLock<Result<Digest, String>>> {
    let contents: Vec<OnceLock<_>> = files.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        // Of one artifact at a time: a cache can have more of them than a process may hold open.
        let mut open: Option<Folder> = None;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some((place, path)), Some(content)) = (files.get(index), contents.get(index))
            else {
                return;
            };
            let mut digest = || {
                let folder = match open.take() {
                    Some(folder) if folder.path() == &**place => folder,
                    _ => Folder::open(place)?,
                };
                digest_open_file(open.insert(folder).open_below(path)?, watch)
            };
            let digest = digest();
            let cannot_read =
                |error| format!("cannot read {}: {error}", place.join(path).display());
            let _ = content.set(digest.map_err(cannot_read));
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

/// Rechecks an artifact that looked damaged, and moves it away if it is.
fn recheck(layout: &Layout, digest: &Digest) -> Verdict {
    let lock = store::lock(layout, digest);
    let place = layout.artifact(digest);
    let listing = match Listing::of(&place) {
        Ok(listing) => listing,
        Err(_) if fs::symlink_metadata(&place).is_err() => return Verdict::Gone,
        Err(_) if !place.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) => {
            return moved_away(lock, layout, digest, None);
        }
        Err(error) => return Verdict::Unreadable(format!("{error:#}")),
    };
    if listing.digest() == *digest {
        return Verdict::Intact(listing.extent());
    }
    let whole = Listing::read(&layout.listing(digest), digest);
    moved_away(lock, layout, digest, whole.map(|whole| whole.differences(&listing)))
}

fn moved_away(
    lock: anyhow::Result<Lock>,
    layout: &Layout,
    digest: &Digest,
    files: Option<Vec<Difference>>,
) -> Verdict {
    let moved = match lock.and_then(|_lock| store::quarantine(layout, digest)) {
        Ok(Some(path)) => Ok(path),
        Ok(None) => Err("it is gone meanwhile".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    };
    Verdict::Damaged(Damage { files, moved })
}
