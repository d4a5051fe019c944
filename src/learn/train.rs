//! `train`: a classifier, fine-tuned with all its weights by one loss.
//!
//! Per step: a batch of (augmented) images, the mean loss of their (noisy) labels, one move of the
//! optimizer. After an epoch: accuracy on the samples held out. What becomes the model is the last step's
//! network, not the best one on the way: choosing by validation would be a method of its own.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::WEIGHTS_FILE;
use pipeline_stages::kinds::{self, Augmentation, Loss};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::{Context, Stopped};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::batches::shuffled;
use crate::checkpoint::{Checkpoints, Due};
use crate::loss::SampleLoss;
use crate::network::{Classifier, Mode};
use crate::optimizer::{Optimizer, Rule};
use crate::random::Purpose;
use crate::schedule::Schedule;
use crate::training_data::TrainingData;
use crate::{Body, device, training_record, weights};

/// Samples a step of validation.
const VALIDATION_BATCH: usize = 500;

/// How far a run is. Everything that a checkpoint needs beside tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Reached {
    epoch: u64,
    /// Steps done in this epoch.
    step: u64,
    running: Sums,
    curve: Vec<EpochRow>,
}

/// Sums over the samples of an epoch so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Sums {
    samples: u64,
    loss: f64,
    right_on_given_labels: u64,
    right_on_clean_labels: u64,
}

/// What is known of an epoch.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct EpochRow {
    loss: f64,
    accuracy_on_given_labels: f64,
    accuracy_on_clean_labels: Option<f64>,
    validation_accuracy: Option<f64>,
}

impl Body for kinds::Train {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let kinds::Method::Finetune = self.method;
        let device = device::prepare(&context.execution)?;
        context.ran_on(device::name(device));
        let data = TrainingData::read(self, context)?;
        let mut run = Run::new(self, context, &data, device)?;
        run.train()?;
        run.write()
    }
}

/// A run of the method.
struct Run<'a> {
    parameters: &'a kinds::Train,
    context: &'a Context,
    data: &'a TrainingData,
    device: Device,
    network: Classifier,
    loss: SampleLoss,
    optimizer: Optimizer,
    reached: Reached,
}

impl<'a> Run<'a> {
    fn new(
        parameters: &'a kinds::Train,
        context: &'a Context,
        data: &'a TrainingData,
        device: Device,
    ) -> anyhow::Result<Self> {
        let network = Classifier::new(
            parameters.architecture,
            data.images().shape.channels,
            data.classes.len(),
            context.seed,
            device,
        )?;
        if let Some(init) = &data.init {
            let encoder = network.state().tensors().iter();
            let encoder = encoder.filter(|named| !Classifier::in_head(&named.name));
            weights::read_into(&init.join(WEIGHTS_FILE), encoder, Classifier::in_head)
                .context("the initial weights don't fit")?;
        }
        let loss = match parameters.loss {
            Loss::CrossEntropy => SampleLoss::CrossEntropy,
            Loss::GeneralizedCrossEntropy => {
                SampleLoss::GeneralizedCrossEntropy { q: parameters.q }
            }
            Loss::Mae => SampleLoss::MeanAbsoluteError,
        };
        let rule = match parameters.optimizer {
            kinds::Optimizer::Sgd => Rule::Sgd { momentum: parameters.momentum },
            kinds::Optimizer::Adam => Rule::ADAM,
        };
        let decays = |name: &str| !name.contains("bn");
        let optimizer = Optimizer::new(rule, parameters.weight_decay, network.state(), decays)?;
        let reached = Reached::default();
        Ok(Self { parameters, context, data, device, network, loss, optimizer, reached })
    }

    fn steps_per_epoch(&self) -> u64 {
        (self.data.train.len() as u64).div_ceil(self.parameters.batch_size)
    }

