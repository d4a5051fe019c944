//! A folder in which one stage works: made under a lock, held open, gone when it is dropped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, At};
use super::durable;
use super::folder::{Folder, Identity};
use super::layout::Layout;
use super::lock::Lock;
use anyhow::{Context, bail};

const OUTPUT: &str = "output";

/// The folder of one piece of work. When the process is killed, the next run that has work to do sweeps it out,
/// as nobody has its lock then.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    top: PathBuf,
    /// Held open, as a program could put a link in its place.
    own: Folder,
    output: Identity,
    // Released after `drop` has removed the folder.
    _lock: Lock,
}

impl WorkFolder {
    /// Makes the folder of this name, for whoever has the lock of the name.
    pub(super) fn make(layout: &Layout, name: &str, lock: Lock) -> anyhow::Result<Self> {
        let top = layout.work(name);
        durable::create_own_folder(&top)?;
        // What an earlier process left, as far as it can be removed: another user's program may have written it. Below
        // the folder that is open: nothing that takes its name now is touched.
        let opened =
            Folder::open(&top).with_context(|| format!("cannot open {}", top.display()))?;
        let place = durable::path_of_open(&opened).unwrap_or_else(|| top.clone());
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let _ = durable::remove_tree(&entry.path());
        }
        // Under a name of its own: what an earlier program left behind by a crash still writes to goes
        // nowhere, not into this output.
        let own = durable::free_name(&top, &std::process::id().to_string())?;
        durable::create_folder(&own)?;
        let output = own.join(OUTPUT);
        durable::create_folder(&output)?;
        let open = |path: &Path| {
            Folder::open(path).with_context(|| format!("cannot open {}", path.display()))
        };
        let output = open(&output)?.identity()?;
        Ok(Self { top, own: open(&own)?, output, _lock: lock })
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

    /// The output, which must still be the folder that was made.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn open_output(&self) -> anyhow::Result<Folder> {
        let output = self.output();
        if Folder::open(&output).and_then(|folder| folder.identity()).ok() != Some(self.output) {
            bail!(
                "its output folder is no longer the one that was made for it: a stage writes into its output \
                 folder, and must not remove it, or put a link or another folder in its place"
            );
        }
        Folder::open(&output).with_context(|| format!("cannot open {}", output.display()))
    }

    /// Removes what is in it. The lock stays.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        durable::remove_tree(&self.top)
    }

    /// Moves the output to another place on the same file system.
    pub(crate) fn rename_output(&self, place: &Path) -> io::Result<()> {
        disk::rename(At::below(&self.own, Path::new(OUTPUT)), place)
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // It is not there where another process was given the lock meanwhile, and works in the same place.
        if self.own.path().exists() {
            let _ = self.clear();
        }
    }
}
