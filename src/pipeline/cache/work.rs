//! A folder in which one stage works: made under a lock, held open, gone when it is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};

use super::disk::At;
use super::folder::{Folder, Identity};
use super::layout::{Bucket, Layout};
use super::lock::Lock;
use super::{disk, durable};
use crate::key::StageKey;

const OUTPUT: &str = "output";

/// How the names of reruns begin, among those of work in progress.
pub(super) const RERUN_PREFIX: &str = "verify-";

/// The folder of one piece of work. When the process is killed, the next run that has work to do sweeps it out,
/// as nobody has its lock then.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    /// Held open, as a program could put a link in its place.
    own: Folder,
    output: Identity,
    /// Whether its owner has removed it.
    is_removed: AtomicBool,
    // Released after `drop` has removed the folder.
    _lock: Lock,
}

impl WorkFolder {
    /// Makes a folder for the work of this name, for whoever has the lock of the name.
    pub(super) fn make(layout: &Layout, name: &str, lock: Lock) -> anyhow::Result<Self> {
        // What an earlier process left, or one that has lost the lock and must not record anything now.
        let works = layout.bucket(Bucket::Tmp);
        // All of them first: each gets another name.
        for entry in disk::certain_entries(&works)? {
            if entry.file_name().to_str().and_then(lock_name) == Some(name) {
                discard(layout, &entry.path(), name);
            }
        }
        // Under a name of its own: what an earlier program left behind by a crash still writes to goes
        // nowhere, not into this output.
        let own = place(layout, name);
        let output = own.join(OUTPUT);
        durable::create_folder(&output)?;
        let open = |path: &Path| {
            Folder::open(path).with_context(|| format!("cannot open {}", path.display()))
        };
        let output = open(&output)?.identity()?;
        Ok(Self { own: open(&own)?, output, is_removed: AtomicBool::new(false), _lock: lock })
    }

    /// Where the stage writes.
    pub(crate) fn output(&self) -> PathBuf {
        self.own.path().join(OUTPUT)
    }

    /// A place beside the output, for what the stage does not keep.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.own.path().join(name)
    }

    /// The same, a new folder.
    pub(crate) fn folder_beside(&self, name: &str) -> anyhow::Result<PathBuf> {
        let place = self.beside(name);
        durable::create_folder(&place)?;
        Ok(place)
    }

    /// Whether nobody has taken the work over: whoever takes its lock moves the folder away. Who has removed it knows no better.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub(super) fn is_own(&self) -> io::Result<bool> {
        if self.is_removed.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let path = self.own.path();
        let look = || {
            // Opened each time: NFS asks its server then, and goes by what it remembers else.
            let works = disk::open(path.parent().unwrap_or(path))?;
            Identity::below(&works, path.file_name().unwrap_or_default())
        };
        match look() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            there => Ok(there? == self.own.identity()?),
        }
    }

    /// The output, which must still be the folder that was made.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn open_output(&self) -> anyhow::Result<Folder> {
        let output = Folder::open(&self.output()).ok();
        let is_own = |output: &Folder| output.identity().is_ok_and(|now| now == self.output);
        let Some(output) = output.filter(is_own) else {
            bail!(
                "its output folder is no longer the one that was made for it: a stage writes into its output \
                 folder, and must not remove it, or put a link or another folder in its place"
            );
        };
        Ok(output)
    }

    /// Removes the output. The folder stays, by which it is known whether another process has taken the work over; and so does the lock.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        let name = self.own.path().file_name().unwrap_or_default().to_string_lossy();
        // A sweep knows it as the same work.
        let away = self.own.path().with_file_name(format!("{name}-{}", durable::unique_name()));
        match self.rename_output(&away) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => {
                moved.with_context(|| format!("cannot remove {}", self.output().display()))?;
                durable::remove_tree(&away)
            }
        }
    }

    /// Removes it once it is empty. The lock stays.
    pub(super) fn remove(&self) {
        let is_removed = disk::remove_folder(self.own.path()).is_ok();
        self.is_removed.store(is_removed, Ordering::Relaxed);
    }

    /// Moves the output to another place on the same file system.
    pub(crate) fn rename_output(&self, place: &Path) -> io::Result<()> {
        disk::rename(At::below(&self.own, Path::new(OUTPUT)), place)
    }
}

/// A place for the work of a name that nothing had before.
fn place(layout: &Layout, name: &str) -> PathBuf {
    layout.work(&format!("{name}-{}", durable::unique_name()))
}

/// Removes a folder of the work of a name, for whoever has its lock; as far as that is possible: another user's program may have
/// written in it.
pub(super) fn discard(layout: &Layout, work: &Path, name: &str) {
    // Out of the way first: who works there still, and has lost the lock, finds that its folder is gone, and not a part of what is in it.
    let away = place(layout, name);
    if disk::rename(work, away.as_path()).is_ok() {
        let _ = durable::remove_tree(&away);
    }
}

/// The name of the lock of something in `tmp/` that is work, by its name there: what is made now, or the folder of all the work of a
/// name, as earlier versions made it.
pub(super) fn lock_name(entry: &str) -> Option<&str> {
    let prefix = if entry.starts_with(RERUN_PREFIX) { RERUN_PREFIX.len() } else { 0 };
    let key = entry[prefix..].split('-').next()?;
    key.parse::<StageKey>().is_ok().then(|| &entry[..prefix + key.len()])
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if !self.is_removed.load(Ordering::Relaxed) {
            let _ = durable::remove_tree(self.own.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_version_and_of_earlier_ones_is_known_by_its_name() {
        let key = StageKey::of(&[]);
        let again = format!("{RERUN_PREFIX}{key}");
        for lock in [key.to_string(), again] {
            for after in ["", "-1f-0-5"] {
                assert_eq!(lock_name(&format!("{lock}{after}")), Some(&*lock), "{after}");
            }
            assert_eq!(lock_name(&format!("{lock}.log")), None);
            assert_eq!(lock_name(&lock[1..]), None);
        }
        for other in ["", "gc-1", "verify-", "notes"] {
            assert_eq!(lock_name(other), None, "{other}");
        }
    }
}
