//! What a supervised training says of itself: a row per epoch, a row per evaluation.

use std::path::Path;

use anyhow::Context as _;
pub use pipeline_stages::formats::EvaluationRow;
use pipeline_stages::formats::{CurveTable, Evaluations};
use pipeline_stages::message::Metrics;
use serde::{Deserialize, Serialize};

use super::epoch_log::EpochValues;
use super::epoch_sums::Sums;

/// The names of the sums of every method.
pub const SUMS: &[&str] = &["samples", "loss", "right-on-given-labels", "right-on-clean-labels"];

/// What is known of an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EpochRow {
    loss: f64,
    accuracy_on_given_labels: f64,
    accuracy_on_clean_labels: Option<f64>,
    /// Of its last step.
    learning_rate: f64,
    /// What the method adds, in the order of its columns.
    extra: Vec<Option<f64>>,
}

impl EpochRow {
    /// The row of an epoch's sums. `learning_rate` is that of its last step.
    pub fn of(sums: &Sums, learning_rate: f64, extra: Vec<f64>) -> Self {
        let known = |value: f64| value.is_finite().then_some(value);
        Self {
            loss: sums.mean("loss", "samples"),
            accuracy_on_given_labels: sums.mean("right-on-given-labels", "samples"),
            accuracy_on_clean_labels: known(sums.mean_of_clean("right-on-clean-labels", "samples")),
            learning_rate,
            extra: extra.into_iter().map(known).collect(),
        }
    }
}

/// Both.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Curves {
    /// One an epoch.
    pub epochs: Vec<EpochRow>,
    /// In the order of their steps.
    pub evaluations: Evaluations,
}

