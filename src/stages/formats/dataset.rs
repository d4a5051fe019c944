//! A data set: `train.safetensors`, `test.safetensors` (`images` u8 [N,C,H,W], `labels` i64 [N])
//! and `dataset.json`.

use std::borrow::Cow;
use std::path::Path;

use anyhow::ensure;
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
    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Train => "train.safetensors",
            Self::Test => "test.safetensors",
        }
    }
}

/// The shape of every image of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShape {
    /// Channels (1 or 3).
    pub channels: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
}

impl ImageShape {
    /// Bytes of one image.
    pub fn bytes(self) -> usize {
        self.channels * self.height * self.width
    }
}

/// `dataset.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatasetInfo {
    /// The format that it was read from.
    pub format: String,
    /// The names of the classes; a label is an index into them.
    pub classes: Vec<String>,
    /// The shape of every image.
    pub image: ImageShape,
    /// How many training samples there are.
    pub train_samples: usize,
    /// How many test samples there are.
    pub test_samples: usize,
    /// Per channel, the mean over the training images, in [0, 1].
    pub channel_mean: Vec<f64>,
    /// Per channel, the standard deviation over the training images, in [0, 1].
    pub channel_deviation: Vec<f64>,
}

impl DatasetInfo {
    const FILE: &'static str = "dataset.json";

    /// Reads the file of an artifact.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        read_json(&artifact.join(Self::FILE))
    }

    /// Writes the file of an artifact.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_json(&artifact.join(Self::FILE), self)
    }
}

/// The samples of one part, read in place.
pub struct Samples {
    file: TensorFile,
    /// One label per sample.
    pub labels: Vec<i64>,
    /// The shape of every image.
    pub image: ImageShape,
}

impl Samples {
    /// Opens one part of a data set.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another shape.
    pub fn open(artifact: &Path, part: Part) -> anyhow::Result<Self> {
        let path = artifact.join(part.file_name());
        let file = TensorFile::open(&path)?;
        let labels = file.integers("labels")?;
        let (_, shape) = file.view("images", Dtype::U8, 4)?;
        ensure!(
            shape[0] == labels.len(),
            "{}: {} images, but {} labels",
            path.display(),
            shape[0],
            labels.len()
        );
        let image = ImageShape { channels: shape[1], height: shape[2], width: shape[3] };
        Ok(Self { file, labels, image })
    }

    /// The pixels of all images, u8 [N,C,H,W].
    pub fn pixels(&self) -> &[u8] {
        let view = self.file.view("images", Dtype::U8, 4);
        view.expect("checked when it was opened").0
    }
}

/// Writes one part of a data set: `pixels` u8 [N,C,H,W] and one label per image.
///
/// # Errors
/// When the numbers don't match the shape, or the file can't be written.
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
