//! Whether artifacts still hold the bytes of their digest. Those that do not go to the quarantine.
//!
//! Artifacts never change, so they are read without a lock; only what looks damaged is rechecked under the lock of the
//! artifact, since another process may be replacing it. What was made from it is withdrawn under the same lock. On a
//! cache that cannot be written, damage is found and stays where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Entry, EntryKind, Extent};
use super::file_digest::{Watch, digest_open_file};
use super::folder::Folder;
use super::listing::Listing;
use super::opened::Cache;
use super::withdrawal::Withdrawn;
use super::{parallel, store};
use crate::difference::Difference;
use crate::digest::Digest;

/// What an artifact turned out to be.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It holds the bytes of its digest.
    Intact(Extent),
    /// It does not.
    Damaged(Damage),
    /// It does not exist.
    Gone,
    /// It cannot be read, so that nothing is known of it.
    Unreadable(String),
}

/// What is known of a damaged artifact.
#[derive(Debug)]
pub(crate) struct Damage {
    /// What differs from the artifact that it was. `None` where no listing of that one is left.
    pub(crate) files: Option<Vec<Difference>>,
    /// Where it was moved, or why it stays in the store.
    pub(crate) moved: Result<PathBuf, String>,
}

/// What a check found.
#[derive(Debug)]
pub(crate) struct Checked {
    /// What each artifact turned out to be, in the order in which they were given.
    pub(crate) verdicts: Vec<(Digest, Verdict)>,
    /// What no longer counts, because it was made from what is damaged; or why it still does.
    pub(crate) withdrawn: anyhow::Result<Vec<Withdrawn>>,
}

/// How many locks are held at once. A process may not have many files open.
const LOCKS: usize = 64;

/// Artifacts that are to be checked.
pub(crate) struct Check<'a> {
    cache: &'a Cache,
    artifacts: Vec<(Digest, ArtifactPlace)>,
    /// All files of all artifacts. Threads take one after the other.
    files: Vec<(Arc<Path>, PathBuf)>,
    bytes: u64,
}

/// What is in the place of an artifact.
enum ArtifactPlace {
    /// A folder. Its files are from this place on in the list of all files.
    Folder { entries: Vec<Entry>, first_file: usize },
    /// Something else than a folder.
    Replaced,
    /// Nothing, or nothing that could be listed.
    Verdict(Verdict),
}

/// What is in the place of an artifact that is not a folder which can be opened.
fn missing_or_replaced(place: &Path, error: &io::Error) -> ArtifactPlace {
    match fs::symlink_metadata(place) {
        Err(error) if store::is_absence(&error) => ArtifactPlace::Verdict(Verdict::Gone),
        Ok(metadata) if !metadata.is_dir() => ArtifactPlace::Replaced,
        _ => ArtifactPlace::Verdict(Verdict::Unreadable(format!(
            "cannot open {}: {error}",
            place.display()
        ))),
    }
}

impl<'a> Check<'a> {
    /// Looks what there is to read. No file is read yet.
    pub(crate) fn new(cache: &'a Cache, digests: impl IntoIterator<Item = Digest>) -> Self {
        let mut check = Self { cache, artifacts: Vec::new(), files: Vec::new(), bytes: 0 };
        for digest in digests {
            let found = check.look(&digest);
            check.artifacts.push((digest, found));
        }
        check
    }

    fn look(&mut self, digest: &Digest) -> ArtifactPlace {
        let place = self.cache.layout.artifact(digest);
        let folder = match Folder::open(&place) {
            Ok(folder) => folder,
            Err(error) => return missing_or_replaced(&place, &error),
        };
        match folder.entries() {
            Ok(entries) => {
                let place: Arc<Path> = place.into();
                let first_file = self.files.len();
                for Entry { path, kind, .. } in &entries {
                    if let EntryKind::File { bytes, .. } = kind {
                        self.bytes += bytes;
                        self.files.push((Arc::clone(&place), path.clone()));
                    }
                }
                ArtifactPlace::Folder { entries, first_file }
            }
            Err(error) => ArtifactPlace::Verdict(Verdict::Unreadable(format!("{error:#}"))),
        }
    }

