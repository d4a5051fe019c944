//! Features of samples, wherever they come from: a frozen encoder, or a stage that has run it.
//!
//! Does not depend on how the encoder was trained but for what `model.json` says.

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{FeatureFile, Part, Samples, WEIGHTS_FILE};
use pipeline_stages::kinds::architecture::EncoderArchitecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{Augmentation, Train};
use pipeline_stages::message::{Progress, Unit};
use pipeline_stages::state_dict::feature_count;
use pipeline_stages::worker::Context;
use tch::{Device, Kind, Tensor};

use crate::data::augment::batched::{to_device, upload};
use crate::network::{Classifier, FrozenEncoder, weights};
use crate::training::training_data::TrainingData;

/// The port of an encoder.
pub const ENCODER: &str = "weights";
/// The port of features that were computed before.
pub const STORED: &str = "features";

/// What a frozen encoder is shown, as `train` shows it: with its defaults, but for what is said here. Without a batch size, nothing
/// is trained; without an image size, images have the usual one of the encoder.
pub fn shown(
    architecture: EncoderArchitecture,
    batch_size: Option<u64>,
    image_size: Option<u32>,
    augmentation: Augmentation,
) -> Train {
    Train {
        batch_size: batch_size.unwrap_or(1),
        augmentation,
        image_size: image_size.or(architecture.usual_side()),
        ..Train::default()
    }
}

/// The features of a data set.
pub struct FeatureSource<'a> {
    origin: Origin,
    dimension: i64,
    batch_size: usize,
    /// The samples that they are of.
    pub data: &'a TrainingData,
    /// The stage.
    pub context: &'a Context,
}

enum Origin {
    Encoder(FrozenEncoder),
    Stored { train: StoredPart, test: StoredPart },
}

struct StoredPart {
    /// float [N,F].
    features: Tensor,
    /// The labels of the data set, int64 [N].
    labels: Tensor,
}

impl<'a> FeatureSource<'a> {
    /// Those that the encoder at the port [`ENCODER`] makes of images. Without a batch size: that of evaluations.
    ///
    /// # Errors
    /// When the weights are damaged, or not of this architecture.
    pub fn of_encoder(
        architecture: EncoderArchitecture,
        precision: Precision,
        batch_size: Option<u64>,
        data: &'a TrainingData,
        context: &'a Context,
    ) -> anyhow::Result<Self> {
        let channels = data.image().channels;
        let encoder = FrozenEncoder::new(architecture, channels, precision, data.device)?;
        let file = context.input(ENCODER)?.join(WEIGHTS_FILE);
        weights::read_into(&file, encoder.state().tensors(), Classifier::in_head)?;
        let batch_size = batch_size.map(usize::try_from).transpose()?;
        Ok(Self {
            origin: Origin::Encoder(encoder),
            dimension: i64::try_from(feature_count(architecture))?,
            batch_size: batch_size.unwrap_or_else(|| data.evaluation_batch()),
            data,
            context,
        })
    }

    /// Those of a file, of the data set at the port `data`.
    ///
    /// # Errors
    /// When the file is damaged, or of another data set.
    pub fn stored(
        file: &FeatureFile,
        batch_size: u64,
        data: &'a TrainingData,
        context: &'a Context,
    ) -> anyhow::Result<Self> {
        let part = |part| {
            let labels = Samples::open_any(context.input("data")?, part)?.labels;
            file.check(part, &labels)?;
            let features = tensor(file, part, data.device)?;
            anyhow::Ok(StoredPart { features, labels: upload(&labels, data.device)? })
        };
        Ok(Self {
            origin: Origin::Stored { train: part(Part::Train)?, test: part(Part::Test)? },
            dimension: i64::try_from(file.info.dimension)?,
            batch_size: usize::try_from(batch_size)?,
            data,
            context,
        })
    }

    /// How many features a sample has.
    pub fn dimension(&self) -> i64 {
        self.dimension
    }

    /// Images, float [B,C,H,W] -> features, float [B,F], without a graph.
    ///
    /// # Errors
    /// When there is no encoder.
    pub fn of_images(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let Origin::Encoder(encoder) = &self.origin else {
            anyhow::bail!("features that were computed before are not of these images");
        };
        encoder.features(images)
    }

    /// The features, float [B,F], and the clean labels, int64 [B], of samples of one part, not augmented.
    fn batch(&self, part: Part, samples: &[u32]) -> anyhow::Result<(Tensor, Tensor)> {
        let Origin::Stored { train, test } = &self.origin else {
            let (images, labels) = self.data.for_evaluation(part, samples)?;
            return Ok((self.of_images(&images)?, labels));
        };
        let stored = match part {
            Part::Train => train,
            Part::Test => test,
        };
        let rows: Vec<i64> = samples.iter().map(|&sample| i64::from(sample)).collect();
        let rows = upload(&rows, self.data.device)?;
        let select = |tensor: &Tensor| tensor.f_index_select(0, &rows);
        Ok((select(&stored.features)?, select(&stored.labels)?))
    }

    /// Hands `consume` the features, float [B,F], and the clean labels, int64 [B], of samples of one part, a batch at a
    /// time, not augmented.
    ///
    /// # Errors
    /// When an image cannot be read, `consume` fails, or the stage is asked to stop.
    pub fn for_each_batch(
        &self,
        part: Part,
        samples: &[u32],
        phase: &str,
        mut consume: impl FnMut(Tensor, Tensor) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut done = 0;
        for batch in samples.chunks(self.batch_size.max(1)) {
            self.context.stop_point()?;
            let (features, labels) = self.batch(part, batch)?;
            consume(features, labels)?;
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
    ///
    /// # Errors
    /// As [`FeatureSource::for_each_batch`].
    pub fn of_training_samples(&self) -> anyhow::Result<Tensor> {
        let mut parts = Vec::new();
        self.for_each_batch(Part::Train, &self.data.train, "features", |features, _| {
            parts.push(features);
            Ok(())
        })?;
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

/// The features of a part, float [N,F].
///
/// # Errors
/// When the file is damaged, or a feature is not a finite number.
pub fn tensor(file: &FeatureFile, part: Part, device: Device) -> anyhow::Result<Tensor> {
    let (bytes, [samples, dimension]) = file.rows(part)?;
    let shape = [i64::try_from(samples)?, i64::try_from(dimension)?];
    let features = Tensor::f_from_data_size(bytes, &shape, Kind::Float)?;
    let finite = features.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0;
    ensure!(finite, "features of the part '{}' are not finite numbers", part.name());
    to_device(&features, device).context("the features")
}
