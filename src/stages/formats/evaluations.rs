//! `evaluations.csv` beside a model: its accuracies and losses during training.
//!
//! `train` writes it and `evaluate` reads it. Columns: `step`, `epoch`, `validation-accuracy`,
//! `test-accuracy`, `validation-loss`, `test-loss`; NaN where one was not measured.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::metrics::CurveTable;

const FILE: &str = "evaluations.csv";
/// The columns after `step` and `epoch`.
const MEASURED: [&str; 4] =
    ["validation-accuracy", "test-accuracy", "validation-loss", "test-loss"];

/// An evaluation during training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRow {
    /// Steps done before it.
    pub steps: u64,
    /// On the held-out samples, with their clean labels.
    pub validation_accuracy: Option<f64>,
    /// On the test set. Not used to choose anything.
    pub test_accuracy: Option<f64>,
    /// The mean cross-entropy on the held-out samples, in nats; `None` also where it is not finite.
    pub validation_loss: Option<f64>,
    /// The same on the test set.
    pub test_loss: Option<f64>,
}

impl EvaluationRow {
    /// What was measured, each with the name of its column.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let named = MEASURED.into_iter().zip(self.measured());
        named.filter_map(|(name, value)| Some((name, value?)))
    }

    /// In the order of the columns.
    fn measured(&self) -> [Option<f64>; MEASURED.len()] {
        [self.validation_accuracy, self.test_accuracy, self.validation_loss, self.test_loss]
    }
}

/// The evaluations of one training, in the order of their steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Evaluations(pub Vec<EvaluationRow>);

impl Evaluations {
    /// Writes the file of an artifact; none without an evaluation.
    pub fn write(&self, artifact: &Path, steps_per_epoch: u64) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut table = CurveTable::new(&[&["step", "epoch"], &MEASURED[..]].concat());
        for row in &self.0 {
            let steps = row.steps as f64;
            let mut cells = vec![steps, steps / steps_per_epoch.max(1) as f64];
            cells.extend(row.measured().map(|value| value.unwrap_or(f64::NAN)));
            table.push(&cells);
        }
        table.write(&artifact.join(FILE))
    }

    /// Reads the file of an artifact; empty if it is missing.
    pub fn read(artifact: &Path) -> anyhow::Result<Self> {
        let path = artifact.join(FILE);
        if !path.try_exists()? {
            return Ok(Self::default());
        }
        let table = CurveTable::read(&path)?;
        let column = |name| table.column(name).with_context(|| path.display().to_string());
        let steps = column("step")?;
        let measured = MEASURED.into_iter().map(column).collect::<anyhow::Result<Vec<_>>>()?;
        let rows = steps.into_iter().enumerate().map(|(row, steps)| {
            let mut values = measured.iter().map(|column| column[row]);
            let mut next = || values.next().filter(|value| !value.is_nan());
            EvaluationRow {
                steps: steps as u64,
                validation_accuracy: next(),
                test_accuracy: next(),
                validation_loss: next(),
                test_loss: next(),
            }
        });
        Ok(Self(rows.collect()))
    }

    /// The first evaluation with the best validation accuracy.
    pub fn best_validation(&self) -> Option<&EvaluationRow> {
        first_best(&self.0, |row| row.validation_accuracy)
    }

    /// The first evaluation with the best accuracy on the test set: chosen on the test set.
    pub fn best_test(&self) -> Option<&EvaluationRow> {
        first_best(&self.0, |row| row.test_accuracy)
    }
}

fn first_best(
    rows: &[EvaluationRow],
    by: impl Fn(&EvaluationRow) -> Option<f64>,
) -> Option<&EvaluationRow> {
    let known = rows.iter().filter_map(|row| Some((row, by(row)?)));
    // `max_by` takes the last of equal ones: in reverse order, the first.
    known.rev().max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(row, _)| row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(steps: u64, validation: Option<f64>, test: Option<f64>) -> EvaluationRow {
        EvaluationRow {
            steps,
            validation_accuracy: validation,
            test_accuracy: test,
            validation_loss: validation.map(|accuracy| 1.0 - accuracy),
            test_loss: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Evaluations::read(folder.path()).unwrap(), Evaluations::default());
        let evaluations =
            Evaluations(vec![row(5, Some(1.0 / 3.0), None), row(10, None, Some(0.1 + 0.2))]);
        evaluations.write(folder.path(), 5).unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(
            text.starts_with(
                "step,epoch,validation-accuracy,test-accuracy,validation-loss,test-loss\n5,1,0.3"
            ),
            "{text}"
        );
        assert_eq!(Evaluations::read(folder.path()).unwrap(), evaluations);
    }

    #[test]
    fn a_damaged_file_is_an_error_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let header = format!("step,epoch,{}", MEASURED.join(","));
        for (text, expected) in [
            ("step,epoch\n1,2\n".to_owned(), "no column 'validation-accuracy'"),
            (format!("{header}\n1,2,3\n"), "line 2"),
            (format!("{header}\n1,2,3,4,5,6\n1,2,x,4,5,6\n"), "line 3"),
            (String::new(), "no column 'step'"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = format!("{:#}", Evaluations::read(folder.path()).unwrap_err());
            assert!(error.contains(expected) && error.contains(FILE), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_first_of_the_best() {
        let evaluations = Evaluations(vec![
            row(5, None, Some(0.6)),
            row(10, Some(0.7), Some(0.9)),
            row(15, Some(0.7), Some(0.5)),
            row(20, Some(0.6), Some(0.9)),
        ]);
        assert_eq!(evaluations.best_validation().map(|row| row.steps), Some(10));
        assert_eq!(evaluations.best_test().map(|row| row.steps), Some(10));
        assert_eq!(Evaluations::default().best_test(), None);
    }
}
