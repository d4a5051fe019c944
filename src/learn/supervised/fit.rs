//! Fitting a classifier: batches in, one step of the method each, evaluations on the way, a model out.
//!
//! Per step the learning rate of the schedule, the method's own step, and sums for the curves. What
//! becomes the model is the last step's network, not the best one on the way: choosing by validation
//! would be a method of its own.

use anyhow::Context as _;
use pipeline_stages::Kind;
use pipeline_stages::formats::{ModelInfo, Part, WEIGHTS_FILE};
use pipeline_stages::kinds::Keep;
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::Context;
use tch::{Device, Tensor};

use super::curve::{Curves, EpochRow, EvaluationRow, SUMS};
use super::data::{Batch, TrainingData};
use super::recorder::Recorder;
use super::{Length, Recipe};
use crate::epoch_log::Values;
use crate::loss::SampleLoss;
use crate::network::{Classifier, Mode, NamedTensor};
use crate::optimizer::Optimizer;
use crate::tally::{Sums, Tally};
use crate::training_loop::{At, Budget, Method, check_finite};
use crate::{training_record, weights};

/// The classifier of an encoder that was pre-trained with labels: its last layer.
const CLASSIFIER_FILE: &str = "classifier.safetensors";

/// What a robust method works with in one step.
pub struct Step<'a> {
    /// The classifier.
    pub network: &'a Classifier,
    /// What moves its weights.
    pub optimizer: &'a mut Optimizer,
    /// The loss of a sample.
    pub loss: SampleLoss,
    /// What this step learns from.
    pub batch: &'a Batch,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Where in the run it is.
    pub at: At,
}

impl Step<'_> {
    /// The logits of the batch, float [B,K], in training mode.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn forward(&self) -> anyhow::Result<Tensor> {
        self.network.forward(&self.batch.images, Mode::Train)
    }
}

/// What a step adds to the curves. Nothing of it holds a graph.
pub struct Outcome {
    /// The loss of every sample, float [B].
    pub losses: Tensor,
    /// float [B,K].
    pub logits: Tensor,
    /// The weight of every sample, float [B] from 0 to 1, where the method has weights.
    pub weights: Option<Tensor>,
    /// Scalars, in the order of [`RobustMethod::sums`].
    pub extra: Vec<Tensor>,
}

/// A method of training under label noise: what happens in one step.
pub trait RobustMethod {
    /// One step: forward, loss, backward, move.
    ///
    /// # Errors
    /// When libtorch fails.
    fn step(&mut self, step: &mut Step<'_>) -> anyhow::Result<Outcome>;

    /// Every tensor that it changes, beside those of the classifier and its optimizer.
    fn tensors(&self) -> Vec<(String, &Tensor)> {
        Vec::new()
    }

    /// Whether its steps have a weight for every sample.
    fn has_weights(&self) -> bool {
        false
    }

    /// The names of the sums that it adds to every epoch.
    fn sums(&self) -> &'static [&'static str] {
        &[]
    }

    /// The names of the columns that it adds to the curves.
    fn columns(&self) -> &'static [&'static str] {
        &[]
    }

    /// The numbers in these columns, from the sums of an epoch. NaN where one is not known.
    fn row(&self, _sums: &Sums) -> Vec<f64> {
        Vec::new()
    }

    /// Writes files of its own into the artifact.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&self, _folder: &std::path::Path) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A training on its way.
pub struct Fit<'a> {
    recipe: &'a Recipe,
    context: &'a Context,
    data: &'a TrainingData,
    device: Device,
    network: Classifier,
    method: Box<dyn RobustMethod>,
    optimizer: Optimizer,
    tally: Tally,
    curves: Curves,
    /// The network at its best on the test set, where that is what is kept.
    best: Vec<NamedTensor>,
    /// The losses of every sample, where they are wanted.
    recorder: Option<Recorder>,
}

impl<'a> Fit<'a> {
    /// A training at its beginning: from the initial encoder where there is one.
    ///
    /// # Errors
    /// When the initial weights do not fit, or libtorch cannot make the tensors.
    pub fn new(
        recipe: &'a Recipe,
        context: &'a Context,
        data: &'a TrainingData,
        method: Box<dyn RobustMethod>,
    ) -> anyhow::Result<Self> {
        data.note_small_batches(context);
        let device = data.device;
        let channels = data.image().channels;
        let classes = data.classes.len();
        let network =
            Classifier::new(recipe.architecture, channels, classes, context.seed, device)?
                .with_precision(recipe.precision);
        if let Some(init) = &data.init {
            let encoder = network.state().tensors().iter();
            let encoder = encoder.filter(|named| !Classifier::in_head(&named.name));
            weights::read_into(&init.join(WEIGHTS_FILE), encoder, Classifier::in_head)
                .context("the initial weights do not fit")?;
        }
        let optimizer =
            Optimizer::new(recipe.rule, recipe.weight_decay, network.state(), recipe.decays)?;
        let tally = Tally::new([SUMS, method.sums()].concat(), device)?;
        let curves = Curves::default();
        let best = match recipe.keep {
            Keep::BestOnTest => network.state().copy()?,
            Keep::Last => Vec::new(),
        };
        let recorder = match recipe.length {
            Length::Epochs(epochs) if recipe.sample_losses => {
                Some(data.recorder(epochs, method.has_weights())?)
            }
            _ => None,
        };
        Ok(Self {
            recipe,
            context,
            data,
            device,
            network,
            method,
            optimizer,
            tally,
            curves,
            best,
            recorder,
        })
    }

