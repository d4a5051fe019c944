//! Zip archives: each entry of the central directory into the destination.
//!
//! Knows nothing of what may be written where.

use std::io::{BufReader, Read, Seek};

use anyhow::{Context as _, bail, ensure};
use zip::{CompressionMethod, ZipArchive};

use super::destination::{Destination, Permission};
use super::format::ArchiveFile;
use super::path::MOST_PATH_BYTES;
use crate::zip_error::describe;

/// The part of a Unix mode that says what a thing is, and its values.
const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// Unpacks all entries.
///
/// # Errors
/// When the archive is damaged or an entry is refused.
pub(super) fn unpack(archive: ArchiveFile, destination: &mut Destination) -> anyhow::Result<()> {
    let gauge = archive.gauge();
    gauge.set_in_contents(true);
    let mut archive = ZipArchive::new(BufReader::new(archive)).map_err(describe)?;
    destination.expect_entries(archive.len())?;
    ensure!(!archive.has_duplicate_names(), "a path comes twice in the archive");
    // Entries that share their bytes let a small archive unpack to a huge folder.
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
        "'{shown}' is compressed by a method ({:?}) that can't be unpacked: pack the archive again with the usual one, deflate",
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
        .with_context(|| format!("'{shown}' can't be read"))?;
    match kind {
        REGULAR => destination.file(&name, Permission::of_mode(mode), &mut entry),
        SYMBOLIC_LINK => {
            let mut target = Vec::new();
            // One byte too many is enough to be refused.
            let read = entry.take(MOST_PATH_BYTES as u64 + 1).read_to_end(&mut target);
            read.with_context(|| format!("'{shown}' is damaged or cut off in the archive"))?;
            destination.symbolic_link(&name, &target)
        }
        _ => bail!("refused '{shown}': it is a device file or a pipe, not data"),
    }
}

/// Some programs on Windows write `\` between the parts of a path.
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
