//! Writing so that a crash leaves the old state or the new one: temp, fsync, rename, fsync.
//!
//! Knows files and folders; nothing of what is in them.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// How the names of files begin that are to replace others.
pub(super) const NEW: &str = ".new-";

/// Replaces a file's content in one step.
///
/// # Errors
/// When the file can't be written; the old content stays.
pub fn write_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let is_new = !folder.exists();
    create_folder(folder)?;
    let write = || -> io::Result<()> {
        // A file lasts no longer than the folder that it is in.
        if let Some(above) = folder.parent().filter(|_| is_new) {
            sync_folder(above)?;
        }
        let temporary = new_file(folder, content)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// Replaces the content of a file that proves itself when it is read: after a power cut it may be another.
///
/// # Errors
/// When the file can't be written; the old content stays.
pub fn write_disposable(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    create_folder(folder)?;
    let write = || -> io::Result<()> {
        new_file(folder, content)?.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// A file under a temporary name.
fn new_file(folder: &Path, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut temporary = tempfile::Builder::new().prefix(NEW).tempfile_in(folder)?;
    temporary.write_all(content)?;
    temporary.as_file().set_permissions(Permissions::from_mode(0o644))?;
    Ok(temporary)
}

/// Creates a folder and those above it. Nothing happens when it is there.
///
/// # Errors
/// When it can't be created.
pub fn create_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("can't create the folder {}", path.display()))
}

/// Makes renames in a folder last.
///
/// # Errors
/// As fsync.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces a symbolic link in one step.
///
/// # Errors
/// When it can't be written; the old link stays.
pub fn write_link(link: &Path, target: &Path) -> anyhow::Result<()> {
    let folder = link.parent().context("a link has a folder")?;
    create_folder(folder)?;
    let temporary = folder.join(format!("{NEW}{}-{}", std::process::id(), file_name(link)));
    let write = || -> io::Result<()> {
        remove_if_there(&temporary)?;
        std::os::unix::fs::symlink(target, &temporary)?;
        fs::rename(&temporary, link)
    };
    write().with_context(|| format!("can't write the link {}", link.display()))
}

/// A name in a folder, which is made if it is missing, that nobody uses yet: `stem-0`, `stem-1`, ...
///
/// # Errors
/// When the folder can't be made.
pub fn free_name(folder: &Path, stem: &str) -> anyhow::Result<PathBuf> {
    create_folder(folder)?;
    let mut names = (0..u32::MAX).map(|number| folder.join(format!("{stem}-{number}")));
    names
        .find(|path| fs::symlink_metadata(path).is_err())
        .with_context(|| format!("no free name in {}", folder.display()))
}

/// Removes a folder with all that is in it, read-only or not. Nothing happens when it is not there.
///
/// A program that outlived its worker may still write there: what it adds meanwhile is removed too.
///
/// # Errors
/// When something in it can't be removed.
pub fn remove_tree(path: &Path) -> anyhow::Result<()> {
    const ATTEMPTS: usize = 10;
    let remove = || -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                make_folders_writable(path)?;
                fs::remove_dir_all(path)
            }
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
    result.with_context(|| format!("can't remove {}", path.display()))
}

fn is_changing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound)
}

/// Without write permission on a folder nobody but root can remove what is in it.
fn make_folders_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_folders_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Lets everybody read who may read `like`, and nobody write. An executable file stays one.
///
/// # Errors
/// As chmod.
pub fn make_read_only(path: &Path, like: &Metadata) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    let readable = if mode & 0o100 == 0 { 0o444 } else { 0o555 };
    fs::set_permissions(path, Permissions::from_mode(readable & like.permissions().mode()))
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