    /// How long the training is.
    ///
    /// # Errors
    /// When nobody can count that far.
    pub fn budget(&self) -> anyhow::Result<Budget> {
        let steps_per_epoch = self.data.steps_per_epoch();
        match self.recipe.length {
            Length::Epochs(epochs) => Budget::of_epochs(epochs, steps_per_epoch),
            Length::Steps(steps) => Ok(Budget { steps, steps_per_epoch }),
        }
    }

    /// The classifier as it is now.
    pub fn network(&self) -> &Classifier {
        &self.network
    }

    fn learning_rate(&self, at: At) -> f64 {
        self.recipe.learning_rate * self.recipe.schedule.factor(at.step, at.steps())
    }

    /// What the training said of itself so far.
    pub fn curves(&self) -> &Curves {
        &self.curves
    }

    /// Writes the curves and what the method adds, and returns the metrics.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_curves(&self) -> anyhow::Result<Metrics> {
        let (output, columns) = (&self.context.output, self.method.columns());
        self.curves.write(output, columns, self.data.steps_per_epoch())?;
        self.method.write(output)?;
        if let Some(recorder) = &self.recorder {
            self.data.record(recorder)?.write(output)?;
        }
        self.curves.metrics(columns)
    }

    /// Writes the classifier with its description.
    ///
    /// # Errors
    /// When it has numbers that are not finite, or a file cannot be written.
    pub fn write_model(&self, parameters: &impl Kind) -> anyhow::Result<()> {
        let output = &self.context.output;
        let tensors = self.network.state().tensors();
        weights::check_finite(tensors)?;
        weights::write(&output.join(WEIGHTS_FILE), "model", tensors)?;
        let training = training_record(parameters, self.context.seed);
        self.data.model_info(self.recipe.architecture, training)?.write(output)
    }

    /// Writes the encoder with its description, and its classifier beside it.
    ///
    /// # Errors
    /// As [`Fit::write_model`].
    pub fn write_encoder(&self, parameters: &impl Kind) -> anyhow::Result<()> {
        let output = &self.context.output;
        let tensors = self.kept();
        weights::check_finite(tensors)?;
        let (classifier, encoder): (Vec<_>, Vec<_>) =
            tensors.iter().partition(|named| Classifier::in_head(&named.name));
        weights::write(&output.join(WEIGHTS_FILE), "weights", encoder)?;
        weights::write(&output.join(CLASSIFIER_FILE), "classifier", classifier)?;
        let training = training_record(parameters, self.context.seed);
        let info = self.data.model_info(self.recipe.architecture, training)?;
        ModelInfo { classes: Vec::new(), ..info }.write(output)
    }

    /// The accuracy and the mean cross-entropy on samples of one part, against their clean labels: nothing for no samples.
    fn evaluate(
        &self,
        part: Part,
        samples: &[u32],
        pause: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<[Option<f64>; 2]> {
        if samples.is_empty() {
            return Ok([None; 2]);
        }
        let _no_gradients = tch::no_grad_guard();
        let mut totals = Tensor::f_zeros([2], (tch::Kind::Double, self.device))?;
        for batch in samples.chunks(self.data.evaluation_batch()) {
            pause()?;
            let (images, labels) = self.data.for_evaluation(part, batch)?;
            let logits = self.network.forward(&images, Mode::Evaluate)?;
            let right = right(&logits, &labels)?.f_to_kind(tch::Kind::Double)?;
            let losses = SampleLoss::CrossEntropy.of_samples(&logits, &labels)?;
            let sums = [right, losses.f_sum(tch::Kind::Double)?];
            let _ = totals.f_add_(&Tensor::f_stack(&sums, 0)?)?;
        }
        let means = totals.f_div_scalar(samples.len() as f64)?;
        let means = <[f64; 2]>::try_from(Vec::<f64>::try_from(means.f_to_device(Device::Cpu)?)?);
        let means = means.map_err(|_| anyhow::anyhow!("an evaluation has two sums"))?;
        Ok(means.map(|mean| mean.is_finite().then_some(mean)))
    }

    /// What becomes the artifact.
    fn kept(&self) -> &[NamedTensor] {
        match (self.recipe.keep, self.curves.evaluations.best_test()) {
            (Keep::BestOnTest, Some(_)) => &self.best,
            _ => self.network.state().tensors(),
        }
    }

    /// Keeps the network as it is now.
    fn keep(&mut self) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        for (kept, now) in self.best.iter_mut().zip(self.network.state().tensors()) {
            kept.tensor.f_copy_(&now.tensor)?;
        }
        Ok(())
    }

    fn evaluation_due(&self, at: At) -> bool {
        let done = at.step + 1;
        let due = match self.recipe.evaluate_every {
            Some(steps) => done.is_multiple_of(steps),
            None => at.ends_epoch(),
        };
        let evaluated = self.curves.evaluations.0.last().is_some_and(|last| last.steps == done);
        (due || at.ends_run()) && !evaluated
    }
}

