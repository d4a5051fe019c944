//! Where things go that are removed: out of their place in one step, and then away.
//!
//! A process that is killed in between leaves its trash, which whoever cleans or sweeps next removes.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Access, Mode, access};

use super::super::folder::Folder;
use super::super::layout::{Bucket, Layout};
use super::super::lock::Lock;
use super::super::pins::cleaning_lock;
use super::super::{disk, durable};

/// How the names of trash begin in `tmp/`.
const TRASH: &str = "gc-";

/// How they begin beside what they were, where `tmp/` is on another file system.
const BESIDE: &str = ".new-gone-";

/// What has left its place, and takes room still.
pub(super) struct Trash {
    /// A full disk may have no room for one.
    folder: Option<PathBuf>,
    /// Each with the number of the item that it is of.
    places: Vec<(PathBuf, usize)>,
    /// Where folders were.
    left: BTreeSet<PathBuf>,
}

/// What stays in the trash.
#[derive(Debug, Default)]
pub(super) struct LeftInTrash {
    /// The items.
    pub(super) items: BTreeSet<usize>,
    /// Those of them that have folders of another user, who alone can empty them.
    pub(super) of_others: BTreeSet<usize>,
    /// Why others could not be removed.
    pub(super) why: Vec<String>,
}

impl Trash {
    /// A new one, for whoever has the lock.
    pub(super) fn new(layout: &Layout) -> Self {
        let make = || -> anyhow::Result<PathBuf> {
            let tmp = layout.bucket(Bucket::Tmp);
            let folder = durable::free_name(&tmp, TRASH.trim_end_matches('-'))?;
            durable::create_folder(&folder)?;
            Ok(folder)
        };
        Self { folder: make().ok(), places: Vec::new(), left: BTreeSet::new() }
    }

    /// Moves something of an item away. Nothing happens where it is missing.
    pub(super) fn take(&mut self, path: &Path, item: usize) -> anyhow::Result<()> {
        let take = || -> io::Result<Option<PathBuf>> {
            let metadata = match fs::symlink_metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            // A folder moves to another parent only if it is writable.
            if metadata.is_dir() && metadata.mode() & 0o200 == 0 && disk::is_own(&metadata) {
                let mode = Mode::from_raw_mode(metadata.permissions().mode() & 0o7777);
                let _ = disk::set_mode(Folder::open(path)?, mode | Mode::WUSR);
            }
            let number = self.places.len();
            if let Some(folder) = &self.folder {
                let place = folder.join(number.to_string());
                match disk::rename(path, place.as_path()) {
                    Ok(()) => return Ok(Some(place)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) if is_elsewhere(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            let name = format!("{BESIDE}{}-{number}", std::process::id());
            let place = path.with_file_name(name);
            disk::rename(path, place.as_path())?;
            Ok(Some(place))
        };
        let taken = take().with_context(|| format!("cannot remove {}", path.display()))?;
        if taken.as_ref().is_some_and(|place| place.is_dir()) {
            self.left.extend(path.parent().map(PathBuf::from));
        }
        self.places.extend(taken.map(|place| (place, item)));
        Ok(())
    }

    /// Removes what is in it, as far as that is possible, until `is_over`.
    pub(super) fn empty(self, is_over: impl Fn() -> bool) -> LeftInTrash {
        let mut kept = LeftInTrash::default();
        // Not even a power cut brings back a folder of which a part is removed.
        let failed = self.left.iter().find_map(|folder| {
            let error = durable::sync_folder(folder).err()?;
            Some(format!("cannot flush {} to disk: {error}", folder.display()))
        });
        let is_flushed = failed.is_none();
        kept.why.extend(failed);
        for (place, item) in &self.places {
            let removed = (is_flushed && !is_over()).then(|| durable::remove_tree(place));
            if let Some(Ok(())) = removed {
                continue;
            }
            kept.items.insert(*item);
            let is_others =
                || fs::symlink_metadata(place).is_ok_and(|metadata| !disk::is_own(&metadata));
            match removed {
                Some(Err(_)) if is_others() => drop(kept.of_others.insert(*item)),
                Some(Err(error)) => kept.why.push(format!("{error:#}")),
                _ => {}
            }
        }
        if let Some(folder) = &self.folder {
            // Not where something is left.
            let _ = disk::remove_folder(folder);
        }
        kept
    }
}

/// Whether something can be moved away: tried before its record goes.
pub(super) fn can_be_taken(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return true };
    !metadata.is_dir() || disk::is_own(&metadata) || access(path, Access::WRITE_OK).is_ok()
}

/// Whether something can leave the folder that it is in.
pub(super) fn can_leave(path: &Path) -> bool {
    let exists = fs::symlink_metadata(path).is_ok();
    !exists || path.parent().is_none_or(|folder| access(folder, Access::WRITE_OK).is_ok())
}

/// Whether something can be moved away, and then removed: not a folder in it that only another user can empty.
pub(super) fn can_be_freed(path: &Path) -> bool {
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        if !can_be_taken(&path) {
            return false;
        }
        // In a folder of its own, a user has made everything.
        let is_others = |metadata: &fs::Metadata| metadata.is_dir() && !disk::is_own(metadata);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| is_others(&metadata)) {
            let Ok(entries) = disk::entries(&path) else { return false };
            open.extend(entries.iter().map(DirEntry::path));
        }
    }
    true
}

/// Whether the trash is on another file system, or has no room for another name.
fn is_elsewhere(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, QuotaExceeded, StorageFull};
    matches!(error.kind(), CrossesDevices | StorageFull | QuotaExceeded)
}

/// Removes the trash of processes that are gone, unless somebody cleans now: that in `tmp/`, or `everywhere`.
pub(in crate::cache) fn sweep_trash(layout: &Layout, everywhere: bool) {
    // Whoever cleans would be kept from it for nothing.
    if old(layout, everywhere).is_empty() {
        return;
    }
    if let Ok(Some(lock)) = Lock::try_take_existing(&cleaning_lock(layout)) {
        lock.name_owner();
        empty_old(layout, everywhere);
    }
}

/// The same for whoever has the lock.
pub(super) fn empty_old(layout: &Layout, everywhere: bool) {
    for place in old(layout, everywhere) {
        let _ = durable::remove_tree(&place);
    }
}

/// The trash that there is.
fn old(layout: &Layout, everywhere: bool) -> Vec<PathBuf> {
    let list = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let is_folder = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let is_trash = |entry: &DirEntry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(TRASH));
        is_folder(entry) && number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let found = list(&layout.bucket(Bucket::Tmp)).filter(is_trash).map(|entry| entry.path());
    let mut found: Vec<PathBuf> = found.collect();
    for bucket in Bucket::ALL.into_iter().filter(|_| everywhere) {
        let folder = layout.bucket(bucket);
        let has_folders = matches!(
            bucket,
            Bucket::Records
                | Bucket::Listings
                | Bucket::Logs
                | Bucket::History
                | Bucket::Quarantine
                | Bucket::Remote
        );
        let inside = list(&folder).filter(|_| has_folders).filter(is_folder);
        let inside: Vec<PathBuf> = inside.map(|entry| entry.path()).collect();
        let all = inside.iter().map(PathBuf::as_path).chain([folder.as_path()]).flat_map(list);
        let is_beside = |entry: &DirEntry| entry.file_name().to_string_lossy().starts_with(BESIDE);
        found.extend(all.filter(is_beside).map(|entry| entry.path()));
    }
    found
}
