//! What a supervised method trains on: images, given and clean labels, who trains and who validates,
//! and how pixels are scaled; all checked against each other before the first step.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use pipeline_stages::formats::{DatasetInfo, Labels, ModelInfo, Part, Samples, SplitIndices};
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::{Augmentation, Normalise, Train};
use pipeline_stages::worker::Context;
use tch::{Device, Tensor};

use crate::augment::{Normalisation, augmented};
use crate::batches::Images;
use crate::network::feature_count;
use crate::random::{Purpose, Stream};

/// Everything that a classifier is trained on.
pub struct TrainingData {
    samples: Samples,
    given: Vec<i64>,
    clean: Vec<i64>,
    /// Whether the labels came from a `labels` artifact, beside clean ones.
    pub noisy: bool,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The samples that train.
    pub train: Vec<u32>,
    /// The samples that validate.
    pub validation: Vec<u32>,
    /// The artifact of the initial encoder.
    pub init: Option<PathBuf>,
    normalisation: Normalisation,
    tables: Vec<[f32; 256]>,
}

impl TrainingData {
    /// Reads the inputs of a `train` stage.
    ///
    /// # Errors
    /// When an input is missing, damaged, or does not fit the others.
    pub fn read(parameters: &Train, context: &Context) -> anyhow::Result<Self> {
        let data = context.input("data")?;
        let info = DatasetInfo::read(data)?;
        let samples = Samples::open(data, Part::Train)?;
        let labels = context.optional_input("labels").map(|input| Labels::read(&input.path));
        let noisy = labels.is_some();
        let (given, clean) = match labels.transpose()? {
            Some(labels) => (labels.labels, labels.clean),
            None => (samples.labels.clone(), samples.labels.clone()),
        };
        for (labels, what) in [(&given, "labels to train on"), (&clean, "clean labels")] {
            check_labels(labels, what, samples.labels.len(), info.classes.len())?;
        }
        let count = samples.labels.len();
        let (train, validation) = match context.optional_input("split") {
            Some(input) => {
                let split = SplitIndices::read(&input.path)?;
                (indices(&split.train, count)?, indices(&split.validation, count)?)
            }
            None => (indices(&(0..count as i64).collect::<Vec<_>>(), count)?, Vec::new()),
        };
        ensure!(!train.is_empty(), "there are no samples to train on");
        ensure!(
            train.len() as u64 >= parameters.batch_size,
            "{} samples train, fewer than one batch: set batch-size to {} or less (it is {})",
            train.len(),
            train.len(),
            parameters.batch_size
        );

        let init = context.optional_input("init").map(|input| input.path.clone());
        let initial =
            init.as_deref().map(|path| check_init(path, parameters.architecture, &samples));
        let initial = initial.transpose()?;
        let normalisation = match (parameters.normalise, &initial) {
            (Normalise::None, _) => Normalisation::none(samples.image.channels),
            (Normalise::Auto, Some(initial)) => Normalisation::of_model(initial)?,
            (Normalise::Auto, None) | (Normalise::Dataset, _) => Normalisation::of_dataset(&info)?,
        };
        let tables = normalisation.tables();
        let classes = info.classes;
        ensure!(
            tables.len() == samples.image.channels,
            "dataset.json speaks of {} channels, but the images have {}",
            tables.len(),
            samples.image.channels
        );
        Ok(Self {
            samples,
            given,
            clean,
            noisy,
            classes,
            train,
            validation,
            init,
            normalisation,
            tables,
        })
    }

    /// The training images.
    pub fn images(&self) -> Images<'_> {
        Images::of(&self.samples)
    }

    /// The images of a batch, float [B,C,H,W], augmented by the stream of each sample, normalised.
    ///
    /// # Errors
    /// When libtorch can't make the tensor.
    pub fn batch(
        &self,
        batch: &[u32],
        augmentation: Augmentation,
        seed: u64,
        purpose: Purpose,
        epoch: u32,
        device: Device,
    ) -> anyhow::Result<Tensor> {
        let images = self.images();
        images.batch(batch, device, |index, pixels, out| {
            let mut stream = Stream::new(seed, purpose, epoch, index);
            augmented(pixels, images.shape, augmentation, &mut stream, &self.tables, out);
        })
    }

    /// The labels to train on, int64 [B].
    ///
    /// # Errors
    /// When libtorch can't make the tensor.
    pub fn given_labels(&self, batch: &[u32], device: Device) -> anyhow::Result<Tensor> {
        gather(&self.given, batch, device)
    }

    /// The data set's own labels, int64 [B].
    ///
    /// # Errors
    /// When libtorch can't make the tensor.
    pub fn clean_labels(&self, batch: &[u32], device: Device) -> anyhow::Result<Tensor> {
        gather(&self.clean, batch, device)
    }

    /// The `model.json` of a classifier that was trained on this.
    ///
    /// # Errors
    /// Never, for the architectures there are.
    pub fn model_info(
        &self,
        architecture: Architecture,
        training: serde_json::Value,
    ) -> anyhow::Result<ModelInfo> {
        Ok(ModelInfo {
            architecture: architecture.to_string(),
            input: self.samples.image,
            features: usize::try_from(feature_count(architecture))?,
            classes: self.classes.clone(),
            input_mean: self.normalisation.mean.clone(),
            input_deviation: self.normalisation.deviation.clone(),
            training,
        })
    }
}

fn gather(labels: &[i64], batch: &[u32], device: Device) -> anyhow::Result<Tensor> {
    let chosen: Vec<i64> = batch.iter().filter_map(|&i| labels.get(i as usize).copied()).collect();
    Ok(Tensor::f_from_slice(&chosen)?.f_to_device(device)?)
}

/// Fails on labels that are not one of `classes` classes for each of `samples` samples.
///
/// # Errors
/// With the first label that is wrong.
pub fn check_labels(
    labels: &[i64],
    what: &str,
    samples: usize,
    classes: usize,
) -> anyhow::Result<()> {
    ensure!(
        labels.len() == samples,
        "there are {} {what}, but {samples} images: are they of the same data set?",
        labels.len()
    );
    let wrong = labels.iter().position(|&label| label < 0 || label >= classes as i64);
    if let Some(index) = wrong {
        bail!(
            "sample {index} of the {what} has the label {}, but the data set has the classes 0 to {}",
            labels[index],
            classes.saturating_sub(1)
        );
    }
    Ok(())
}

fn indices(split: &[i64], samples: usize) -> anyhow::Result<Vec<u32>> {
    let index = |&index: &i64| {
        let valid = u32::try_from(index).ok().filter(|&index| (index as usize) < samples);
        valid.with_context(|| {
            format!("the split names sample {index}, but the data set has {samples}: are they of the same data set?")
        })
    };
    split.iter().map(index).collect()
}

fn check_init(
    artifact: &Path,
    architecture: Architecture,
    samples: &Samples,
) -> anyhow::Result<ModelInfo> {
    let info = ModelInfo::read(artifact)?;
    ensure!(
        info.architecture == architecture.name(),
        "the initial weights are of a {}, but this stage trains a {architecture}: \
         set architecture = \"{}\" here, or train the initial weights with '{architecture}'",
        info.architecture,
        info.architecture
    );
    ensure!(
        info.input.channels == samples.image.channels,
        "the initial weights take images with {} channels, but the data set has {}",
        info.input.channels,
        samples.image.channels
    );
    Ok(info)
}
