//! `probe`: how good an encoder's features are, by a simple classifier on top of them.
//!
//! The encoder is frozen: evaluation mode, no gradients. [`linear`] trains a layer on its features, [`knn`]
//! lets the nearest ones vote; what they share is here. Does not depend on how the encoder was trained but for what
//! `model.json` says.

pub mod knn;
pub mod linear;

use pipeline_stages::formats::{ModelInfo, Part, WEIGHTS_FILE, write_metrics};
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::{
    Augmentation, Normalise, Probe, ProbeClassifier, Sampling, ValidationTransform,
};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::Context;
use tch::{Kind, Tensor};

use crate::network::weights;
use crate::network::{Classifier, Mode};
use crate::training::recipe::DataRecipe;
use crate::training::training_data::TrainingData;
use crate::{Body, device};

/// How many guesses a sample has in the second accuracy.
const TOP: i64 = 5;
/// The port of the encoder.
const ENCODER: &str = "weights";

impl Body for Probe {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        context.ran_on(device::ran_on(device));
        let info = ModelInfo::read(context.input(ENCODER)?)?;
        let architecture = weights::architecture(&info)?;
        let data = TrainingData::read(&data_recipe(self, architecture), context, device)?;
        let encoder = FrozenEncoder::load(self, architecture, &data, context)?;
        let metrics = match self.classifier {
            ProbeClassifier::Linear => linear::run(self, &encoder)?,
            ProbeClassifier::Knn => knn::run(self, &encoder)?,
        };
        write_metrics(&context.output, &metrics)?;
        Ok(metrics)
    }
}

/// What the encoder is shown.
fn data_recipe(parameters: &Probe, architecture: Architecture) -> DataRecipe {
    DataRecipe {
        architecture,
        init_port: ENCODER,
        batch_size: parameters.batch_size,
        sampling: Sampling::Uniform,
        samples_per_epoch: None,
        augmentation: match parameters.classifier {
            ProbeClassifier::Linear => parameters.augmentation,
            ProbeClassifier::Knn => Augmentation::None,
        },
        image_size: parameters.image_size,
        normalise: Normalise::Auto,
        validation_transform: ValidationTransform::Plain,
        track_test: true,
    }
}

/// An encoder that does not change, and the images that it is shown.
pub struct FrozenEncoder<'a> {
    network: Classifier,
    architecture: Architecture,
    data: &'a TrainingData,
    context: &'a Context,
    batch_size: usize,
}

impl<'a> FrozenEncoder<'a> {
    fn load(
        parameters: &Probe,
        architecture: Architecture,
        data: &'a TrainingData,
        context: &'a Context,
    ) -> anyhow::Result<Self> {
        let channels = data.image().channels;
        let classes = data.classes.len();
        let network = Classifier::new(architecture, channels, classes, 0, data.device)?
            .with_precision(parameters.precision);
        let encoder = network.state().tensors().iter();
        let encoder = encoder.filter(|named| !Classifier::in_head(&named.name));
        let file = context.input(ENCODER)?.join(WEIGHTS_FILE);
        weights::read_into(&file, encoder, Classifier::in_head)?;
        let batch_size = usize::try_from(parameters.batch_size)?;
        Ok(Self { network, architecture, data, context, batch_size })
    }

    /// Images, float [B,C,H,W] -> features, float [B,F], without a graph.
    fn features(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let _no_gradients = tch::no_grad_guard();
        self.network.features(images, Mode::Evaluate)
    }

    /// Hands `consume` the features, float [B,F], and the clean labels, int64 [B], of samples of one part, a batch at a
    /// time, not augmented.
    fn for_each_batch(
        &self,
        part: Part,
        samples: &[u32],
        phase: &str,
        mut consume: impl FnMut(Tensor, Tensor) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut done = 0;
        for batch in samples.chunks(self.batch_size.max(1)) {
            self.context.stop_point()?;
            let (images, labels) = self.data.for_evaluation(part, batch)?;
            consume(self.features(&images)?, labels)?;
            done += batch.len() as u64;
            self.context.progress(Progress {
                done,
                total: Some(samples.len() as u64),
                unit: Unit::Images,
                phase: Some(phase.to_owned()),
            });
        }
        Ok(())
    }

    /// The features of all samples that are learned from, float [n,F], not augmented.
    fn training_features(&self) -> anyhow::Result<Tensor> {
        let mut parts = Vec::new();
        self.for_each_batch(Part::Train, &self.data.train, "features", |features, _| {
            parts.push(features);
            Ok(())
        })?;
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// The accuracies of a classifier of features, which returns float [B,K]: the larger, the likelier a class.
    fn metrics(
        &self,
        name: &str,
        classify: impl Fn(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Metrics> {
        let data = self.data;
        let mut metrics = Metrics::new();
        for (part, samples, what) in [
            (Part::Test, &data.test, "accuracy"),
            (Part::Train, &data.validation, "validation-accuracy"),
        ] {
            if samples.is_empty() {
                continue;
            }
            let (mut first, mut among) = (0, 0);
            self.for_each_batch(part, samples, what, |features, labels| {
                let scores = classify(&features)?;
                first += hits(&scores, &labels, 1)?;
                among += hits(&scores, &labels, TOP)?;
                Ok(())
            })?;
            let share = |hits: i64| hits as f64 / samples.len() as f64;
            metrics.insert(format!("{name}-{what}"), share(first));
            if part == Part::Test && data.classes.len() as i64 > TOP {
                metrics.insert(format!("{name}-top{TOP}-accuracy"), share(among));
            }
        }
        Ok(metrics)
    }
}

/// How many rows of `scores`, float [B,K], have their label among the `top` largest.
fn hits(scores: &Tensor, labels: &Tensor, top: i64) -> anyhow::Result<i64> {
    let (_, classes) = scores.size2()?;
    let (_, guesses) = scores.f_topk(top.min(classes), 1, true, true)?;
    let hits = guesses.f_eq_tensor(&labels.f_unsqueeze(1)?)?;
    Ok(hits.f_sum(Kind::Int64)?.f_int64_value(&[])?)
}