    fn train(&mut self) -> anyhow::Result<()> {
        let mut checkpoints = Checkpoints::new(self.context, self.parameters)?;
        if let Some(reached) = checkpoints.restore(&self.tensors()) {
            self.reached = reached;
        }
        let schedule = Schedule::of(self.parameters);
        let steps = self.steps_per_epoch();
        let total = steps * self.parameters.epochs;
        while self.reached.epoch < self.parameters.epochs {
            let epoch = u32::try_from(self.reached.epoch)?;
            let order = shuffled(&self.data.train, self.context.seed, epoch);
            let batches = order.chunks(self.parameters.batch_size as usize);
            for batch in batches.skip(self.reached.step as usize) {
                self.between_steps(&mut checkpoints)?;
                let step = self.reached.epoch * steps + self.reached.step;
                let learning_rate = self.parameters.learning_rate * schedule.factor(step, total);
                self.step(batch, epoch, step, learning_rate)?;
                self.report(learning_rate);
            }
            let validation_accuracy = self.validate(&mut checkpoints)?;
            self.end_epoch(validation_accuracy);
        }
        Ok(())
    }

    /// One step: forward, loss, backward, move.
    fn step(
        &mut self,
        batch: &[u32],
        epoch: u32,
        step: u64,
        learning_rate: f64,
    ) -> anyhow::Result<()> {
        let (augmentation, purpose) = (self.parameters.augmentation, Purpose::Augmentation);
        let images =
            self.data.batch(batch, augmentation, self.context.seed, purpose, epoch, self.device)?;
        let labels = self.data.given_labels(batch, self.device)?;
        let logits = self.network.forward(&images, Mode::Train)?;
        let loss = self.loss.mean(&logits, &labels)?;
        self.optimizer.zero_gradients();
        loss.f_backward()?;
        self.optimizer.step(learning_rate, step)?;

        let value = loss.f_double_value(&[])?;
        ensure!(
            value.is_finite(),
            "the loss is {value} at epoch {}, step {}: training diverged; \
             try a smaller learning-rate (it is {}) or a longer warmup",
            self.reached.epoch + 1,
            self.reached.step + 1,
            self.parameters.learning_rate
        );
        let clean = self.data.clean_labels(batch, self.device)?;
        let sums = &mut self.reached.running;
        sums.samples += batch.len() as u64;
        sums.loss += value * batch.len() as f64;
        sums.right_on_given_labels += count_right(&logits, &labels)?;
        sums.right_on_clean_labels += count_right(&logits, &clean)?;
        self.reached.step += 1;
        Ok(())
    }

    /// Accuracy on the samples held out, when this epoch has a validation. It can be interrupted:
    /// the checkpoint then stands at the end of the epoch's steps.
    fn validate(&self, checkpoints: &mut Checkpoints<'_>) -> anyhow::Result<Option<f64>> {
        let epoch = self.reached.epoch + 1;
        let due =
            epoch.is_multiple_of(self.parameters.validate_every) || epoch == self.parameters.epochs;
        if !due || self.data.validation.is_empty() {
            return Ok(None);
        }
        let _no_gradients = tch::no_grad_guard();
        let mut right = 0;
        for batch in self.data.validation.chunks(VALIDATION_BATCH) {
            self.between_steps(checkpoints)?;
            let none = Augmentation::None;
            let images = self.data.batch(batch, none, 0, Purpose::Augmentation, 0, self.device)?;
            let logits = self.network.forward(&images, Mode::Evaluate)?;
            right += count_right(&logits, &self.data.clean_labels(batch, self.device)?)?;
        }
        Ok(Some(right as f64 / self.data.validation.len() as f64))
    }

    fn between_steps(&self, checkpoints: &mut Checkpoints<'_>) -> anyhow::Result<()> {
        let due = checkpoints.due();
        if due != Due::Nothing {
            checkpoints.save(&self.reached, &self.tensors())?;
        }
        if due == Due::Stop {
            return Err(Stopped.into());
        }
        Ok(())
    }

