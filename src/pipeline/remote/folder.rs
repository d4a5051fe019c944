//! `file:///mnt/share/cache`: a folder that several machines have, such as one of a file server.
//!
//! A content gets its name in one step, once it is flushed to the disk, and only where nothing has the name.

#![allow(clippy::disallowed_methods, reason = "a remote is not a cache of this machine")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::name::{NEW, Name, new_name};
use super::transport::{Content, ContentTotals, Put, Remote, RemoteFailure};

/// A file that is not final and was not written for this long was left by a push that was killed.
const LEFT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How much is copied at once.
const BLOCK_BYTES: usize = 1 << 20;

/// A folder.
pub(super) struct FolderRemote {
    top: PathBuf,
}

impl FolderRemote {
    pub(super) fn new(top: PathBuf) -> Self {
        Self { top }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.top.join(name.as_str())
    }

    /// What an error means. Where the top is missing, such as an unmounted share, nothing else works either.
    fn failure(&self, what: &str, error: &io::Error) -> RemoteFailure {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if !self.top.is_dir() {
            let top = self.top.display();
            return RemoteFailure::away(match self.top.exists() {
                true => format!("{top} is not a folder"),
                false => format!(
                    "the folder {top} does not exist: mount it, or make it if it is a new one"
                ),
            });
        }
        let reason = format!("cannot {what}: {error}");
        match error.kind() {
            StorageFull | QuotaExceeded => {
                RemoteFailure::away(format!("{reason} ({} is full)", self.top.display()))
            }
            _ => RemoteFailure::refused(reason),
        }
    }

    /// Makes the folder of a name. A new folder has the permissions of the one above it, so that whoever may write there may
    /// write in it.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() || folder == self.top {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.top);
        self.make_folders(above)?;
        let mode = fs::metadata(above)?.mode() & 0o7777;
        match DirBuilder::new().mode(mode & 0o777).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        }
        // The umask took some.
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(mode));
        sync_folder(above)
    }

    fn put_file(&self, path: &Path, content: &Content<'_>) -> io::Result<Put> {
        let folder = path.parent().unwrap_or(&self.top);
        self.make_folders(folder)?;
        sweep(folder);
        let new = New::make(folder, fs::metadata(folder)?.mode())?;
        let mut reader = content.reader();
        let mut block = vec![0; BLOCK_BYTES.min(content.bytes() as usize + 1)];
        loop {
            let count = reader.read(&mut block)?;
            if count == 0 {
                break;
            }
            (&new.file).write_all(&block[..count])?;
        }
        new.file.sync_all()?;
        let put = new.link(path)?;
        sync_folder(folder)?;
        Ok(put)
    }
}

impl Remote for FolderRemote {
    fn get(
        &self,
        name: &Name,
        from: u64,
        _: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
        let open = || -> io::Result<File> {
            // Nothing that is put in its place can block the reader.
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
            let mut file = options.open(self.path(name))?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            file.seek(SeekFrom::Start(from))?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.top.is_dir() => Ok(None),
            Err(error) => Err(self.failure(&format!("read {name}"), &error)),
        }
    }

    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        // Not made here: it may be a share that is not mounted.
        if !self.top.is_dir() {
            return Err(self.failure("write", &io::ErrorKind::NotFound.into()));
        }
        let put = self.put_file(&self.path(name), content);
        put.map_err(|error| {
            use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
            let failure = self.failure(&format!("write {name}"), &error);
            let may_not = matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem);
            if may_not { failure.lasting() } else { failure }
        })
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure> {
        match fs::symlink_metadata(self.path(name)) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.top.is_dir() => Ok(None),
            Err(error) => Err(self.failure(&format!("look at {name}"), &error)),
        }
    }

    fn count(&self, folder: &str) -> Result<ContentTotals, RemoteFailure> {
        let mut totals = ContentTotals::default();
        let mut open = vec![self.top.join(folder)];
        while let Some(folder) = open.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.top.is_dir() => {
                    continue;
                }
                other => other.map_err(|error| self.failure("list it", &error))?,
            };
            for entry in entries {
                let entry = entry.map_err(|error| self.failure("list it", &error))?;
                match entry.metadata() {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(self.failure("list it", &error));
                    }
                    Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                    Ok(metadata) if !entry.file_name().to_string_lossy().starts_with(NEW) => {
                        totals.count += 1;
                        totals.bytes += metadata.len();
                    }
                    _ => {}
                }
            }
        }
        Ok(totals)
    }
}

