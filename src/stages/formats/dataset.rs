//! A data set: `train.safetensors`, `test.safetensors` and `dataset.json`.
//!
//! A part holds one of two things, and `labels` i64 \[N\]:
//!
//! | [`Storage`] | tensors |
//! |---|---|
//! | pixels | `images` u8 \[N,C,H,W\] |
//! | encoded | `encoded` u8 \[bytes\]: JPEG, PNG and WebP files one after the other; `offsets` i64 \[N+1\]: where each begins, and where the last ends |
//!
//! Reads in place; [`SamplesWriter`](super::SamplesWriter) writes image by image. Does not depend on image formats.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::tensors::{TensorFile, integer_bytes, read_json, write_json, write_tensors};

/// The training or the test part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The training samples.
    Train,
    /// The test samples.
    Test,
}

impl Part {
    /// The name in files that have several parts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Train => "train.safetensors",
            Self::Test => "test.safetensors",
        }
    }
}

/// The most pixels of an encoded image, 67 million: a stage that reads or decodes it refuses a larger one. Decoding
/// such an image takes about 400 MB of memory per thread; a file of a few hundred bytes can claim any size.
pub const MOST_IMAGE_PIXELS: u64 = 1 << 26;

/// How the images of a data set are stored in its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// As pixels, all of one shape.
    #[default]
    Pixels,
    /// As the original JPEG, PNG and WebP files, of any size; decoded during training.
    Encoded,
}

impl Storage {
    fn is_pixels(&self) -> bool {
        *self == Self::Pixels
    }
}

/// The shape of every image of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageShape {
    /// Channels, mostly 1 or 3.
    pub channels: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
}

impl ImageShape {
    /// The shape of encoded images, which decode to three channels and differ in their sizes.
    pub const ENCODED: Self = Self { channels: 3, height: 0, width: 0 };

    /// Bytes of one image.
    pub fn bytes(self) -> usize {
        self.channels * self.height * self.width
    }
}

/// `dataset.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatasetInfo {
    /// The format that it was read from.
    pub format: String,
    /// The names of the classes; a label is an index into them.
    pub classes: Vec<String>,
    /// How the images are stored in the files. Left out for pixels.
    #[serde(default, skip_serializing_if = "Storage::is_pixels")]
    pub storage: Storage,
    /// The shape of every image; [`ImageShape::ENCODED`] for encoded ones.
    pub image: ImageShape,
    /// How many samples the training part has, including those for validation.
    pub train_samples: usize,
    /// How many of them, at the end of the training part, the data set itself sets aside for
    /// validation. Left out when zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub validation_samples: usize,
    /// How many samples the test part has.
    pub test_samples: usize,
    /// Per channel, the mean over the training images, in \[0, 1\]; of encoded images, over a sample of them.
    pub channel_mean: Vec<f64>,
    /// Per channel, the standard deviation over the same images, in \[0, 1\].
    pub channel_std: Vec<f64>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl DatasetInfo {
    pub(super) const FILE: &'static str = "dataset.json";

    /// Reads the file of an artifact.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        read_json(&artifact.join(Self::FILE))
    }

    /// Writes the file of an artifact.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_json(&artifact.join(Self::FILE), self)
    }
}

/// The samples of one part, read in place.
pub struct Samples {
    file: TensorFile,
    images: StoredImages,
    /// One label per sample.
    pub labels: Vec<i64>,
    /// The shape of every image; [`ImageShape::ENCODED`] for encoded ones.
    pub image: ImageShape,
}

/// The place of the images in the file of a part.
enum StoredImages {
    Pixels { bytes: Range<usize> },
    Encoded { bytes: Range<usize>, offsets: Vec<usize> },
}

impl Samples {
    /// Opens one part of a data set whose images are pixels.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another shape, or its images are encoded.
    pub fn open(artifact: &Path, part: Part) -> anyhow::Result<Self> {
        let samples = Self::open_any(artifact, part)?;
        ensure!(
            samples.storage() == Storage::Pixels,
            "the images of this data set are kept encoded (JPEG, PNG or WebP, of any size), and this stage \
             takes pixels: use a data set of pixels, such as an image-folder with encoded = false"
        );
        Ok(samples)
    }

