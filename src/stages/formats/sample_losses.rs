//! The loss of every training sample in every epoch: `sample-losses.safetensors` beside a model.
//!
//! `train` writes it while `sample-losses` is true. With E epochs and N samples that train:
//!
//! ```text
//! index        i64 [N]     the place of the sample in the training part of the data set, from 0; ascending
//! label-given  i64 [N]     the label that it was trained on, which may be wrong
//! label-clean  i64 [N]     the label of the data set
//! losses       f32 [E,N]   its loss under the given label in the epoch
//! weights      f32 [E,N]   its weight in the epoch, from 0 to 1; only of Meta-Weight-Net
//! ```
//!
//! A loss is that of the forward pass in which the sample was trained on: on the augmented image, by the network before
//! the step, by the loss function of the stage. Of a sample with several visits in an epoch it is their mean, and NaN
//! of a sample without a visit.

use std::path::Path;

use anyhow::{Context, ensure};
use safetensors::Dtype;

use super::tensors::{NamedTensor, TensorFile, float_bytes, integer_bytes, write_tensors};

/// The file of the tensors.
pub const SAMPLE_LOSSES_FILE: &str = "sample-losses.safetensors";

/// What was recorded of every training sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleLosses {
    /// The places of the samples in the training part.
    pub index: Vec<i64>,
    /// The labels that they were trained on.
    pub given: Vec<i64>,
    /// The labels of the data set.
    pub clean: Vec<i64>,
    /// Their losses, epoch by epoch.
    pub losses: Vec<f32>,
    /// Their weights, epoch by epoch, where the method has weights.
    pub weights: Option<Vec<f32>>,
}

impl SampleLosses {
    /// How many epochs there are.
    pub fn epochs(&self) -> usize {
        self.losses.len() / self.index.len().max(1)
    }

    /// Reads the file of an artifact. `None` if it is missing: the training did not record them.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(artifact: &Path) -> anyhow::Result<Option<Self>> {
        let path = artifact.join(SAMPLE_LOSSES_FILE);
        if !path.try_exists()? {
            return Ok(None);
        }
        let file = TensorFile::open(&path)?;
        let weights = file.has("weights")?.then(|| file.matrix("weights")).transpose()?;
        let (losses, shape) = file.matrix("losses")?;
        let found = Self {
            index: file.integers("index")?,
            given: file.integers("label-given")?,
            clean: file.integers("label-clean")?,
            losses,
            weights: weights.map(|(weights, _)| weights),
        };
        found.check().with_context(|| path.display().to_string())?;
        ensure!(
            shape[1] == found.index.len(),
            "{}: 'losses' has {} columns for {} samples",
            path.display(),
            shape[1],
            found.index.len()
        );
        Ok(Some(found))
    }

    /// Writes the file of an artifact.
    ///
    /// # Errors
    /// When the lists do not have the same lengths, or the file cannot be written.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        self.check()?;
        let (epochs, samples) = (self.epochs(), self.index.len());
        let integers = |name, numbers: &[i64]| -> NamedTensor<'static> {
            (name, Dtype::I64, vec![samples], integer_bytes(numbers).into())
        };
        let floats = |name, numbers: &[f32]| -> NamedTensor<'static> {
            (name, Dtype::F32, vec![epochs, samples], float_bytes(numbers).into())
        };
        let mut tensors = vec![
            integers("index", &self.index),
            integers("label-given", &self.given),
            integers("label-clean", &self.clean),
            floats("losses", &self.losses),
        ];
        tensors.extend(self.weights.as_ref().map(|weights| floats("weights", weights)));
        let kind = ("type", "sample-losses".to_owned());
        write_tensors(&artifact.join(SAMPLE_LOSSES_FILE), &tensors, &[kind])
    }

    fn check(&self) -> anyhow::Result<()> {
        let samples = self.index.len();
        for (what, count) in
            [("given labels", self.given.len()), ("clean labels", self.clean.len())]
        {
            ensure!(count == samples, "there are {count} {what} for {samples} samples");
        }
        ensure!(
            samples > 0 && self.losses.len().is_multiple_of(samples),
            "there are {} losses for {samples} samples",
            self.losses.len()
        );
        if let Some(weights) = &self.weights {
            ensure!(
                weights.len() == self.losses.len(),
                "there are {} weights, but {} losses",
                weights.len(),
                self.losses.len()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> SampleLosses {
        SampleLosses {
            index: vec![1, 4, 5],
            given: vec![0, 1, 1],
            clean: vec![0, 1, 0],
            losses: vec![0.1, 0.2, f32::INFINITY, 0.4, 0.5, 0.6],
            weights: Some(vec![1.0, 0.5, 0.25, 0.0, 0.125, 0.75]),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SampleLosses::read(folder.path()).unwrap(), None);
        for weights in [recorded().weights, None] {
            let recorded = SampleLosses { weights, ..recorded() };
            recorded.write(folder.path()).unwrap();
            assert_eq!(SampleLosses::read(folder.path()).unwrap(), Some(recorded));
        }
        assert_eq!(recorded().epochs(), 2);
    }

    #[test]
    fn a_sample_without_a_visit_stays_nan() {
        let folder = tempfile::tempdir().unwrap();
        let losses = vec![0.1, f32::NAN, 0.3, 0.4, 0.5, f32::NAN];
        SampleLosses { losses, ..recorded() }.write(folder.path()).unwrap();
        let read = SampleLosses::read(folder.path()).unwrap().unwrap();
        let unknown: Vec<bool> = read.losses.iter().map(|loss| loss.is_nan()).collect();
        assert_eq!(unknown, [false, true, false, false, false, true]);
    }

    #[test]
    fn lists_of_other_lengths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (changed, expected) in [
            (SampleLosses { losses: vec![0.0; 5], ..recorded() }, "5 losses for 3 samples"),
            (SampleLosses { given: vec![0; 2], ..recorded() }, "2 given labels for 3 samples"),
            (SampleLosses { weights: Some(vec![0.0]), ..recorded() }, "1 weights, but 6 losses"),
        ] {
            let error = changed.write(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let path = folder.path().join(SAMPLE_LOSSES_FILE);
        recorded().write(folder.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let error = format!("{:#}", SampleLosses::read(folder.path()).unwrap_err());
        assert!(error.contains("is not a complete safetensors file"), "{error}");
    }
}