impl Method for Fit<'_> {
    type Batch = Batch;
    type Progress = Curves;

    fn device(&self) -> Device {
        self.device
    }

    fn tensors(&self) -> Vec<(String, &Tensor)> {
        let network = self.network.state().tensors().iter();
        let mut tensors: Vec<_> =
            network.map(|named| (named.name.clone(), &named.tensor)).collect();
        tensors.extend(self.optimizer.kept());
        tensors.extend(self.method.tensors());
        tensors.push(self.tally.kept());
        tensors.extend(self.recorder.iter().flat_map(Recorder::kept));
        let best = self.best.iter();
        tensors.extend(best.map(|named| (format!("best.{}", named.name), &named.tensor)));
        tensors
    }

    fn progress(&self) -> &Curves {
        &self.curves
    }

    fn resume(&mut self, progress: Curves) {
        self.curves = progress;
    }

    fn step(&mut self, batch: Batch, at: At) -> anyhow::Result<()> {
        let learning_rate = self.learning_rate(at);
        let outcome = self.method.step(&mut Step {
            network: &self.network,
            optimizer: &mut self.optimizer,
            loss: self.recipe.loss,
            batch: &batch,
            learning_rate,
            at,
        })?;
        if let Some(recorder) = &mut self.recorder {
            recorder.add(&batch.samples, &outcome)?;
        }
        let mut sums = vec![
            Tensor::f_full(
                [0i64; 0].as_slice(),
                outcome.losses.size1()?,
                (tch::Kind::Int64, self.device),
            )?,
            outcome.losses.f_sum(tch::Kind::Double)?,
            right(&outcome.logits, &batch.labels)?,
            right(&outcome.logits, &batch.clean_labels)?,
        ];
        sums.extend(outcome.extra);
        self.tally.add(&sums)
    }

    fn after_step(
        &mut self,
        at: At,
        pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.evaluation_due(at) {
            let (validation, test) = (&self.data.validation, &self.data.test);
            let mut pause = || pause(self);
            let [validation_accuracy, validation_loss] =
                self.evaluate(Part::Train, validation, &mut pause)?;
            let [test_accuracy, test_loss] = self.evaluate(Part::Test, test, &mut pause)?;
            if validation_accuracy.is_some() || test_accuracy.is_some() {
                let steps = at.step + 1;
                let row = EvaluationRow {
                    steps,
                    validation_accuracy,
                    test_accuracy,
                    validation_loss,
                    test_loss,
                };
                self.context.measured(steps, row.values());
                self.curves.evaluations.0.push(row);
                let best = self.curves.evaluations.best_test();
                if best.is_some_and(|best| best.steps == steps) {
                    self.keep()?;
                }
            }
        }
        if (at.ends_epoch() || self.finished()) && self.curves.epochs.len() as u64 == at.epoch() {
            let sums = self.tally.read()?;
            check_finite(sums.get("loss"), at, self.recipe.learning_rate)?;
            let extra = self.method.row(&sums);
            self.curves.epochs.push(EpochRow::of(
                &sums,
                self.data.noisy,
                self.learning_rate(at),
                extra,
            ));
            self.tally.clear()?;
            self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.finish(at.epoch()))?;
        }
        Ok(())
    }

    fn epoch_values(&self, epoch: u64) -> Option<Values> {
        self.curves.epoch_values(epoch, self.method.columns(), self.data.steps_per_epoch())
    }

    fn report(&self, at: At) -> anyhow::Result<()> {
        let sums = self.tally.read()?;
        check_finite(sums.get("loss"), at, self.recipe.learning_rate)?;
        let values = [
            ("train-loss", sums.mean("loss", "samples")),
            ("train-accuracy", sums.mean("right-on-given-labels", "samples")),
            ("learning-rate", self.learning_rate(at)),
        ];
        self.context.measured(at.step + 1, values);
        self.context.progress(Progress {
            done: self.data.samples_of(at.step + 1),
            total: Some(self.data.samples_of(at.steps())),
            unit: Unit::Images,
            phase: Some(format!("epoch {}/{}", at.epoch() + 1, at.budget.epochs())),
        });
        Ok(())
    }

    fn finished(&self) -> bool {
        self.recipe.early_end.is_some_and(|end| {
            let last = self.curves.evaluations.0.last();
            last.is_some_and(|last| last.steps >= end.after) && self.curves.test_drop() > end.drop
        })
    }
}

/// How many rows have their largest logit at their label: an integer scalar.
fn right(logits: &Tensor, labels: &Tensor) -> anyhow::Result<Tensor> {
    Ok(logits.f_argmax(1, false)?.f_eq_tensor(labels)?.f_sum(tch::Kind::Int64)?)
}
