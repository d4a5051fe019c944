//! A folder that is held open: what is below it is reached without following any link.
//!
//! A program may put a link wherever it may write. What hashes, protects or copies its output must not be led
//! out of the cache by it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};

use super::disk;
use super::entry::{Entry, EntryKind, Extent, path_bytes};

/// Nothing that is opened here is waited for: a FIFO in the place of a file does not block.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A folder that is held open.
#[derive(Debug)]
pub(crate) struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// Which folder it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of what has this name in an open folder, which may be a link itself.
    pub(crate) fn below(folder: &impl AsFd, name: &OsStr) -> io::Result<Self> {
        Ok(Self::of(&statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl Folder {
    /// Opens the folder of this path, which must not be a link itself.
    ///
    /// # Errors
    /// When there is none, or something else has its name.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { descriptor: disk::open_folder(path, READ)?, path: path.to_owned() })
    }

    /// Where it was when it was opened: for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Which folder it is.
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of(&self.stat()?))
    }

    /// What is known of the folder itself.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.descriptor)?)
    }

    /// Opens a file or a folder below it, to read it. No part of the path may be a link.
    pub(crate) fn open_below(&self, relative: &Path) -> io::Result<File> {
        if relative.as_os_str().is_empty() {
            return Ok(openat(&self.descriptor, ".", READ, Mode::empty())?.into());
        }
        match open_beneath(self.descriptor.as_fd(), relative) {
            Some(opened) => Ok(opened?.into()),
            None => Ok(self.open_step_by_step(relative)?.into()),
        }
    }

    fn open_step_by_step(&self, relative: &Path) -> io::Result<OwnedFd> {
        let mut opened: Option<OwnedFd> = None;
        for part in relative.components() {
            let Component::Normal(name) = part else {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            };
            let above = opened.as_ref().unwrap_or(&self.descriptor);
            opened = Some(openat(above, name, READ, Mode::empty())?);
        }
        opened.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// All entries below the folder, sorted by the bytes of their paths.
    pub(crate) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let place = self.path.join(&folder);
            let cannot_list = || format!("cannot list {}", place.display());
            let opened = self.open_below(&folder).with_context(cannot_list)?;
            let mut listing =
                Dir::new(opened).map_err(io::Error::from).with_context(cannot_list)?;
            while let Some(entry) = listing.read() {
                let entry = entry.map_err(io::Error::from).with_context(cannot_list)?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let (kind, links) = entry_kind(listing.fd()?, name, &place)?;
                let has_other_names = matches!(kind, EntryKind::File { .. }) && links > 1;
                let path = folder.join(name);
                if kind == EntryKind::Folder {
                    folders.push(path.clone());
                }
                found.push(Entry { path, kind, has_other_names });
            }
        }
        found.sort_by(|a, b| path_bytes(&a.path).cmp(path_bytes(&b.path)));
        Ok(found)
    }
}

/// How much is below a folder, without reading a file.
pub(crate) fn extent(top: &Path) -> anyhow::Result<Extent> {
    let folder = Folder::open(top).with_context(|| format!("cannot list {}", top.display()))?;
    Ok(Extent::of(folder.entries()?.iter().map(|entry| &entry.kind)))
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What an entry is, and how many names it has.
fn entry_kind(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    place: &Path,
) -> anyhow::Result<(EntryKind, u64)> {
    let path = || place.join(name);
    let cannot_read = || format!("cannot read {}", path().display());
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(io::Error::from)
        .with_context(cannot_read)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => EntryKind::Folder,
        FileType::RegularFile => {
            EntryKind::File { executable: stat.st_mode & 0o100 != 0, bytes: stat.st_size as u64 }
        }
        FileType::Symlink => {
            let target = readlinkat(folder, name, Vec::new())
                .map_err(io::Error::from)
                .with_context(cannot_read)?;
            EntryKind::Link { target: PathBuf::from(OsStr::from_bytes(target.to_bytes())) }
        }
        _ => bail!(
            "{} is neither a file, a folder nor a link: it cannot be part of an artifact",
            path().display()
        ),
    };
    #[allow(clippy::unnecessary_cast, reason = "its width differs between systems")]
    Ok((kind, stat.st_nlink as u64))
}

/// One system call in place of one per folder. `None` where the system does not have it.
#[cfg(target_os = "linux")]
fn open_beneath(folder: BorrowedFd<'_>, relative: &Path) -> Option<io::Result<OwnedFd>> {
    use rustix::fs::{ResolveFlags, openat2};
    use rustix::io::Errno;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(folder, relative, READ, Mode::empty(), resolve) {
        // Older kernels do not have it, and some containers refuse it.
        Err(Errno::NOSYS | Errno::PERM) => None,
        other => Some(other.map_err(io::Error::from)),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(_folder: BorrowedFd<'_>, _relative: &Path) -> Option<io::Result<OwnedFd>> {
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_is_followed_at_the_top_on_the_way_or_at_the_end() {
        let place = tempfile::tempdir().expect("a folder");
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("real/inner")).expect("writable");
        fs::write(at("real/inner/file"), "1").expect("writable");
        symlink("real", at("link")).expect("writable");
        symlink("inner", at("real/way")).expect("writable");
        symlink("inner/file", at("real/end")).expect("writable");
        assert!(Folder::open(&at("link")).is_err());
        let folder = Folder::open(&at("real")).expect("a folder");
        for (path, opens) in [
            ("inner/file", true),
            ("inner", true),
            ("", true),
            ("way/file", false),
            ("end", false),
            ("../real/inner/file", false),
        ] {
            assert_eq!(folder.open_below(Path::new(path)).is_ok(), opens, "{path}");
            let by_steps = folder.open_step_by_step(Path::new(path)).is_ok();
            assert_eq!(by_steps, opens && !path.is_empty(), "{path}");
        }
    }

    #[test]
    fn a_folder_stays_itself_when_its_name_goes_to_another() {
        let place = tempfile::tempdir().expect("a folder");
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("a")).expect("writable");
        let was = Folder::open(&at("a")).expect("a folder");
        fs::rename(at("a"), at("b")).expect("ours");
        fs::create_dir(at("a")).expect("writable");
        let is = Folder::open(&at("a")).expect("a folder");
        assert_ne!(was.identity().expect("open"), is.identity().expect("open"));
        let moved = Folder::open(&at("b")).expect("a folder");
        assert_eq!(was.identity().expect("open"), moved.identity().expect("open"));
    }
}
