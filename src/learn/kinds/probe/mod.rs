//! `probe`: how good an encoder's features are, by a simple classifier on top of them.
//!
//! The encoder is frozen: [`FeatureSource`] has its features. [`linear`] trains a layer on them, [`knn`]
//! lets the nearest ones vote; what they share is here.

pub mod knn;
pub mod linear;

use pipeline_stages::formats::{FeatureFile, ModelInfo, Part, write_metrics};
use pipeline_stages::kinds::{Augmentation, Probe, ProbeClassifier};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;
use tch::{Kind, Tensor};

use super::features::source::{ENCODER, FeatureSource, STORED, shown};
use crate::network::weights;
use crate::training::training_data::TrainingData;
use crate::{Body, device};

/// How many guesses a sample has in the second accuracy.
const TOP: i64 = 5;

impl Body for Probe {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        context.ran_on(device::ran_on(device));
        let stored = context.optional_input(STORED);
        let stored = stored.map(|input| FeatureFile::open(&input.path)).transpose()?;
        let architecture = match &stored {
            Some(stored) => weights::architecture(&stored.info.encoder)?,
            None => weights::architecture(&ModelInfo::read(context.input(ENCODER)?)?)?,
        };
        let augmentation = match self.classifier {
            ProbeClassifier::Linear => self.augmentation,
            ProbeClassifier::Knn => Augmentation::None,
        };
        let batch_size = Some(self.batch_size);
        let shown = shown(architecture, batch_size, self.image_size, augmentation);
        let data = TrainingData::read(&shown, ENCODER, context, device)?;
        let source = match &stored {
            Some(stored) => FeatureSource::stored(stored, self.batch_size, &data, context)?,
            None => {
                let precision = self.precision;
                FeatureSource::of_encoder(architecture, precision, batch_size, &data, context)?
            }
        };
        let metrics = match self.classifier {
            ProbeClassifier::Linear => linear::run(self, &source)?,
            ProbeClassifier::Knn => knn::run(self, &source)?,
        };
        write_metrics(&context.output, &metrics)?;
        Ok(metrics)
    }
}

/// The accuracies of a classifier of features, which returns float [B,K]: the larger, the likelier a class.
fn measure(
    source: &FeatureSource<'_>,
    name: &str,
    classify: impl Fn(&Tensor) -> anyhow::Result<Tensor>,
) -> anyhow::Result<Metrics> {
    let data = source.data;
    let mut metrics = Metrics::new();
    for (part, samples, what) in [
        (Part::Test, &data.test, "accuracy"),
        (Part::Train, &data.validation, "validation-accuracy"),
    ] {
        if samples.is_empty() {
            continue;
        }
        let (mut first, mut among) = (0, 0);
        source.for_each_batch(part, samples, what, |features, labels| {
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

/// How many rows of `scores`, float [B,K], have their label among the `top` largest.
fn hits(scores: &Tensor, labels: &Tensor, top: i64) -> anyhow::Result<i64> {
    let (_, classes) = scores.size2()?;
    let (_, guesses) = scores.f_topk(top.min(classes), 1, true, true)?;
    let hits = guesses.f_eq_tensor(&labels.f_unsqueeze(1)?)?;
    Ok(hits.f_sum(Kind::Int64)?.f_int64_value(&[])?)
}
