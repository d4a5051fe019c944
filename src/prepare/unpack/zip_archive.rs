//! Zip archives: each entry of the central directory into the destination.
//!
//! Does not depend on what can be written where.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufReader, Read, Seek, SeekFrom};

use anyhow::{Context as _, anyhow, bail, ensure};
use pipeline_stages::text::in_short;
use zip::{CompressionMethod, ZipArchive};

use super::destination::{Destination, Permission};
use super::format::ArchiveFile;
use super::path::MOST_PATH_BYTES;
use crate::zip_error::describe;

/// The part of a Unix mode with the type of an entry, and its values.
const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// The most names that a message names.
const NAMED: usize = 8;

/// Unpacks all entries.
pub(super) fn unpack(archive: ArchiveFile, destination: &mut Destination) -> anyhow::Result<()> {
    let gauge = archive.gauge();
    gauge.set_in_contents(true);
    let mut archive = ZipArchive::new(BufReader::new(archive)).map_err(describe)?;
    destination.expect_entries(archive.len())?;
    if archive.has_duplicate_names() {
        let directory = archive.central_directory_start();
        let mut reader = archive.into_inner();
        check_repeated_names(&mut reader, directory).context("cannot read its list of files")??;
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

/// Refuses files whose names occur twice, which the library does not list. A folder can occur twice, and a file if its
/// size and checksum are the same.
fn check_repeated_names(
    reader: &mut (impl Read + Seek),
    directory: u64,
) -> std::io::Result<anyhow::Result<()>> {
    reader.seek(SeekFrom::Start(directory))?;
    let mut files: HashMap<Vec<u8>, [u8; 12]> = HashMap::new();
    let mut repeated = BTreeSet::new();
    let mut header = [0; 46];
    // PKWARE's APPNOTE 6.3, section 4.3.12.
    while reader.read_exact(&mut header).is_ok() && header.starts_with(b"PK\x01\x02") {
        let word = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let mut name = Vec::new();
        reader.by_ref().take(word(28)).read_to_end(&mut name)?;
        reader.seek_relative((word(30) + word(32)).cast_signed())?;
        let mut content = [0; 12];
        content.copy_from_slice(&header[16..28]);
        // Its compressed size is not a part of the content.
        content[4..8].fill(0);
        let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
        if !name.ends_with(b"/") && *files.entry(name).or_insert(content) != content {
            repeated.insert(format!("'{shown}'"));
        }
    }
    if repeated.is_empty() {
        return Ok(Ok(()));
    }
    let verb = if repeated.len() == 1 { "occurs" } else { "occur" };
    Ok(Err(anyhow!(
        "{} {verb} twice in the archive, with different content",
        in_short(&repeated, NAMED)
    )))
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
