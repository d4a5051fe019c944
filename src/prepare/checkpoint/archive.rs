//! PyTorch's zip format: `<root>/data.pkl`, `<root>/data/<key>` for each storage, and a few small files.
//!
//! Source: `_save` and `_load` in `torch/serialization.py`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::rc::Rc;

use anyhow::{Context as _, bail, ensure};
use pipeline_stages::text::{in_short, shortened};
use zip::{CompressionMethod, ZipArchive};

use crate::zip_error::describe;
use crate::zip_names::{RepeatedNames, occur_twice};

const PICKLE: &str = "data.pkl";
/// The most entries that a message names.
const NAMED: usize = 5;

/// The archive of a checkpoint.
pub(super) struct Archive<'file> {
    bytes: &'file [u8],
    archive: RefCell<ZipArchive<Cursor<&'file [u8]>>>,
    /// The path of the folder of `data.pkl`, with the slash at its end.
    root: String,
    /// How many more bytes can be unpacked.
    budget: Cell<u64>,
    /// The storages that were read: tensors can share a storage.
    storages: RefCell<HashMap<String, Content<'file>>>,
}

/// The bytes of an entry.
#[derive(Clone)]
pub(super) enum Content<'file> {
    /// Not compressed: a part of the file.
    InPlace(&'file [u8]),
    Unpacked(Rc<Vec<u8>>),
}

impl std::ops::Deref for Content<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Unpacked(bytes) => bytes,
        }
    }
}

impl<'file> Archive<'file> {
    /// Opens the archive and finds the pickle in it.
    ///
    /// # Errors
    /// When it is damaged, or not one of PyTorch's.
    pub(super) fn open(bytes: &'file [u8], budget: u64) -> anyhow::Result<Self> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(describe)?;
        if archive.has_duplicate_names() {
            let directory = archive.central_directory_start();
            let repeated = RepeatedNames::read(&mut Cursor::new(bytes), directory);
            let repeated = repeated.context("cannot read its list of files")?.all;
            bail!("{}", occur_twice(&repeated));
        }
        ensure!(
            !archive.has_overlapping_entries().map_err(describe)?,
            "refused: entries overlap in the archive, as they do in a zip bomb"
        );
        let root = root(&archive)?;
        let archive = Self {
            bytes,
            archive: RefCell::new(archive),
            root,
            budget: Cell::new(budget),
            storages: RefCell::default(),
        };
        if let Some(index) = archive.index("byteorder") {
            let order = archive.entry(index, "byteorder")?;
            ensure!(
                &*order == b"little",
                "it was written on a big-endian machine: load it in Python and save it again"
            );
        }
        Ok(archive)
    }

    /// The bytes of the object's pickle.
    pub(super) fn pickle(&self) -> anyhow::Result<Content<'file>> {
        let index = self.index(PICKLE).context("the archive has no data.pkl")?;
        self.entry(index, PICKLE)
    }

    /// The bytes of a storage.
    ///
    /// # Errors
    /// When it is missing or damaged, or does not have `length` bytes.
    pub(super) fn storage(&self, key: &str, length: usize) -> anyhow::Result<Content<'file>> {
        if let Some(content) = self.storages.borrow().get(key) {
            return Ok(content.clone());
        }
        let name = format!("data/{key}");
        let index = self.index(&name);
        let index =
            index.with_context(|| format!("the archive has no '{}'", name.escape_debug()))?;
        let size = self.archive.borrow().by_index_data(index).map_err(describe)?.size();
        ensure!(
            size == length as u64,
            "storage '{}' should have {length} bytes, but has {size}",
            key.escape_debug()
        );
        let content = self.entry(index, &name)?;
        self.storages.borrow_mut().insert(key.to_owned(), content.clone());
        Ok(content)
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.archive.borrow().index_for_name(&format!("{}{name}", self.root))
    }

    /// The content of an entry: in place where it is not compressed. Its checksum is verified.
    fn entry(&self, index: usize, name: &str) -> anyhow::Result<Content<'file>> {
        let shown = || format!("'{}' cannot be read", name.escape_debug());
        let mut archive = self.archive.borrow_mut();
        let mut entry = archive.by_index(index).map_err(describe).with_context(shown)?;
        let size = entry.size();
        if entry.compression() == CompressionMethod::Stored {
            // The checksum is of one size, the returned bytes have the other.
            ensure!(entry.compressed_size() == size, "{}: its size is wrong", shown());
            std::io::copy(&mut entry, &mut std::io::sink()).with_context(shown)?;
            let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
            let range = start.zip(usize::try_from(size).ok());
            let range = range.and_then(|(start, size)| Some(start..start.checked_add(size)?));
            let content = range.and_then(|range| self.bytes.get(range)).with_context(shown)?;
            return Ok(Content::InPlace(content));
        }
        let budget = self.budget.get().checked_sub(size).with_context(|| {
            let left = self.budget.get();
            format!(
                "'{}' would unpack to {size} bytes: more than the {left} that are allowed",
                name.escape_debug()
            )
        })?;
        self.budget.set(budget);
        let mut content = Vec::with_capacity(usize::try_from(size)?);
        entry.take(size.saturating_add(1)).read_to_end(&mut content).with_context(shown)?;
        ensure!(content.len() as u64 == size, "{}: its size is wrong", shown());
        Ok(Content::Unpacked(Rc::new(content)))
    }
}

/// The path of the folder of `data.pkl`, with the slash at its end.
fn root(archive: &ZipArchive<Cursor<&[u8]>>) -> anyhow::Result<String> {
    let names: Vec<&[u8]> = archive.file_names_raw().collect();
    let text = |name: &&[u8]| std::str::from_utf8(name).ok().map(str::to_owned);
    let mut roots = names.iter().filter_map(text).filter_map(|name| {
        let root = name.strip_suffix(PICKLE)?;
        let folder = root.strip_suffix('/')?;
        (!folder.is_empty() && !folder.contains('/')).then(|| root.to_owned())
    });
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root),
        (Some(first), Some(second)) => {
            bail!("the archive has both '{first}{PICKLE}' and '{second}{PICKLE}'")
        }
        (None, _) => {
            let shown = |name: &&[u8]| format!("'{}'", shortened(&String::from_utf8_lossy(name)));
            bail!(
                "it is a zip archive, but not a checkpoint of PyTorch: it has no '<name>/{PICKLE}', but {}; \
                 if a checkpoint is in it, unpack it first",
                in_short(names.iter().map(shown), NAMED)
            )
        }
    }
}
