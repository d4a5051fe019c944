//! How many images a second pass through what the stages are made of: `benches/run.py` compares it with PyTorch.
//!
//!     cargo bench -p pipeline-learn --bench throughput -- WORK [--architecture resnet18] [--batch 100] [--threads 2]
//!         [--device cpu] [--precision f32] [--channels 3] [--size 32] [--graph on]
//!
//! WORK is `fine-tune`, `meta-weight-net` (of the same images in every step), `simclr`, `simclr-compute` (the same without making
//! views) or `augment` (views alone). `--graph off`
//! has a GPU do each step operation by operation, as `PIPELINE_CUDA_GRAPHS=off` does. A line `ready` says that it is warm. Then every line on standard input starts a lap of about `--seconds`, and its outcome
//! is a line `{"items": images or views, "seconds": ...}`. So two programs can take turns on one machine.

use std::io::BufRead as _;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use pipeline_learn::data::augment::batched::upload;
use pipeline_learn::data::augment::{Normalisation, ViewSettings};
use pipeline_learn::data::image_store::ImageStore;
use pipeline_learn::data::preprocess::Preprocess;
use pipeline_learn::device;
use pipeline_learn::methods::meta_weight_net::MetaWeightNet;
use pipeline_learn::network::{Classifier, Mode, NetworkState, Projector};
use pipeline_learn::random::{Purpose, Stream};
use pipeline_learn::training::batch::{Batch, StepBatch};
use pipeline_learn::training::captured_step::{CapturedStep, StepInput};
use pipeline_learn::training::loss::{SampleLoss, nt_xent};
use pipeline_learn::training::method::{Setup, TrainingMethod as _};
use pipeline_learn::training::optimizer::{NetworkOptimizer, Rule};
use pipeline_learn::training::prefetch::prefetch;
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::training_loop::{self, RunLength, StepPosition};
use pipeline_stages::formats::{ImageShape, Part, Samples, write_samples};
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{Augmentation, Method, Train};
use pipeline_stages::message::{self, Execution};
use tch::{Device, Kind, Tensor};

const CLASSES: usize = 10;
const IMAGES: usize = 4096;
const SEED: u64 = 1;
const SETTINGS: ViewSettings =
    ViewSettings { crop_area_min: 0.08, jitter_strength: 0.5, blurs: false };

struct Arguments {
    work: String,
    architecture: Architecture,
    batch: usize,
    threads: u32,
    device: message::Device,
    precision: Precision,
    shape: ImageShape,
    seconds: f64,
    graph: bool,
}

impl Arguments {
    fn read() -> anyhow::Result<Self> {
        // Cargo adds `--bench`.
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        let work = words.next().context("say what to measure")?;
        let mut arguments = Self {
            work,
            architecture: Architecture::Resnet18,
            batch: 100,
            threads: 2,
            device: message::Device::Cpu,
            precision: Precision::F32,
            shape: ImageShape { channels: 3, height: 32, width: 32 },
            seconds: 3.0,
            graph: true,
        };
        while let Some(option) = words.next() {
            let value = words.next().with_context(|| format!("{option} has no value"))?;
            arguments.set(&option, &value).with_context(|| format!("{option} {value}"))?;
        }
        Ok(arguments)
    }

    fn set(&mut self, option: &str, value: &str) -> anyhow::Result<()> {
        let as_json = || serde_json::Value::from(value);
        match option {
            "--architecture" => self.architecture = serde_json::from_value(as_json())?,
            "--batch" => self.batch = value.parse()?,
            "--threads" => self.threads = value.parse()?,
            "--device" => self.device = serde_json::from_value(as_json())?,
            "--precision" => self.precision = serde_json::from_value(as_json())?,
            "--channels" => self.shape.channels = value.parse()?,
            "--size" => [self.shape.height, self.shape.width] = [value.parse()?; 2],
            "--seconds" => self.seconds = value.parse()?,
            "--graph" => {
                self.graph = match value {
                    "on" => true,
                    "off" => false,
                    _ => bail!("it is on or off"),
                }
            }
            _ => bail!("there is no such option"),
        }
        Ok(())
    }
}

/// Images of noise, as a data set has them.
fn samples(shape: ImageShape) -> anyhow::Result<Samples> {
    let folder = tempfile::tempdir()?;
    let mut stream = Stream::new(SEED, Purpose::Augmentation, 0, 0);
    let pixels: Vec<u8> = (0..IMAGES * shape.bytes()).map(|_| stream.bits() as u8).collect();
    let labels: Vec<i64> = (0..IMAGES).map(|index| (index % CLASSES) as i64).collect();
    write_samples(folder.path(), Part::Train, shape, &pixels, &labels)?;
    Samples::open(folder.path(), Part::Train)
}

