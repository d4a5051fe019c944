//! Every change of a cache. No other file of the orchestrator changes one, but for the logs of stages; what workers write into an output
//! or a checkpoint counts only after a commit. What decides whether a result counts is opened here, too.
//!
//! Tests put faults between these changes: see `faults`. Does not depend on what is changed.

#![allow(clippy::disallowed_methods, reason = "this is the place")]

mod change;
#[cfg(test)]
pub(super) mod faults;
mod group;

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, fchmod, linkat, openat, renameat, renameat_with, stat,
};
use rustix::io::Errno;

pub(super) use change::At;
use change::Change;
#[cfg(test)]
use faults::{are_on, knows_flags, look_up, may_lock_alone, perform};
use group::share_new;
pub(super) use group::{is_shared, share_new_files};

use crate::regular_file;

#[cfg(not(test))]
fn perform<T>(_: &Change<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    act()
}

#[cfg(not(test))]
const fn are_on() -> bool {
    false
}

#[cfg(not(test))]
fn look_up() -> io::Result<()> {
    Ok(())
}

#[cfg(not(test))]
const fn knows_flags() -> bool {
    true
}

#[cfg(not(test))]
fn may_lock_alone(_: &File) -> io::Result<()> {
    Ok(())
}

/// Opens a file or a folder to read it, or to make it last. A link is followed.
pub(super) fn open(path: &Path) -> io::Result<File> {
    look_up()?;
    File::open(path)
}

/// Opens a folder that is not a link.
pub(super) fn open_folder(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    look_up()?;
    Ok(openat(CWD, path, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?)
}

/// A larger text is not one of a cache, in bytes.
pub(crate) const LARGEST_TEXT: u64 = 256 << 20;

/// The same of what has a line for each stage, of which there may be a million.
pub(super) const LARGEST_LIST: u64 = 2 << 30;

/// Opens a file to read it, with its length. Nothing is waited for: where a pipe is in its place, it fails as
/// [`io::ErrorKind::InvalidData`].
pub(super) fn open_file(path: &Path) -> io::Result<(File, u64)> {
    look_up()?;
    regular_file::open(path)
}

/// Reads a file of at most so many bytes. Where it has more, or is not one, this fails as [`io::ErrorKind::InvalidData`].
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, length) = open_file(path)?;
    // It can grow meanwhile.
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(most)).unwrap_or(0));
    if length > most || file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        let error = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(bytes)
}

/// Whether something is of the account of this process.
pub(super) fn is_own(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Lists a folder.
pub(super) fn list(path: &Path) -> io::Result<fs::ReadDir> {
    look_up()?;
    fs::read_dir(path)
}

/// What is in a folder; nothing where it is missing.
///
/// # Errors
/// When it cannot be read, or not to its end, or a link on its way leads nowhere, to a disk that is not mounted, say: what is not seen
/// is not to be taken for what is not there.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dead_link(folder) {
            Some(link) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "{} is a link to what does not exist: is its disk mounted?",
                    link.display()
                ),
            )),
            None => Ok(Vec::new()),
        },
        listing => listing?.collect(),
    }
}

/// The link that leads nowhere on the way to what is missing.
fn dead_link(missing: &Path) -> Option<&Path> {
    let nearest = missing.ancestors().find(|place| place.symlink_metadata().is_ok())?;
    (nearest.is_symlink() && !nearest.exists()).then_some(nearest)
}

/// The same, with what is said where it cannot be read.
pub(super) fn certain_entries(folder: &Path) -> anyhow::Result<Vec<fs::DirEntry>> {
    let entries = entries(folder);
    entries.with_context(|| format!("cannot list {}, which must be readable", folder.display()))
}

/// The names of those that are not files: files of others may be beside folders.
pub(super) fn folder_names(entries: Vec<fs::DirEntry>) -> Vec<String> {
    let folders = entries.into_iter();
    let folders = folders.filter(|entry| !entry.file_type().is_ok_and(|kind| kind.is_file()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Reads a text.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read(path, LARGEST_TEXT)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Makes a file that nothing has the name of yet.
pub(super) fn create_file<'a>(at: impl Into<At<'a>>, mode: u32) -> io::Result<File> {
    let at = at.into();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    perform(&Change::Names(&[at]), || {
        let open = || openat(at.folder, at.path, flags, Mode::from_raw_mode(mode));
        Ok(rustix::io::retry_on_intr(open)?.into())
    })
}

/// Opens a file that is not a link to write it, and makes it where it is missing: in a folder of a group, the group may write it, too.
pub(super) fn open_or_create(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    look_up()?;
    options.custom_flags(libc::O_NOFOLLOW);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            share_new(path);
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

/// Locks a file alone, after waiting for whoever has it.
pub(super) fn lock(file: &File) -> io::Result<()> {
    may_lock_alone(file)?;
    file.lock()
}

/// Locks a file alone, where nobody has it.
pub(super) fn try_lock(file: &File) -> Result<(), TryLockError> {
    may_lock_alone(file).map_err(TryLockError::Error)?;
    file.try_lock()
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

/// Makes a folder. In one of a group, the group may change it, too.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    share_new(path);
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

/// Moves a file to a name that nothing has.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match rename_with(from, to, RenameFlags::NOREPLACE) {
        Err(error) if is_unknown(&error) => {
            match add_name(from, to) {
                // A server that is asked twice says that the name is taken: it is, by this file.
                Err(_) if are_one_file(from, to) => {}
                other => other?,
            }
            // It has its name, and is one that others may know by now. The temporary one is swept out one day.
            let _ = remove_file(from);
            Ok(())
        }
        other => other,
    }
}

/// Gives each of two the name of the other.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    rename_with(one, other, RenameFlags::EXCHANGE)
}

/// Moves something as not every file system can do it.
fn rename_with(from: &Path, to: &Path, how: RenameFlags) -> io::Result<()> {
    perform(&Change::Names(&[from.into(), to.into()]), || match knows_flags() {
        true => Ok(renameat_with(CWD, from, CWD, to, how)?),
        false => Err(Errno::INVAL.into()),
    })
}

/// Whether a file system does not know a flag.
fn is_unknown(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP))
}

/// Whether two names are of one file.
fn are_one_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| stat(path).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
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
        return remove_each(path);
    }
    fs::remove_dir_all(path)
}

/// The same, one change for each name.
#[cfg(test)]
fn remove_each(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove_each(&entry.path())?,
            false => remove_file(&entry.path())?,
        }
    }
    remove_folder(path)
}
