//! Writing so that a crash leaves the old state or the new one: temp, fsync, rename, fsync.
//!
//! Does not depend on what is in files and folders.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags, openat};

/// How the names of files begin that are to replace others.
pub(super) const NEW: &str = ".new-";

/// The bit of a folder that hands its group on.
const SETGID: u32 = 0o2000;
/// Everything that an owner can be allowed.
const OWNER: u32 = 0o700;

/// Replaces a file's content in one step.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let is_new = !folder.exists();
    create_folder(folder)?;
    let write = || -> io::Result<()> {
        // A file is on disk no longer than the folder that it is in.
        if let Some(above) = folder.parent().filter(|_| is_new) {
            sync_folder(above)?;
        }
        let temporary = new_file(folder, content)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces the content of a file that proves itself when it is read: after a power cut it may be another.
pub(crate) fn write_disposable(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    create_folder(folder)?;
    let write = || -> io::Result<()> {
        new_file(folder, content)?.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a file that is added to later, and that nothing has the name of yet. It begins with `content`, durably.
pub(super) fn begin_file(path: &Path, content: &[u8]) -> anyhow::Result<File> {
    let folder = path.parent().context("a file has a folder")?;
    create_folder(folder)?;
    let begin = || -> io::Result<File> {
        let temporary = new_file(folder, content)?;
        temporary.as_file().sync_all()?;
        let file = temporary.persist_noclobber(path).map_err(|error| error.error)?;
        sync_folder(folder)?;
        Ok(file)
    };
    begin().with_context(|| format!("cannot write {}", path.display()))
}

/// A file under a temporary name.
fn new_file(folder: &Path, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut temporary = tempfile::Builder::new().prefix(NEW).tempfile_in(folder)?;
    temporary.write_all(content)?;
    let mode = if is_shared(folder) { 0o664 } else { 0o644 };
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    Ok(temporary)
}

/// Whether a folder is a group's: whatever is made in it belongs to the group of the folder, and the group may
/// change it. The setgid bit says so, and new folders inherit it.
pub(crate) fn is_shared(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & SETGID != 0)
}

/// From now on what this process and its children make is the group's too, whatever the umask was.
pub(crate) fn share_new_files() {
    use rustix::process::umask;
    let old = umask(Mode::empty());
    umask(old - Mode::RWXG);
}

/// Creates a folder and those above it. Nothing happens when it exists.
pub(crate) fn create_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create the folder {}", path.display()))
}

/// The same, where a link in its place is removed: whoever put it there wanted something else to be written to.
pub(crate) fn create_own_folder(path: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        fs::remove_file(path)
            .with_context(|| format!("cannot remove the link {}", path.display()))?;
    }
    create_folder(path)
}

/// A path to a folder that is open, whatever has its name now. `None` where the system does not have such paths.
pub(crate) fn path_of_open(folder: impl AsFd) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()));
    path.exists().then_some(path)
}

/// Makes renames in a folder last.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces a symbolic link in one step.
pub(crate) fn write_link(link: &Path, target: &Path) -> anyhow::Result<()> {
    let folder = link.parent().context("a link has a folder")?;
    create_folder(folder)?;
    let temporary = folder.join(format!("{NEW}{}-{}", std::process::id(), file_name(link)));
    let write = || -> io::Result<()> {
        remove_if_there(&temporary)?;
        std::os::unix::fs::symlink(target, &temporary)?;
        fs::rename(&temporary, link)
    };
    write().with_context(|| format!("cannot write the link {}", link.display()))
}

/// A name in a folder, which is made if it is missing, that nobody uses yet: `stem-0`, `stem-1`, ...
pub(crate) fn free_name(folder: &Path, stem: &str) -> anyhow::Result<PathBuf> {
    create_folder(folder)?;
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
            Ok(metadata) if metadata.is_dir() => match fs::remove_dir_all(path) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    make_folders_writable(path)?;
                    fs::remove_dir_all(path)
                }
                other => other,
            },
            Ok(_) => fs::remove_file(path),
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
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
