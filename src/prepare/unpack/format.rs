//! The formats: the archive's file read with a count, its format by magic bytes, the decompressors.
//!
//! Does not depend on the content of an archive.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, bail};
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use pipeline_stages::kinds::ArchiveFormat;
use pipeline_stages::message::{Progress, Unit};
use pipeline_stages::worker::Context;

use crate::gzip::GzipReader;

/// The most memory that the xz decoder may take. `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 1 << 30;

/// The position of the magic word in a tar header (POSIX.1-1988, ustar).
const USTAR: std::ops::Range<usize> = 257..262;

/// The archive, with a count of the bytes read that becomes the stage's progress.
pub(super) struct ArchiveFile<'a> {
    file: File,
    size: u64,
    gauge: Rc<Gauge>,
    context: &'a Context,
}

/// How far an archive was read. Continues to count when a decoder owns the file.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// The position of the last read.
    position: Cell<u64>,
    /// How many bytes were read of the content.
    read: Cell<u64>,
    /// Whether the table of contents is being read, which does not count as progress: in a zip archive it is at the end.
    in_contents: Cell<bool>,
}

impl Gauge {
    /// The position of the last read.
    pub(super) fn position(&self) -> u64 {
        self.position.get()
    }

    /// Sets whether the table of contents is read next.
    pub(super) fn set_in_contents(&self, in_contents: bool) {
        self.in_contents.set(in_contents);
    }
}

impl<'a> ArchiveFile<'a> {
    /// Opens it.
    pub(super) fn open(path: &Path, context: &'a Context) -> anyhow::Result<Self> {
        let (file, size) = open(path)?;
        Ok(Self { file, size, gauge: Rc::default(), context })
    }

    /// The size of the archive in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How far it was read.
    pub(super) fn gauge(&self) -> Rc<Gauge> {
        Rc::clone(&self.gauge)
    }

    /// The first bytes, up to `length`. Rewinds the file.
    fn beginning(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&self.file).take(length as u64).read_to_end(&mut bytes).context("cannot read it")?;
        self.file.rewind().context("cannot read it")?;
        Ok(bytes)
    }
}

impl Read for ArchiveFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.gauge.position.set(self.gauge.position.get() + read as u64);
        if self.gauge.in_contents.get() {
            return Ok(read);
        }
        let done = (self.gauge.read.get() + read as u64).min(self.size);
        self.gauge.read.set(done);
        self.context.progress(Progress {
            done,
            total: Some(self.size),
            unit: Unit::Bytes,
            phase: None,
        });
        Ok(read)
    }
}

impl Seek for ArchiveFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let position = self.file.seek(to)?;
        self.gauge.position.set(position);
        Ok(position)
    }
}

/// A format that can be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnpackFormat {
    Zip,
    Tar,
    TarGz,
    TarXz,
    TarZst,
    /// One file, compressed with gzip.
    Gz,
}

impl UnpackFormat {
    /// The format that the stage names, otherwise from the file's first bytes.
    ///
    /// # Errors
    /// When these are not of a format that can be unpacked.
    pub(super) fn of(given: ArchiveFormat, archive: &mut ArchiveFile) -> anyhow::Result<Self> {
        Ok(match given {
            ArchiveFormat::Auto => return detect(archive),
            ArchiveFormat::Zip => Self::Zip,
            ArchiveFormat::Tar => Self::Tar,
            ArchiveFormat::TarGz => Self::TarGz,
            ArchiveFormat::TarXz => Self::TarXz,
            ArchiveFormat::TarZst => Self::TarZst,
            ArchiveFormat::Gz => Self::Gz,
        })
    }
}

fn detect(archive: &mut ArchiveFile) -> anyhow::Result<UnpackFormat> {
    let beginning = archive.beginning(USTAR.end)?;
    Ok(match beginning.as_slice() {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => UnpackFormat::Zip,
        [0x1f, 0x8b, ..] => detect_within_gzip(archive)?,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => UnpackFormat::TarXz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => UnpackFormat::TarZst,
        bytes if is_tar(bytes) => UnpackFormat::Tar,
        [] => bail!("the file is empty"),
        [b'7', b'z', 0xbc, 0xaf, ..] => {
            bail!("it is a 7z archive, which cannot be unpacked: pack it as zip or tar")
        }
        [b'R', b'a', b'r', b'!', ..] => {
            bail!("it is a RAR archive, which cannot be unpacked: pack it as zip or tar")
        }
        [b'B', b'Z', b'h', ..] => bail!(
            "it is compressed with bzip2, which cannot be unpacked: compress it with gzip, xz or zstd"
        ),
        bytes if bytes.trim_ascii_start().starts_with(b"<") => {
            bail!("it is a web page (or XML), not an archive: the server did not send the file")
        }
        bytes => {
            let first: Vec<_> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            bail!(
                "its first bytes ({}) are not those of a known archive format; if it is an old tar, set format = \"tar\"",
                first.join(" ")
            )
        }
    })
}

/// A compressed tar, or any other file.
fn detect_within_gzip(archive: &mut ArchiveFile) -> anyhow::Result<UnpackFormat> {
    let mut bytes = Vec::new();
    let read = GzipReader::new(BufReader::new(&archive.file))
        .take(USTAR.end as u64)
        .read_to_end(&mut bytes);
    archive.file.rewind().context("cannot read it")?;
    read.context("it starts like a gzip file, but is damaged or cut off")?;
    Ok(if is_tar(&bytes) { UnpackFormat::TarGz } else { UnpackFormat::Gz })
}

fn is_tar(beginning: &[u8]) -> bool {
    beginning.get(USTAR) == Some(b"ustar")
}

/// Decompresses gzip, also several members one after the other.
pub(super) fn gzip<'a>(archive: ArchiveFile<'a>) -> impl Read + 'a {
    GzipReader::new(BufReader::new(archive))
}

/// Decompresses xz.
pub(super) fn xz<'a>(archive: ArchiveFile<'a>) -> anyhow::Result<impl Read + 'a> {
    let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
        .context("cannot set up the xz decoder")?;
    Ok(XzDecoder::new_stream(archive, stream))
}

/// Decompresses Zstandard.
pub(super) fn zstd<'a>(archive: ArchiveFile<'a>) -> anyhow::Result<impl Read + 'a> {
    zstd::Decoder::new(archive).context("cannot set up the Zstandard decoder")
}

/// The archive, opened. An error names it.
fn open(path: &Path) -> anyhow::Result<(File, u64)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    Ok((file, size))
}
