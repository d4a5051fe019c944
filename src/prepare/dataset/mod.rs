//! The body of `dataset`: images and labels in common formats, into the format of the artifact.
//!
//! One file per format: data sets that fit in memory become a [`RawDataset`], the others are written image by image
//! to the artifact. What they share is in [`source`], [`classes`] and [`work`].

mod array_shape;
mod cifar;
mod cifar_python;
mod class_folders;
mod classes;
mod clothing1m;
mod encoded;
mod idx;
mod image_folder;
mod imagenet32;
mod images;
mod jpeg;
mod npz;
mod pickled;
mod raw;
mod source;
mod statistics;
#[cfg(test)]
mod tests;
mod work;

use anyhow::anyhow;
use pipeline_stages::formats::{DatasetInfo, Part, Samples};
use pipeline_stages::kinds::{Dataset, DatasetFormat};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::body::Body;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use cifar::are_names;
pub(crate) use class_folders::FILES;
use classes::untrained_in_words;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use clothing1m::are_lists;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use encoded::check_image;
pub(crate) use raw::{RawDataset, RawSamples};
use source::SourceFolders;

impl Body for Dataset {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let info = write(self, context)?;
        info.write(&context.output)?;
        let labels = |part| anyhow::Ok(Samples::open_any(&context.output, part)?.labels);
        let (train, test) = (labels(Part::Train)?, labels(Part::Test)?);
        // Not the last ones: the data set sets them aside for validation.
        let trains = info.train_samples.saturating_sub(info.validation_samples);
        let train = train.get(..trains).unwrap_or_default();
        if let Some(note) = untrained_in_words(&info.classes, train, &test) {
            context.note(note);
        }
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

/// Where to request data that cannot be downloaded freely.
fn where_from(format: DatasetFormat) -> Option<&'static str> {
    match format {
        DatasetFormat::Imagenet32 => Some(imagenet32::WHERE_FROM),
        DatasetFormat::Clothing1m => Some(clothing1m::WHERE_FROM),
        _ => None,
    }
}
