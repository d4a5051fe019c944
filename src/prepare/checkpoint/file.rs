//! A checkpoint file: its format, its parts, and how much they can cause.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use memmap2::Mmap;
use safetensors::SafeTensors;

use super::archive::{Archive, Content};
use super::{legacy, tensor};
use crate::pickle::{self, Pickle};
use crate::web_page::is_markup;

/// The format of a checkpoint file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CheckpointFormat {
    /// `torch.save` since PyTorch 1.6: a zip archive of a pickle and one entry per storage.
    TorchZip,
    /// `torch.save` before that: five pickles, then the storages.
    TorchLegacy,
    /// Only a pickle, with NumPy arrays in it.
    Pickle,
    /// Hugging Face's safetensors.
    Safetensors,
}

/// How much memory and work a file can cause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckpointLimits {
    pub pickle: pickle::PickleLimits,
    /// The most bytes that all compressed parts of the file can unpack to.
    pub unpacked_bytes: u64,
    /// The most names in it, including those of nested dictionaries.
    pub entries: usize,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self { pickle: pickle::PickleLimits::default(), unpacked_bytes: 2 << 30, entries: 50_000 }
    }
}

impl CheckpointLimits {
    /// The limits of a file of this size: memory is proportional to it, even if compressed data could unpack to more.
    fn for_file(&self, bytes: usize) -> Self {
        // An instruction has at least one byte, and numbers do not compress.
        let values = self.pickle.values.min(bytes.saturating_add(FEW_VALUES));
        let unpacked = (bytes as u64).saturating_mul(MOST_UNPACKED).saturating_add(FEW_UNPACKED);
        let instructions =
            self.pickle.instructions.min(values.saturating_mul(INSTRUCTIONS_PER_VALUE));
        Self {
            pickle: pickle::PickleLimits { values, instructions, ..self.pickle },
            unpacked_bytes: self.unpacked_bytes.min(unpacked),
            ..*self
        }
    }
}

/// Values that a pickle of any size can have.
const FEW_VALUES: usize = 1 << 16;
/// A pickle has no more than three: one makes a value, one keeps it for later, one adds it to another. Some refer to it
/// again.
const INSTRUCTIONS_PER_VALUE: usize = 4;
/// How many times its size a file can unpack to.
const MOST_UNPACKED: u64 = 16;
/// Bytes that a file of any size can unpack to.
const FEW_UNPACKED: u64 = 16 << 20;

/// A checkpoint file in memory, or mapped into it.
pub(crate) struct CheckpointFile<'file> {
    format: CheckpointFormat,
    pub(super) body: Body<'file>,
    pub(super) limits: CheckpointLimits,
}

/// The parts of a file, by format.
pub(super) enum Body<'file> {
    Pickled { pickle: Content<'file>, storages: Storages<'file> },
    Safetensors(SafeTensors<'file>),
}

/// The raw numbers that a pickle refers to.
pub(super) enum Storages<'file> {
    Archive(Archive<'file>),
    Legacy(legacy::Storages<'file>),
    None,
}

/// Maps a file into memory.
pub(crate) fn map(path: &Path) -> anyhow::Result<Mmap> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: artifacts are read-only once committed. A file of the user's own that is truncated meanwhile
    // kills this process, which does nothing else: the stage fails.
    unsafe { Mmap::map(&file) }.with_context(|| format!("cannot map {}", path.display()))
}

