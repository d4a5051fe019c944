//! `probe`: how good an encoder's features are, by a simple classifier on top of them.
//!
//! The encoder is frozen: [`FeatureSource`] has its features. [`linear`] trains a layer on them, [`knn`]
//! lets the nearest ones vote; [`measure`] has the accuracies of both.

pub mod knn;
pub mod linear;
mod measure;

use pipeline_stages::formats::{FeatureFile, ModelInfo, write_metrics};
use pipeline_stages::kinds::{Augmentation, Probe, ProbeClassifier};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use super::features::source::{ENCODER, FeatureSource, STORED, shown};
use crate::network::weights;
use crate::training::training_data::TrainingData;
use crate::{Body, device};

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
        debug_assert!(metrics.keys().all(|name| self.metrics().has(name)), "{metrics:?}");
        write_metrics(&context.output, &metrics)?;
        Ok(metrics)
    }
}
