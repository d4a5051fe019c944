//! Writing so that a crash leaves the old state or the new one: temp, fsync, rename, fsync.
//!
//! Does not depend on what is in files and folders.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::disk;

/// How the names of files begin that are to replace others.
pub(super) const NEW: &str = ".new-";

/// Everything that an owner can be allowed.
const OWNER: u32 = 0o700;

/// Replaces a file's content in one step.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    create_folder_durably(folder)?;
    let write = || -> io::Result<()> {
        let new = NewFile::with(folder, content)?;
        disk::sync(&new.file)?;
        new.rename(path)?;
        sync_name(folder)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a file. Nothing happens when there is none, or it cannot be removed: for what nobody needs.
pub(crate) fn forget_file(path: &Path) {
    let _ = disk::remove_file(path);
}

/// Replaces the content of a file that proves itself when it is read: after a power cut it may be another.
pub(crate) fn write_disposable(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    create_folder(folder)?;
    let write = || NewFile::with(folder, content)?.rename(path);
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes over the beginning of a file: for one in which any other bytes will do.
pub(super) fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    disk::overwrite(&file, content)
}

/// Makes a file that is added to later, and that nothing has the name of yet. It begins with `content`, durably.
pub(super) fn begin_file(path: &Path, content: &[u8]) -> anyhow::Result<File> {
    let folder = path.parent().context("a file has a folder")?;
    create_folder_durably(folder)?;
    let begin = || -> io::Result<File> {
        let new = NewFile::with(folder, content)?;
        disk::sync(&new.file)?;
        let file = new.rename_to_free(path)?;
        sync_name(folder)?;
        Ok(file)
    };
    begin().with_context(|| format!("cannot write {}", path.display()))
}

/// A file under a temporary name, which is removed unless it gets its final one.
struct NewFile {
    file: File,
    /// Empty once it has its final name.
    place: PathBuf,
}

impl NewFile {
    fn with(folder: &Path, content: &[u8]) -> io::Result<Self> {
        let (file, place) = loop {
            let place = folder.join(format!("{NEW}{}", unique_name()));
            match disk::create_file(place.as_path(), 0o600) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => break (other?, place),
            }
        };
        let new = Self { file, place };
        disk::write(&new.file, content)?;
        let mode = if disk::is_shared(folder) { 0o664 } else { 0o644 };
        disk::set_mode(&new.file, Mode::from_raw_mode(mode))?;
        Ok(new)
    }

    fn rename(mut self, path: &Path) -> io::Result<()> {
        disk::rename(self.place.as_path(), path)?;
        self.place.clear();
        Ok(())
    }

    fn rename_to_free(mut self, path: &Path) -> io::Result<File> {
        // Before: what comes after it must not fail.
        let file = self.file.try_clone()?;
        disk::rename_to_free(&self.place, path)?;
        self.place.clear();
        Ok(file)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.place.as_os_str().is_empty() {
            let _ = disk::remove_file(&self.place);
        }
    }
}

/// A name that no other thread uses, nor, most probably, another machine.
pub(super) fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    format!("{:x}-{count:x}-{now:x}", std::process::id())
}

/// Creates a folder and those above it. Nothing happens when it exists.
pub(crate) fn create_folder(path: &Path) -> anyhow::Result<()> {
    create_folders(path, &|_| Ok(()))
        .with_context(|| format!("cannot create the folder {}", path.display()))
}

/// The same, for what must last: a file is on disk no longer than the folders that it is in.
pub(super) fn create_folder_durably(path: &Path) -> anyhow::Result<()> {
    create_folders(path, &sync_folder)
        .with_context(|| format!("cannot create the folder {}", path.display()))
}

/// Creates what is missing, from above; `then` gets each folder in which there is a new one.
fn create_folders(path: &Path, then: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        create_folders(above, then)?;
    }
    match disk::create_folder(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => then(above.unwrap_or(Path::new("."))),
    }
}

/// The same, where a link in its place is removed: whoever put it there wanted something else to be written to.
pub(crate) fn create_own_folder(path: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        disk::remove_file(path)
            .with_context(|| format!("cannot remove the link {}", path.display()))?;
    }
    create_folder(path)
}

/// Makes renames in a folder last.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    disk::sync(&disk::open(path)?)
}

/// Makes a name in a folder last, and with it the folder, which another process may just have made.
fn sync_name(folder: &Path) -> io::Result<()> {
    /// The folders that this process has made last, by path and by what the path leads to: once is enough.
    static LASTING: Mutex<BTreeSet<(PathBuf, u64, u64)>> = Mutex::new(BTreeSet::new());
    let open = disk::open(folder)?;
    disk::sync(&open)?;
    let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) else {
        return Ok(());
    };
    let metadata = open.metadata()?;
    let identity = (folder.to_owned(), metadata.dev(), metadata.ino());
    let lasting = || LASTING.lock().unwrap_or_else(PoisonError::into_inner);
    if !lasting().contains(&identity) {
        sync_folder(above)?;
        lasting().insert(identity);
    }
    Ok(())
}

/// Makes a symbolic link, or replaces one in one step, in a folder that exists.
pub(crate) fn write_link(link: &Path, target: &Path) -> anyhow::Result<()> {
    let temporary = link.with_file_name(format!("{NEW}{}-{}", std::process::id(), file_name(link)));
    let write = || -> io::Result<()> {
        match disk::create_link(target, link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        remove_if_there(&temporary)?;
        disk::create_link(target, &temporary)?;
        disk::rename(temporary.as_path(), link)
    };
    write().with_context(|| format!("cannot write the link {}", link.display()))
}

/// A name in a folder, which is made if it is missing, that nobody uses yet: `stem-0`, `stem-1`, ...
pub(crate) fn free_name(folder: &Path, stem: &str) -> anyhow::Result<PathBuf> {
    create_folder_durably(folder)?;
    let mut names = (0..u32::MAX).map(|number| folder.join(format!("{stem}-{number}")));
    names
        .find(|path| fs::symlink_metadata(path).is_err())
        .with_context(|| format!("no free name in {}", folder.display()))
}

/// Removes a folder with all that is in it, read-only or not. Nothing happens when it does not exist. A link is
/// removed, never followed.
///
/// A program that outlived its worker may still write there: what it adds meanwhile is removed too.
pub(crate) fn remove_tree(path: &Path) -> anyhow::Result<()> {
    const ATTEMPTS: usize = 10;
    let remove = || -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => match disk::remove_tree(path) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    make_folders_writable(path)?;
                    disk::remove_tree(path)
                }
                other => other,
            },
            Ok(_) => disk::remove_file(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    };
    let mut result = remove();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if is_changing(error) => result = remove(),
            _ => break,
        }
    }
    result.with_context(|| format!("cannot remove {}", path.display()))
}

fn is_changing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound)
}

/// Without write permission on a folder nobody but root can remove what is in it, and only its owner can give
/// it. Another user's folder is left as it is: what is in it may be removable all the same.
fn make_folders_writable(top: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let metadata = fs::symlink_metadata(&folder)?;
        if metadata.uid() == own && metadata.mode() & OWNER != OWNER {
            // By a descriptor: a link that takes the name of the folder now is not followed.
            let descriptor = openat(
                CWD,
                &folder,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            chmod_open(&descriptor, metadata.mode() & 0o7777 | OWNER)?;
        }
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Changes the mode of a folder that may not be read yet, so that it can only be open as a path.
fn chmod_open(folder: &OwnedFd, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    disk::set_mode_of_path(Path::new(&path), mode)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match disk::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
