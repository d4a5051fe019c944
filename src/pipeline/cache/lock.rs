//! Locks between processes: who holds the lock of a key may work on it.
//!
//! A lock is an flock on a file that stays: the kernel lets go of it when its holder dies.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::Context;

use super::durable;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting for whoever has it. For work that is short.
    ///
    /// # Errors
    /// When the lock file can't be opened.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        let file = open(path)?;
        file.lock().with_context(|| format!("can't lock {}", path.display()))?;
        Ok(Self { _file: file })
    }

    /// Takes the lock, or says at once that somebody else has it (`None`).
    ///
    /// # Errors
    /// When the lock file can't be opened.
    pub fn try_take(path: &Path) -> anyhow::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {}", path.display()))
            }
        }
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        durable::create_folder(folder)?;
    }
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("can't open the lock {}", path.display()))
}