/// The samples of the batch of a step.
fn indices(step: u64, batch: usize) -> Vec<u32> {
    let first = step as usize * batch;
    (first..first + batch).map(|index| (index % IMAGES) as u32).collect()
}

/// Work that is done in steps.
trait Work {
    /// Does these many steps, and waits for the device at the end.
    fn steps(&mut self, first: u64, count: u64) -> anyhow::Result<()>;
    /// Whether its steps are replayed.
    fn is_replayed(&self) -> bool;
    /// Images or views of a step.
    fn items(&self) -> usize;
}

/// How many batches are prepared ahead: as in the training loop.
fn depth(device: Device) -> usize {
    if device == Device::Cpu { 0 } else { training_loop::BATCHES_AHEAD }
}

/// What is learned from in a step: images, float [B,C,H,W], and their labels, int64 [B].
struct Labelled {
    images: Tensor,
    labels: Tensor,
}

impl StepInput for Labelled {
    fn map(
        &self,
        change: &mut dyn FnMut(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self> {
        Ok(Self { images: change(&self.images)?, labels: change(&self.labels)? })
    }
}

/// The steps of a network, and the loss of the last one.
struct Steps<B> {
    steps: CapturedStep<'static, B>,
    last_loss: Tensor,
}

impl<B: StepInput> Steps<B> {
    fn new(arguments: &Arguments, state: &NetworkState, device: Device) -> anyhow::Result<Self> {
        Self::of(arguments, state.tensors().iter().map(|named| &named.tensor), device)
    }

    fn of<'t>(
        arguments: &Arguments,
        tensors: impl IntoIterator<Item = &'t Tensor>,
        device: Device,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            steps: CapturedStep::new(device, tensors, arguments.graph, None),
            last_loss: Tensor::f_zeros([0i64; 0].as_slice(), (Kind::Float, device))?,
        })
    }

    fn run(
        &mut self,
        batch: &B,
        mut loss: impl FnMut(&B) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<()> {
        let Self { steps, last_loss } = self;
        steps.run(batch, true, |batch| Ok(last_loss.f_copy_(&loss(batch)?.f_detach()?)?))
    }
}

/// A step as `train` does it with the method `finetune`.
struct FineTune {
    images: ImageStore,
    preprocess: Preprocess,
    network: Classifier,
    optimizer: NetworkOptimizer,
    steps: Steps<Labelled>,
    batch: usize,
    device: Device,
}

impl FineTune {
    fn new(arguments: &Arguments, samples: Samples, device: Device) -> anyhow::Result<Self> {
        let channels = arguments.shape.channels;
        let network = Classifier::new(arguments.architecture, channels, CLASSES, SEED, device)?
            .with_precision(arguments.precision);
        let rule = Rule::Sgd { momentum: 0.9 };
        let decays = |name: &str| !name.contains("bn");
        let none = Normalisation::none(channels);
        let preprocess = Preprocess::for_training(&samples, Augmentation::Flip, None, None, none)?;
        Ok(Self {
            images: preprocess.store(samples, device, |note| eprintln!("{note}"))?,
            preprocess,
            optimizer: NetworkOptimizer::new(rule, 1e-4, network.state(), decays)?
                .with_precision(arguments.precision)?,
            steps: Steps::new(arguments, network.state(), device)?,
            network,
            batch: arguments.batch,
            device,
        })
    }
}

impl Work for FineTune {
    fn steps(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let Self { images, preprocess, network, optimizer, steps, batch, device } = self;
        let (images, preprocess, device, batch) = (&*images, &*preprocess, *device, *batch);
        let prepared = (first..first + count).map(|step| {
            let indices = indices(step, batch);
            let stream = |index| Stream::new(SEED, Purpose::Augmentation, step as u32, index);
            let inputs = preprocess.augmented(images, &indices, Augmentation::Flip, stream)?;
            let labels = &images.samples().labels;
            let labels: Vec<i64> = indices.iter().map(|&index| labels[index as usize]).collect();
            anyhow::Ok(Labelled { images: inputs, labels: upload(&labels, device)? })
        });
        prefetch(depth(device), prepared, |batches| {
            for (batch, step) in batches.zip(first..) {
                optimizer.begin_step(1e-3, step)?;
                steps.run(&batch?, |Labelled { images, labels }| {
                    let values = optimizer.values(network.state())?;
                    let logits = network.forward_with(values, images, Mode::Train)?;
                    let loss = SampleLoss::CrossEntropy.mean(&logits, labels)?;
                    optimizer.backward(&loss)?;
                    optimizer.step()?;
                    Ok(loss)
                })?;
            }
            anyhow::Ok(())
        })?;
        ensure!(steps.last_loss.f_double_value(&[])?.is_finite(), "the loss is not finite");
        Ok(())
    }

