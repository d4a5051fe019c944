//! Zip archives: each entry of the central directory into the destination.
//!
//! Does not depend on what can be written where.

use std::io::{BufReader, Read, Seek};

use anyhow::{Context as _, bail, ensure};
use zip::{CompressionMethod, ZipArchive};

use super::destination::{Destination, Permission};
use super::format::ArchiveFile;
use super::path::MOST_PATH_BYTES;
use crate::zip_error::describe;
use crate::zip_names::{RepeatedNames, occur_twice};

/// The part of a Unix mode with the type of an entry, and its values.
const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// Unpacks all entries.
pub(super) fn unpack(archive: ArchiveFile, destination: &mut Destination) -> anyhow::Result<()> {
    let gauge = archive.gauge();
    gauge.set_in_contents(true);
    let mut archive = ZipArchive::new(BufReader::new(archive)).map_err(describe)?;
    destination.expect_entries(archive.len())?;
    if archive.has_duplicate_names() {
        let directory = archive.central_directory_start();
        let mut reader = archive.into_inner();
        let repeated = RepeatedNames::read(&mut reader, directory);
        let different = repeated.context("cannot read its list of files")?.different;
        // A folder can occur twice, and a file if its content is the same.
        ensure!(different.is_empty(), "{}, with different content", occur_twice(&different));
        archive = ZipArchive::new(reader).map_err(describe)?;
    }
    // With entries that share their bytes, a small archive could unpack to a huge folder.
    ensure!(
        !archive.has_overlapping_entries().map_err(describe)?,
        "refused: entries overlap in the archive, as they do in a zip bomb"
    );
    gauge.set_in_contents(false);
    (0..archive.len()).try_for_each(|index| unpack_entry(&mut archive, index, destination))
}

fn unpack_entry<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    index: usize,
    destination: &mut Destination,
) -> anyhow::Result<()> {
    let listed = archive.by_index_data(index).map_err(describe)?;
    let name = portable_name(listed.name_raw())?;
    let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
    ensure!(!listed.encrypted(), "'{shown}' is encrypted: decrypt the archive first");
    ensure!(
        matches!(listed.compression(), CompressionMethod::Stored | CompressionMethod::Deflated),
        "'{shown}' is compressed by a method ({}) that cannot be unpacked: pack the archive again with deflate",
        listed.compression()
    );
    let mode = listed.unix_mode().unwrap_or(REGULAR);
    let kind = match mode & TYPE {
        _ if name.ends_with(b"/") => FOLDER,
        0 => REGULAR,
        kind => kind,
    };
    if kind == FOLDER {
        return destination.folder(&name);
    }
    let mut entry = archive
        .by_index(index)
        .map_err(describe)
        .with_context(|| format!("'{shown}' cannot be read"))?;
    match kind {
        REGULAR => destination.file(&name, Permission::of_mode(mode), &mut entry),
        SYMBOLIC_LINK => {
            let mut target = Vec::new();
            // One additional byte is enough to be refused.
            let read = entry.take(MOST_PATH_BYTES as u64 + 1).read_to_end(&mut target);
            read.with_context(|| format!("'{shown}' is damaged or cut off in the archive"))?;
            destination.symbolic_link(&name, &target)
        }
        _ => bail!("refused '{shown}': it is a device file or a pipe, not data"),
    }
}

/// Replaces `\`, which some programs on Windows write between the parts of a path.
fn portable_name(raw: &[u8]) -> anyhow::Result<Vec<u8>> {
    let name: Vec<u8> = raw.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
    if let [drive, b':', b'/', ..] = name.as_slice() {
        ensure!(
            !drive.is_ascii_alphabetic(),
            "refused '{}': an absolute path would leave the output folder",
            String::from_utf8_lossy(raw).escape_debug()
        );
    }
    Ok(name)
}
