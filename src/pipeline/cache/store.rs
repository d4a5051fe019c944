//! The store: artifacts under the digest of their content, read-only, never changed.
//!
//! Knows no stage: a folder goes in, a digest comes out.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::durable;
use super::layout::Layout;
use super::listing::Listing;
use super::lock::Lock;
use super::tree::{self, EntryKind, Extent};
use crate::digest::Digest;

/// With more files and folders than this, one sync of the whole filesystem is cheaper than one of each file.
const SYNC_EACH_AT_MOST: usize = 256;

/// An artifact in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stored {
    /// The digest of its content, which is its name.
    pub digest: Digest,
    /// How much it holds.
    #[serde(flatten)]
    pub extent: Extent,
}

/// Moves a finished folder into the store: hash, make read-only, fsync, rename, fsync.
///
/// The folder is gone afterwards. When the same content is there already, that one stays.
///
/// # Errors
/// When something can't be read or written. The store is as it was.
pub fn commit(layout: &Layout, work: &Path) -> anyhow::Result<Stored> {
    let listing = Listing::of(work)?;
    let (digest, extent) = (listing.digest(), listing.extent());
    let stored = Stored { digest, extent };
    let place = layout.artifact(&digest);
    // Two stages that give the same content must not take it for damaged while the other moves it here.
    let _lock = lock(layout, &digest)?;
    // By its bytes, not by its extent: a stage that runs again mends what rotted.
    if tree::digest_folder(&place).is_ok_and(|(there, _)| there == digest) {
        durable::remove_tree(work)?;
    } else {
        quarantine(layout, &digest)?;
        seal(work).with_context(|| format!("can't make {} last", work.display()))?;
        match fs::rename(work, &place) {
            Ok(()) => {}
            // Another process committed the same content between the check and now.
            Err(_) if holds(layout, &stored) => durable::remove_tree(work)?,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("can't move the artifact to {}", place.display()));
            }
        }
    }
    close(layout, &place).with_context(|| format!("can't make {} last", place.display()))?;
    // Only `verify` asks for it, to say which files of a damaged artifact changed.
    let _ = listing.write(&layout.listing(&digest));
    Ok(stored)
}

/// Makes the folder of an artifact read-only, and its place last. Only where it lies: moving a folder to
/// another parent needs write permission on the folder itself. Also for one that was there already: the
/// process that moved it may have been killed before it came to this.
fn close(layout: &Layout, place: &Path) -> io::Result<()> {
    let own = fs::metadata(place)?;
    // What another user of the same cache made can't be changed, and need not be.
    if own.permissions().mode() & 0o222 != 0 {
        durable::make_read_only(place, &own)?;
    }
    durable::sync_folder(&layout.store())
}

/// Whether an artifact is there, at the cost of one stat, whatever its size.
pub fn is_there(layout: &Layout, digest: &Digest) -> bool {
    layout.artifact(digest).is_dir()
}

/// Whether an artifact is there and holds as much as it should. Reads no file, but lists its folders.
pub fn holds(layout: &Layout, stored: &Stored) -> bool {
    let place = layout.artifact(&stored.digest);
    place.is_dir() && tree::extent(&place).is_ok_and(|extent| extent == stored.extent)
}

/// Moves an artifact out of the way if it does not hold what it should.
///
/// # Errors
/// When it can't be moved.
pub fn quarantine_if_damaged(layout: &Layout, stored: &Stored) -> anyhow::Result<bool> {
    if holds(layout, stored) {
        return Ok(false);
    }
    let _lock = lock(layout, &stored.digest)?;
    // Another process may have mended it meanwhile.
    if holds(layout, stored) {
        return Ok(false);
    }
    quarantine(layout, &stored.digest)?;
    Ok(true)
}

/// Moves a damaged artifact out of the way, and says where to. Nothing happens when there is none. For
/// whoever has the lock of the artifact.
///
/// # Errors
/// When it can't be moved.
pub(super) fn quarantine(layout: &Layout, digest: &Digest) -> anyhow::Result<Option<PathBuf>> {
    let place = layout.artifact(digest);
    if fs::symlink_metadata(&place).is_err() {
        return Ok(None);
    }
    let target = durable::free_name(&layout.quarantine(), &digest.to_string())?;
    let move_away = || -> io::Result<()> {
        if place.is_dir() {
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        }
        match fs::rename(&place, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    };
    move_away().with_context(|| format!("can't move the damaged {} away", place.display()))?;
    Ok(Some(target))
}

/// Takes the lock of an artifact: who has it may move what lies in its place.
///
/// # Errors
/// When the lock can't be opened.
pub(super) fn lock(layout: &Layout, digest: &Digest) -> anyhow::Result<Lock> {
    Lock::take(&layout.lock(&format!("store-{digest}")))
}

/// Makes everything below a folder read-only and durable; the folder itself stays writable.
fn seal(work: &Path) -> anyhow::Result<()> {
    let entries = tree::entries(work)?;
    let sync_each = entries.len() <= SYNC_EACH_AT_MOST;
    // The folder was made under the user's umask: who may read it may read what is in it.
    let like = fs::metadata(work)?;
    // Folders last and from the inside out: in a read-only folder nothing else can be changed.
    for entry in entries.iter().rev() {
        let path = work.join(&entry.path);
        if matches!(entry.kind, EntryKind::Link { .. }) {
            continue;
        }
        if sync_each {
            fs::File::open(&path)?.sync_all()?;
        }
        durable::make_read_only(&path, &like)?;
    }
    let top = fs::File::open(work)?;
    if sync_each {
        top.sync_all()?;
    } else {
        sync_filesystem(&top)?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn sync_filesystem(on_it: &fs::File) -> io::Result<()> {
    rustix::fs::syncfs(on_it).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
fn sync_filesystem(_on_it: &fs::File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}
