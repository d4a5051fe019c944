//! What a supervised method trains on: images, given and clean labels, who trains and who validates,
//! and how pixels are scaled; all checked against each other before the first step.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{
    DatasetInfo, ImageShape, Labels, ModelInfo, Part, SampleLosses, SampleSplit, Samples,
    SplitIndices, check_labels,
};
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::{
    Augmentation, Normalise, Sampling, Train, ValidationLabels, ValidationTransform,
};
use pipeline_stages::worker::Context;
use tch::{Device, Tensor};

use super::batch::{Batch, MixingTensors, StepBatch};
use super::draws::Draws;
use super::method::Setup;
use super::recipe::Recipe;
use super::recorder::Recorder;
use super::training_loop::{BatchSource, StepPosition};
use crate::data::augment::Normalisation;
use crate::data::augment::batched::upload;
use crate::data::batches::{SampleSet, StepSamples, batch_count, class_balanced, cut, shuffled};
use crate::data::image_store::ImageStore;
use crate::data::preprocess::Preprocess;
use crate::network::feature_count;

/// Everything that a classifier is trained on.
pub struct TrainingData {
    images: ImageStore,
    /// Those of the test set, where it is evaluated on the way.
    test_images: Option<ImageStore>,
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
    /// The samples of the test set that are evaluated on the way.
    pub test: Vec<u32>,
    /// The artifact of the initial encoder.
    pub init: Option<PathBuf>,
    /// Where tensors go.
    pub device: Device,
    seed: u64,
    batch_size: usize,
    samples_per_epoch: usize,
    sampling: Sampling,
    augmentation: Augmentation,
    validation_transform: ValidationTransform,
    validation_labels: ValidationLabels,
    preprocess: Preprocess,
}

impl TrainingData {
    /// Reads the inputs of a stage. The encoder that it starts from, if there is one, is at the port `init`.
    ///
    /// # Errors
    /// When an input is missing, damaged, or does not fit the others.
    pub fn read(
        parameters: &Train,
        init: &str,
        context: &Context,
        device: Device,
    ) -> anyhow::Result<Self> {
        let data = context.input("data")?;
        let info = DatasetInfo::read(data)?;
        let (samples, test_samples) =
            (Samples::open_any(data, Part::Train)?, Samples::open_any(data, Part::Test)?);
        let labels = context.optional_input("labels").map(|input| Labels::read(&input.path));
        let noisy = labels.is_some();
        let labels = labels.transpose()?.unwrap_or_else(|| Labels {
            labels: samples.labels.clone(),
            clean: samples.labels.clone(),
        });
        let (count, classes) = (samples.labels.len(), info.classes.len());
        labels.check(&samples.labels, classes)?;
        let Labels { labels: given, clean } = labels;
        check_labels(&test_samples.labels, "test labels", test_samples.labels.len(), classes)?;
        let test_samples = parameters.track_test.then_some(test_samples);
        let test = test_samples.as_ref().map_or(0, |samples| samples.labels.len());
        let SampleSplit { train, validation } = match context.optional_input("split") {
            Some(input) => SplitIndices::read(&input.path)?.checked(count)?,
            None => SampleSplit::without_split(count, &info)?,
        };
        let samples_per_epoch = samples_per_epoch(parameters, train.len())?;

        let init = context.optional_input(init).map(|input| input.path.clone());
        let initial = init.as_deref().map(|path| initial(path, &samples));
        let initial = initial.transpose()?;
        let normalisation = normalisation(parameters, &info, &samples, initial.as_ref())?;
        let crop = initial.and_then(|initial| initial.input_crop);
        let (augmentation, image_size) = (parameters.augmentation, parameters.image_size);
        let preprocess =
            Preprocess::for_training(&samples, augmentation, image_size, crop, normalisation)?;
        let note = |note| context.note(note);
        let images = preprocess.store(samples, device, note)?;
        // What is not evaluated takes no memory of a GPU, and its images may have any shape.
        let test_images = test_samples.map(|samples| preprocess.store(samples, device, note));
        let test_images = test_images.transpose()?;
        Ok(Self {
            given,
            clean,
            noisy,
            classes: info.classes,
            train,
            validation,
            test: SampleSplit::all_train(test)?.train,
            init,
            device,
            seed: context.seed,
            batch_size: usize::try_from(parameters.batch_size)?,
            samples_per_epoch,
            sampling: parameters.sampling,
            augmentation,
            validation_transform: parameters.validation_transform,
            validation_labels: parameters.validation_labels,
            preprocess,
            images,
            test_images,
        })
    }

