//! The body of `dataset`: images and labels in common formats, into the format of the artifact.
//!
//! One file per format: data sets that fit in memory become a [`RawDataset`], the others are written image by image
//! to the artifact. Shared code is here and in [`source`].

mod cifar;
mod cifar_python;
mod class_folders;
mod clothing1m;
mod encoded;
mod idx;
mod image_folder;
mod imagenet32;
mod images;
mod jpeg;
mod npz;
mod pickled;
mod source;
mod statistics;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, anyhow, ensure};
use pipeline_stages::formats::{DatasetInfo, ImageShape, Part, write_samples};
use pipeline_stages::kinds::{Dataset, DatasetFormat};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::text::in_short;
use pipeline_stages::worker::Context;

use crate::Body;
pub(crate) use class_folders::FILES;
pub(crate) use encoded::check_image;
use source::SourceFolders;
use statistics::channel_statistics;

/// The most classes that a message names.
const NAMED: usize = 10;

impl Body for Dataset {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let info = write(self, context)?;
        info.write(&context.output)?;
        let mut metrics = Metrics::of_counts([
            ("train-samples", info.train_samples),
            ("test-samples", info.test_samples),
            ("classes", info.classes.len()),
        ]);
        if info.validation_samples > 0 {
            metrics.insert_count("validation-samples", info.validation_samples as u64);
        }
        Ok(metrics)
    }
}

/// Writes both parts, and returns their description.
fn write(stage: &Dataset, context: &Context) -> anyhow::Result<DatasetInfo> {
    let source = &SourceFolders::of_stage(stage, context).map_err(|error| {
        match where_from(stage.format) {
            Some(place) => anyhow!("{error:#}; {place}"),
            None => error,
        }
    })?;
    let in_memory = match stage.format {
        DatasetFormat::Imagenet32 => return imagenet32::write(stage, source, context),
        DatasetFormat::Clothing1m => return clothing1m::write(stage, source, context),
        DatasetFormat::ImageFolder if stage.encoded => {
            return image_folder::write_encoded(stage, source, context);
        }
        DatasetFormat::ImageFolder => image_folder::read(stage, source, context)?,
        DatasetFormat::Idx => idx::read(stage, source, context)?,
        DatasetFormat::Cifar10 => cifar::read(stage, &cifar::CIFAR10, source, context)?,
        DatasetFormat::Cifar100 => cifar::read(stage, &cifar::CIFAR100, source, context)?,
        DatasetFormat::Cifar10Python => {
            cifar_python::read(stage, &cifar_python::CIFAR10, source, context)?
        }
        DatasetFormat::Cifar100Python => {
            cifar_python::read(stage, &cifar_python::CIFAR100, source, context)?
        }
    };
    in_memory.write(stage.format.name(), context)
}

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

/// Where to request data that cannot be downloaded freely.
fn where_from(format: DatasetFormat) -> Option<&'static str> {
    match format {
        DatasetFormat::Imagenet32 => Some(imagenet32::WHERE_FROM),
        DatasetFormat::Clothing1m => Some(clothing1m::WHERE_FROM),
        _ => None,
    }
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

/// Reports how many images are done.
fn report_images(context: &Context, done: usize, total: Option<usize>) {
    context.progress(Progress {
        done: done as u64,
        total: total.map(|total| total as u64),
        unit: Unit::Images,
        phase: None,
    });
}

/// As many threads as the stage may use.
fn thread_pool(context: &Context) -> anyhow::Result<rayon::ThreadPool> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = context.execution.threads {
        pool = pool.num_threads(threads as usize);
    }
    pool.build().context("cannot start threads")
}

/// The most samples of a part to take.
fn sample_limit(stage: &Dataset, part: Part) -> usize {
    let limit = match part {
        Part::Train => stage.train_limit,
        Part::Test => stage.test_limit,
    };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The names of `count` classes: those of the manifest, otherwise those `implied` by the format.
fn class_names(
    stage: &Dataset,
    count: usize,
    implied: impl FnOnce() -> Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let Some(classes) = &stage.classes else { return Ok(implied()) };
    ensure!(
        classes.len() == count,
        "'classes' names {} classes, but the data set has {count}",
        classes.len()
    );
    Ok(classes.clone())
}

/// The message for a name that is not a class, with the nearest one as a hint.
pub(crate) fn no_such_class(name: &str, classes: &[String]) -> String {
    let distance =
        |class: &&String| strsim::damerau_levenshtein(&class.to_lowercase(), &name.to_lowercase());
    let nearest = classes.iter().min_by_key(distance);
    match nearest.filter(|class| distance(class) <= 1 + name.chars().count() / 3) {
        Some(nearest) => format!("the class '{name}' does not exist; did you mean '{nearest}'?"),
        None => format!(
            "the class '{name}' does not exist; the classes are {}",
            in_short(classes, NAMED)
        ),
    }
}
