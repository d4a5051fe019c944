//! CIFAR-10 and CIFAR-100 as Python pickles: the same images in the same order as the binary files.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use pipeline_stages::cifar_classes::{CIFAR10_CLASSES, cifar100_classes};
use pipeline_stages::formats::Part;
use pipeline_stages::kinds::Dataset;
use pipeline_stages::worker::Context;

use super::cifar::{IMAGE, note_unusual_length};
use super::classes::class_names;
use super::pickled::{PickledBatch, names, with_batch};
use super::raw::{RawDataset, RawSamples};
use super::source::SourceFolders;
use super::work::{report_images, sample_limit};

/// What differs between the two formats.
pub(super) struct PythonFormat {
    train_files: &'static [&'static str],
    test_files: &'static [&'static str],
    /// Images of each train file and each test file, as published.
    images: (u64, u64),
    /// The key of the labels in a batch.
    labels_key: &'static str,
    /// The file with the class names, and their key in it.
    names: (&'static str, &'static str),
    /// The names if that file is missing.
    usual_names: fn() -> Vec<&'static str>,
}

/// CIFAR-10.
pub(super) const CIFAR10: PythonFormat = PythonFormat {
    train_files: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
    test_files: &["test_batch"],
    images: (10_000, 10_000),
    labels_key: "labels",
    names: ("batches.meta", "label_names"),
    usual_names: || CIFAR10_CLASSES.to_vec(),
};

/// CIFAR-100, with its fine labels.
pub(super) const CIFAR100: PythonFormat = PythonFormat {
    train_files: &["train"],
    test_files: &["test"],
    images: (50_000, 10_000),
    labels_key: "fine_labels",
    names: ("meta", "fine_label_names"),
    usual_names: cifar100_classes,
};

/// Reads the files of either format.
pub(super) fn read(
    stage: &Dataset,
    format: &PythonFormat,
    source: &SourceFolders,
    context: &Context,
) -> anyhow::Result<RawDataset> {
    // All files are found before the first is read.
    let train_files = source.find_all(format.train_files)?;
    let test_files = source.find_all(format.test_files)?;
    let classes = class_names_of(stage, format, source)?;
    let read_part =
        |part, files: &[PathBuf]| read_part(stage, format, part, files, classes.len(), context);
    let (train, test) =
        (read_part(Part::Train, &train_files)?, read_part(Part::Test, &test_files)?);
    Ok(RawDataset { classes, image: IMAGE, train, validation_samples: 0, test })
}

fn class_names_of(
    stage: &Dataset,
    format: &PythonFormat,
    source: &SourceFolders,
) -> anyhow::Result<Vec<String>> {
    let usual: Vec<String> = (format.usual_names)().into_iter().map(str::to_owned).collect();
    let count = usual.len();
    let (file, key) = format.names;
    let implied = match source.find_optional(&[file])? {
        Some(path) => {
            let names = names(&path, key)?;
            ensure!(
                names.len() == count,
                "{}: expected {count} class names, found {}",
                path.display(),
                names.len()
            );
            names
        }
        None => usual,
    };
    class_names(stage, count, || implied)
}

/// Reads whole files, even if the limit is reached: a damaged file is always an error.
fn read_part(
    stage: &Dataset,
    format: &PythonFormat,
    part: Part,
    files: &[PathBuf],
    classes: usize,
    context: &Context,
) -> anyhow::Result<RawSamples> {
    let limit = sample_limit(stage, part);
    let usual = if part == Part::Train { format.images.0 } else { format.images.1 };
    let mut samples = RawSamples { pixels: Vec::new(), labels: Vec::new() };
    for path in files {
        context.stop_point()?;
        with_batch(path, format.labels_key, IMAGE, |PickledBatch { pixels, labels }| {
            if let Some(index) =
                labels.iter().position(|label| !(0..classes as i64).contains(label))
            {
                bail!(
                    "{}: the label of image {index} is {}; expected one from 0 to {}",
                    path.display(),
                    labels[index],
                    classes.saturating_sub(1)
                );
            }
            note_unusual_length(context, path, labels.len() as u64, usual);
            let kept = labels.len().min(limit - samples.labels.len());
            samples.labels.extend(labels.iter().take(kept));
            samples.pixels.extend(pixels.iter().take(kept * IMAGE.bytes()));
            Ok(())
        })?;
        report_images(context, samples.labels.len(), None);
    }
    Ok(samples)
}