    fn is_replayed(&self) -> bool {
        self.steps.steps.is_replayed()
    }

    fn items(&self) -> usize {
        self.batch
    }
}

/// A step as `train` does it with the method `meta-weight-net`, without the making of batches.
struct MetaStep {
    method: MetaWeightNet,
    steps: Steps<StepBatch>,
    batch: StepBatch,
    items: usize,
}

impl MetaStep {
    fn new(arguments: &Arguments, device: Device) -> anyhow::Result<Self> {
        let &Arguments { architecture, precision, shape, batch, .. } = arguments;
        let recipe = Recipe::of(&Train {
            method: Method::MetaWeightNet,
            architecture,
            precision,
            ..Train::default()
        });
        let setup = Setup::new(&recipe, shape.channels, CLASSES, SEED, device);
        let mut setup = Setup { validation: &[0], ..setup };
        let method = MetaWeightNet::new(&mut setup)?;
        let tensors = setup.state.list();
        let steps = Steps::of(arguments, tensors.iter().map(|(_, tensor)| *tensor), device)?;
        let [rows, channels, height, width] =
            [batch, shape.channels, shape.height, shape.width].map(|size| size as i64);
        let noise = || -> anyhow::Result<Batch> {
            let images = [rows, channels, height, width];
            let labels = Tensor::f_randint(CLASSES as i64, [rows], (Kind::Int64, device))?;
            Ok(Batch {
                images: Tensor::f_rand(images, (Kind::Float, device))?,
                other_views: Vec::new(),
                mixing: None,
                samples: Tensor::f_arange(rows, (Kind::Int64, device))?,
                clean_labels: labels.shallow_clone(),
                labels,
            })
        };
        let batch = StepBatch { train: noise()?, others: vec![noise()?] };
        Ok(Self { method, steps, batch, items: arguments.batch })
    }
}

impl Work for MetaStep {
    fn steps(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let Self { method, steps, batch, .. } = self;
        let length = RunLength { steps: first + count, steps_per_epoch: first + count };
        for step in first..first + count {
            method.begin_step(1e-2, StepPosition::usual(step, length))?;
            steps.run(batch, |StepBatch { train, others }| {
                Ok(method.compute(train, others)?.losses.f_mean(Kind::Float)?)
            })?;
        }
        ensure!(steps.last_loss.f_double_value(&[])?.is_finite(), "the loss is not finite");
        Ok(())
    }

    fn is_replayed(&self) -> bool {
        self.steps.steps.is_replayed()
    }

    fn items(&self) -> usize {
        self.items
    }
}

/// The making of views.
struct Views {
    images: ImageStore,
    preprocess: Preprocess,
    batch: usize,
}

impl Views {
    /// The first and the second views of the batch of a step.
    fn both(&self, step: u64) -> anyhow::Result<Tensor> {
        let indices = indices(step, self.batch);
        let of = |purpose| {
            let stream = |index| Stream::new(SEED, purpose, step as u32, index);
            self.preprocess.views(&self.images, &indices, SETTINGS, stream)
        };
        Ok(Tensor::f_cat(&[of(Purpose::FirstView)?, of(Purpose::SecondView)?], 0)?)
    }
}

/// What learns from views; as in `pretrain-simclr`.
struct Learner {
    network: Projector,
    optimizer: NetworkOptimizer,
    steps: Steps<Tensor>,
}

impl Learner {
    fn new(arguments: &Arguments, device: Device) -> anyhow::Result<Self> {
        let channels = arguments.shape.channels;
        let network = Projector::new(arguments.architecture, channels, 128, SEED, device)?
            .with_precision(arguments.precision);
        let decays = |name: &str| !name.contains("bn") && !name.contains("bias");
        let optimizer = NetworkOptimizer::new(Rule::LARS, 1e-6, network.state(), decays)?
            .with_precision(arguments.precision)?;
        let steps = Steps::new(arguments, network.state(), device)?;
        Ok(Self { network, optimizer, steps })
    }

