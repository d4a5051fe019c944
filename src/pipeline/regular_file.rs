//! Regular files of which a part is read: no more than was asked for, however much is added meanwhile, and nothing is waited for.
//!
//! Does not depend on what is in them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file to read it, with its length.
///
/// # Errors
/// Where a pipe, a socket or a folder is in its place, as [`io::ErrorKind::InvalidData`].
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        // A socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(odd(error)),
        other => other?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(odd("it is not a regular file"));
    }
    Ok((file, found.len()))
}

/// At most so many bytes, from a place on.
///
/// # Errors
/// As [`open`], and when it cannot be read.
pub(crate) fn read_part(path: &Path, from: u64, most: u64) -> io::Result<Vec<u8>> {
    read_open(open(path)?.0, from, most)
}

/// The end of a file, at most so many bytes; and how many are before it.
///
/// # Errors
/// As [`open`], and when it cannot be read.
pub(crate) fn read_end(path: &Path, most: u64) -> io::Result<(Vec<u8>, u64)> {
    let (file, length) = open(path)?;
    let before = length.saturating_sub(most);
    Ok((read_open(file, before, most)?, before))
}

fn read_open(mut file: File, from: u64, most: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn odd(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_and_nothing_that_is_not_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        std::fs::write(&path, "0123456789").expect("ours");
        let part = |from, most| read_part(&path, from, most).expect("readable");
        assert_eq!([part(2, 3), part(8, 9), part(11, 1)], [&b"234"[..], b"89", b""]);
        let end = |most| read_end(&path, most).expect("readable");
        assert_eq!(end(3), (b"789".to_vec(), 7));
        assert_eq!(end(99), (b"0123456789".to_vec(), 0));
        let error = read_end(folder.path(), 9).expect_err("a folder");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
