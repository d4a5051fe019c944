//! Training a classifier by a method: batches in, one step of the method each, evaluations on the way, a model out.
//!
//! Owns time: the learning rate of every step, evaluations, checkpoints, curves. What is learned, and with what, is the
//! method's. What becomes the model is the last step's network, or the best one or a mean on the way where the recipe asks for it.

use anyhow::{Context as _, ensure};
use pipeline_stages::Kind;
use pipeline_stages::formats::{ModelInfo, Part, WEIGHTS_FILE, weights_file};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::Context;
use tch::{Device, Tensor};

use super::batch::{Batch, StepBatch};
use super::captured_step::CapturedStep;
use super::curve::{Curves, EpochRow, EvaluationRow, SUMS};
use super::epoch_log::EpochValues;
use super::epoch_sums::EpochSums;
use super::loss::SampleLoss;
use super::method::{Setup, StepOutput, TrainingMethod, before_names};
use super::recipe::{Chosen, Length, Recipe};
use super::recorder::Recorder;
use super::schedule::LearningRateSchedule;
use super::state_tensors::StateTensors;
use super::training_data::TrainingData;
use super::training_loop::{self, RunLength, StepPosition, Trainer, check_finite};
use crate::data::batches::{StepSamples, mix};
use crate::network::{Classifier, NetworkState, weights};
use crate::training_record;

/// The classifier of an encoder that was pre-trained with labels: its last layer.
const CLASSIFIER_FILE: &str = "classifier.safetensors";

/// A training by a method.
pub struct SupervisedTrainer<'a> {
    recipe: &'a Recipe,
    schedule: LearningRateSchedule,
    context: &'a Context,
    data: &'a TrainingData,
    method: Box<dyn TrainingMethod>,
    /// What the method is made of.
    state: StateTensors,
    sums: EpochSums,
    curves: Curves,
    /// The networks at their best, or their mean, where that is what is chosen.
    kept: Vec<NetworkState>,
    /// The evaluation of the mean, after the last step.
    of_mean: Option<EvaluationRow>,
    /// The losses of every sample, where they are wanted.
    recorder: Option<Recorder>,
    steps: CapturedStep<'a, StepBatch>,
}