    /// Opens one part of any data set, for callers that only need the labels or can decode images.
    pub fn open_any(artifact: &Path, part: Part) -> anyhow::Result<Self> {
        let path = artifact.join(part.file_name());
        let file = TensorFile::open(&path)?;
        let labels = file.integers("labels")?;
        let (images, image) = if file.has("encoded")? {
            let offsets = file.integers("offsets")?;
            let (bytes, _) = file.place("encoded", Dtype::U8, 1)?;
            let offsets = checked_offsets(&offsets, bytes.len())
                .with_context(|| format!("{}: 'offsets' is damaged", path.display()))?;
            (StoredImages::Encoded { bytes, offsets }, ImageShape::ENCODED)
        } else {
            let (bytes, shape) = file.place("images", Dtype::U8, 4)?;
            let image = ImageShape { channels: shape[1], height: shape[2], width: shape[3] };
            ensure_labelled(&path, shape[0], labels.len())?;
            (StoredImages::Pixels { bytes }, image)
        };
        if let StoredImages::Encoded { offsets, .. } = &images {
            ensure_labelled(&path, offsets.len() - 1, labels.len())?;
        }
        Ok(Self { file, images, labels, image })
    }

    /// How the images are stored.
    pub fn storage(&self) -> Storage {
        match self.images {
            StoredImages::Pixels { .. } => Storage::Pixels,
            StoredImages::Encoded { .. } => Storage::Encoded,
        }
    }

    /// The pixels of all images, u8 \[N,C,H,W\]; empty where they are encoded.
    pub fn pixels(&self) -> &[u8] {
        match &self.images {
            StoredImages::Pixels { bytes } => self.file.bytes(bytes.clone()),
            StoredImages::Encoded { .. } => &[],
        }
    }

    /// The JPEG, PNG or WebP file of one image. `None` if the sample does not exist, or images are pixels.
    pub fn encoded(&self, index: usize) -> Option<&[u8]> {
        let StoredImages::Encoded { bytes, offsets } = &self.images else { return None };
        let (start, end) = (offsets.get(index)?, offsets.get(index + 1)?);
        Some(self.file.bytes(bytes.start + start..bytes.start + end))
    }
}

fn ensure_labelled(path: &Path, images: usize, labels: usize) -> anyhow::Result<()> {
    ensure!(images == labels, "{}: {images} images, but {labels} labels", path.display());
    Ok(())
}

/// Offsets from zero up to at most `bytes`, in ascending order.
fn checked_offsets(offsets: &[i64], bytes: usize) -> anyhow::Result<Vec<usize>> {
    let offsets: Vec<usize> = offsets
        .iter()
        .map(|&offset| usize::try_from(offset).context("an offset is negative"))
        .collect::<anyhow::Result<_>>()?;
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        bail!("it is empty");
    };
    ensure!(first == 0 && offsets.is_sorted(), "the offsets are not in order");
    ensure!(last <= bytes, "the last image ends at {last} of {bytes} bytes");
    Ok(offsets)
}

/// Writes one part of a data set: `pixels` u8 [N,C,H,W] and one label per image.
///
/// # Errors
/// When the numbers do not match the shape, or the file cannot be written.
pub fn write_samples(
    artifact: &Path,
    part: Part,
    image: ImageShape,
    pixels: &[u8],
    labels: &[i64],
) -> anyhow::Result<()> {
    let shape = vec![labels.len(), image.channels, image.height, image.width];
    write_tensors(
        &artifact.join(part.file_name()),
        &[
            ("images", Dtype::U8, shape, Cow::Borrowed(pixels)),
            ("labels", Dtype::I64, vec![labels.len()], Cow::Owned(integer_bytes(labels))),
        ],
        &[("type", "dataset".to_owned())],
    )
}
