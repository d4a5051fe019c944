//! What a classifier predicts for every sample: `predictions.safetensors` beside the metrics of `evaluate`.
//!
//! With N samples and K classes, for each part P of the data set that was evaluated, `test` or `train`:
//!
//! ```text
//! P.index        i64 [N]     the place of the sample in this part of the data set, from 0
//! P.logits       f32 [N,K]   the outputs of the classifier, before the softmax
//! P.predicted    i64 [N]     the class with the largest logit, the first of equal ones
//! P.label-clean  i64 [N]     the label of the data set
//! P.loss-clean   f64 [N]     the cross-entropy under it, in nats, computed in f64 from the logits
//! P.label-given  i64 [N]     the label that was trained on, which may be wrong
//! P.loss-given   f64 [N]     the cross-entropy under it
//! ```
//!
//! The last two are in the part `train` only. Row i of every tensor is about the same sample. The 64-bit tensors come first
//! in the file, then the logits, which are written batch by batch, so that they need not fit in memory.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use safetensors::Dtype;

use super::dataset::Part;
use super::labels::check_labels;
use super::layout::Layout;
use super::tensors::{TensorFile, double_bytes, float_bytes, integer_bytes};

/// The file of the tensors.
pub const PREDICTIONS_FILE: &str = "predictions.safetensors";

/// Bytes of the header: enough for the tensors of two parts, with numbers of 20 digits. A multiple of 8, so that all
/// numbers are aligned.
const HEADER_BYTES: usize = 4096;

/// Labels of some samples, and the losses under them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judged {
    /// A class per sample.
    pub labels: Vec<i64>,
    /// The cross-entropy per sample, in nats.
    pub losses: Vec<f64>,
}

impl Judged {
    fn extend(&mut self, other: &Self) {
        self.labels.extend(&other.labels);
        self.losses.extend(&other.losses);
    }
}

/// Predictions for samples of one part; every list has one entry, or row, per sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// The places of the samples in the part.
    pub index: Vec<i64>,
    /// Row by row, one number per class.
    pub logits: Vec<f32>,
    /// The class with the largest logit.
    pub predicted: Vec<i64>,
    /// Under the labels of the data set.
    pub clean: Judged,
    /// Under the labels that were trained on. `None` in the part `test`.
    pub given: Option<Judged>,
}

impl Predictions {
    /// Reads the predictions for one part. `None` if it was not evaluated.
    ///
    /// # Errors
    /// When the file is missing or damaged: tensors of different lengths, classes that do not exist.
    pub fn read(artifact: &Path, part: Part) -> anyhow::Result<Option<Self>> {
        let path = artifact.join(PREDICTIONS_FILE);
        let file = TensorFile::open(&path)?;
        let name = |what: &str| format!("{}.{what}", part.name());
        if !file.has(&name("index"))? {
            return Ok(None);
        }
        let judged = |which: &str| -> anyhow::Result<Judged> {
            let labels = file.integers(&name(&format!("label-{which}")))?;
            let losses = file.doubles(&name(&format!("loss-{which}")))?;
            Ok(Judged { labels, losses })
        };
        let (logits, [_, classes]) = file.matrix(&name("logits"))?;
        let predictions = Self {
            index: file.integers(&name("index"))?,
            logits,
            predicted: file.integers(&name("predicted"))?,
            clean: judged("clean")?,
            given: file.has(&name("label-given"))?.then(|| judged("given")).transpose()?,
        };
        predictions.check(classes).with_context(|| path.display().to_string())?;
        Ok(Some(predictions))
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.index.len()
    }

    fn check(&self, classes: usize) -> anyhow::Result<()> {
        let samples = self.samples();
        ensure!(
            samples.checked_mul(classes) == Some(self.logits.len()),
            "there are {} logits for {samples} samples and {classes} classes",
            self.logits.len()
        );
        check_labels(&self.predicted, "predicted classes", samples, classes)?;
        for (which, judged) in [("clean", Some(&self.clean)), ("given", self.given.as_ref())] {
            let Some(Judged { labels, losses }) = judged else { continue };
            check_labels(labels, &format!("{which} labels"), samples, classes)?;
            ensure!(
                losses.len() == samples,
                "there are {} losses under the {which} labels of {samples} samples",
                losses.len()
            );
        }
        ensure!(self.index.iter().all(|&index| index >= 0), "an index is negative");
        Ok(())
    }
}

/// Writes `predictions.safetensors` batch by batch. The bytes depend on the predictions alone, not on the batches.
///
/// Memory: 48 bytes a sample at most, twice that at the end. A file that was not [finished](PredictionsWriter::finish) has no header.
pub struct PredictionsWriter {
    path: PathBuf,
    file: BufWriter<File>,
    classes: usize,
    parts: Vec<PartRows>,
}

/// One part, without its logits: they are in the file already.
struct PartRows {
    part: Part,
    /// How many samples it will have.
    expected: usize,
    rows: Predictions,
}

