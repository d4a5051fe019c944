//! What is counted over the test samples: right ones, losses, which class was taken for which.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use pipeline_stages::message::Metrics;
use pipeline_stages::text::csv_field;
use tch::{Device, Kind, Tensor};

use super::calibration::Reliability;

/// How many guesses top-5 accuracy allows.
const GUESSES: usize = 5;

/// What was counted so far, of which the metrics of a classifier are made.
pub(super) struct ClassificationMetrics {
    pub(super) samples: u64,
    loss_sum: f64,
    in_top_five: u64,
    /// Rows: the true class; columns: the predicted one.
    confusion: Vec<Vec<u64>>,
    pub(super) reliability: Reliability,
}

/// Per sample of a batch, what one forward pass says.
pub(super) struct Scores {
    /// -ln of the probability of the label.
    pub(super) losses: Vec<f64>,
    /// The class with the largest logit, the first of equal ones.
    pub(super) classes: Vec<i64>,
    /// Its probability.
    confidences: Vec<f64>,
    /// How many classes come before the label.
    ranks: Vec<i64>,
}

impl Scores {
    /// From logits, float [N,K], and labels in 0..K.
    ///
    /// # Errors
    /// When the logits are not finite, or libtorch fails.
    pub(super) fn of(logits: &Tensor, labels: &[i64]) -> anyhow::Result<Self> {
        let log_probabilities = logits.f_log_softmax(-1, Kind::Double)?;
        let targets = Tensor::f_from_slice(labels)?.f_to_device(logits.device())?.f_unsqueeze(1)?;
        let losses = losses_under(&log_probabilities, &targets)?;
        let (confidences, classes) = log_probabilities.f_max_dim(1, false)?;
        let of_label = logits.f_gather(1, &targets, false)?;
        let numbers = Tensor::f_arange(logits.size()[1], (Kind::Int64, logits.device()))?;
        let earlier = numbers.f_unsqueeze(0)?.f_lt_tensor(&targets)?;
        let before = logits
            .f_gt_tensor(&of_label)?
            .f_logical_or(&logits.f_eq_tensor(&of_label)?.f_logical_and(&earlier)?)?;
        Ok(Self {
            losses,
            classes: list(&classes)?,
            confidences: list(&confidences.f_exp()?)?,
            ranks: list(&before.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)?)?,
        })
    }
}

/// The cross-entropy of every sample, from logits, float [N,K], and labels in 0..K.
///
/// # Errors
/// As [`Scores::of`].
pub(super) fn losses_of(logits: &Tensor, labels: &[i64]) -> anyhow::Result<Vec<f64>> {
    let targets = Tensor::f_from_slice(labels)?.f_to_device(logits.device())?.f_unsqueeze(1)?;
    losses_under(&logits.f_log_softmax(-1, Kind::Double)?, &targets)
}

/// From the logarithms of probabilities, double [N,K], and labels, int64 [N,1].
fn losses_under(log_probabilities: &Tensor, targets: &Tensor) -> anyhow::Result<Vec<f64>> {
    let losses = log_probabilities.f_gather(1, targets, false)?.f_neg()?;
    let losses: Vec<f64> = list(&losses.f_squeeze_dim(1)?)?;
    ensure!(
        losses.iter().all(|loss| loss.is_finite()),
        "the classifier's outputs are not finite numbers: its training diverged, or its weights are damaged"
    );
    Ok(losses)
}

/// The numbers of a tensor with one dimension.
pub(super) fn list<T: tch::kind::Element>(tensor: &Tensor) -> anyhow::Result<Vec<T>>
where
    Vec<T>: for<'a> TryFrom<&'a Tensor, Error = tch::TchError>,
{
    Ok(Vec::try_from(&tensor.f_to_device(Device::Cpu)?)?)
}

impl ClassificationMetrics {
    /// Of nothing yet.
    pub(super) fn new(classes: usize) -> Self {
        Self {
            samples: 0,
            loss_sum: 0.0,
            in_top_five: 0,
            confusion: vec![vec![0; classes]; classes],
            reliability: Reliability::default(),
        }
    }

