//! `pretrain-simclr`: SimCLR (Chen et al., "A simple framework for contrastive learning of visual
//! representations", 2020), algorithm 1.
//!
//! Per step: two views of every image of the batch; one forward pass over all 2N; NT-Xent; one move of the
//! optimizer, with warm-up and cosine. The artifact's `weights.safetensors` is the encoder alone, so
//! that it loads strictly; the projection head is beside it in `projection.safetensors`. `views.png` shows what
//! the encoder learned from.

use std::path::Path;

use anyhow::{Context as _, ensure};
use image::{ExtendedColorType, ImageFormat};
use pipeline_stages::formats::{
    DatasetInfo, ImageShape, ModelInfo, Part, SampleSplit, Samples, WEIGHTS_FILE,
};
use pipeline_stages::kinds::{Blur, PretrainOptimizer, PretrainSimclr};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::Context;
use tch::{Device, Kind, Tensor};

use crate::data::augment::ViewSettings;
use crate::data::batches::{StepSamples, shuffled};
use crate::data::image_store::ImageStore;
use crate::data::preprocess::Preprocess;
use crate::network::weights;
use crate::network::{Mode, Projector, bytes_of, feature_count};
use crate::random::{Purpose, Stream};
use crate::training::captured_step::CapturedStep;
use crate::training::decay;
use crate::training::epoch_log::EpochValues;
use crate::training::loss;
use crate::training::loss_curve::{LossCurve, Row};
use crate::training::optimizer::{NetworkOptimizer, Rule};
use crate::training::schedule::LearningRateSchedule;
use crate::training::training_loop::{self, BatchSource, RunLength, StepPosition, Trainer};
use crate::{Body, device, training_record};

const SGD: Rule = Rule::Sgd { momentum: 0.9 };
/// Views of this side and more are blurred when nothing is said.
const BLURRED_SIDE: usize = 64;
/// The share of views whose likeliest partner is the right one.
const ACCURACY: &str = "contrastive-accuracy";
/// How many images `views.png` shows.
const SHOWN_IMAGES: usize = 8;
/// White pixels between the images of `views.png`.
const GAP: i64 = 2;

impl Body for PretrainSimclr {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        let views = Views::new(self, context, device)?;
        let mut run = Run::new(self, context, &views)?;
        let length = RunLength::of_epochs(self.epochs, views.steps_per_epoch())?;
        training_loop::run(&mut run, &views, length, context, self)?;
        run.write()
    }
}

/// Two views of every image.
struct Views {
    images: ImageStore,
    preprocess: Preprocess,
    indices: Vec<u32>,
    batch_size: usize,
    settings: ViewSettings,
    seed: u64,
    device: Device,
}

impl Views {
    fn new(parameters: &PretrainSimclr, context: &Context, device: Device) -> anyhow::Result<Self> {
        let samples = Samples::open_any(context.input("data")?, Part::Train)?;
        let info = DatasetInfo::read(context.input("data")?)?;
        let indices = SampleSplit::without_split(samples.labels.len(), &info)?.train;
        let count = indices.len();
        ensure!(
            count >= 2,
            "the data set has {count} training images, and contrastive learning compares images with each other: \
             it needs at least 2"
        );
        if (count as u64) < parameters.batch_size {
            context.note(format!(
                "the data set has {count} training images, fewer than batch-size ({}): each step uses all of them",
                parameters.batch_size
            ));
        }
        let preprocess = Preprocess::for_views(&samples, parameters.image_size)?;
        let ImageShape { height, width, .. } = preprocess.image;
        let settings = ViewSettings {
            crop_area_min: parameters.crop_area_min,
            jitter_strength: parameters.jitter_strength,
            blurs: match parameters.blur {
                Blur::Auto => height.min(width) >= BLURRED_SIDE,
                Blur::Always => true,
                Blur::Never => false,
            },
        };
        let note = |note| context.note(note);
        let images = preprocess.store_for_views(samples, settings, device, note)?;
        Ok(Self {
            images,
            preprocess,
            indices,
            batch_size: usize::try_from(parameters.batch_size.min(count as u64))?,
            settings,
            seed: context.seed,
            device,
        })
    }

