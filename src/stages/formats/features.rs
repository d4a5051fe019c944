//! The features of every sample of a data set: `features.safetensors` and `features.json`.
//!
//! With N samples in a part P of the data set, `train` or `test`, and F features:
//!
//! ```text
//! P.features     f32 [N,F]   what the encoder makes of the image
//! P.label-clean  i64 [N]     the label of the data set
//! ```
//!
//! Row i is about sample i of the part. The labels come first in the file, then the features, which are written batch by
//! batch, so that they need not fit in memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::dataset::{DatasetInfo, Part};
use super::layout::Layout;
use super::model::ModelInfo;
use super::tensors::{TensorFile, integer_bytes, read_json, write_json};

const FILE: &str = "features.safetensors";
const PARTS: [Part; 2] = [Part::Train, Part::Test];

/// Bytes of the header: enough for four tensors with numbers of 20 digits. A multiple of 8, so that all numbers are aligned.
const HEADER_BYTES: usize = 1024;

/// `features.json`: what the features are of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FeaturesInfo {
    /// How many features a sample has.
    pub dimension: usize,
    /// The data set, as its `dataset.json` describes it.
    pub data: DatasetInfo,
    /// The encoder, as its `model.json` describes it.
    pub encoder: ModelInfo,
    /// The parameters of the stage.
    pub parameters: serde_json::Value,
}

impl FeaturesInfo {
    const FILE: &'static str = "features.json";

    /// Reads the file of an artifact.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        read_json(&artifact.join(Self::FILE))
    }
}

/// The features of a data set, read in place.
pub struct FeatureFile {
    path: PathBuf,
    file: TensorFile,
    /// What they are of.
    pub info: FeaturesInfo,
}

impl FeatureFile {
    /// Opens the features of an artifact.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the two do not fit together.
    pub fn open(artifact: &Path) -> anyhow::Result<Self> {
        let path = artifact.join(FILE);
        let (file, info) = (TensorFile::open(&path)?, FeaturesInfo::read(artifact)?);
        let features = Self { path, file, info };
        for part in PARTS {
            let (_, shape) = features.rows(part)?;
            let expected = [features.labels(part)?.len(), features.info.dimension];
            ensure!(
                shape == expected,
                "{}: the features of the part '{}' have the shape {shape:?}; expected {expected:?}",
                features.path.display(),
                part.name(),
            );
        }
        Ok(features)
    }

    /// The features of a part, f32 \[N,F\], little-endian, and their shape.
    pub fn rows(&self, part: Part) -> anyhow::Result<(&[u8], [usize; 2])> {
        let (bytes, shape) = self.file.view(&name(part, "features"), Dtype::F32, 2)?;
        Ok((bytes, [shape[0], shape[1]]))
    }

    /// The labels of a part in the data set.
    pub fn labels(&self, part: Part) -> anyhow::Result<Vec<i64>> {
        self.file.integers(&name(part, "label-clean"))
    }

    /// Checks that they are of the data set whose labels in this part are `own`.
    ///
    /// # Errors
    /// When they are of another one.
    pub fn check(&self, part: Part, own: &[i64]) -> anyhow::Result<()> {
        ensure!(
            self.labels(part)? == own,
            "the features are of another data set: their labels in the part '{}' are not those of this one",
            part.name()
        );
        Ok(())
    }
}

fn name(part: Part, what: &str) -> String {
    format!("{}.{what}", part.name())
}

/// Writes the files of an artifact, the features batch by batch. The bytes depend on the features alone, not on the batches.
pub struct FeaturesWriter {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes of features that are still missing.
    missing: usize,
}

impl FeaturesWriter {
    /// Starts the files: `train` and `test` are the labels of the data set in each part.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn create(
        artifact: &Path,
        info: &FeaturesInfo,
        train: &[i64],
        test: &[i64],
    ) -> anyhow::Result<Self> {
        write_json(&artifact.join(FeaturesInfo::FILE), info)?;
        let parts = [(Part::Train, train), (Part::Test, test)];
        let mut layout = Layout::default();
        for (part, labels) in parts {
            layout.add(&name(part, "label-clean"), Dtype::I64, vec![labels.len()])?;
        }
        let before = layout.bytes();
        for (part, labels) in parts {
            let shape = vec![labels.len(), info.dimension];
            layout.add(&name(part, "features"), Dtype::F32, shape)?;
        }
        let missing = layout.bytes() - before;
        let path = artifact.join(FILE);
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut writer = Self { path, file: BufWriter::with_capacity(1 << 20, file), missing };
        writer.write(&layout.reserved_header("features", HEADER_BYTES)?)?;
        for (_, labels) in parts {
            writer.write(&integer_bytes(labels))?;
        }
        Ok(writer)
    }

    /// Appends features, f32 row by row, little-endian: those of all training samples, then those of all test samples.
    ///
    /// # Errors
    /// When there are too many, or the file cannot be written.
    pub fn push(&mut self, rows: &[u8]) -> anyhow::Result<()> {
        let missing = self.missing.checked_sub(rows.len());
        self.missing = missing.context("there are more features than samples")?;
        self.write(rows)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When features are missing, or the file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        ensure!(self.missing == 0, "there are {} bytes of features too few", self.missing);
        self.file.flush().with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tensors::float_bytes;

    fn info() -> FeaturesInfo {
        FeaturesInfo { dimension: 2, ..FeaturesInfo::default() }
    }

    fn written(folder: &Path) {
        let mut writer = FeaturesWriter::create(folder, &info(), &[0, 1, 1], &[1]).unwrap();
        writer.push(&float_bytes(&[0.0, 0.5])).unwrap();
        writer.push(&float_bytes(&[1.0, 1.5, 2.0, 2.5, 3.0, 3.5])).unwrap();
        writer.finish().unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let features = FeatureFile::open(folder.path()).unwrap();
        assert_eq!(features.info, info());
        assert_eq!(features.labels(Part::Train).unwrap(), [0, 1, 1]);
        let expected = float_bytes(&[0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(features.rows(Part::Train).unwrap(), (expected.as_slice(), [3, 2]));
        assert_eq!(features.rows(Part::Test).unwrap(), (&float_bytes(&[3.0, 3.5])[..], [1, 2]));
        assert!(features.check(Part::Test, &[1]).is_ok());
        let error = features.check(Part::Train, &[0, 1, 0]).unwrap_err().to_string();
        assert!(error.contains("of another data set") && error.contains("'train'"), "{error}");
    }

    #[test]
    fn too_many_or_too_few_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = FeaturesWriter::create(folder.path(), &info(), &[0], &[]).unwrap();
        let error = writer.push(&float_bytes(&[0.0; 3])).unwrap_err().to_string();
        assert!(error.contains("more features than samples"), "{error}");
        let writer = FeaturesWriter::create(folder.path(), &info(), &[0], &[]).unwrap();
        assert!(writer.finish().unwrap_err().to_string().contains("8 bytes of features too few"));
    }

    #[test]
    fn a_description_of_others_and_half_a_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let other = FeaturesInfo { dimension: 3, ..info() };
        write_json(&folder.path().join(FeaturesInfo::FILE), &other).unwrap();
        let error = FeatureFile::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("[3, 2]; expected [3, 3]"), "{error}");
        let whole = std::fs::read(folder.path().join(FILE)).unwrap();
        std::fs::write(folder.path().join(FILE), &whole[..whole.len() - 1]).unwrap();
        let error = format!("{:#}", FeatureFile::open(folder.path()).err().unwrap());
        assert!(error.contains("is not a complete safetensors file"), "{error}");
    }
}
