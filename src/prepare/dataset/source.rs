//! Finds the files of a data set, and reads them sequentially with the offset.
//!
//! Does not depend on formats.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::text::in_short;
use pipeline_stages::worker::Context;

use crate::folder::{Place, entries, same_bytes};
use crate::gzip::GzipReader;
use crate::web_page::is_markup;

/// The most folders that a message names.
const NAMED: usize = 10;

/// The folders in which to look for the files: those of the stage's inputs, and one level below.
#[derive(Debug)]
pub(super) struct SourceFolders {
    folders: Vec<PathBuf>,
    place: Place,
}

impl SourceFolders {
    /// The folders of the inputs, or the manifest's own `path`.
    pub(super) fn of_stage(stage: &Dataset, context: &Context) -> anyhow::Result<Self> {
        let inputs = || context.inputs("source").iter().map(|input| input.path.clone());
        let (roots, place) = match &stage.path {
            Some(path) => (vec![context.folder.join(path)], Place::Outside),
            None => (inputs().collect(), Place::Artifact),
        };
        ensure!(!roots.is_empty(), "the request has no artifact at port 'source', and no 'path'");
        let mut folders = Vec::new();
        for root in roots {
            ensure!(root.is_dir(), "{} is not a folder", root.display());
            let below = entries(&root, place)?.into_iter().filter(|entry| entry.is_dir());
            folders.push(root);
            folders.extend(below);
        }
        Ok(Self { folders, place })
    }

    /// The entries of one of the folders, or of a folder below them.
    pub(super) fn entries(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        entries(folder, self.place)
    }

    /// The folders, outer ones first.
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The one file with one of these names; in the same folder, an earlier name wins. Several with the same bytes count as one.
    ///
    /// # Errors
    /// When it is missing, or differs in two folders.
    pub(super) fn find(&self, names: &[&str]) -> anyhow::Result<PathBuf> {
        self.find_optional(names)?
            .with_context(|| format!("{} is missing in {}", names.join(" or "), self.in_words()))
    }

    /// As [`SourceFolders::find`], for several files, each of one name.
    ///
    /// # Errors
    /// When one is missing, or differs in two folders.
    pub(super) fn find_all(&self, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        names.iter().map(|name| self.find(&[name])).collect()
    }

    /// The folders, for messages.
    pub(super) fn in_words(&self) -> String {
        in_short(self.folders.iter().map(|folder| folder.display().to_string()), NAMED)
    }

    /// As [`SourceFolders::find`], for a file that may be missing.
    ///
    /// # Errors
    /// When it differs in two folders.
    pub(super) fn find_optional(&self, names: &[&str]) -> anyhow::Result<Option<PathBuf>> {
        let in_folder = |folder: &PathBuf| {
            names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
        };
        let mut found = self.folders.iter().filter_map(in_folder);
        let first = found.next();
        // The extension decides how a file is read.
        let same = |one: &Path, other: &Path| {
            one.extension() == other.extension() && same_bytes(one, other)
        };
        for other in found {
            if let Some(first) = first.as_deref().filter(|first| !same(first, &other)) {
                bail!("which of the two is it: {} or {}?", first.display(), other.display());
            }
        }
        Ok(first)
    }
}

/// All bytes of a file.
pub(super) fn read_whole(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let length = file.metadata().with_context(reading)?.len();
    let mut bytes = Vec::with_capacity(length.min(most) as usize);
    file.take(most + 1).read_to_end(&mut bytes).with_context(reading)?;
    ensure!(
        bytes.len() as u64 <= most,
        "{} has more than {most} bytes: it is not the file that its name suggests",
        path.display()
    );
    Ok(bytes)
}

/// A file that is read sequentially. Every error names the file and the offset.
pub(super) struct OffsetReader {
    path: PathBuf,
    bytes: Box<dyn Read>,
    /// Bytes read: of the unpacked content, if the file is compressed.
    offset: u64,
    packed: bool,
}

impl OffsetReader {
    /// Opens a file; one that ends in `.gz` is unpacked while it is read.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        let file = BufReader::with_capacity(1 << 16, file);
        let bytes: Box<dyn Read> =
            if packed { Box::new(GzipReader::new(file)) } else { Box::new(file) };
        Ok(Self { path: path.to_owned(), bytes, offset: 0, packed })
    }

    /// The offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Up to `count` bytes: fewer only at the end of the file.
    pub(super) fn read_up_to(&mut self, count: u64) -> anyhow::Result<Vec<u8>> {
        // Grows with the bytes that exist: a header that promises too many must not take the memory.
        let mut bytes = Vec::with_capacity(count.min(1 << 20) as usize);
        let result = self.bytes.by_ref().take(count).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        match result {
            Ok(_) => Ok(bytes),
            Err(error) if self.packed => Err(self
                .error_at(self.offset, &format!("the gzip data is damaged or cut off ({error})"))),
            Err(error) => Err(self.error_at(self.offset, &format!("cannot be read ({error})"))),
        }
    }

    /// Exactly `count` bytes; an error calls them `what`.
    pub(super) fn read_exactly(&mut self, count: u64, what: &str) -> anyhow::Result<Vec<u8>> {
        let start = self.offset;
        let bytes = self.read_up_to(count)?;
        self.ensure_whole(start, bytes.len() as u64, count, what)?;
        Ok(bytes)
    }

    /// Skips exactly `count` bytes; an error calls them `what`.
    pub(super) fn skip_exactly(&mut self, count: u64, what: &str) -> anyhow::Result<()> {
        let start = self.offset;
        let mut left = count;
        while left > 0 {
            let skipped = self.read_up_to(left.min(1 << 20))?.len() as u64;
            if skipped == 0 {
                break;
            }
            left -= skipped;
        }
        self.ensure_whole(start, count - left, count, what)
    }

    fn ensure_whole(&self, start: u64, got: u64, count: u64, what: &str) -> anyhow::Result<()> {
        if got < count {
            let message = format!(
                "the file ends here, {} bytes too early: expected {count} bytes of {what} from offset {start}",
                count - got
            );
            return Err(self.error_at(self.offset, &message));
        }
        Ok(())
    }

    /// Checks that the file ends here.
    pub(super) fn expect_end(&mut self) -> anyhow::Result<()> {
        let end = self.offset;
        if self.read_up_to(1)?.is_empty() {
            return Ok(());
        }
        Err(self.error_at(end, "expected the end of the file, but it continues"))
    }

    /// An error about the byte at `offset` of this file.
    pub(super) fn error_at(&self, offset: u64, message: &str) -> anyhow::Error {
        let unpacked = if self.packed { " (of the unpacked content)" } else { "" };
        anyhow!("{}: at offset {offset}{unpacked}: {message}", self.path.display())
    }
}

/// A hint for a file of an unexpected format, from its first bytes.
pub(super) fn looks_like(start: &[u8]) -> &'static str {
    match start {
        [0x1f, 0x8b, ..] => {
            "; it looks like a gzip file: rename it so that it ends in .gz, or unpack it first"
        }
        [b'P', b'K', 3, 4, ..] => "; it looks like a zip archive: unpack it first",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "; it looks like an xz file: unpack it first",
        _ if is_markup(start) => {
            "; it looks like a web page, which was downloaded instead of the file"
        }
        _ => "",
    }
}
