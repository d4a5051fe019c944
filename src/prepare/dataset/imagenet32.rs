//! ImageNet at 32x32 pixels (Chrabaszcz, Loshchilov and Hutter, arXiv 1707.08819): ten training batches
//! and one for validation, each a pickle or an .npz archive. Labels count from 1.
//!
//! 3.9 GB of pixels are written to disk; at most one batch is in memory.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use pipeline_stages::formats::{DatasetInfo, ImageShape, Part, SamplesWriter};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::worker::Context;

use super::classes::class_names;
use super::npz::{Npz, Reading};
use super::pickled::with_batch;
use super::source::SourceFolders;
use super::statistics::ChannelHistograms;
use super::work::{report_images, sample_limit};

const IMAGE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };
const CLASSES: usize = 1000;
const TRAIN_BATCHES: usize = 10;
const LABELS_KEY: &str = "labels";

/// Advice for people who do not have the files.
pub(super) const WHERE_FROM: &str = "ImageNet32 is available from https://image-net.org/download-images (an account is \
     needed; under \"downsampled image data\", 32x32): unpack the archives for training and validation, and \
     put their files into this folder";

/// Writes both parts.
pub(super) fn write(
    stage: &Dataset,
    source: &SourceFolders,
    context: &Context,
) -> anyhow::Result<DatasetInfo> {
    let classes =
        class_names(stage, CLASSES, || (0..CLASSES).map(|class| class.to_string()).collect())?;
    let batches = find_batches(source)?;
    // With a limit, the missing ones may not be needed: that is found out while reading.
    if stage.train_limit.is_none() {
        ensure_none_missing(&batches)?;
    }
    let Some(validation) = source.find_optional(&["val_data", "val_data.npz"])? else {
        bail!("val_data or val_data.npz is missing in {}; {WHERE_FROM}", source.in_words());
    };

    let mut train = PartInProgress::new(stage, Part::Train, context)?;
    for batch in &batches {
        if train.has_enough() {
            break;
        }
        match &batch.path {
            Some(path) => train.add_file(path)?,
            None => ensure_none_missing(&batches)?,
        }
    }
    let mut test = PartInProgress::new(stage, Part::Test, context)?;
    test.add_file(&validation)?;
    let info = DatasetInfo {
        format: stage.format.name().to_owned(),
        classes,
        image: IMAGE,
        train_samples: train.writer.samples(),
        test_samples: test.writer.samples(),
        channel_mean: train.histograms.statistics().mean,
        channel_std: train.histograms.statistics().std,
        ..DatasetInfo::default()
    };
    ensure!(info.train_samples > 0, "the training batches have no images");
    train.writer.finish()?;
    test.writer.finish()?;
    Ok(info)
}

/// A training batch, in order, and where it is.
struct TrainBatch {
    number: usize,
    path: Option<PathBuf>,
}

fn find_batches(source: &SourceFolders) -> anyhow::Result<Vec<TrainBatch>> {
    let find = |number| {
        let names = [
            format!("train_data_batch_{number}"),
            format!("train_data_batch_{number}.npz"),
            format!("batch_{number}.npz"),
        ];
        let path = source.find_optional(&names.each_ref().map(String::as_str))?;
        Ok(TrainBatch { number, path })
    };
    let batches: Vec<TrainBatch> = (1..=TRAIN_BATCHES).map(find).collect::<anyhow::Result<_>>()?;
    if batches.iter().all(|batch| batch.path.is_none()) {
        bail!(
            "train_data_batch_1 or train_data_batch_1.npz is missing in {}; {WHERE_FROM}",
            source.in_words()
        );
    }
    Ok(batches)
}

fn ensure_none_missing(batches: &[TrainBatch]) -> anyhow::Result<()> {
    let missing: Vec<String> = batches
        .iter()
        .filter(|batch| batch.path.is_none())
        .map(|batch| format!("train_data_batch_{}", batch.number))
        .collect();
    ensure!(
        missing.is_empty(),
        "of the {TRAIN_BATCHES} training batches, these are missing (also with .npz): {}; \
         put them next to the others, or set train-limit to the number of images of the first ones",
        missing.join(", ")
    );
    Ok(())
}

/// One part while it is written.
struct PartInProgress<'run> {
    writer: SamplesWriter,
    histograms: ChannelHistograms,
    limit: usize,
    context: &'run Context,
}

impl<'run> PartInProgress<'run> {
    fn new(stage: &Dataset, part: Part, context: &'run Context) -> anyhow::Result<Self> {
        Ok(Self {
            writer: SamplesWriter::pixels(&context.output, part, IMAGE)?,
            histograms: ChannelHistograms::new(IMAGE.channels),
            limit: sample_limit(stage, part),
            context,
        })
    }

    fn has_enough(&self) -> bool {
        self.writer.samples() >= self.limit
    }

    fn add_file(&mut self, path: &Path) -> anyhow::Result<()> {
        self.context.stop_point()?;
        if path.extension().is_some_and(|extension| extension == "npz") {
            let mut archive = Npz::open(path)?;
            let labels = zero_based(archive.labels()?, path)?;
            let mut rest = labels.as_slice();
            archive.images(labels.len(), IMAGE, |pixels| {
                let (these, others) = rest.split_at(rest.len().min(pixels.len() / IMAGE.bytes()));
                rest = others;
                self.add(pixels, these)
            })
        } else {
            with_batch(path, LABELS_KEY, IMAGE, |batch| {
                self.add(batch.pixels, &zero_based(batch.labels, path)?).map(drop)
            })
        }
    }

    /// Adds images up to the limit.
    fn add(&mut self, pixels: &[u8], labels: &[i64]) -> anyhow::Result<Reading> {
        for (pixels, &label) in pixels.chunks_exact(IMAGE.bytes()).zip(labels) {
            if self.has_enough() {
                return Ok(Reading::Enough);
            }
            self.writer.push(pixels, label)?;
            self.histograms.add_planes(pixels, IMAGE);
        }
        self.context.stop_point()?;
        report_images(self.context, self.writer.samples(), None);
        Ok(Reading::More)
    }
}

/// Labels from 0 to 999, from those of the files, which are from 1 to 1000.
fn zero_based(mut labels: Vec<i64>, path: &Path) -> anyhow::Result<Vec<i64>> {
    for (index, label) in labels.iter_mut().enumerate() {
        ensure!(
            (1..=CLASSES as i64).contains(label),
            "{}: the label of image {index} is {label}; expected one from 1 to {CLASSES}",
            path.display()
        );
        *label -= 1;
    }
    Ok(labels)
}