    /// What a method of training on this is made from, before it is made.
    pub fn setup<'a>(&'a self, recipe: &'a Recipe, context: &'a Context) -> Setup<'a> {
        let (channels, classes) = (self.image().channels, self.classes.len());
        Setup {
            folder: &context.folder,
            init: self.init.as_deref(),
            samples: self.given.len(),
            train: &self.train,
            validation: &self.validation,
            labels: &self.given,
            clean_labels: &self.clean,
            ..Setup::new(recipe, channels, classes, context.seed, self.device)
        }
    }

    /// The shape of the images that the network sees.
    pub fn image(&self) -> ImageShape {
        self.preprocess.image
    }

    /// Steps of an epoch; the last one may have another number of samples.
    pub fn steps_per_epoch(&self) -> u64 {
        batch_count(self.samples_per_epoch, self.batch_size) as u64
    }

    /// Notes where an epoch has fewer samples than a batch should have.
    pub fn note_small_batches(&self, context: &Context) {
        let note =
            small_batch_note("an epoch", self.samples_per_epoch, "batch-size", self.batch_size);
        if let Some(note) = note {
            context.note(note);
        }
    }

    /// Samples that this many steps see.
    pub fn samples_of(&self, steps: u64) -> u64 {
        let (epochs, rest) = (steps / self.steps_per_epoch(), steps % self.steps_per_epoch());
        epochs * self.samples_per_epoch as u64 + rest * self.batch_size as u64
    }

    /// An empty record of what happens to every sample.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn recorder(&self, epochs: u32, weights: bool) -> anyhow::Result<Recorder> {
        Recorder::new(epochs, self.given.len(), weights, self.device)
    }

    /// What was recorded of the samples that train.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn record(&self, recorder: &Recorder) -> anyhow::Result<SampleLosses> {
        recorder.record(&self.train, &self.given, &self.clean)
    }

    /// The labels to train on of a batch, int64 [B].
    ///
    /// # Errors
    /// When libtorch cannot make the tensor.
    pub fn labels_of(&self, batch: &[u32]) -> anyhow::Result<Tensor> {
        gather(&self.given, batch, self.device)
    }

    /// Images, float [B,C,H,W], and clean labels, int64 [B], of a batch of one part, not augmented.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn for_evaluation(&self, part: Part, batch: &[u32]) -> anyhow::Result<(Tensor, Tensor)> {
        let (images, labels) = match part {
            Part::Train => (&self.images, &self.clean),
            Part::Test => {
                let images = self.test_images.as_ref();
                let images = images.context("the test set is not evaluated on the way")?;
                (images, &images.samples().labels)
            }
        };
        Ok((self.preprocess.plain(images, batch)?, gather(labels, batch, self.device)?))
    }

    /// The batches of an epoch: each sample that trains once, or as the stage asks for.
    ///
    /// # Errors
    /// When there are too few.
    pub fn batches(&self, epoch: u32) -> anyhow::Result<Vec<Vec<u32>>> {
        let order = match self.sampling {
            Sampling::Uniform => shuffled(&self.train, self.seed, epoch),
            Sampling::ClassBalanced => class_balanced(
                &self.train,
                &self.given,
                self.classes.len(),
                self.samples_per_epoch,
                self.seed,
                epoch,
            ),
        };
        let epoch = order.get(..self.samples_per_epoch).context("an epoch has too few samples")?;
        Ok(cut(epoch, self.batch_size))
    }

    /// Samples a step of an evaluation.
    pub fn evaluation_batch(&self) -> usize {
        self.preprocess.evaluation_batch()
    }

    /// A batch of training samples, not augmented.
    ///
    /// # Errors
    /// When an image cannot be read, or libtorch cannot make the tensors.
    pub fn plain_batch(&self, indices: &[u32]) -> anyhow::Result<Batch> {
        let images = self.preprocess.plain(&self.images, indices)?;
        self.batch_of(&indices.to_vec().into(), images, Vec::new())
    }

    /// Images, float [B,C,H,W], and labels, int64 [B], of held-out samples, for the evaluation after these many steps: images
    /// that are not augmented, or as training images are where the recipe says so; and the labels that it names.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn for_validation(&self, batch: &[u32], steps: u64) -> anyhow::Result<(Tensor, Tensor)> {
        let batch = match self.validation_transform {
            ValidationTransform::Plain => self.plain_batch(batch)?,
            ValidationTransform::Training => {
                self.batch(&SampleSet::from(batch.to_vec()), Draws::of_validation(steps)?)?
            }
        };
        let labels = match self.validation_labels {
            ValidationLabels::Clean => batch.clean_labels,
            ValidationLabels::Given => batch.labels,
        };
        Ok((batch.images, labels))
    }

    /// A batch of training samples.
    fn batch(&self, set: &SampleSet, draws: Draws) -> anyhow::Result<Batch> {
        let SampleSet { indices, views, .. } = set;
        let view = |view| {
            let stream = |index| draws.stream(self.seed, index, view);
            self.preprocess.augmented(&self.images, indices, self.augmentation, stream)
        };
        let other_views = (1..*views).map(view).collect::<anyhow::Result<_>>()?;
        self.batch_of(set, view(0)?, other_views)
    }

    fn batch_of(
        &self,
        set: &SampleSet,
        images: Tensor,
        other_views: Vec<Tensor>,
    ) -> anyhow::Result<Batch> {
        let SampleSet { indices, mixing, .. } = set;
        let samples: Vec<i64> = indices.iter().map(|&index| i64::from(index)).collect();
        Ok(Batch {
            images,
            other_views,
            samples: upload(&samples, self.device)?,
            labels: gather(&self.given, indices, self.device)?,
            clean_labels: gather(&self.clean, indices, self.device)?,
            mixing: mixing
                .as_ref()
                .map(|drawn| MixingTensors::new(drawn, self.device))
                .transpose()?,
        })
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
            input: self.image(),
            input_crop: self.preprocess.crop,
            features: usize::try_from(feature_count(architecture))?,
            further_networks: 0,
            classes: self.classes.clone(),
            input_mean: self.preprocess.normalisation.mean.clone(),
            input_std: self.preprocess.normalisation.std.clone(),
            training,
        })
    }
}

