//! Labels: `labels.safetensors` (`labels` i64 [N], `clean` i64 [N]) and `noise.json`.

use std::path::Path;

use anyhow::{bail, ensure};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::tensors::{
    NamedTensor, TensorFile, integer_bytes, read_json, write_json, write_tensors,
};

/// One label per training sample, beside the clean ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The labels to train on. Held-out samples keep their clean label.
    pub labels: Vec<i64>,
    /// The data set's own labels.
    pub clean: Vec<i64>,
}

impl Labels {
    const FILE: &'static str = "labels.safetensors";

    /// Reads the file of an artifact.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        let file = TensorFile::open(&artifact.join(Self::FILE))?;
        Ok(Self { labels: file.integers("labels")?, clean: file.integers("clean")? })
    }

    /// Checks that they are labels of the training part whose own labels are `own`, each one of
    /// `classes` classes.
    ///
    /// # Errors
    /// With the first sample that differs.
    pub fn check(&self, own: &[i64], classes: usize) -> anyhow::Result<()> {
        check_labels(&self.labels, "labels to train on", own.len(), classes)?;
        check_labels(&self.clean, "clean labels", own.len(), classes)?;
        let other = self.clean.iter().zip(own).position(|(clean, own)| clean != own);
        if let Some(index) = other {
            bail!(
                "the clean label of sample {index} is {}, but in the data set it is {}: \
                 the labels are those of another data set",
                self.clean[index],
                own[index]
            );
        }
        Ok(())
    }

    /// Writes the file of an artifact.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        self.write_with(artifact, [])
    }

    /// Writes the file of an artifact with more tensors.
    pub(super) fn write_with<'a>(
        &self,
        artifact: &Path,
        more: impl IntoIterator<Item = NamedTensor<'a>>,
    ) -> anyhow::Result<()> {
        let integers = |name, numbers: &[i64]| -> NamedTensor<'a> {
            (name, Dtype::I64, vec![numbers.len()], integer_bytes(numbers).into())
        };
        let mut tensors = vec![integers("labels", &self.labels), integers("clean", &self.clean)];
        tensors.extend(more);
        write_tensors(&artifact.join(Self::FILE), &tensors, &[("type", "labels".to_owned())])
    }
}

/// Checks that there is one label for each of `samples` samples, each one of `classes` classes.
///
/// # Errors
/// With the first label that is wrong.
pub fn check_labels(
    labels: &[i64],
    what: &str,
    samples: usize,
    classes: usize,
) -> anyhow::Result<()> {
    ensure!(
        labels.len() == samples,
        "there are {} {what}, but {samples} images: are they of the same data set?",
        labels.len()
    );
    let wrong = labels.iter().enumerate().find(|(_, label)| !(0..classes as i64).contains(*label));
    if let Some((index, label)) = wrong {
        bail!(
            "sample {index} of the {what} has the label {label}, but the data set has the classes 0 to {}",
            classes.saturating_sub(1)
        );
    }
    Ok(())
}

/// `noise.json`: the requested noise, and the result. Rows: the true class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NoiseReport {
    /// The shape of the noise.
    pub noise: String,
    /// The requested rate, of the classes that were to be corrupted. For symmetric noise some of it falls on the true
    /// class. Left out if none was requested: the matrix is from a file, or the labels are human or purified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_rate: Option<f64>,
    /// The share of the samples that noise was drawn for whose label is now wrong.
    pub realised_rate: f64,
    /// How many samples the noise was drawn for.
    pub samples: usize,
    /// How many of them now have a wrong label.
    pub corrupted: usize,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Those whose labels were to be corrupted, in the same order. Left out if all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupted_classes: Option<Vec<String>>,
    /// The requested transition matrix. Left out if there is none: the noise depends on pixels, or the labels are human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_matrix: Option<Vec<Vec<f64>>>,
    /// The realised transition matrix. A class without samples to corrupt has a row of zeros.
    pub realised_matrix: Vec<Vec<f64>>,
}

impl NoiseReport {
    const FILE: &'static str = "noise.json";

    /// What became of samples, without what was requested: of each its clean label and the one that it has now, both
    /// below the number of classes.
    ///
    /// # Panics
    /// When there is another class.
    pub fn realised(
        noise: String,
        classes: Vec<String>,
        transitions: impl IntoIterator<Item = (usize, usize)>,
    ) -> Self {
        let mut counts = vec![vec![0_usize; classes.len()]; classes.len()];
        for (clean, label) in transitions {
            counts[clean][label] += 1;
        }
        let samples: usize = counts.iter().flatten().sum();
        let correct: usize = counts.iter().enumerate().map(|(class, row)| row[class]).sum();
        let shares = |row: Vec<usize>| {
            let total = row.iter().sum::<usize>().max(1) as f64;
            row.into_iter().map(|count| count as f64 / total).collect()
        };
        Self {
            noise,
            requested_rate: None,
            realised_rate: (samples - correct) as f64 / samples.max(1) as f64,
            samples,
            corrupted: samples - correct,
            classes,
            requested_matrix: None,
            corrupted_classes: None,
            realised_matrix: counts.into_iter().map(shares).collect(),
        }
    }

    /// Reads the file of an artifact.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        read_json(&artifact.join(Self::FILE))
    }

    /// Writes the file of an artifact.
    pub fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_json(&artifact.join(Self::FILE), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_labels_is_counted_by_class() {
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let transitions = [(0, 1), (0, 1), (0, 0), (0, 1)];
        let report = NoiseReport::realised("n".to_owned(), classes.clone(), transitions);
        assert_eq!(report.realised_matrix, [[0.25, 0.75], [0.0, 0.0]]);
        assert_eq!((report.samples, report.corrupted, report.realised_rate), (4, 3, 0.75));
        assert_eq!(NoiseReport::realised("n".to_owned(), classes, []).realised_rate, 0.0);
    }
}