impl<'file> CheckpointFile<'file> {
    /// Detects the format of a file, and finds its parts.
    ///
    /// # Errors
    /// When it has another format, or is damaged.
    pub(crate) fn open(bytes: &'file [u8], limits: &CheckpointLimits) -> anyhow::Result<Self> {
        let limits = &limits.for_file(bytes.len());
        let of = |format, body| Self { format, body, limits: *limits };
        let pickled = |pickle, storages| Body::Pickled { pickle, storages };
        match guess(bytes)? {
            CheckpointFormat::TorchZip => {
                let archive = Archive::open(bytes, limits.unpacked_bytes)?;
                let pickle = archive.pickle()?;
                Ok(of(CheckpointFormat::TorchZip, pickled(pickle, Storages::Archive(archive))))
            }
            CheckpointFormat::Safetensors => {
                let tensors = SafeTensors::deserialize(bytes)
                    .context("it is not a complete safetensors file")?;
                Ok(of(CheckpointFormat::Safetensors, Body::Safetensors(tensors)))
            }
            CheckpointFormat::TorchLegacy | CheckpointFormat::Pickle => {
                let first = pickle::read(bytes, &limits.pickle)?;
                if first.root().wide_integer() != Some(legacy::MAGIC) {
                    let body = pickled(Content::InPlace(bytes), Storages::None);
                    return Ok(of(CheckpointFormat::Pickle, body));
                }
                let (object, storages) = legacy::locate(bytes, first.length(), &limits.pickle)?;
                let body = pickled(Content::InPlace(object), Storages::Legacy(storages));
                Ok(of(CheckpointFormat::TorchLegacy, body))
            }
        }
    }

    /// Bytes that were unpacked.
    #[cfg(test)]
    pub(super) fn unpacked_bytes(&self) -> usize {
        match &self.body {
            Body::Pickled { pickle: Content::Unpacked(bytes), .. } => bytes.capacity(),
            _ => 0,
        }
    }

    /// The format of the file.
    pub(crate) fn format(&self) -> CheckpointFormat {
        self.format
    }

    /// The pickle in the file; `None` for safetensors, which have none.
    pub(crate) fn pickle(&self) -> anyhow::Result<Option<Pickle<'_>>> {
        match &self.body {
            Body::Pickled { pickle, .. } => Ok(Some(pickle::read(pickle, &self.limits.pickle)?)),
            Body::Safetensors(_) => Ok(None),
        }
    }

    /// The bytes of a storage: as many as its elements take.
    pub(super) fn storage(&self, storage: &tensor::Storage<'_>) -> anyhow::Result<Content<'file>> {
        let length = storage.count.checked_mul(storage.element.size());
        let length = length.context("a storage of more bytes than is possible")?;
        let storages = match &self.body {
            Body::Pickled { storages, .. } => storages,
            Body::Safetensors(_) => &Storages::None,
        };
        let content = match storages {
            Storages::Archive(archive) => archive.storage(storage.key, length)?,
            Storages::Legacy(storages) => Content::InPlace(storages.get(storage.key)?),
            Storages::None => {
                bail!("the file is only a pickle: the numbers of the tensor are not in it")
            }
        };
        ensure!(
            content.len() == length,
            "storage '{}' should have {length} bytes, but has {}",
            storage.key.escape_debug(),
            content.len()
        );
        Ok(content)
    }
}

/// What a file seems to be, from its first bytes. For formats that start with a pickle: one of them.
fn guess(bytes: &[u8]) -> anyhow::Result<CheckpointFormat> {
    match bytes {
        [] => bail!("the file is empty"),
        [b'P', b'K', 3, 4, ..] => Ok(CheckpointFormat::TorchZip),
        [_, _, _, _, _, _, _, _, b'{', ..] => Ok(CheckpointFormat::Safetensors),
        [0x1f, 0x8b, ..] => bail!("it is a gzip file: unpack it first"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => bail!("it is an xz file: unpack it first"),
        [0x89, b'H', b'D', b'F', ..] => {
            bail!(
                "it is an HDF5 file, as Keras writes them: only PyTorch's formats and safetensors are read"
            )
        }
        _ if is_markup(bytes) => {
            bail!("it is a web page, which was downloaded instead of the file")
        }
        _ if bytes.starts_with(b"version https://git-lfs") => {
            bail!("it is a pointer of Git LFS, not the file: fetch the file with 'git lfs pull'")
        }
        _ if bytes.get(257..262) == Some(b"ustar") => bail!(
            "it is a tar archive: unpack it first; or, if PyTorch before 0.1.10 wrote it, load it there and save it again"
        ),
        // Protocol 2 and above; or a container or a class of protocol 0 and 1.
        [0x80, 0..=5, ..] | [b'(' | b'}' | b']' | b'c', ..] => Ok(CheckpointFormat::Pickle),
        _ => bail!("it is not a PyTorch file, a pickle or a safetensors file"),
    }
}
