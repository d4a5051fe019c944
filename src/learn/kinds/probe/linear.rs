//! The linear probe: a linear layer from zero on frozen features, by cross-entropy.
//!
//! ```text
//! h_i    = encoder(x_i), no gradient
//! W, b  <- SGD momentum 0.9 step on mean_i cross-entropy(W h_i + b, y_i)
//! ```
//!
//! as SimCLR's linear evaluation has it; the learning rate falls linearly to 0.

use anyhow::Context as _;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{Augmentation, Probe};
use pipeline_stages::message::{Metrics, Progress, Unit};
use tch::{Device, Tensor};

use super::measure::measure;
use crate::data::augment::batched::upload;
use crate::data::batches::StepSamples;
use crate::kinds::features::source::FeatureSource;
use crate::network::{Builder, Linear, Mode, NetworkState, Pass};
use crate::random::Purpose;
use crate::training::captured_step::{CapturedStep, StepInput};
use crate::training::decay;
use crate::training::epoch_log::EpochValues;
use crate::training::loss::SampleLoss;
use crate::training::loss_curve::{LossCurve, Row};
use crate::training::optimizer::{NetworkOptimizer, Rule};
use crate::training::schedule::LearningRateSchedule;
use crate::training::training_data::TrainingData;
use crate::training::training_loop::{self, BatchSource, RunLength, StepPosition, Trainer};

/// What moves the layer.
const SGD: Rule = Rule::Sgd { momentum: 0.9 };

/// Trains the layer and measures it.
pub(super) fn run(parameters: &Probe, source: &FeatureSource<'_>) -> anyhow::Result<Metrics> {
    source.data.note_small_batches(source.context);
    let frozen_images = parameters.augmentation == Augmentation::None;
    let features = frozen_images.then(|| source.of_training_samples()).transpose()?;
    let batches = Batches::new(source.data, frozen_images);
    let mut probe = LinearProbe::new(parameters, source, features)?;
    let length = RunLength::of_epochs(parameters.epochs, source.data.steps_per_epoch())?;
    training_loop::run(&mut probe, &batches, length, source.context, parameters)?;
    probe.curve.write(&source.context.output)?;
    let _no_gradients = tch::no_grad_guard();
    measure(source, "linear", |features| probe.layer.logits(features))
}

/// What one step learns from.
struct ProbeBatch {
    inputs: Inputs,
    /// int64 [B].
    labels: Tensor,
}

impl StepInput for ProbeBatch {
    fn map(
        &self,
        change: &mut dyn FnMut(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self> {
        let inputs = match &self.inputs {
            Inputs::Images(images) => Inputs::Images(change(images)?),
            Inputs::Rows(rows) => Inputs::Rows(change(rows)?),
        };
        Ok(Self { inputs, labels: change(&self.labels)? })
    }
}

enum Inputs {
    /// Augmented images, float [B,C,H,W].
    Images(Tensor),
    /// Rows of the features that were computed once, int64 [B].
    Rows(Tensor),
}

impl Inputs {
    /// Their features, float [B,F]. `known` are those that were computed once.
    fn features(
        &self,
        source: &FeatureSource<'_>,
        known: Option<&Tensor>,
    ) -> anyhow::Result<Tensor> {
        match self {
            Self::Images(images) => source.of_images(images),
            Self::Rows(rows) => {
                Ok(known.context("no features were computed")?.f_index_select(0, rows)?)
            }
        }
    }
}

/// The batches of a supervised training, as images or as rows.
struct Batches<'a> {
    data: &'a TrainingData,
    /// Per sample of the data set its row, where features were computed once.
    rows: Option<Vec<i64>>,
}

impl<'a> Batches<'a> {
    fn new(data: &'a TrainingData, as_rows: bool) -> Self {
        let samples = data.train.iter().max().map_or(0, |&last| last as usize + 1);
        let rows = as_rows.then(|| {
            let mut rows = vec![0; samples];
            for (row, &sample) in (0i64..).zip(&data.train) {
                rows[sample as usize] = row;
            }
            rows
        });
        Self { data, rows }
    }
}

impl BatchSource for Batches<'_> {
    type Batch = ProbeBatch;

    fn prepare(&self, at: StepPosition, samples: StepSamples) -> anyhow::Result<ProbeBatch> {
        let Some(rows) = &self.rows else {
            let batch = self.data.prepare(at, samples)?.train;
            return Ok(ProbeBatch { inputs: Inputs::Images(batch.images), labels: batch.labels });
        };
        let samples = samples.train.indices;
        let labels = self.data.labels_of(&samples)?;
        let rows: Vec<i64> =
            samples.iter().filter_map(|&sample| rows.get(sample as usize).copied()).collect();
        Ok(ProbeBatch { inputs: Inputs::Rows(upload(&rows, self.data.device)?), labels })
    }
}

