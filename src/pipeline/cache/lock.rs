//! Locks between processes: who holds the lock of a key may work on it.
//!
//! A lock is an flock on a file that stays: the kernel releases it when its holder dies. Whoever cleans writes into
//! the file who it is, for those who wait.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use pipeline_stages::checkpoint::open_lock;
use serde::{Deserialize, Serialize};

use super::{disk, durable};

/// Who waits for a lock for longer than this says so, and looks less often.
pub(super) const LONG: Duration = Duration::from_secs(1);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// The process.
    pub(crate) pid: u32,
    /// The machine that it runs on.
    pub(crate) host: String,
    /// When it took the lock: seconds since 1970, UTC.
    pub(crate) since: u64,
}

impl Lock {
    /// Takes the lock, waiting for whoever has it. For work that is short.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Self> {
        let file = open(path)?;
        disk::lock(&file).with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { file })
    }

    /// Takes the lock together with others that share it, waiting for whoever has it alone. For work that is short.
    pub(crate) fn take_shared(path: &Path) -> anyhow::Result<Self> {
        let file = open(path)?;
        file.lock_shared().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { file })
    }

    /// The same for as long as `waits_on` says, which is asked again and again, with how long that has taken. `None` where it gave up.
    pub(crate) fn share_while(
        path: &Path,
        waits_on: &mut dyn FnMut(Duration) -> bool,
    ) -> anyhow::Result<Option<Self>> {
        let file = open(path)?;
        let is_taken = share_while(&file, waits_on);
        let is_taken = is_taken.with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(is_taken.then_some(Self { file }))
    }

    /// Waits for whoever has the lock alone, as long as `waits_on` says. Nothing is written.
    pub(crate) fn wait_for(
        path: &Path,
        waits_on: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        share_while(&open_to_read(path)?, waits_on).map(drop)
    }

    /// Whether somebody has the lock alone. Nobody else is kept from taking it for more than a moment.
    pub(crate) fn is_taken(path: &Path) -> bool {
        let file = open_to_read(path);
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Takes the lock, or reports at once that somebody else has it (`None`).
    pub(crate) fn try_take(path: &Path) -> anyhow::Result<Option<Self>> {
        try_lock(open(path)?, path)
    }

    /// The same for a lock that was taken before: `None` also where it never was.
    pub(crate) fn try_take_existing(path: &Path) -> anyhow::Result<Option<Self>> {
        match open_lock(path) {
            Ok(file) => try_lock(file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| cannot_open(path)),
        }
    }

    /// Replaces what is in the lock file.
    pub(super) fn write(&self, text: &[u8]) -> io::Result<()> {
        disk::empty(&self.file)?;
        disk::write(&self.file, text)
    }

    /// Writes into the lock file who has it. Where that is not possible (another user of the group made the
    /// file), nobody is named.
    pub(crate) fn name_owner(&self) {
        if let Ok(text) = serde_json::to_vec(&Owner::this_process()) {
            let _ = self.write(&text);
        }
    }
}

impl Owner {
    /// This process, from now on.
    pub(crate) fn this_process() -> Self {
        Self {
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            since: now(),
        }
    }

    /// When that was, by the clocks of both machines.
    pub(crate) fn began(&self) -> Instant {
        let before = Duration::from_secs(now().saturating_sub(self.since));
        Instant::now().checked_sub(before).unwrap_or_else(Instant::now)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// Locks a file together with others, or gives up. Looks now and then: nobody could end the wait of the system itself.
fn share_while(file: &File, waits_on: &mut dyn FnMut(Duration) -> bool) -> io::Result<bool> {
    let since = Instant::now();
    loop {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            other => return other.map(|()| true).map_err(io::Error::from),
        }
        let waited = since.elapsed();
        if !waits_on(waited) {
            return Ok(false);
        }
        std::thread::sleep(if waited < LONG { LONG / 500 } else { LONG / 20 });
    }
}

/// Seconds since 1970, UTC.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn try_lock(file: File, path: &Path) -> anyhow::Result<Option<Lock>> {
    match disk::try_lock(&file) {
        Ok(()) => Ok(Some(Lock { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let open = || disk::open_or_create(path, File::options().read(true).write(true));
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            durable::create_folder(path.parent().unwrap_or(path))?;
            open()
        }
        // Another user of the group made it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_lock(path).map_err(|_| error)
        }
        other => other,
    };
    file.with_context(|| cannot_open(path))
}

/// Opens a lock file to read it, and not what a link in its place leads to. Nobody is waited for, as a pipe in its place would.
fn open_to_read(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

fn cannot_open(path: &Path) -> String {
    format!("cannot open the lock {}", path.display())
}
