//! `pretrain-simclr`: SimCLR (Chen et al., "A simple framework for contrastive learning of visual
//! representations", 2020), algorithm 1.
//!
//! Per step: two views of every image of the batch; one forward pass over all 2N; NT-Xent; one move of the
//! optimizer, with warm-up and cosine. The artifact's `weights.safetensors` is the encoder alone, so
//! that it loads strictly; the projection head lies beside it in `projection.safetensors`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{CurveTable, ModelInfo, Part, Samples, WEIGHTS_FILE};
use pipeline_stages::kinds::{PretrainOptimizer, PretrainSimclr};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::{Context, Stopped};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::augment::{View, ViewSettings};
use crate::batches::{Images, shuffled};
use crate::checkpoint::{Checkpoints, Due};
use crate::network::{Mode, Projector, feature_count};
use crate::optimizer::{Optimizer, Rule};
use crate::random::{Purpose, Stream};
use crate::schedule::Schedule;
use crate::{Body, device, loss, training_record, weights};

const SGD: Rule = Rule::Sgd { momentum: 0.9 };

/// How far a run is. Everything that a checkpoint needs beside tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Reached {
    epoch: u64,
    /// Steps done in this epoch.
    step: u64,
    loss_sum: f64,
    accuracy_sum: f64,
    curve: Vec<[f64; 3]>,
}

impl Body for PretrainSimclr {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution)?;
        context.ran_on(device::name(device));
        let samples = Samples::open(context.input("data")?, Part::Train)?;
        let mut run = Run::new(self, context, &samples, device)?;
        run.train()?;
        run.write()
    }
}

/// A run of the method.
struct Run<'a> {
    parameters: &'a PretrainSimclr,
    context: &'a Context,
    images: Images<'a>,
    indices: Vec<u32>,
    device: Device,
    network: Projector,
    optimizer: Optimizer,
    reached: Reached,
}

impl<'a> Run<'a> {
    fn new(
        parameters: &'a PretrainSimclr,
        context: &'a Context,
        samples: &'a Samples,
        device: Device,
    ) -> anyhow::Result<Self> {
        let images = Images::of(samples);
        let count = u32::try_from(samples.labels.len()).context("too many images")?;
        ensure!(
            u64::from(count) >= parameters.batch_size,
            "the data set has {count} training images, fewer than one batch: \
             set batch-size to {count} or less (it is {})",
            parameters.batch_size
        );
        let network = Projector::new(
            parameters.architecture,
            images.shape.channels,
            i64::try_from(parameters.projection_size)?,
            context.seed,
            device,
        )?;
        let rule = match parameters.optimizer {
            PretrainOptimizer::Lars => Rule::LARS,
            PretrainOptimizer::Sgd => SGD,
            PretrainOptimizer::Adam => Rule::ADAM,
        };
        let decays = |name: &str| !name.contains("bn") && !name.contains("bias");
        let optimizer = Optimizer::new(rule, parameters.weight_decay, network.state(), decays)?;
        let indices = (0..count).collect();
        let reached = Reached::default();
        Ok(Self { parameters, context, images, indices, device, network, optimizer, reached })
    }

    fn steps_per_epoch(&self) -> u64 {
        self.indices.len() as u64 / self.parameters.batch_size
    }

    fn train(&mut self) -> anyhow::Result<()> {
        let mut checkpoints = Checkpoints::new(self.context, self.parameters)?;
        if let Some(reached) = checkpoints.restore(&self.tensors()) {
            self.reached = reached;
        }
        let schedule = Schedule::WarmupCosine { warmup: self.parameters.warmup };
        let steps = self.steps_per_epoch();
        let total = steps * self.parameters.epochs;
        while self.reached.epoch < self.parameters.epochs {
            let epoch = u32::try_from(self.reached.epoch)?;
            let order = shuffled(&self.indices, self.context.seed, epoch);
            let batches = order.chunks_exact(self.parameters.batch_size as usize);
            for batch in batches.skip(self.reached.step as usize) {
                self.between_steps(&mut checkpoints)?;
                let step = self.reached.epoch * steps + self.reached.step;
                let learning_rate = self.parameters.learning_rate * schedule.factor(step, total);
                self.step(batch, epoch, step, learning_rate)?;
                self.report(learning_rate);
            }
            self.end_epoch();
        }
        Ok(())
    }