/// Removes what pushes that were killed have left in a folder.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_new = entry.file_name().to_string_lossy().starts_with(NEW);
        if is_new && age().is_some_and(|age| age > LEFT_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file under a temporary name, which is removed.
struct New {
    file: File,
    path: PathBuf,
}

impl New {
    fn make(folder: &Path, mode_of_folder: u32) -> io::Result<Self> {
        let path = folder.join(new_name());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        // Whoever may read the folder may read what is in it. Nobody changes it.
        file.set_permissions(fs::Permissions::from_mode(mode_of_folder & 0o444))?;
        Ok(Self { file, path })
    }

    /// Gives it its name, unless something has it.
    fn link(&self, path: &Path) -> io::Result<Put> {
        match fs::hard_link(&self.path, path) {
            Ok(()) => Ok(Put::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Put::Existed),
            Err(error) => self.rename(path, error),
        }
    }

    /// The same on a file system where a file has one name only.
    fn rename(&self, path: &Path, cannot_link: io::Error) -> io::Result<Put> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Put::New),
            Err(Errno::EXIST) => Ok(Put::Existed),
            // Two that put the same at the same time put the same bytes, or each a result of the same key.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::symlink_metadata(path) {
                Ok(_) => Ok(Put::Existed),
                Err(_) => fs::rename(&self.path, path).map(|()| Put::New),
            },
            Err(_) => Err(cannot_link),
        }
    }
}

impl Drop for New {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the names in a folder last. Not every file system can, nor must it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let _ = File::open(folder)?.sync_all();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::transport::{FailureKind, get_all};

    #[test]
    fn a_name_has_its_first_content_whole_whoever_is_faster() {
        let top = tempfile::tempdir().expect("a folder");
        let remote = FolderRemote::new(top.path().to_owned());
        let name = Name::version();
        assert_eq!(get_all(&remote, &name, 9), Ok(None));
        assert_eq!(remote.size(&name), Ok(None));
        let puts = std::thread::scope(|scope| {
            let put =
                |number: u8| remote.put(&name, &Content::Bytes(&[number; 9])).expect("writable");
            let all: Vec<_> =
                (0..8).map(|number| scope.spawn(move || (number, put(number)))).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>()
        });
        let first: Vec<u8> =
            puts.iter().filter(|(_, put)| *put == Put::New).map(|(number, _)| *number).collect();
        assert_eq!(first.len(), 1, "exactly one wins: {puts:?}");
        assert_eq!(get_all(&remote, &name, 9), Ok(Some(vec![first[0]; 9])));
        assert_eq!(remote.size(&name), Ok(Some(9)));
        let names: Vec<_> = fs::read_dir(top.path()).expect("a folder").flatten().collect();
        assert_eq!(names.len(), 1, "nothing is left of the others");
    }

    #[test]
    fn a_share_that_is_not_mounted_is_away_and_is_not_made() {
        let top = tempfile::tempdir().expect("a folder");
        let remote = FolderRemote::new(top.path().join("share"));
        let put = remote.put(&Name::version(), &Content::Bytes(b"1"));
        let failures = [
            put.map(drop),
            remote.size(&Name::version()).map(drop),
            remote.get(&Name::version(), 0, 1).map(drop),
        ];
        for failure in failures {
            let failure = failure.expect_err("it is not there");
            assert_eq!(failure.kind, FailureKind::Away);
            assert!(failure.reason.contains("does not exist: mount it"), "{failure}");
        }
        assert!(!top.path().join("share").exists());
    }

    #[test]
    fn what_a_push_that_was_killed_has_left_is_removed_after_a_day() {
        let top = tempfile::tempdir().expect("a folder");
        let remote = FolderRemote::new(top.path().to_owned());
        for (name, age) in [(".new-lab-1-0", 2), (".new-lab-2-0", 0), ("other", 2)] {
            let file = File::create(top.path().join(name)).expect("ours");
            let written = std::time::SystemTime::now() - LEFT_AFTER * age;
            file.set_modified(written).expect("ours");
        }
        remote.put(&Name::version(), &Content::Bytes(b"1")).expect("writable");
        let mut names: Vec<_> = fs::read_dir(top.path())
            .expect("a folder")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".new-lab-2-0", "VERSION", "other"]);
    }

    #[test]
    fn what_is_new_may_be_used_by_whoever_may_use_the_folder() {
        let top = tempfile::tempdir().expect("a folder");
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o2770)).expect("ours");
        let remote = FolderRemote::new(top.path().to_owned());
        let name = Name::index(&crate::digest::FieldHasher::new("test").finish());
        remote.put(&name, &Content::Bytes(b"1")).expect("writable");
        let path = top.path().join(name.as_str());
        let mode = |path: &Path| fs::metadata(path).expect("it exists").mode() & 0o7777;
        assert_eq!(mode(&path), 0o440);
        assert_eq!(mode(path.parent().expect("a folder")), 0o2770);
        assert_eq!(remote.count("artifacts"), Ok(ContentTotals { count: 1, bytes: 1 }));
        assert_eq!(remote.count("packs"), Ok(ContentTotals::default()));
    }
}