/// The layer with its tensors.
struct Layer {
    linear: Linear,
    state: NetworkState,
}

impl Layer {
    /// Features, float [B,F] -> logits, float [B,K].
    fn logits(&self, features: &Tensor) -> anyhow::Result<Tensor> {
        let pass = Pass::new(self.state.values(), Mode::Evaluate, Precision::F32);
        self.linear.forward(&pass, features)
    }
}

/// A layer on its way.
struct LinearProbe<'a> {
    parameters: &'a Probe,
    source: &'a FeatureSource<'a>,
    /// float [n,F], where they were computed once.
    features: Option<Tensor>,
    layer: Layer,
    optimizer: NetworkOptimizer,
    /// With the accuracy on the labels learned from.
    curve: LossCurve,
    steps: CapturedStep<'a, ProbeBatch>,
}

impl<'a> LinearProbe<'a> {
    fn new(
        parameters: &'a Probe,
        source: &'a FeatureSource<'a>,
        features: Option<Tensor>,
    ) -> anyhow::Result<Self> {
        let data = source.data;
        // It draws nothing: the layer starts from zero.
        let mut builder = Builder::new(0, Purpose::InitialEncoder, data.device);
        let shape = [source.dimension(), i64::try_from(data.classes.len())?];
        let linear = Linear::zero(&mut builder, shape)?;
        let layer = Layer { linear, state: builder.finish() };
        let optimizer =
            NetworkOptimizer::new(SGD, parameters.weight_decay, &layer.state, decay::all)?;
        let curve = LossCurve::new("train-accuracy", parameters.learning_rate, data.device)?;
        let tensors = layer.state.tensors().iter().map(|named| &named.tensor);
        let steps = CapturedStep::of(source.context, data.device, tensors)?;
        Ok(Self { parameters, source, features, layer, optimizer, curve, steps })
    }

    fn learning_rate(&self, at: StepPosition) -> f64 {
        self.parameters.learning_rate
            * LearningRateSchedule::Linear.factor(at.time(), at.length.steps)
    }
}

impl Trainer for LinearProbe<'_> {
    type Batch = ProbeBatch;
    type Curves = Vec<Row>;

    /// The evaluation of the test set.
    fn more_follows(&self) -> bool {
        true
    }

    fn device(&self) -> Device {
        self.source.data.device
    }

    fn state_tensors(&self) -> Vec<(String, &Tensor)> {
        let layer = self.layer.state.tensors().iter();
        let mut tensors: Vec<_> = layer.map(|named| (named.name.clone(), &named.tensor)).collect();
        tensors.extend(self.optimizer.state_tensors());
        tensors.push(self.curve.state_tensor());
        tensors
    }

    fn curves(&self) -> &Vec<Row> {
        self.curve.rows()
    }

    fn resume(&mut self, curves: Vec<Row>) {
        self.curve.resume(curves);
    }

    fn samples(&self, epoch: u32) -> anyhow::Result<Vec<StepSamples>> {
        let batches = self.source.data.batches(epoch)?;
        Ok(batches.into_iter().map(StepSamples::from).collect())
    }

    fn step(&mut self, batch: ProbeBatch, at: StepPosition) -> anyhow::Result<()> {
        self.optimizer.begin_step(self.learning_rate(at), at.steps_before)?;
        let Self { source, features, layer, optimizer, curve, steps, .. } = self;
        steps.run(&batch, true, |ProbeBatch { inputs, labels }| {
            let logits = layer.logits(&inputs.features(source, features.as_ref())?)?;
            let losses = SampleLoss::CrossEntropy.of_samples(&logits, labels)?;
            optimizer.backward(&losses.f_mean(tch::Kind::Float)?)?;
            optimizer.step()?;
            let integer = (tch::Kind::Int64, labels.device());
            let samples = Tensor::f_full([0i64; 0].as_slice(), losses.size1()?, integer)?;
            let right = logits.f_argmax(1, false)?.f_eq_tensor(labels)?;
            let loss = losses.f_detach()?.f_sum(tch::Kind::Double)?;
            curve.add([samples, loss, right.f_sum(tch::Kind::Int64)?])
        })
    }

    fn after_step(
        &mut self,
        at: StepPosition,
        _pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.curve.after_step(at, self.learning_rate(at))
    }

    fn epoch_values(&self, epoch: u64) -> Option<EpochValues> {
        self.curve.epoch_values(epoch)
    }

    fn report(&self, at: StepPosition) -> anyhow::Result<()> {
        let data = self.source.data;
        let values = self.curve.values(at, self.learning_rate(at))?;
        self.source.context.measured(at.end_time(), values);
        self.source.context.progress(Progress {
            done: data.samples_of(at.end_time()),
            total: Some(data.samples_of(at.length.steps)),
            unit: Unit::Images,
            phase: Some(format!("epoch {}/{}", at.epoch + 1, at.length.epochs())),
        });
        Ok(())
    }
}
