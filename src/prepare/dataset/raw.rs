//! A data set that fits in memory, and how it is written.

use pipeline_stages::formats::{DatasetInfo, ImageShape, Part, write_samples};
use pipeline_stages::worker::Context;

use super::statistics::channel_statistics;

/// A data set in memory.
pub(crate) struct RawDataset {
    pub(crate) classes: Vec<String>,
    pub(crate) image: ImageShape,
    pub(crate) train: RawSamples,
    /// How many training samples are set aside for validation: the last ones.
    pub(crate) validation_samples: usize,
    pub(crate) test: RawSamples,
}

/// One part of it.
pub(crate) struct RawSamples {
    /// u8 [N,C,H,W].
    pub(crate) pixels: Vec<u8>,
    /// One per sample, below the number of classes.
    pub(crate) labels: Vec<i64>,
}

impl RawDataset {
    /// Writes both parts, and returns their description.
    ///
    /// # Errors
    /// When a file cannot be written, or it was asked to stop.
    pub(crate) fn write(self, format: &str, context: &Context) -> anyhow::Result<DatasetInfo> {
        let (image, train, test) = (self.image, &self.train, &self.test);
        let trains = (train.labels.len() - self.validation_samples) * image.bytes();
        let statistics = channel_statistics(train.pixels.get(..trains).unwrap_or_default(), image);
        for (part, samples) in [(Part::Train, train), (Part::Test, test)] {
            context.stop_point()?;
            write_samples(&context.output, part, image, &samples.pixels, &samples.labels)?;
        }
        Ok(DatasetInfo {
            format: format.to_owned(),
            classes: self.classes,
            image,
            train_samples: train.labels.len(),
            validation_samples: self.validation_samples,
            test_samples: test.labels.len(),
            channel_mean: statistics.mean,
            channel_std: statistics.std,
            ..DatasetInfo::default()
        })
    }
}