impl<'a> SupervisedTrainer<'a> {
    /// A training at its beginning. `method` makes its method.
    ///
    /// # Errors
    /// Those of `method`, or when libtorch cannot make the tensors.
    pub fn new(
        recipe: &'a Recipe,
        context: &'a Context,
        data: &'a TrainingData,
        method: impl FnOnce(&mut Setup<'_>) -> anyhow::Result<Box<dyn TrainingMethod>>,
    ) -> anyhow::Result<Self> {
        data.note_small_batches(context);
        let mut setup = data.setup(recipe, context);
        let method = method(&mut setup)?;
        let Setup { state, notes, .. } = setup;
        notes.into_iter().for_each(|note| context.note(note));
        let sums = EpochSums::new([SUMS, method.sums()].concat(), data.noisy, data.device)?;
        let curves = Curves::default();
        ensure!(
            recipe.chosen != Chosen::BestOnValidation || !data.validation.is_empty(),
            "no samples are held out, and the model is to be the best one on them: \
             connect 'split', or set select-best = \"last\""
        );
        let kept = match recipe.chosen {
            Chosen::BestOnValidation | Chosen::BestOnTest | Chosen::MeanOfLast(_) => {
                let networks = method.networks().into_iter();
                networks.map(NetworkState::copy).collect::<anyhow::Result<_>>()?
            }
            Chosen::Last => Vec::new(),
        };
        let recorder = match recipe.length {
            Length::Epochs(epochs) if recipe.parameters.sample_losses => {
                Some(data.recorder(epochs, method.has_weights())?)
            }
            _ => None,
        };
        let tensors = state.list();
        let tensors = tensors.iter().map(|(_, tensor)| *tensor);
        let steps = CapturedStep::of(context, data.device, tensors)?;
        let schedule = LearningRateSchedule::of(&recipe.parameters);
        Ok(Self {
            recipe,
            schedule,
            context,
            data,
            method,
            state,
            sums,
            curves,
            kept,
            of_mean: None,
            recorder,
            steps,
        })
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// As [`training_loop::run`].
    pub fn run(&mut self, parameters: &impl Kind) -> anyhow::Result<()> {
        let (data, context) = (self.data, self.context);
        let steps_per_epoch = data.steps_per_epoch();
        let length = match self.recipe.length {
            Length::Epochs(epochs) => RunLength::of_epochs(epochs, steps_per_epoch)?,
            Length::Steps(steps) => RunLength { steps, steps_per_epoch },
        };
        training_loop::run(self, data, length, context, parameters)?;
        if self.is_mean_chosen() {
            self.end_with_mean(length.steps)?;
        }
        Ok(())
    }

    fn learning_rate(&self, at: StepPosition) -> f64 {
        self.recipe.parameters.learning_rate * self.schedule.factor(at.time(), at.length.steps)
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
        self.curves.metrics(columns, self.of_mean.as_ref())
    }

    /// Writes the classifier with its description.
    ///
    /// # Errors
    /// When it has numbers that are not finite, or a file cannot be written.
    pub fn write_model(&self, parameters: &impl Kind) -> anyhow::Result<()> {
        let output = &self.context.output;
        let networks = self.chosen();
        for (number, network) in networks.iter().enumerate() {
            let tensors = network.tensors();
            weights::check_finite(tensors)?;
            weights::write(&output.join(weights_file(number)), "model", tensors)?;
        }
        let training = training_record(parameters, self.context.seed);
        let info = self.data.model_info(self.recipe.parameters.architecture, training)?;
        ModelInfo { further_networks: networks.len().saturating_sub(1), ..info }.write(output)
    }

    /// Writes the encoder with its description, and its classifier beside it.
    ///
    /// # Errors
    /// As [`SupervisedTrainer::write_model`].
    pub fn write_encoder(&self, parameters: &impl Kind) -> anyhow::Result<()> {
        let output = &self.context.output;
        let tensors = self.chosen().first().context("the method has no network")?.tensors();
        weights::check_finite(tensors)?;
        let (classifier, encoder): (Vec<_>, Vec<_>) =
            tensors.iter().partition(|named| Classifier::in_head(&named.name));
        weights::write(&output.join(WEIGHTS_FILE), "weights", encoder)?;
        weights::write(&output.join(CLASSIFIER_FILE), "classifier", classifier)?;
        let training = training_record(parameters, self.context.seed);
        let info = self.data.model_info(self.recipe.parameters.architecture, training)?;
        ModelInfo { classes: Vec::new(), ..info }.write(output)
    }

    /// The accuracy and the mean cross-entropy on samples of one part, after these many steps: nothing for no samples.
    fn evaluate(
        &self,
        part: Part,
        samples: &[u32],
        steps: u64,
        pause: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<[Option<f64>; 2]> {
        if samples.is_empty() {
            return Ok([None; 2]);
        }
        let _no_gradients = tch::no_grad_guard();
        let mut totals = Tensor::f_zeros([2], (tch::Kind::Double, self.data.device))?;
        for batch in samples.chunks(self.data.evaluation_batch()) {
            pause()?;
            let (images, labels) = match part {
                Part::Train => self.data.for_validation(batch, steps)?,
                Part::Test => self.data.for_evaluation(part, batch)?,
            };
            let logits = self.method.logits(&images)?;
            let right = right(&logits, &labels)?.f_to_kind(tch::Kind::Double)?;
            let losses = SampleLoss::CrossEntropy.of_samples(&logits, &labels)?;
            let sums = [right, losses.f_sum(tch::Kind::Double)?];
            let _ = totals.f_add_(&Tensor::f_stack(&sums, 0)?)?;
        }
        // Divided here: a GPU multiplies by the reciprocal, which is not the fraction itself.
        let totals = <[f64; 2]>::try_from(Vec::<f64>::try_from(totals.f_to_device(Device::Cpu)?)?);
        let totals = totals.map_err(|_| anyhow::anyhow!("an evaluation has two sums"))?;
        let means = totals.map(|total| total / samples.len() as f64);
        Ok(means.map(|mean| mean.is_finite().then_some(mean)))
    }

    /// What the method measures of all samples that train, in their order, not augmented.
    fn measure(&self, pause: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<Tensor> {
        let _no_gradients = tch::no_grad_guard();
        let mut measured = Vec::new();
        for batch in self.data.train.chunks(self.data.evaluation_batch()) {
            pause()?;
            measured.push(self.method.measure(&self.data.plain_batch(batch)?)?);
        }
        Ok(Tensor::f_cat(&measured, 0)?)
    }

    /// What becomes the artifact.
    fn chosen(&self) -> Vec<&NetworkState> {
        match self.best_evaluation() {
            Some(_) => self.kept.iter().collect(),
            None => self.method.networks(),
        }
    }

    fn is_mean_chosen(&self) -> bool {
        matches!(self.recipe.chosen, Chosen::MeanOfLast(_))
    }

    /// The evaluation that says what is chosen, where it is not the last one.
    fn best_evaluation(&self) -> Option<&EvaluationRow> {
        match self.recipe.chosen {
            Chosen::Last | Chosen::MeanOfLast(_) => None,
            Chosen::BestOnValidation => self.curves.evaluations.best_validation(),
            Chosen::BestOnTest => self.curves.evaluations.best_test(),
        }
    }

    /// Keeps the networks as they are now.
    fn keep(&self) -> anyhow::Result<()> {
        let mut networks = self.kept.iter().zip(self.method.networks());
        networks.try_for_each(|(kept, now)| kept.copy_from(now))
    }

    /// Takes the networks as they are after an epoch into the mean, where that is what is chosen.
    fn keep_mean(&self, at: StepPosition) -> anyhow::Result<()> {
        let Chosen::MeanOfLast(epochs) = self.recipe.chosen else { return Ok(()) };
        let first = at.length.epochs().saturating_sub(u64::from(epochs));
        let Some(before) = at.epoch.checked_sub(first) else { return Ok(()) };
        let mut networks = self.kept.iter().zip(self.method.networks());
        networks.try_for_each(|(mean, now)| mean.move_towards(now, 1.0 / (before + 1) as f64))
    }

    /// Puts the mean in the place of the networks of the last step, and evaluates it as they were, on the samples held out.
    fn end_with_mean(&mut self, steps: u64) -> anyhow::Result<()> {
        let mut networks = self.method.networks().into_iter().zip(&self.kept);
        networks.try_for_each(|(network, mean)| network.copy_from(mean))?;
        let mut pause = || Ok(self.context.stop_point()?);
        let [validation_accuracy, validation_loss] =
            self.evaluate(Part::Train, &self.data.validation, steps, &mut pause)?;
        let test = EvaluationRow::default();
        self.of_mean = Some(EvaluationRow { steps, validation_accuracy, validation_loss, ..test });
        Ok(())
    }

    fn evaluation_due(&self, at: StepPosition) -> bool {
        let done = at.end_time();
        let due = match self.recipe.parameters.evaluate_every {
            Some(steps) => done / steps > at.time() / steps,
            None => at.ends_epoch(),
        };
        let evaluated = self.curves.evaluations.0.last().is_some_and(|last| last.steps == done);
        (due || at.ends_run()) && !evaluated
    }
}

impl Trainer for SupervisedTrainer<'_> {
    type Batch = StepBatch;
    type Curves = Curves;

    fn device(&self) -> Device {
        self.data.device
    }

    fn state_tensors(&self) -> Vec<(String, &Tensor)> {
        let mut tensors = self.state.list();
        tensors.push(self.sums.state_tensor());
        tensors.extend(self.recorder.iter().flat_map(Recorder::state_tensors));
        for (number, network) in self.kept.iter().enumerate() {
            let before = before_names(number);
            let named = network.tensors().iter();
            tensors
                .extend(named.map(|named| (format!("kept.{before}{}", named.name), &named.tensor)));
        }
        tensors
    }

    fn curves(&self) -> &Curves {
        &self.curves
    }

    fn resume(&mut self, curves: Curves) {
        self.curves = curves;
    }

    fn begin_epoch(
        &mut self,
        epoch: u32,
        pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let measured = match self.method.measures(epoch) {
            true => Some(self.measure(&mut || pause(self))?),
            false => None,
        };
        self.method.begin_epoch(epoch, measured.as_ref())
    }

    fn samples(&self, epoch: u32) -> anyhow::Result<Vec<StepSamples>> {
        let mut steps = self.method.select(epoch, self.data.batches(epoch)?)?;
        if let Some(alpha) = self.recipe.mixup() {
            mix(&mut steps, alpha, self.context.seed, epoch);
        }
        Ok(steps)
    }

    fn step(&mut self, batch: StepBatch, at: StepPosition) -> anyhow::Result<()> {
        self.method.begin_step(self.learning_rate(at), at)?;
        let is_replayable = self.method.is_replayable();
        let Self { method, recorder, sums, steps, .. } = self;
        steps.run(&batch, is_replayable, |StepBatch { train, others }| {
            let output = method.compute(train, others)?;
            if let Some(recorder) = recorder {
                recorder.add(&train.samples, &output)?;
            }
            add(sums, train, output)
        })
    }

    fn after_step(
        &mut self,
        at: StepPosition,
        pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.evaluation_due(at) {
            let (validation, test, steps) = (&self.data.validation, &self.data.test, at.end_time());
            let mut pause = || pause(self);
            let [validation_accuracy, validation_loss] =
                self.evaluate(Part::Train, validation, steps, &mut pause)?;
            let [test_accuracy, test_loss] = self.evaluate(Part::Test, test, steps, &mut pause)?;
            if validation_accuracy.is_some() || test_accuracy.is_some() {
                let row = EvaluationRow {
                    steps,
                    validation_accuracy,
                    test_accuracy,
                    validation_loss,
                    test_loss,
                };
                self.context.measured(steps, row.values());
                self.curves.evaluations.0.push(row);
                let best = self.best_evaluation();
                if best.is_some_and(|best| best.steps == steps) {
                    self.keep()?;
                }
            }
        }
        if at.ends_epoch() {
            self.keep_mean(at)?;
        }
        if (at.ends_epoch() || self.finished()) && self.curves.epochs.len() as u64 == at.epoch {
            let sums = self.sums.read()?;
            check_finite(sums.get("loss"), at, self.recipe.parameters.learning_rate)?;
            let extra = self.method.row(&sums);
            self.curves.epochs.push(EpochRow::of(&sums, self.learning_rate(at), extra));
            self.sums.clear()?;
            self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.finish(at.epoch))?;
        }
        Ok(())
    }

    fn epoch_values(&self, epoch: u64) -> Option<EpochValues> {
        self.curves.epoch_values(epoch, self.method.columns(), self.data.steps_per_epoch())
    }

    fn report(&self, at: StepPosition) -> anyhow::Result<()> {
        let sums = self.sums.read()?;
        check_finite(sums.get("loss"), at, self.recipe.parameters.learning_rate)?;
        let values = [
            ("train-loss", sums.mean("loss", "samples")),
            ("train-accuracy", sums.mean("right-on-given-labels", "samples")),
            ("learning-rate", self.learning_rate(at)),
        ];
        self.context.measured(at.end_time(), values);
        self.context.progress(Progress {
            done: self.data.samples_of(at.end_time()),
            total: Some(self.data.samples_of(at.length.steps)),
            unit: Unit::Images,
            phase: Some(format!("epoch {}/{}", at.epoch + 1, at.length.epochs())),
        });
        Ok(())
    }

    /// The evaluation of the mean.
    fn more_follows(&self) -> bool {
        self.is_mean_chosen() && !self.data.validation.is_empty()
    }

    fn finished(&self) -> bool {
        self.recipe.early_end.is_some_and(|end| {
            let last = self.curves.evaluations.0.last();
            last.is_some_and(|last| last.steps >= end.after) && self.curves.test_drop() > end.drop
        })
    }
}

/// Adds what a step measured to the sums of the epoch.
fn add(sums: &mut EpochSums, batch: &Batch, output: StepOutput) -> anyhow::Result<()> {
    let StepOutput { losses, logits, mut extra, .. } = output;
    let options = (tch::Kind::Int64, losses.device());
    extra.extend([
        ("samples", Tensor::f_full([0i64; 0].as_slice(), losses.size1()?, options)?),
        ("loss", losses.f_sum(tch::Kind::Double)?),
        ("right-on-given-labels", right(&logits, &batch.labels)?),
        ("right-on-clean-labels", right(&logits, &batch.clean_labels)?),
    ]);
    sums.add(&extra)
}

/// How many rows have their largest logit at their label: an integer scalar.
fn right(logits: &Tensor, labels: &Tensor) -> anyhow::Result<Tensor> {
    Ok(logits.f_argmax(1, false)?.f_eq_tensor(labels)?.f_sum(tch::Kind::Int64)?)
}