    fn steps_per_epoch(&self) -> u64 {
        (self.indices.len() / self.batch_size) as u64
    }

    /// One view of every image of the batch, float [B,C,H,W] in [0, 1].
    fn of(&self, batch: &[u32], epoch: u32, purpose: Purpose) -> anyhow::Result<Tensor> {
        let stream = |index| Stream::new(self.seed, purpose, epoch, index);
        self.preprocess.views(&self.images, batch, self.settings, stream)
    }

    /// Writes `views.png`: a row per image, from top to bottom evenly spaced in the training part. From left to right the image
    /// as the encoder sees it wherever it is used, and its two views in the first epoch; of images with neither one nor three channels
    /// the first channel in grey.
    fn write_examples(&self, path: &Path) -> anyhow::Result<()> {
        let (count, shown) = (self.indices.len(), self.indices.len().min(SHOWN_IMAGES));
        let place = |row: usize| self.indices.get(row * count / shown).copied();
        let batch: Vec<u32> = (0..shown).filter_map(place).collect();
        let columns = [
            self.preprocess.plain(&self.images, &batch)?.f_to_device(Device::Cpu)?,
            self.of(&batch, 0, Purpose::FirstView)?.f_to_device(Device::Cpu)?,
            self.of(&batch, 0, Purpose::SecondView)?.f_to_device(Device::Cpu)?,
        ];
        // [rows, columns, C, H, W] in bytes, then [rows, H, columns, W, C] with a gap below and beside each image.
        let pixels = Tensor::f_stack(&columns, 1)?.f_clamp(0.0, 1.0)?.f_mul_scalar(255.0)?;
        let pixels = pixels.f_round()?.f_to_kind(Kind::Uint8)?;
        let coloured = self.preprocess.image.channels == 3;
        let pixels = if coloured { pixels } else { pixels.f_narrow(2, 0, 1)? };
        let spaced = pixels.f_constant_pad_nd([0, GAP, 0, GAP].as_slice())?;
        let white = pixels.f_ones_like()?.f_constant_pad_nd([0, GAP, 0, GAP].as_slice())?;
        let spaced = spaced.f_masked_fill(&white.f_eq(0)?, 255)?;
        let sheet = spaced.f_permute([0, 3, 1, 4, 2].as_slice())?.f_contiguous()?;
        let [rows, height, columns, width, _] = sheet.size()[..] else {
            anyhow::bail!("images have three dimensions");
        };
        let colours = if coloured { ExtendedColorType::Rgb8 } else { ExtendedColorType::L8 };
        let (width, height) = (u32::try_from(columns * width)?, u32::try_from(rows * height)?);
        let bytes = bytes_of(&sheet)?;
        image::save_buffer_with_format(path, &bytes, width, height, colours, ImageFormat::Png)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl BatchSource for Views {
    /// First all first views, then all second views: float [2B,C,H,W].
    type Batch = Tensor;

    fn prepare(&self, at: StepPosition, samples: StepSamples) -> anyhow::Result<Tensor> {
        let epoch = u32::try_from(at.epoch)?;
        let batch = &samples.train.indices;
        let first = self.of(batch, epoch, Purpose::FirstView)?;
        let second = self.of(batch, epoch, Purpose::SecondView)?;
        Ok(Tensor::f_cat(&[first, second], 0)?)
    }
}

/// A run of the method.
struct Run<'a> {
    parameters: &'a PretrainSimclr,
    context: &'a Context,
    views: &'a Views,
    network: Projector,
    optimizer: NetworkOptimizer,
    /// With the contrastive accuracy.
    curve: LossCurve,
    steps: CapturedStep<'a, Tensor>,
}

impl<'a> Run<'a> {
    fn new(
        parameters: &'a PretrainSimclr,
        context: &'a Context,
        views: &'a Views,
    ) -> anyhow::Result<Self> {
        let network = Projector::new(
            parameters.architecture,
            views.preprocess.image.channels,
            i64::from(parameters.projection_size),
            context.seed,
            views.device,
        )?
        .with_precision(parameters.precision);
        let rule = match parameters.optimizer {
            PretrainOptimizer::Lars => Rule::LARS,
            PretrainOptimizer::Sgd => SGD,
            PretrainOptimizer::Adam => Rule::ADAM,
        };
        let optimizer = NetworkOptimizer::new(
            rule,
            parameters.weight_decay,
            network.state(),
            decay::contrastive,
        )?
        .with_precision(parameters.precision)?;
        let curve = LossCurve::new(ACCURACY, parameters.learning_rate, views.device)?;
        let tensors = network.state().tensors().iter().map(|named| &named.tensor);
        let steps = CapturedStep::of(context, views.device, tensors)?;
        Ok(Self { parameters, context, views, network, optimizer, curve, steps })
    }