    /// Returns the loss, which a later step overwrites.
    fn step(&mut self, views: &Tensor, step: u64) -> anyhow::Result<Tensor> {
        let Self { network, optimizer, steps } = self;
        optimizer.begin_step(1e-2, step)?;
        steps.run(views, |views| {
            let values = optimizer.values(network.state())?;
            let (loss, _) = nt_xent(&network.forward_with(values, views, Mode::Train)?, 0.5)?;
            optimizer.backward(&loss)?;
            optimizer.step()?;
            Ok(loss)
        })?;
        Ok(steps.last_loss.shallow_clone())
    }
}

/// Steps of contrastive learning, or parts of them.
struct SimClr {
    views: Views,
    /// Views that are used again and again, instead of new ones.
    fixed: Option<Tensor>,
    /// Without it views are made and thrown away.
    learner: Option<Learner>,
    device: Device,
}

impl SimClr {
    fn new(arguments: &Arguments, samples: Samples, device: Device) -> anyhow::Result<Self> {
        let preprocess = Preprocess::for_views(&samples, None)?;
        let note = |note| eprintln!("{note}");
        let images = preprocess.store_for_views(samples, SETTINGS, device, note)?;
        let views = Views { images, preprocess, batch: arguments.batch };
        let fixed = (arguments.work == "simclr-compute").then(|| views.both(0));
        let learner = (arguments.work != "augment").then(|| Learner::new(arguments, device));
        Ok(Self { views, fixed: fixed.transpose()?, learner: learner.transpose()?, device })
    }
}

impl Work for SimClr {
    fn steps(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let Self { views, fixed, learner, device } = self;
        let steps = first..first + count;
        let mut learn = |views: Tensor, step| match learner {
            Some(learner) => learner.step(&views, step),
            None => Ok(views.f_mean(Kind::Float)?),
        };
        let mut last = Tensor::f_zeros([0i64; 0].as_slice(), (Kind::Float, *device))?;
        match fixed {
            Some(views) => {
                for step in steps {
                    last = learn(views.shallow_clone(), step)?;
                }
            }
            None => {
                let views = &*views;
                let made = steps.clone().map(|step| views.both(step));
                prefetch(depth(*device), made, |batches| {
                    for (views, step) in batches.zip(steps) {
                        last = learn(views?, step)?;
                    }
                    anyhow::Ok(())
                })?;
            }
        }
        ensure!(last.f_double_value(&[])?.is_finite(), "the loss is not finite");
        Ok(())
    }

    fn is_replayed(&self) -> bool {
        self.learner.as_ref().is_some_and(|learner| learner.steps.steps.is_replayed())
    }

    fn items(&self) -> usize {
        2 * self.views.batch
    }
}

/// A lap for every line on standard input. Steps that are to be replayed must be.
fn serve(work: &mut dyn Work, device: Device, arguments: &Arguments) -> anyhow::Result<()> {
    let is_on_gpu = device != Device::Cpu;
    let is_replayed = is_on_gpu && arguments.graph && arguments.work != "augment";
    let mut step = 0;
    let mut lap = |work: &mut dyn Work, count: u64| -> anyhow::Result<f64> {
        let started = Instant::now();
        work.steps(step, count)?;
        step += count;
        Ok(started.elapsed().as_secs_f64())
    };
    // A few of a GPU, whose first steps are not like the others, and where a step takes less time than a lap's end.
    let few = if is_on_gpu { 10 } else { 1 };
    lap(work, few)?;
    ensure!(work.is_replayed() == is_replayed, "the steps are not replayed as a CUDA graph");
    let one = lap(work, few)? / few as f64;
    let count = (arguments.seconds / one).ceil().clamp(1.0, 10_000.0) as u64;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let seconds = lap(work, count)?;
        let items = count * work.items() as u64;
        println!("{}", serde_json::json!({ "items": items, "seconds": seconds }));
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    let threads = Some(arguments.threads);
    let execution = Execution {
        device: arguments.device,
        threads,
        checkpoint_seconds: 0,
        ..Execution::default()
    };
    let device = device::prepare(&execution, arguments.precision)?;
    let samples = samples(arguments.shape)?;
    match arguments.work.as_str() {
        "fine-tune" => serve(&mut FineTune::new(&arguments, samples, device)?, device, &arguments),
        "meta-weight-net" => serve(&mut MetaStep::new(&arguments, device)?, device, &arguments),
        "simclr" | "simclr-compute" | "augment" => {
            serve(&mut SimClr::new(&arguments, samples, device)?, device, &arguments)
        }
        other => bail!("'{other}' is not measured"),
    }
}