impl Curves {
    /// Writes `curves.csv`, a row an epoch, and `evaluations.csv`, where there are any.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(
        &self,
        folder: &Path,
        columns: &[&str],
        steps_per_epoch: u64,
    ) -> anyhow::Result<()> {
        let own =
            ["epoch", "train-loss", "train-accuracy", "train-accuracy-clean", "learning-rate"];
        let mut table = CurveTable::new(&[&own, columns].concat());
        for (index, row) in self.epochs.iter().enumerate() {
            let mut cells = vec![
                (index + 1) as f64,
                row.loss,
                row.accuracy_on_given_labels,
                row.accuracy_on_clean_labels.unwrap_or(f64::NAN),
                row.learning_rate,
            ];
            cells.extend(row.extra.iter().map(|value| value.unwrap_or(f64::NAN)));
            table.push(&cells);
        }
        table.write(&folder.join("curves.csv"))?;
        self.evaluations.write(folder, steps_per_epoch)
    }

    /// What was measured in an epoch, counted from 0, and in the last evaluation within it. `None` for one that is not
    /// over.
    pub fn epoch_values(
        &self,
        epoch: u64,
        columns: &[&'static str],
        steps_per_epoch: u64,
    ) -> Option<EpochValues> {
        let row = self.epochs.get(usize::try_from(epoch).ok()?)?;
        let mut values =
            vec![("train-loss", row.loss), ("train-accuracy", row.accuracy_on_given_labels)];
        let mut add = |name, value: Option<f64>| values.extend(value.map(|value| (name, value)));
        add("train-accuracy-clean", row.accuracy_on_clean_labels);
        for (column, value) in columns.iter().zip(&row.extra) {
            add(column, *value);
        }
        let is_within =
            |steps: u64| steps.saturating_sub(1) / steps_per_epoch.max(1) == epoch && steps > 0;
        let evaluation = self.evaluations.0.iter().rev().find(|row| is_within(row.steps));
        values.extend(evaluation.iter().flat_map(|row| row.values()));
        Some(values)
    }

    /// The numbers of the last epoch and of the last evaluation, or of that `of_mean` where a mean is the model, and the best
    /// validation on the way. `train-accuracy` is on the labels that were trained on.
    ///
    /// # Errors
    /// When there was no epoch.
    pub fn metrics(
        &self,
        columns: &[&str],
        of_mean: Option<&EvaluationRow>,
    ) -> anyhow::Result<Metrics> {
        let last = self.epochs.last().context("no epoch was run")?;
        let mut metrics = Metrics::from([
            ("train-loss".to_owned(), last.loss),
            ("train-accuracy".to_owned(), last.accuracy_on_given_labels),
        ]);
        let mut add = |name: &str, value: Option<f64>| {
            metrics.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("train-accuracy-clean", last.accuracy_on_clean_labels);
        for (column, value) in columns.iter().zip(&last.extra) {
            add(column, *value);
        }
        let evaluation = of_mean.or(self.evaluations.0.last());
        add("validation-accuracy", evaluation.and_then(|row| row.validation_accuracy));
        add("validation-loss", evaluation.and_then(|row| row.validation_loss));
        let best = self.evaluations.best_validation();
        add("best-validation-accuracy", best.and_then(|row| row.validation_accuracy));
        if let Some(best) = best {
            metrics.insert_count("best-validation-step", best.steps);
        }
        Ok(metrics)
    }

    /// The last accuracy and loss on the test set, where there was any, and the best accuracy, which is chosen on it.
    pub fn test_metrics(&self) -> Metrics {
        let last = self.evaluations.0.iter().rev().find_map(|row| row.test_accuracy);
        let loss = self.evaluations.0.last().and_then(|row| row.test_loss);
        let best = self.evaluations.best_test().and_then(|row| row.test_accuracy);
        let named = [
            ("test-accuracy", last),
            ("test-loss", loss),
            ("best-test-accuracy-chosen-on-test", best),
        ];
        let known = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        known.collect()
    }

    /// How much lower the last accuracy on the test set is than the best one.
    pub fn test_drop(&self) -> f64 {
        let tests = || self.evaluations.0.iter().filter_map(|row| row.test_accuracy);
        let best = tests().fold(0.0, f64::max);
        tests().next_back().map_or(0.0, |last| best - last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(steps: u64, validation: f64, test: f64) -> EvaluationRow {
        EvaluationRow {
            steps,
            validation_accuracy: Some(validation),
            test_accuracy: Some(test),
            validation_loss: Some(1.0 - validation),
            test_loss: None,
        }
    }

    #[test]
    fn the_first_of_the_best_and_the_last() {
        let row = EpochRow {
            loss: 1.0,
            accuracy_on_given_labels: 0.5,
            accuracy_on_clean_labels: None,
            learning_rate: 0.01,
            extra: vec![Some(0.25), None],
        };
        let curves = Curves {
            epochs: vec![row],
            evaluations: Evaluations(vec![
                evaluation(5, 0.5, 0.6),
                evaluation(10, 0.7, 0.9),
                evaluation(15, 0.7, 0.5),
                evaluation(20, 0.6, 0.8),
            ]),
        };
        let metrics = curves.metrics(&["one", "other"], None).unwrap();
        for (name, value) in [
            ("validation-accuracy", 0.6),
            ("validation-loss", 0.4),
            ("best-validation-accuracy", 0.7),
            ("best-validation-step", 10.0),
            ("train-loss", 1.0),
            ("one", 0.25),
        ] {
            assert_eq!(metrics.get(name), Some(&value), "{name}");
        }
        assert!(!metrics.contains_key("train-accuracy-clean") && !metrics.contains_key("other"));
        let of_mean = EvaluationRow { validation_loss: None, ..evaluation(20, 0.8, 0.9) };
        let metrics = curves.metrics(&[], Some(&of_mean)).unwrap();
        assert_eq!(
            [metrics["validation-accuracy"], metrics["best-validation-accuracy"]],
            [0.8, 0.7]
        );
        assert!(
            !metrics.contains_key("validation-loss"),
            "that of the last step is of another network"
        );
        assert!((curves.test_drop() - 0.1).abs() < 1e-12);
        let test = curves.test_metrics();
        assert_eq!((test["test-accuracy"], test["best-test-accuracy-chosen-on-test"]), (0.8, 0.9));
    }

    #[test]
    fn an_epoch_has_the_last_evaluation_within_it() {
        let row = |loss: f64| EpochRow {
            loss,
            accuracy_on_given_labels: 0.5,
            accuracy_on_clean_labels: Some(0.4),
            learning_rate: 0.01,
            extra: vec![None, Some(0.25)],
        };
        let curves = Curves {
            epochs: vec![row(2.0), row(1.0), row(0.5)],
            evaluations: Evaluations(vec![evaluation(5, 0.5, 0.6), evaluation(10, 0.7, 0.9)]),
        };
        let values = |epoch| curves.epoch_values(epoch, &["one", "other"], 10);
        let measured = [
            ("train-loss", 2.0),
            ("train-accuracy", 0.5),
            ("train-accuracy-clean", 0.4),
            ("other", 0.25),
        ];
        let evaluated =
            [("validation-accuracy", 0.7), ("test-accuracy", 0.9), ("validation-loss", 1.0 - 0.7)];
        assert_eq!(values(0), Some([&measured[..], &evaluated].concat()));
        assert_eq!(values(1).map(|values| values.len()), Some(4), "without an evaluation");
        assert_eq!(values(3), None);
    }

    #[test]
    fn nothing_to_tell_is_an_error() {
        assert!(Curves::default().metrics(&[], None).is_err());
    }
}