impl BatchSource for TrainingData {
    type Batch = StepBatch;

    fn prepare(&self, at: StepPosition, samples: StepSamples) -> anyhow::Result<StepBatch> {
        let [of_train, of_others] = Draws::of_step(at, self.steps_per_epoch(), &samples)?;
        let others = samples.others.iter().scan(of_others, |draws, set| {
            let batch = self.batch(set, *draws);
            *draws = draws.after(set);
            Some(batch)
        });
        let others = others.collect::<anyhow::Result<_>>()?;
        Ok(StepBatch { train: self.batch(&samples.train, of_train)?, others })
    }
}

/// What to say where there are fewer samples than a batch should have. `what` has the samples, `name` is the parameter.
pub fn small_batch_note(what: &str, count: usize, name: &str, size: usize) -> Option<String> {
    (count < size).then(|| {
        format!(
            "{what} has {count} samples, fewer than {name} ({size}): each step uses all of them"
        )
    })
}

fn samples_per_epoch(parameters: &Train, train: usize) -> anyhow::Result<usize> {
    ensure!(train > 0, "there are no samples to train on");
    let wanted = parameters.samples_per_epoch.map(usize::try_from).transpose()?.unwrap_or(train);
    ensure!(
        wanted <= train || parameters.sampling == Sampling::ClassBalanced,
        "{train} samples train, fewer than samples-per-epoch ({wanted})"
    );
    Ok(wanted)
}

fn normalisation(
    parameters: &Train,
    info: &DatasetInfo,
    samples: &Samples,
    initial: Option<&ModelInfo>,
) -> anyhow::Result<Normalisation> {
    let channels = samples.image.channels;
    let normalisation = match (parameters.normalise, initial) {
        (Normalise::None, _) => Normalisation::none(channels),
        (Normalise::Imagenet, _) => Normalisation::imagenet(),
        (Normalise::Auto, Some(initial)) => Normalisation::of_model(initial)?,
        (Normalise::Auto, None) | (Normalise::Dataset, _) => Normalisation::of_dataset(info)?,
    };
    ensure!(
        normalisation.mean.len() == channels,
        "pixels are normalised for {} channels, but the images have {channels}: \
         set normalise = \"dataset\" or \"none\"",
        normalisation.mean.len(),
    );
    Ok(normalisation)
}

fn gather(labels: &[i64], batch: &[u32], device: Device) -> anyhow::Result<Tensor> {
    let chosen: Vec<i64> = batch.iter().filter_map(|&i| labels.get(i as usize).copied()).collect();
    upload(&chosen, device)
}

/// What the initial weights say of themselves.
fn initial(artifact: &Path, samples: &Samples) -> anyhow::Result<ModelInfo> {
    let info = ModelInfo::read(artifact)?;
    ensure!(
        info.input.channels == samples.image.channels,
        "the initial weights take images with {} channels, but the data set has {}",
        info.input.channels,
        samples.image.channels
    );
    Ok(info)
}