    fn learning_rate(&self, at: StepPosition) -> f64 {
        let schedule = LearningRateSchedule::WarmupCosine { warmup: self.parameters.warmup };
        self.parameters.learning_rate * schedule.factor(at.time(), at.length.steps)
    }

    fn write(&self) -> anyhow::Result<Metrics> {
        let output = &self.context.output;
        weights::check_finite(self.network.state().tensors())?;
        let (head, encoder): (Vec<_>, Vec<_>) = self
            .network
            .state()
            .tensors()
            .iter()
            .partition(|named| Projector::in_head(&named.name));
        weights::write(&output.join(WEIGHTS_FILE), "weights", encoder)?;
        weights::write(&output.join("projection.safetensors"), "projection", head)?;
        let Preprocess { image, crop, normalisation, .. } = &self.views.preprocess;
        let info = ModelInfo {
            architecture: self.parameters.architecture.to_string(),
            input: *image,
            input_crop: *crop,
            features: usize::try_from(feature_count(self.parameters.architecture))?,
            further_networks: 0,
            classes: Vec::new(),
            input_mean: normalisation.mean.clone(),
            input_std: normalisation.std.clone(),
            training: training_record(self.parameters, self.context.seed),
        };
        info.write(output)?;
        self.views.write_examples(&output.join("views.png"))?;
        self.curve.write(output)?;

        let [_, loss, accuracy, _] =
            self.curve.rows().last().copied().context("no epoch was run")?;
        Ok(Metrics::from([("loss".to_owned(), loss), (ACCURACY.to_owned(), accuracy)]))
    }
}

impl Trainer for Run<'_> {
    type Batch = Tensor;
    type Curves = Vec<Row>;

    fn device(&self) -> Device {
        self.views.device
    }

    fn state_tensors(&self) -> Vec<(String, &Tensor)> {
        let network = self.network.state().tensors().iter();
        let mut tensors: Vec<_> =
            network.map(|named| (named.name.clone(), &named.tensor)).collect();
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
        let Views { indices, seed, batch_size, .. } = self.views;
        let order = shuffled(indices, *seed, epoch);
        Ok(order.chunks_exact(*batch_size).map(|batch| batch.to_vec().into()).collect())
    }

    /// One step of algorithm 1.
    fn step(&mut self, views: Tensor, at: StepPosition) -> anyhow::Result<()> {
        self.optimizer.begin_step(self.learning_rate(at), at.steps_before)?;
        let Self { parameters, network, optimizer, curve, steps, .. } = self;
        steps.run(&views, true, |views| {
            let values = optimizer.values(network.state())?;
            let projections = network.forward_with(values, views, Mode::Train)?;
            let (loss, accuracy) = loss::nt_xent(&projections, parameters.temperature)?;
            optimizer.backward(&loss)?;
            optimizer.step()?;
            let one = Tensor::f_ones([0i64; 0].as_slice(), (Kind::Int64, views.device()))?;
            curve.add([one, loss.f_detach()?, accuracy])
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
        let images = |steps: u64| steps * self.views.batch_size as u64;
        let values = self.curve.values(at, self.learning_rate(at))?;
        self.context.measured(at.end_time(), values);
        self.context.progress(Progress {
            done: images(at.end_time()),
            total: Some(images(at.length.steps)),
            unit: Unit::Images,
            phase: Some(format!("epoch {}/{}", at.epoch + 1, at.length.epochs())),
        });
        Ok(())
    }
}
