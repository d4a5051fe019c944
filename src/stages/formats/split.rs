//! A split: `split.safetensors` (`train` i64 [n], `val` i64 [m]), indices into the training part.

use std::borrow::Cow;
use std::path::Path;

use safetensors::Dtype;

use super::tensors::{TensorFile, integer_bytes, write_tensors};

/// Which training samples train, and which are held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitIndices {
    /// The samples that train, in the order in which noise is drawn for them.
    pub train: Vec<i64>,
    /// The samples that are held out.
    pub validation: Vec<i64>,
}

impl SplitIndices {
    const FILE: &'static str = "split.safetensors";

    /// Reads the file of an artifact.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        let file = TensorFile::open(&artifact.join(Self::FILE))?;
        Ok(Self { train: file.integers("train")?, validation: file.integers("val")? })
    }

    /// Writes the file of an artifact.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_tensors(
            &artifact.join(Self::FILE),
            &[
                (
                    "train",
                    Dtype::I64,
                    vec![self.train.len()],
                    Cow::Owned(integer_bytes(&self.train)),
                ),
                (
                    "val",
                    Dtype::I64,
                    vec![self.validation.len()],
                    Cow::Owned(integer_bytes(&self.validation)),
                ),
            ],
            &[("type", "split".to_owned())],
        )
    }
}
