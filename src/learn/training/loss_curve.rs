//! The curve of a training that measures a loss and an accuracy: a row an epoch, and the numbers of the epoch so far.
//!
//! For trainings that say no more of themselves than that, and their learning rate; supervised training has curves of its own.

use std::path::Path;

use pipeline_stages::formats::CurveTable;
use tch::{Device, Tensor};

use super::epoch_log::EpochValues;
use super::epoch_sums::EpochSums;
use super::training_loop::{StepPosition, check_finite};

/// Per epoch: its number from 1, the mean loss, the mean accuracy, the learning rate of its last step.
pub type Row = [f64; 4];

/// A curve on its way.
#[derive(Debug)]
pub struct LossCurve {
    /// What the accuracy is called, in the curve, in the progress and among the metrics.
    accuracy: &'static str,
    sums: EpochSums,
    rows: Vec<Row>,
    /// The peak of the schedule, for advice when training diverged.
    learning_rate: f64,
}

impl LossCurve {
    /// An empty curve. `accuracy` is the name of its accuracy, `learning_rate` the peak of the schedule.
    ///
    /// # Errors
    /// When libtorch cannot make the sums.
    pub fn new(accuracy: &'static str, learning_rate: f64, device: Device) -> anyhow::Result<Self> {
        let sums = EpochSums::new(vec!["count", "loss", "accuracy"], false, device)?;
        Ok(Self { accuracy, sums, rows: Vec::new(), learning_rate })
    }

    /// Adds a step: how many were measured, the sums of their losses and of their accuracies; three scalars.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn add(&mut self, [count, loss, accuracy]: [Tensor; 3]) -> anyhow::Result<()> {
        self.sums.add(&[("count", count), ("loss", loss), ("accuracy", accuracy)].into())
    }

    /// After a step at this learning rate: writes the row of an epoch that ends with it.
    ///
    /// # Errors
    /// When training diverged.
    pub fn after_step(&mut self, at: StepPosition, learning_rate: f64) -> anyhow::Result<()> {
        if at.ends_epoch() {
            let [loss, accuracy] = self.means(at)?;
            self.rows.push([(at.epoch + 1) as f64, loss, accuracy, learning_rate]);
            self.sums.clear()?;
        }
        Ok(())
    }

    /// What was measured in the epoch so far.
    ///
    /// # Errors
    /// When training diverged.
    pub fn values(
        &self,
        at: StepPosition,
        learning_rate: f64,
    ) -> anyhow::Result<[(&'static str, f64); 3]> {
        let [loss, accuracy] = self.means(at)?;
        Ok([("loss", loss), (self.accuracy, accuracy), ("learning-rate", learning_rate)])
    }

    fn means(&self, at: StepPosition) -> anyhow::Result<[f64; 2]> {
        let sums = self.sums.read()?;
        check_finite(sums.get("loss"), at, self.learning_rate)?;
        Ok([sums.mean("loss", "count"), sums.mean("accuracy", "count")])
    }

    /// The rows so far.
    pub fn rows(&self) -> &Vec<Row> {
        &self.rows
    }

    /// What was measured in an epoch, counted from 0. `None` for one that is not over.
    pub fn epoch_values(&self, epoch: u64) -> Option<EpochValues> {
        let [_, loss, accuracy, _] = *self.rows.get(usize::try_from(epoch).ok()?)?;
        Some(vec![("loss", loss), (self.accuracy, accuracy)])
    }

    /// Takes over the rows of an interrupted run.
    pub fn resume(&mut self, rows: Vec<Row>) {
        self.rows = rows;
    }

    /// What a checkpoint holds beside the rows.
    pub fn state_tensor(&self) -> (String, &Tensor) {
        self.sums.state_tensor()
    }

    /// Writes `curves.csv`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut table = CurveTable::new(&["epoch", "loss", self.accuracy, "learning-rate"]);
        self.rows.iter().for_each(|row| table.push(row));
        table.write(&folder.join("curves.csv"))
    }
}
