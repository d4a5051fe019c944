//! Writes one part of a data set image by image, so that it need not fit in memory.
//!
//! The images come first in the file, then labels and offsets, so nothing is written twice; the
//! header, which has the sizes, is reserved and filled at the end. Does not depend on image formats.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use safetensors::Dtype;

use super::dataset::{ImageShape, Part, Storage};
use super::layout::Layout;
use super::tensors::integer_bytes;

/// Bytes of the header, the rest filled with spaces, as safetensors allows: enough for three tensors
/// with numbers of 20 digits.
const HEADER_BYTES: usize = 1024;
/// The alignment for reading 64-bit integers in place.
const ALIGNMENT: u64 = 8;

/// One part of a data set while it is written. The bytes depend on the images and labels alone.
///
/// Memory: 16 bytes a sample. A file that was not [finished](SamplesWriter::finish) has no header.
pub struct SamplesWriter {
    path: PathBuf,
    file: BufWriter<File>,
    storage: Storage,
    image: ImageShape,
    labels: Vec<i64>,
    /// Where each image begins, and where the last ends.
    offsets: Vec<i64>,
}

impl SamplesWriter {
    /// Starts a part whose images are pixels of one shape.
    pub fn pixels(artifact: &Path, part: Part, image: ImageShape) -> anyhow::Result<Self> {
        Self::create(artifact, part, Storage::Pixels, image)
    }

    /// Starts a part whose images are JPEG, PNG or WebP files.
    pub fn encoded(artifact: &Path, part: Part) -> anyhow::Result<Self> {
        Self::create(artifact, part, Storage::Encoded, ImageShape::ENCODED)
    }

    fn create(
        artifact: &Path,
        part: Part,
        storage: Storage,
        image: ImageShape,
    ) -> anyhow::Result<Self> {
        let path = artifact.join(part.file_name());
        let writing = || format!("cannot write {}", path.display());
        let mut file =
            BufWriter::with_capacity(1 << 20, File::create(&path).with_context(writing)?);
        file.write_all(&[0; 8 + HEADER_BYTES]).with_context(writing)?;
        Ok(Self { path, file, storage, image, labels: Vec::new(), offsets: vec![0] })
    }

    /// Appends a sample: `image` is its pixels u8 \[C,H,W\], or its file.
    ///
    /// # Errors
    /// When the number of pixels does not match the shape, or the file cannot be written.
    pub fn push(&mut self, image: &[u8], label: i64) -> anyhow::Result<()> {
        ensure!(
            self.storage == Storage::Encoded || image.len() == self.image.bytes(),
            "{}: an image of {} bytes, where the shape has {}",
            self.path.display(),
            image.len(),
            self.image.bytes()
        );
        self.write(image)?;
        self.labels.push(label);
        self.offsets.push(self.image_bytes() + i64::try_from(image.len())?);
        Ok(())
    }

    /// How many samples were added.
    pub fn samples(&self) -> usize {
        self.labels.len()
    }

    /// Writes the labels and the header. The part is complete.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let mut layout = Layout::default();
        let image_bytes = u64::try_from(self.image_bytes())?;
        let (labels, offsets) = (integer_bytes(&self.labels), integer_bytes(&self.offsets));
        match self.storage {
            Storage::Pixels => {
                let ImageShape { channels, height, width } = self.image;
                let shape = vec![self.samples(), channels, height, width];
                layout.add("images", Dtype::U8, shape)?;
            }
            Storage::Encoded => {
                // Zeros after the last image, so that the integers after it are aligned.
                let padded = image_bytes.next_multiple_of(ALIGNMENT);
                self.write(&vec![0; usize::try_from(padded - image_bytes)?])?;
                layout.add("encoded", Dtype::U8, vec![usize::try_from(padded)?])?;
            }
        }
        layout.add("labels", Dtype::I64, vec![self.samples()])?;
        self.write(&labels)?;
        if self.storage == Storage::Encoded {
            layout.add("offsets", Dtype::I64, vec![self.offsets.len()])?;
            self.write(&offsets)?;
        }
        let header = layout.reserved_header("dataset", HEADER_BYTES)?;
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.flush())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Bytes of all images that were added.
    fn image_bytes(&self) -> i64 {
        self.offsets.last().copied().unwrap_or_default()
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}