    /// Counts a batch.
    pub(super) fn add(&mut self, scores: &Scores, labels: &[i64]) {
        self.samples += labels.len() as u64;
        self.loss_sum += scores.losses.iter().sum::<f64>();
        let within = |rank: &&i64| usize::try_from(**rank).is_ok_and(|rank| rank < GUESSES);
        self.in_top_five += scores.ranks.iter().filter(within).count() as u64;
        let guesses = scores.classes.iter().zip(&scores.confidences);
        for (label, (class, confidence)) in labels.iter().zip(guesses) {
            self.reliability.add(*confidence, label == class);
            let row = self.confusion.get_mut(*label as usize);
            if let Some(count) = row.and_then(|row| row.get_mut(*class as usize)) {
                *count += 1;
            }
        }
    }

    /// The share of samples whose class was predicted.
    pub(super) fn accuracy(&self) -> f64 {
        let right: u64 = self.confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
        right as f64 / self.samples.max(1) as f64
    }

    /// What is known of the test set.
    pub(super) fn metrics(&self, classes: &[String]) -> Metrics {
        let samples = self.samples.max(1) as f64;
        let mut metrics = Metrics::from([
            ("test-accuracy".to_owned(), self.accuracy()),
            ("test-loss".to_owned(), self.loss_sum / samples),
        ]);
        if classes.len() > GUESSES {
            metrics.insert("test-top5-accuracy".to_owned(), self.in_top_five as f64 / samples);
        }
        let calibration_error = self.reliability.expected_error();
        metrics.extend(calibration_error.map(|error| ("test-ece".to_owned(), error)));
        for ((class, name), row) in classes.iter().enumerate().zip(&self.confusion) {
            let samples: u64 = row.iter().sum();
            if samples > 0 {
                let accuracy = row[class] as f64 / samples as f64;
                metrics.insert(format!("test-accuracy/{name}"), accuracy);
            }
        }
        metrics
    }

    /// Writes the counts, a row per true class.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write_confusion(&self, classes: &[String], path: &Path) -> anyhow::Result<()> {
        let mut text = "true class".to_owned();
        for name in classes {
            write!(text, ",{}", csv_field(name))?;
        }
        text.push('\n');
        for (name, row) in classes.iter().zip(&self.confusion) {
            text.push_str(&csv_field(name));
            for count in row {
                write!(text, ",{count}")?;
            }
            text.push('\n');
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{VECTORS, numbers};
    use super::*;

    #[test]
    fn the_numbers_of_numpy() {
        let case = &VECTORS["classification"];
        let labels: Vec<i64> = numbers(&case["labels"]).into_iter().map(|n| n as i64).collect();
        let classes: Vec<String> = (0..8).map(|class| format!("class {class}")).collect();
        let logits: Vec<f32> = numbers(&case["logits"]).into_iter().map(|n| n as f32).collect();
        let logits = Tensor::from_slice(&logits).reshape([-1, 8]);
        let mut measured = ClassificationMetrics::new(8);
        // In two batches of different sizes.
        for (start, length) in [(0, 5), (5, labels.len() - 5)] {
            let batch = &labels[start..start + length];
            let logits = logits.narrow(0, start as i64, length as i64);
            measured.add(&Scores::of(&logits, batch).unwrap(), batch);
        }
        let metrics = measured.metrics(&classes);
        for name in ["test-accuracy", "test-top5-accuracy", "test-loss", "test-ece"] {
            let expected = case[name].as_f64().unwrap();
            assert!(
                (metrics[name] - expected).abs() < 1e-9,
                "{name}: {} {expected}",
                metrics[name]
            );
        }
    }

    #[test]
    fn few_classes_have_no_top_five_and_missing_ones_no_accuracy() {
        let classes = ["a", "b, c"].map(str::to_owned);
        let mut measured = ClassificationMetrics::new(2);
        let logits = Tensor::from_slice(&[2.0f32, 1.0, 0.0, 0.0]).reshape([2, 2]);
        measured.add(&Scores::of(&logits, &[0, 0]).unwrap(), &[0, 0]);
        let metrics = measured.metrics(&classes);
        let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
        assert_eq!(names, ["test-accuracy", "test-accuracy/a", "test-ece", "test-loss"]);
        assert_eq!(metrics["test-accuracy"], 1.0, "of equal logits the first counts");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("confusion.csv");
        measured.write_confusion(&classes, &path).unwrap();
        let expected = "true class,a,\"b, c\"\na,2,0\n\"b, c\",0,0\n";
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn a_diverged_classifier_is_an_error() {
        let logits = Tensor::from_slice(&[f32::NAN, 1.0]).reshape([1, 2]);
        let error = Scores::of(&logits, &[0]).err().unwrap().to_string();
        assert!(error.contains("not finite") && error.contains("diverged"), "{error}");
    }
}
