//! The files of a manifest, as bytes: regular files of a bounded size.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

/// A larger file is not a manifest.
const LARGEST: u64 = 64 << 20;

/// Reads a file.
///
/// # Errors
/// When it cannot be read, is not a regular file (a pipe or a device may never end), or is too large.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(io::Error::other(format!("it has more than {} MiB", LARGEST >> 20))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.toml");
        fs::write(&path, "text").expect("writable");
        assert_eq!(read(&path).expect("readable"), b"text");
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(LARGEST + 1))
            .expect("writable");
        assert!(read(&path).is_err_and(|error| error.to_string() == "it has more than 64 MiB"));
        for name in ["/dev/zero", "/dev/null"] {
            let error = read(Path::new(name)).expect_err("a device");
            assert_eq!(error.to_string(), "it is not a regular file");
        }
        assert_eq!(read(folder.path()).expect_err("a folder").kind(), ErrorKind::IsADirectory);
    }
}