    /// One step of algorithm 1.
    fn step(
        &mut self,
        batch: &[u32],
        epoch: u32,
        step: u64,
        learning_rate: f64,
    ) -> anyhow::Result<()> {
        let first = self.views(batch, epoch, Purpose::FirstView)?;
        let second = self.views(batch, epoch, Purpose::SecondView)?;
        let views = Tensor::f_cat(&[first, second], 0)?;
        let projections = self.network.forward(&views, Mode::Train)?;
        let (loss, accuracy) = loss::nt_xent(&projections, self.parameters.temperature)?;
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
        self.reached.step += 1;
        self.reached.loss_sum += value;
        self.reached.accuracy_sum += accuracy.f_double_value(&[])?;
        Ok(())
    }

    /// One view of every image of the batch, float [B,C,H,W] in [0, 1].
    fn views(&self, batch: &[u32], epoch: u32, purpose: Purpose) -> anyhow::Result<Tensor> {
        let settings = ViewSettings {
            crop_area_min: self.parameters.crop_area_min,
            jitter_strength: self.parameters.jitter_strength,
        };
        let (seed, shape) = (self.context.seed, self.images.shape);
        self.images.batch(batch, self.device, |index, pixels, out| {
            let mut stream = Stream::new(seed, purpose, epoch, index);
            View::draw(&mut stream, shape, settings).render(pixels, shape, out);
        })
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

    fn end_epoch(&mut self) {
        let steps = self.reached.step.max(1) as f64;
        let epoch = self.reached.epoch + 1;
        let row = [epoch as f64, self.reached.loss_sum / steps, self.reached.accuracy_sum / steps];
        let mut curve = std::mem::take(&mut self.reached.curve);
        curve.push(row);
        self.reached = Reached { epoch, curve, ..Reached::default() };
    }

    fn report(&self, learning_rate: f64) {
        let Reached { epoch, step, loss_sum, accuracy_sum, .. } = self.reached;
        let images = |epochs: u64, steps: u64| {
            (epochs * self.steps_per_epoch() + steps) * self.parameters.batch_size
        };
        self.context.progress(Progress {
            done: images(epoch, step),
            total: Some(images(self.parameters.epochs, 0)),
            unit: Unit::Images,
            phase: Some(format!("epoch {}/{}", epoch + 1, self.parameters.epochs)),
            values: BTreeMap::from([
                ("loss".to_owned(), loss_sum / step as f64),
                ("accuracy".to_owned(), accuracy_sum / step as f64),
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
        let (head, encoder): (Vec<_>, Vec<_>) = self
            .network
            .state()
            .tensors()
            .iter()
            .partition(|named| Projector::in_head(&named.name));
        weights::write(&output.join(WEIGHTS_FILE), "weights", encoder)?;
        weights::write(&output.join("projection.safetensors"), "projection", head)?;
        let channels = self.images.shape.channels;
        ModelInfo {
            architecture: self.parameters.architecture.to_string(),
            input: self.images.shape,
            features: usize::try_from(feature_count(self.parameters.architecture))?,
            classes: Vec::new(),
            input_mean: vec![0.0; channels],
            input_deviation: vec![1.0; channels],
            training: training_record("pretrain-simclr", self.parameters, self.context.seed)?,
        }
        .write(output)?;
        let mut table = CurveTable::new(&["epoch", "loss", "accuracy"]);
        self.reached.curve.iter().for_each(|row| table.push(row));
        table.write(&output.join("curves.csv"))?;

        let [_, loss, accuracy] = self.reached.curve.last().copied().context("no epoch was run")?;
        Ok(Metrics::from([
            ("loss".to_owned(), loss),
            ("contrastive-accuracy".to_owned(), accuracy),
        ]))
    }
}
