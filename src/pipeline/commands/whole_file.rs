//! A file of the user that is written as a whole, or not at all.

#![allow(clippy::disallowed_methods, reason = "it writes outside of the cache")]

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use pipeline_stages::links::Way;

/// What a new file may be, before the mask of the process.
const NEW: u32 = 0o666;
/// Where links lead to what a process has open.
const OPEN_FILES: [&str; 2] = ["/proc", "/dev/fd"];

/// Writes a file beside its place, and moves it there when it is whole: what was there stays until then. A pipe, a device,
/// what is open already (`/dev/stdout`) and what another user owns are written to where they are.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    replace(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let way = Way::to(&std::path::absolute(path)?);
    let old = match fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let is_open = way.links.iter().any(|link| OPEN_FILES.iter().any(|at| link.starts_with(at)));
    let (Some(folder), Some(name), false) = (way.end.parent(), way.end.file_name(), is_open) else {
        return fs::write(path, content);
    };
    let is_another_ones = |old: &fs::Metadata| old.uid() != rustix::process::geteuid().as_raw();
    if old.as_ref().is_some_and(|old| !old.is_file() || is_another_ones(old)) {
        return fs::write(path, content);
    }
    if old.is_some() {
        // What may not be written to is not replaced either.
        OpenOptions::new().write(true).open(&way.end)?;
    }
    // Its error names the place that the user gave, not that of a temporary file.
    fs::metadata(folder)?;
    let new = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .permissions(Permissions::from_mode(NEW))
        .tempfile_in(folder);
    let mut new = match new {
        // In a folder of others, a file can be one's own.
        Err(error) if old.is_some() && error.kind() == io::ErrorKind::PermissionDenied => {
            return fs::write(path, content);
        }
        new => new?,
    };
    new.as_file_mut().write_all(content)?;
    if let Some(old) = old {
        new.as_file().set_permissions(old.permissions())?;
    }
    // Some file systems say only now that they are full.
    new.as_file().sync_all()?;
    match new.persist(&way.end) {
        // A file that is mounted there itself.
        Err(error) if error.error.kind() == io::ErrorKind::ResourceBusy => fs::write(path, content),
        moved => moved.map(drop).map_err(|error| error.error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it exists").mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_where_a_link_leads_and_keeps_its_permissions() {
        let top = tempfile::tempdir().expect("a folder");
        let at = |name: &str| top.path().join(name);
        fs::write(at("usual"), "").expect("writable");
        write(&at("new"), b"1").expect("writable");
        assert_eq!(mode(&at("new")), mode(&at("usual")), "as other new files");
        fs::set_permissions(at("new"), Permissions::from_mode(0o640)).expect("it is ours");
        fs::create_dir(at("public")).expect("a folder");
        for (link, target) in [("link", "new"), ("public/dangling", "../later")] {
            symlink(target, at(link)).expect("a link");
            write(&at(link), b"2").expect("writable");
            assert!(at(link).is_symlink(), "{link}");
            assert_eq!(fs::read(at(link)).expect("readable"), b"2");
        }
        assert_eq!(mode(&at("new")), 0o640);
        assert!(write(&at("public"), b"3").is_err() && write(&at("missing/a"), b"3").is_err());
        let names = fs::read_dir(top.path()).expect("a folder").count();
        assert_eq!(names, 5, "nothing is left beside them");
    }

    #[test]
    fn what_is_not_a_file_and_what_is_open_is_written_to_where_it_is() {
        write(Path::new("/dev/null"), b"1").expect("writable");
        assert!(!fs::metadata("/dev/null").expect("it exists").is_file());
        let mut file = tempfile::tempfile().expect("a file");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        write(Path::new(&format!("/proc/self/fd/{number}")), b"1").expect("writable");
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).expect("readable");
        assert_eq!(text, "1");
    }
}
