//! A split: `split.safetensors` (`train` i64 [n], `val` i64 [m]), indices into the training part.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, ensure};
use safetensors::Dtype;

use super::dataset::DatasetInfo;
use super::tensors::{TensorFile, integer_bytes, write_tensors};

/// Which training samples train, and which are held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitIndices {
    /// The samples to train on, in the order in which noise is drawn for them.
    pub train: Vec<i64>,
    /// The samples that are held out.
    pub validation: Vec<i64>,
}

/// A split that was checked against its data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleSplit {
    /// The samples that train.
    pub train: Vec<u32>,
    /// The samples that are held out.
    pub validation: Vec<u32>,
}

impl SampleSplit {
    /// The split of a data set without one: all samples train except those that the data set sets aside.
    pub fn without_split(samples: usize, info: &DatasetInfo) -> anyhow::Result<Self> {
        Self::all_train(samples.saturating_sub(info.validation_samples))
    }

    /// All of `samples` train.
    pub fn all_train(samples: usize) -> anyhow::Result<Self> {
        let samples = u32::try_from(samples).context("too many samples")?;
        Ok(Self { train: (0..samples).collect(), validation: Vec::new() })
    }
}

impl SplitIndices {
    const FILE: &'static str = "split.safetensors";

    /// Reads the file of an artifact.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        let file = TensorFile::open(&artifact.join(Self::FILE))?;
        Ok(Self { train: file.integers("train")?, validation: file.integers("val")? })
    }

    /// The same, if it is a split of `samples` samples: each occurs at most once.
    ///
    /// # Errors
    /// With a sample that does not exist, or occurs twice.
    pub fn checked(&self, samples: usize) -> anyhow::Result<SampleSplit> {
        let mut named = vec![false; samples];
        let mut check = |indices: &[i64]| -> anyhow::Result<Vec<u32>> {
            let mut checked = Vec::with_capacity(indices.len());
            for &index in indices {
                let place = usize::try_from(index).ok().and_then(|index| named.get_mut(index));
                let named = place.with_context(|| {
                    format!(
                        "the split names sample {index}, but the data set has {samples}: \
                         are they of the same data set?"
                    )
                })?;
                ensure!(
                    !*named,
                    "the split names sample {index} twice: a sample either trains or is held out"
                );
                *named = true;
                checked.push(u32::try_from(index).context("too many samples")?);
            }
            Ok(checked)
        };
        Ok(SampleSplit { train: check(&self.train)?, validation: check(&self.validation)? })
    }

    /// Writes the file of an artifact.
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
