//! Every change of a cache. No other file of the orchestrator changes one, but for the logs of stages; what workers write into an output
//! or a checkpoint counts only after a commit.
//!
//! Tests put faults between these changes: see `faults`. Does not depend on what is changed.

#![allow(clippy::disallowed_methods, reason = "this is the place")]

#[cfg(test)]
pub(super) mod faults;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Mode, RenameFlags, fchmod, linkat, renameat, renameat_with};

/// A name: below an open folder, or anywhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    folder: BorrowedFd<'a>,
    path: &'a Path,
}

impl<'a> At<'a> {
    /// A name below an open folder.
    pub(super) fn below(folder: &'a impl AsFd, path: &'a Path) -> Self {
        Self { folder: folder.as_fd(), path }
    }
}

impl<'a> From<&'a Path> for At<'a> {
    fn from(path: &'a Path) -> Self {
        Self { folder: CWD, path }
    }
}

/// What a change is about.
#[cfg_attr(not(test), allow(dead_code, reason = "who puts faults between changes reads it"))]
enum Change<'a> {
    /// Names lead to something else afterwards: all of them, or none.
    Names(&'a [At<'a>]),
    /// Bytes are added to a file, where it is open.
    Bytes(&'a File, &'a [u8]),
    /// A file or folder has other properties, which take no room.
    Properties,
    /// A file has other content.
    Content,
    /// The same, and it takes no more room.
    Over,
    /// What a file or folder has now stays, also after a power cut.
    Sync(BorrowedFd<'a>),
    /// The same for everything.
    SyncAll,
}

#[cfg(not(test))]
fn perform<T>(_: &Change<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    act()
}

#[cfg(not(test))]
const fn are_on() -> bool {
    false
}

#[cfg(test)]
use faults::{are_on, perform};

/// Makes a file that nothing has the name of yet.
pub(super) fn create_file<'a>(at: impl Into<At<'a>>, mode: u32) -> io::Result<File> {
    use rustix::fs::OFlags;
    let at = at.into();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    perform(&Change::Names(&[at]), || {
        let open = || rustix::fs::openat(at.folder, at.path, flags, Mode::from_raw_mode(mode));
        Ok(rustix::io::retry_on_intr(open)?.into())
    })
}

/// Opens a file that is not a link to write it, and makes it where it is missing.
pub(super) fn open_or_create(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(libc::O_NOFOLLOW);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            perform(&Change::Names(&[path.into()]), || options.create(true).open(path))
        }
        other => other,
    }
}

/// Opens a file that is not a link to add to its end, and makes it where it is missing. Of several processes that do that, none
/// overwrites what another one has added.
pub(super) fn open_to_add(path: &Path) -> io::Result<File> {
    open_or_create(path, File::options().read(true).append(true))
}

/// Writes bytes where the file is open.
pub(super) fn write(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    perform(&Change::Bytes(file, bytes), || file.write_all(bytes))
}

/// Writes bytes where the file has others: that takes no room.
pub(super) fn overwrite(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    perform(&Change::Over, || file.write_all(bytes))
}

/// Empties a file.
pub(super) fn empty(file: &File) -> io::Result<()> {
    perform(&Change::Properties, || file.set_len(0))
}

/// Copies what is left of one file into another.
pub(super) fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    perform(&Change::Content, || io::copy(&mut from, &mut to).map(drop))
}

/// Says that a file or folder was changed now: the time that it has from then on.
pub(super) fn touch(file: &File) -> io::Result<SystemTime> {
    let now = SystemTime::now();
    perform(&Change::Properties, || file.set_modified(now).map(|()| now))
}

/// Gives a file or folder these permissions.
pub(super) fn set_mode(file: impl AsFd, mode: Mode) -> io::Result<()> {
    perform(&Change::Properties, || Ok(fchmod(&file, mode)?))
}

/// The same by a path, where the file cannot be opened but as a path.
pub(super) fn set_mode_of_path(path: &Path, mode: u32) -> io::Result<()> {
    perform(&Change::Properties, || fs::set_permissions(path, Permissions::from_mode(mode)))
}

/// Makes a file or folder last as it is now.
pub(super) fn sync(file: &File) -> io::Result<()> {
    // Tests do not wait for a disk that loses nothing.
    perform(&Change::Sync(file.as_fd()), || if are_on() { Ok(()) } else { file.sync_all() })
}

/// Makes everything on a file system last as it is now.
pub(super) fn sync_file_system(on_it: &File) -> io::Result<()> {
    perform(&Change::SyncAll, || if are_on() { Ok(()) } else { sync_all(on_it) })
}

#[cfg(target_os = "linux")]
fn sync_all(on_it: &File) -> io::Result<()> {
    rustix::fs::syncfs(on_it).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
fn sync_all(_on_it: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Makes a folder.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    perform(&Change::Names(&[path.into()]), || fs::create_dir(path))
}

/// Makes a symbolic link.
pub(super) fn create_link(target: &Path, link: &Path) -> io::Result<()> {
    perform(&Change::Names(&[link.into()]), || std::os::unix::fs::symlink(target, link))
}

/// Gives a file or a symbolic link another name. A link itself, and not what it leads to.
pub(super) fn add_name(old: &Path, new: &Path) -> io::Result<()> {
    perform(&Change::Names(&[new.into()]), || Ok(linkat(CWD, old, CWD, new, AtFlags::empty())?))
}

/// Moves something to another name, in the place of what has it.
pub(super) fn rename<'a>(from: impl Into<At<'a>>, to: impl Into<At<'a>>) -> io::Result<()> {
    let (from, to) = (from.into(), to.into());
    perform(&Change::Names(&[from, to]), || {
        Ok(renameat(from.folder, from.path, to.folder, to.path)?)
    })
}

/// Moves something to a name that nothing has.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    perform(&Change::Names(&[from.into(), to.into()]), || {
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can do that.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                linkat(CWD, from, CWD, to, AtFlags::empty())?;
                // The other name is swept out one day.
                let _ = fs::remove_file(from);
                Ok(())
            }
            other => Ok(other?),
        }
    })
}

/// Gives each of two the name of the other.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    perform(&Change::Names(&[one.into(), other.into()]), || {
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    })
}

/// Removes a file or a link.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    perform(&Change::Names(&[path.into()]), || fs::remove_file(path))
}

/// Removes an empty folder.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    perform(&Change::Names(&[path.into()]), || fs::remove_dir(path))
}

/// Removes a folder with all that is in it: many changes.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if are_on() {
        return faults::remove_tree(path);
    }
    fs::remove_dir_all(path)
}
