//! A wheel on disk: whether it is the right file, and taking the wanted parts out of it. Does not know where it came
//! from.

use crate::platform::{Part, Wheel};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// Bytes that are read or written at a time.
const CHUNK: usize = 1 << 18;

/// Whether a file is the wheel that it should be.
#[derive(Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The very file.
    Right,
    /// Another, or a part of it; holds its SHA-256.
    Wrong(String),
}

/// Reads the whole file and compares.
///
/// # Errors
/// If it can't be read.
pub fn check(file: &Path, wheel: &Wheel) -> Result<Checksum> {
    let found = sha256(file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(if found == wheel.sha256 { Checksum::Right } else { Checksum::Wrong(found) })
}

fn sha256(file: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(file)?, Sha256::new());
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            count => hasher.update(chunk.get(..count).unwrap_or_default()),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes the wheel's wanted parts below a folder, calling `wrote` with the number of bytes of each piece. Entries
/// that nobody asked for are not even decompressed.
///
/// # Errors
/// If the wheel is damaged, lacks a part, or has an entry that would leave the folder; or if writing fails.
pub fn unpack(file: &Path, wheel: &Wheel, folder: &Path, mut wrote: impl FnMut(u64)) -> Result<()> {
    let reader = BufReader::with_capacity(CHUNK, File::open(file)?);
    let mut archive = ZipArchive::new(reader)
        .with_context(|| format!("{} is not a whole zip file", wheel.file))?;
    let mut parts_left: Vec<&Part> = wheel.parts.iter().collect();
    for index in 0..archive.len() {
        let mut entry =
            archive.by_index(index).with_context(|| format!("{} is damaged", wheel.file))?;
        // A name that is absolute or climbs out has no enclosed form.
        let Some(name) = entry.enclosed_name() else {
            bail!("{} has an entry with an unsafe name", wheel.file)
        };
        let Some((part, target)) =
            wheel.parts.iter().find_map(|part| Some((part, target(part, &name)?)))
        else {
            continue;
        };
        parts_left.retain(|left| left.from != part.from);
        if entry.is_dir() {
            continue;
        }
        let target = folder.join(target);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        copy(&mut entry, &target, &mut wrote)
            .with_context(|| format!("can't unpack {} of {}", name.display(), wheel.file))?;
    }
    match parts_left.first() {
        Some(part) => bail!("{} has no {}", wheel.file, part.from),
        None => Ok(()),
    }
}

/// Where an entry goes, relative to the libtorch folder, if it belongs to the part.
fn target(part: &Part, name: &Path) -> Option<PathBuf> {
    match name.strip_prefix(part.from).ok()? {
        // The part itself: a file, or the entry of a folder.
        rest if rest.as_os_str().is_empty() => Some(PathBuf::from(part.to)),
        rest => part.from.ends_with('/').then(|| Path::new(part.to).join(rest)),
    }
}

fn copy(entry: &mut impl Read, target: &Path, wrote: &mut impl FnMut(u64)) -> io::Result<()> {
    let mut file = File::create(target)?;
    // `take` makes io::copy come up for air, for progress within a file of hundreds of megabytes.
    loop {
        match io::copy(&mut entry.by_ref().take(16 << 20), &mut file)? {
            0 => return Ok(()),
            bytes => wrote(bytes),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io::Write;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// Writes a zip with these entries and gives its SHA-256.
    pub fn write_zip(file: &Path, entries: &[(&str, &str)]) -> String {
        let mut zip = ZipWriter::new(File::create(file).unwrap());
        for (name, content) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        sha256(file).unwrap()
    }

    /// A wheel called `tiny` with a library and a folder of headers.
    pub fn tiny(sha256: String) -> Wheel {
        Wheel {
            package: "tiny",
            version: "1.0",
            file: "tiny-1.0-py3-none-any.whl",
            bytes: 1000,
            sha256: String::leak(sha256),
            tags: &["any"],
            parts: &[
                Part { from: "tiny/include/", to: "include/" },
                Part { from: "tiny/lib/libtiny.so.1", to: "lib/libtiny.so.1" },
            ],
        }
    }

    /// What [`tiny`] is made of.
    pub const TINY: &[(&str, &str)] = &[
        ("tiny/include/a.h", "int a;"),
        ("tiny/include/deep/b.h", "int b;"),
        ("tiny/include-not/c.h", "int c;"),
        ("tiny/lib/libtiny.so.1", "library"),
        ("tiny/lib/libtiny.so.10", "another"),
    ];

    fn files(folder: &Path) -> Vec<String> {
        let mut found = vec![];
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                let inside = files(&entry.path());
                found.extend(
                    inside
                        .into_iter()
                        .map(|name| format!("{}/{name}", entry.file_name().display())),
                );
            } else {
                found.push(entry.file_name().display().to_string());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn sha256_is_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("abc");
        fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            sha256(&file).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn only_the_wanted_parts_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wheel");
        let wheel = tiny(write_zip(&file, TINY));
        let mut bytes = 0;
        unpack(&file, &wheel, &folder.path().join("out"), |count| bytes += count).unwrap();
        assert_eq!(
            files(&folder.path().join("out")),
            ["include/a.h", "include/deep/b.h", "lib/libtiny.so.1"]
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("out/lib/libtiny.so.1")).unwrap(),
            "library"
        );
        assert_eq!(bytes, 6 + 6 + 7);
    }

    #[test]
    fn a_wheel_that_lost_or_changed_a_byte_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wheel");
        let wheel = tiny(write_zip(&file, TINY));
        assert_eq!(check(&file, &wheel).unwrap(), Checksum::Right);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(check(&file, &wheel).unwrap(), Checksum::Wrong(_)));
        let mut changed = whole.clone();
        changed[40] ^= 1;
        fs::write(&file, &changed).unwrap();
        assert!(matches!(check(&file, &wheel).unwrap(), Checksum::Wrong(_)));
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(unpack(&file, &wheel, &folder.path().join("out"), |_| ()).is_err());
    }

    #[test]
    fn a_wheel_without_a_wanted_part_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wheel");
        let wheel = tiny(write_zip(&file, &TINY[..3]));
        let message =
            unpack(&file, &wheel, &folder.path().join("out"), |_| ()).unwrap_err().to_string();
        assert_eq!(message, "tiny-1.0-py3-none-any.whl has no tiny/lib/libtiny.so.1");
    }

    #[test]
    fn an_entry_that_climbs_out_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wheel");
        for name in
            ["tiny/include/../../escaped.h", "tiny/include/../../../escaped.h", "/escaped.h"]
        {
            let wheel = tiny(write_zip(&file, &[(name, "x")]));
            assert!(unpack(&file, &wheel, &folder.path().join("out"), |_| ()).is_err(), "{name}");
            assert!(!folder.path().join("escaped.h").exists());
        }
    }
}
