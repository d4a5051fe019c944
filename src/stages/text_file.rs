//! Text files of the user.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// How a file begins that `numpy.save` writes.
const NPY: &[u8] = b"\x93NUMPY";

/// The text of a UTF-8 file of at most this many bytes, without a byte order mark.
///
/// # Errors
/// With the path, and what is wrong.
pub fn read(path: &Path, most_bytes: u64) -> anyhow::Result<String> {
    let name = path.display();
    let cannot = || format!("cannot read {name}");
    let metadata = path.metadata().with_context(cannot)?;
    // Also to open a pipe would wait for whoever writes to it.
    ensure!(metadata.is_file(), "{name} is not a file");
    let file = File::open(path).with_context(cannot)?;
    let mut text = Vec::new();
    // Not by the size in the metadata: of files that the system makes as they are read it is 0.
    file.take(most_bytes.saturating_add(1)).read_to_end(&mut text).with_context(cannot)?;
    let fits = text.len() as u64 <= most_bytes;
    ensure!(fits, "{name} has more than {most_bytes} bytes: no more are read");
    ensure!(
        !text.starts_with(NPY),
        "{name} is an array of NumPy (.npy): write it as text, with numpy.savetxt (of labels with fmt=\"%d\")"
    );
    let mut text = String::from_utf8(text).with_context(|| format!("{name} is not UTF-8"))?;
    let marks = text.len() - text.trim_start_matches('\u{feff}').len();
    text.drain(..marks);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_file_or_has_more_bytes_than_it_says_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
            let error = read(path, 10).expect_err("not a file").to_string();
            assert!(error.ends_with("is not a file"), "{error}");
        }
        let file = folder.path().join("file");
        std::fs::write(&file, "\u{feff}0123456").expect("a file");
        assert_eq!(read(&file, 10).expect("ten bytes"), "0123456");
        assert!(read(&file, 9).is_err());
        std::fs::write(&file, b"\x93NUMPY\x01").expect("a file");
        let error = read(&file, 10).expect_err("it is not text").to_string();
        assert!(error.ends_with("with numpy.savetxt (of labels with fmt=\"%d\")"), "{error}");
        if cfg!(target_os = "linux") {
            let error = read(Path::new("/proc/cpuinfo"), 9).expect_err("it is longer").to_string();
            assert!(error.ends_with("has more than 9 bytes: no more are read"), "{error}");
        }
    }
}