    /// How many bytes there are to read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads everything, with as many threads as there are cores.
    pub(crate) fn run(self, watch: &Watch) -> Checked {
        let contents = hash_all(&self.files, watch);
        let verdicts = self.artifacts.into_iter().map(|(digest, found)| {
            let verdict = match found {
                ArtifactPlace::Verdict(verdict) => Some(verdict),
                ArtifactPlace::Replaced => None,
                ArtifactPlace::Folder { entries, first_file } => {
                    let mut contents = contents[first_file..].iter();
                    let listing = Listing::with_digests(entries, |path| {
                        let content = contents.next().cloned();
                        let unread = || Err(format!("{} was not read", path.display()));
                        content.unwrap_or_else(unread).map_err(anyhow::Error::msg)
                    });
                    let listing = listing.ok().filter(|listing| listing.digest() == digest);
                    listing.map(|listing| Verdict::Intact(listing.extent()))
                }
            };
            (digest, verdict)
        });
        let verdicts: Vec<_> = verdicts.collect();
        let suspects = verdicts.iter().filter(|(_, verdict)| verdict.is_none());
        // In one order everywhere: two processes must not wait for each other's locks.
        let suspects: Vec<Digest> =
            suspects.map(|(digest, _)| *digest).collect::<BTreeSet<_>>().into_iter().collect();
        let mut rechecked = BTreeMap::new();
        let mut withdrawn = Ok(Vec::new());
        for some in suspects.chunks(LOCKS) {
            let (verdicts, newly_withdrawn) = recheck(self.cache, some);
            rechecked.extend(verdicts);
            withdrawn = withdrawn.and_then(|mut all: Vec<Withdrawn>| {
                all.extend(newly_withdrawn?);
                Ok(all)
            });
        }
        let verdicts = verdicts.into_iter().map(|(digest, verdict)| {
            let verdict = verdict.or_else(|| rechecked.remove(&digest));
            (digest, verdict.unwrap_or(Verdict::Gone))
        });
        Checked { verdicts: verdicts.collect(), withdrawn }
    }
}

/// The digests of these files, or why one could not be read.
fn hash_all(files: &[(Arc<Path>, PathBuf)], watch: &Watch) -> Vec<Result<Digest, String>> {
    // Of one artifact at a time: a cache can have more of them than a process may hold open.
    let no_folder = || None::<Folder>;
    parallel::for_each(files, no_folder, |open, (place, path)| {
        let mut digest = || {
            let folder = match open.take() {
                Some(folder) if folder.path() == &**place => folder,
                _ => Folder::open(place)?,
            };
            digest_open_file(open.insert(folder).open_below(path)?, watch)
        };
        digest().map_err(|error: io::Error| {
            format!("cannot read {}: {error}", place.join(path).display())
        })
    })
}

/// Rechecks artifacts that looked damaged, under their locks, which come in the order of the digests. What was made from
/// those that are is withdrawn, and they move to the quarantine.
fn recheck(
    cache: &Cache,
    suspects: &[Digest],
) -> (Vec<(Digest, Verdict)>, anyhow::Result<Vec<Withdrawn>>) {
    let mut verdicts = Vec::new();
    let mut damaged = Vec::new();
    for digest in suspects {
        let lock = store::lock(&cache.layout, digest);
        match look_under_lock(cache, digest) {
            Ok(files) => damaged.push((*digest, files, lock)),
            Err(verdict) => verdicts.push((*digest, verdict)),
        }
    }
    let digests: Vec<_> = damaged.iter().map(|(digest, ..)| *digest).collect();
    let withdrawn = match digests.is_empty() {
        true => return (verdicts, Ok(Vec::new())),
        false => cache.begin_withdrawal(&digests),
    };
    for (digest, files, lock) in damaged {
        let moved = match (lock, &withdrawn) {
            (Err(error), _) => Err(format!("{error:#}")),
            (Ok(_), Err(error)) => Err(format!("{error:#}")),
            (Ok(_), Ok((withdrawal, _))) => match cache.quarantine(&digest, withdrawal) {
                Ok(Some(path)) => Ok(path),
                Ok(None) => Err("it is gone meanwhile".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            },
        };
        verdicts.push((digest, Verdict::Damaged(Damage { files, moved })));
    }
    (verdicts, withdrawn.map(|(_, withdrawn)| withdrawn))
}

/// Which files of an artifact are damaged, where that is known; or what else it turned out to be.
fn look_under_lock(cache: &Cache, digest: &Digest) -> Result<Option<Vec<Difference>>, Verdict> {
    let place = cache.layout.artifact(digest);
    let listing = match Listing::of(&place) {
        Ok(listing) => listing,
        Err(_) if fs::symlink_metadata(&place).is_err() => return Err(Verdict::Gone),
        Err(_) if !place.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) => {
            return Ok(None);
        }
        Err(error) => return Err(Verdict::Unreadable(format!("{error:#}"))),
    };
    if listing.digest() == *digest {
        return Err(Verdict::Intact(listing.extent()));
    }
    let whole = Listing::read(&cache.layout.listing(digest), digest);
    Ok(whole.map(|whole| whole.differences(&listing)))
}