    fn end_epoch(&mut self, validation_accuracy: Option<f64>) {
        let sums = self.reached.running;
        let samples = sums.samples.max(1) as f64;
        let mut curve = std::mem::take(&mut self.reached.curve);
        curve.push(EpochRow {
            loss: sums.loss / samples,
            accuracy_on_given_labels: sums.right_on_given_labels as f64 / samples,
            accuracy_on_clean_labels: self
                .data
                .noisy
                .then_some(sums.right_on_clean_labels as f64 / samples),
            validation_accuracy,
        });
        self.reached = Reached { epoch: self.reached.epoch + 1, curve, ..Reached::default() };
    }

    fn report(&self, learning_rate: f64) {
        let Reached { epoch, running, .. } = self.reached;
        let samples = running.samples as f64;
        let per_epoch = self.data.train.len() as u64;
        self.context.progress(Progress {
            done: epoch * per_epoch + running.samples,
            total: Some(self.parameters.epochs * per_epoch),
            unit: Unit::Images,
            phase: Some(format!("epoch {}/{}", epoch + 1, self.parameters.epochs)),
            values: BTreeMap::from([
                ("loss".to_owned(), running.loss / samples),
                ("accuracy".to_owned(), running.right_on_given_labels as f64 / samples),
                ("learning-rate".to_owned(), learning_rate),
            ]),
        });
    }

    /// Every tensor that a checkpoint holds.
    fn tensors(&self) -> Vec<(String, &Tensor)> {
        let network = self.network.state().tensors().iter();
        let mut tensors: Vec<_> =
            network.map(|named| (named.name.clone(), &named.tensor)).collect();
        tensors.extend(self.optimizer.kept());
        tensors
    }

    fn write(&self) -> anyhow::Result<Metrics> {
        let output = &self.context.output;
        weights::write(&output.join(WEIGHTS_FILE), "model", self.network.state().tensors())?;
        let training = training_record("train", self.parameters, self.context.seed)?;
        self.data.model_info(self.parameters.architecture, training)?.write(output)?;
        curve_table(&self.reached.curve).write(&output.join("curves.csv"))?;
        metrics(&self.reached.curve)
    }
}

/// How many rows have their largest logit at their label.
fn count_right(logits: &Tensor, labels: &Tensor) -> anyhow::Result<u64> {
    let right = logits.f_argmax(1, false)?.f_eq_tensor(labels)?.f_sum(Kind::Int64)?;
    Ok(u64::try_from(right.f_int64_value(&[])?)?)
}

fn curve_table(curve: &[EpochRow]) -> pipeline_stages::formats::CurveTable {
    let mut table = pipeline_stages::formats::CurveTable::new(&[
        "epoch",
        "loss",
        "train-accuracy",
        "train-accuracy-clean",
        "validation-accuracy",
    ]);
    for (index, row) in curve.iter().enumerate() {
        table.push(&[
            (index + 1) as f64,
            row.loss,
            row.accuracy_on_given_labels,
            row.accuracy_on_clean_labels.unwrap_or(f64::NAN),
            row.validation_accuracy.unwrap_or(f64::NAN),
        ]);
    }
    table
}

/// The numbers of the last epoch, and the best validation. `train-accuracy` is on the labels that were trained on.
fn metrics(curve: &[EpochRow]) -> anyhow::Result<Metrics> {
    let last = curve.last().context("no epoch was run")?;
    let mut metrics = Metrics::from([
        ("train-loss".to_owned(), last.loss),
        ("train-accuracy".to_owned(), last.accuracy_on_given_labels),
    ]);
    if let Some(accuracy) = last.accuracy_on_clean_labels {
        metrics.insert("train-accuracy-clean".to_owned(), accuracy);
    }
    if let Some(accuracy) = last.validation_accuracy {
        metrics.insert("validation-accuracy".to_owned(), accuracy);
    }
    let validated = curve.iter().enumerate();
    let validated = validated.filter_map(|(index, row)| Some((index, row.validation_accuracy?)));
    // The first of equals.
    let best = validated.rev().max_by(|(_, one), (_, other)| one.total_cmp(other));
    if let Some((index, accuracy)) = best {
        metrics.insert("best-validation-accuracy".to_owned(), accuracy);
        metrics.insert("best-validation-epoch".to_owned(), (index + 1) as f64);
    }
    Ok(metrics)
}