impl PartRows {
    /// The 64-bit tensors, in their order in the file: their names, and integers or floats.
    fn columns(&self) -> Vec<(&'static str, Dtype, Vec<u8>)> {
        let Predictions { index, predicted, clean, given, .. } = &self.rows;
        let integers = |name, numbers: &[i64]| (name, Dtype::I64, integer_bytes(numbers));
        let doubles = |name, numbers: &[f64]| (name, Dtype::F64, double_bytes(numbers));
        let mut columns = vec![
            integers("index", index),
            integers("predicted", predicted),
            integers("label-clean", &clean.labels),
            doubles("loss-clean", &clean.losses),
        ];
        if let Some(given) = given {
            columns.push(integers("label-given", &given.labels));
            columns.push(doubles("loss-given", &given.losses));
        }
        columns
    }
}

impl PredictionsWriter {
    /// Starts the file of an artifact: predictions for `test` samples of the part `test` and, if there are any, for
    /// `train` samples of the part `train`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(
        artifact: &Path,
        classes: usize,
        test: usize,
        train: Option<usize>,
    ) -> anyhow::Result<Self> {
        let part = |part, expected, given: bool| PartRows {
            part,
            expected,
            rows: Predictions { given: given.then(Judged::default), ..Predictions::default() },
        };
        let mut parts = vec![part(Part::Test, test, false)];
        parts.extend(train.map(|samples| part(Part::Train, samples, true)));
        let columns =
            |rows: &PartRows| rows.columns().len().checked_mul(rows.expected)?.checked_mul(8);
        let ahead = parts.iter().try_fold(0_usize, |sum, rows| sum.checked_add(columns(rows)?));
        let ahead = ahead.context("too many samples")?;
        let path = artifact.join(PREDICTIONS_FILE);
        let mut file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        file.seek(SeekFrom::Start((8 + HEADER_BYTES + ahead) as u64))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file), classes, parts })
    }

    /// Appends samples of a part: all those of `test` before those of `train`.
    ///
    /// # Errors
    /// When they do not fit the part, or the file cannot be written.
    pub fn push(&mut self, part: Part, batch: &Predictions) -> anyhow::Result<()> {
        batch.check(self.classes)?;
        let complete = |rows: &PartRows| rows.rows.samples() == rows.expected;
        let mut before = self.parts.iter().take_while(|rows| rows.part != part);
        ensure!(before.all(complete), "a part comes too early");
        let rows = self.parts.iter_mut().find(|rows| rows.part == part);
        let rows = &mut rows.context("this part is not in the file")?.rows;
        ensure!(rows.given.is_some() == batch.given.is_some(), "the part has other labels");
        rows.index.extend(&batch.index);
        rows.predicted.extend(&batch.predicted);
        rows.clean.extend(&batch.clean);
        if let (Some(given), Some(more)) = (&mut rows.given, &batch.given) {
            given.extend(more);
        }
        self.file
            .write_all(&float_bytes(&batch.logits))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes everything but the logits. The file is complete.
    ///
    /// # Errors
    /// When samples are missing, or the file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let mut layout = Layout::default();
        let mut bytes = Vec::new();
        for rows in &self.parts {
            let (samples, expected) = (rows.rows.samples(), rows.expected);
            ensure!(samples == expected, "{samples} samples, where {expected} were announced");
            for (name, dtype, column) in rows.columns() {
                layout.add(&format!("{}.{name}", rows.part.name()), dtype, vec![samples])?;
                bytes.extend(column);
            }
        }
        ensure!(layout.bytes() == bytes.len(), "a column has too few numbers");
        for rows in &self.parts {
            let shape = vec![rows.expected, self.classes];
            layout.add(&format!("{}.logits", rows.part.name()), Dtype::F32, shape)?;
        }
        let header = layout.reserved_header("predictions", HEADER_BYTES)?;
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.write_all(&bytes))
            .and_then(|()| self.file.flush())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_rows(range: std::ops::Range<i64>) -> Predictions {
        let samples = range.clone().count();
        let labels: Vec<i64> = range.clone().map(|index| index % 3).collect();
        Predictions {
            logits: (0..samples * 3).map(|index| range.start as f32 + index as f32 / 7.0).collect(),
            predicted: vec![2; samples],
            clean: Judged {
                losses: labels.iter().map(|&label| label as f64 / 3.0).collect(),
                labels,
            },
            index: range.collect(),
            given: None,
        }
    }

    fn train_rows(range: std::ops::Range<i64>) -> Predictions {
        let rows = test_rows(range);
        let given = Judged { labels: vec![1; rows.samples()], losses: vec![0.1; rows.samples()] };
        Predictions { given: Some(given), ..rows }
    }

    /// 5 samples of `test`, and 3 of `train`, cut into batches.
    fn write(folder: &Path, cuts: [i64; 2]) {
        let mut writer = PredictionsWriter::create(folder, 3, 5, Some(3)).unwrap();
        // One list of logits whatever the cuts.
        let (test, train) = (test_rows(0..5), train_rows(10..13));
        let slice = |all: &Predictions, range: std::ops::Range<usize>| {
            let judged = |judged: &Judged| Judged {
                labels: judged.labels[range.clone()].to_vec(),
                losses: judged.losses[range.clone()].to_vec(),
            };
            Predictions {
                index: all.index[range.clone()].to_vec(),
                logits: all.logits[3 * range.start..3 * range.end].to_vec(),
                predicted: all.predicted[range.clone()].to_vec(),
                clean: judged(&all.clean),
                given: all.given.as_ref().map(judged),
            }
        };
        for (part, all, cut) in [(Part::Test, &test, cuts[0]), (Part::Train, &train, cuts[1])] {
            for range in [0..cut as usize, cut as usize..all.samples()] {
                writer.push(part, &slice(all, range)).unwrap();
            }
        }
        writer.finish().unwrap();
    }

    #[test]
    fn predictions_read_back_whatever_the_batches() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        write(one.path(), [2, 3]);
        write(other.path(), [5, 1]);
        let bytes = |folder: &tempfile::TempDir| {
            std::fs::read(folder.path().join(PREDICTIONS_FILE)).unwrap()
        };
        assert_eq!(bytes(&one), bytes(&other));
        let read = |part| Predictions::read(one.path(), part).unwrap().unwrap();
        assert_eq!(read(Part::Test), test_rows(0..5));
        assert_eq!(read(Part::Train), train_rows(10..13));
        // Aligned, whatever the number of samples.
        let file = TensorFile::open(&one.path().join(PREDICTIONS_FILE)).unwrap();
        for (name, view) in file.tensors().unwrap().iter() {
            let width = view.dtype().bitsize() / 8;
            assert_eq!(view.data().as_ptr() as usize % width, 0, "{name}");
        }
    }

    #[test]
    fn a_part_that_was_not_evaluated_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PredictionsWriter::create(folder.path(), 3, 2, None).unwrap();
        writer.push(Part::Test, &test_rows(0..2)).unwrap();
        writer.finish().unwrap();
        assert_eq!(Predictions::read(folder.path(), Part::Train).unwrap(), None);
        assert_eq!(Predictions::read(folder.path(), Part::Test).unwrap(), Some(test_rows(0..2)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let start = || PredictionsWriter::create(folder.path(), 3, 2, Some(2)).unwrap();
        let refused = |part, batch: &Predictions, expected: &str| {
            let error = start().push(part, batch).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(Part::Train, &train_rows(0..2), "too early");
        refused(Part::Test, &train_rows(0..2), "other labels");
        let few = Predictions { logits: vec![0.0; 5], ..test_rows(0..2) };
        refused(Part::Test, &few, "5 logits for 2 samples and 3 classes");
        let wrong = Predictions { predicted: vec![0, 3], ..test_rows(0..2) };
        refused(Part::Test, &wrong, "sample 1 of the predicted classes has the label 3");
        let mut writer = start();
        writer.push(Part::Test, &test_rows(0..2)).unwrap();
        let error = writer.finish().unwrap_err().to_string();
        assert_eq!(error, "0 samples, where 2 were announced");
        let error = format!("{:#}", Predictions::read(folder.path(), Part::Test).unwrap_err());
        assert!(error.contains("is not a complete safetensors file"), "{error}");
    }

    #[test]
    fn damaged_columns_are_refused() {
        use super::super::tensors::write_tensors;
        let folder = tempfile::tempdir().unwrap();
        let write = |predicted: &[i64], losses: usize| {
            let integers = |name, numbers: &[i64]| {
                (name, Dtype::I64, vec![numbers.len()], integer_bytes(numbers).into())
            };
            let tensors = [
                integers("test.index", &[0, 1]),
                integers("test.predicted", predicted),
                integers("test.label-clean", &[0, 1]),
                ("test.loss-clean", Dtype::F64, vec![losses], vec![0; 8 * losses].into()),
                ("test.logits", Dtype::F32, vec![2, 3], vec![0; 24].into()),
            ];
            write_tensors(&folder.path().join(PREDICTIONS_FILE), &tensors, &[]).unwrap();
            Predictions::read(folder.path(), Part::Test)
        };
        assert!(write(&[0, 2], 2).is_ok());
        for (predicted, losses, expected) in [
            (&[0, 3][..], 2, "sample 1 of the predicted classes has the label 3"),
            (&[0], 2, "there are 1 predicted classes"),
            (&[0, 1], 3, "there are 3 losses under the clean labels of 2 samples"),
        ] {
            let error = format!("{:#}", write(predicted, losses).unwrap_err());
            assert!(error.contains(PREDICTIONS_FILE) && error.contains(expected), "{error}");
        }
    }
}
