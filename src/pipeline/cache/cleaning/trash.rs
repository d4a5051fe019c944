//! Where things go that are removed: out of their place in one step, and then away.
//!
//! A process that is killed in between leaves its trash, which whoever cleans or sweeps next removes.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Access, Mode, access};

use super::super::folder::Folder;
use super::super::layout::{Bucket, Layout};
use super::super::{Lock, disk, durable};

/// How the names of trash begin in `tmp/`.
const TRASH: &str = "gc-";

/// How they begin beside what they were, where `tmp/` is on another file system.
const BESIDE: &str = ".new-gone-";

/// The lock of whoever cleans.
pub(super) fn lock_path(layout: &Layout) -> PathBuf {
    layout.lock("gc")
}

/// What has left its place, and takes room still.
pub(super) struct Trash {
    folder: PathBuf,
    places: Vec<PathBuf>,
}

impl Trash {
    /// A new one, for whoever has the lock.
    pub(super) fn new(layout: &Layout) -> anyhow::Result<Self> {
        let folder = durable::free_name(&layout.bucket(Bucket::Tmp), TRASH.trim_end_matches('-'))?;
        durable::create_folder(&folder)?;
        Ok(Self { folder, places: Vec::new() })
    }

    /// Moves something away. Nothing happens where it is missing.
    pub(super) fn take(&mut self, path: &Path) -> anyhow::Result<()> {
        let take = || -> io::Result<Option<PathBuf>> {
            let metadata = match fs::symlink_metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            // A folder moves to another parent only if it is writable.
            if metadata.is_dir() && metadata.mode() & 0o200 == 0 && is_own(&metadata) {
                let mode = Mode::from_raw_mode(metadata.permissions().mode() & 0o7777);
                disk::set_mode(Folder::open(path)?, mode | Mode::WUSR)?;
            }
            let place = self.folder.join(self.places.len().to_string());
            match disk::rename(path, place.as_path()) {
                Ok(()) => Ok(Some(place)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    let name = format!("{BESIDE}{}-{}", std::process::id(), self.places.len());
                    let place = path.with_file_name(name);
                    disk::rename(path, place.as_path())?;
                    Ok(Some(place))
                }
                Err(error) => Err(error),
            }
        };
        let taken = take().with_context(|| format!("cannot remove {}", path.display()))?;
        self.places.extend(taken);
        Ok(())
    }

    /// Removes what is in it, as far as that is possible, until `is_over`. Returns why something stays.
    pub(super) fn empty(self, is_over: impl Fn() -> bool) -> Vec<String> {
        let places = self.places.iter().take_while(|_| !is_over());
        let left: Vec<String> = places
            .filter_map(|place| Some(format!("{:#}", durable::remove_tree(place).err()?)))
            .collect();
        if left.is_empty() {
            // What else is in it was not reached.
            let _ = disk::remove_folder(&self.folder);
        }
        left
    }
}

/// Whether something can be moved away: tried before its record goes.
pub(super) fn can_be_taken(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return true };
    !metadata.is_dir() || is_own(&metadata) || access(path, Access::WRITE_OK).is_ok()
}

fn is_own(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Removes the trash of processes that are gone, unless somebody cleans now.
pub(in crate::cache) fn sweep_trash(layout: &Layout) {
    if let Ok(Some(_lock)) = Lock::try_take_existing(&lock_path(layout)) {
        empty_old(layout);
    }
}

/// The same for whoever has the lock.
pub(super) fn empty_old(layout: &Layout) {
    let tmp = layout.bucket(Bucket::Tmp);
    for bucket in Bucket::ALL {
        let folder = layout.bucket(bucket);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let number = name.strip_prefix(TRASH).filter(|_| folder == tmp);
            let is_trash = number.is_some_and(|number| number.parse::<u32>().is_ok());
            if is_folder && (is_trash || name.starts_with(BESIDE)) {
                let _ = durable::remove_tree(&entry.path());
            }
        }
    }
}
