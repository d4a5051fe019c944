//! Images that are kept as encoded files: read and checked by many threads, written in their order.
//!
//! Each is decoded once, so that none ends a training after hours: 0.4 ms for a JPEG of 256x256 pixels on
//! one core, 7 minutes of one core for a million. The headers alone would take 0.01 ms, but do not show later damage.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use image::DynamicImage;
use pipeline_stages::formats::{MOST_IMAGE_PIXELS, SamplesWriter};
use pipeline_stages::image_file::ImageFile;
use pipeline_stages::worker::Context;
use rayon::prelude::*;

use super::images::{self, Checked, Memory};
use super::statistics::{ChannelHistograms, ChannelStatistics};
use super::work::report_images;

/// The most files that are read at once.
const BLOCK: usize = 32;
/// The most bytes of files that are read at once, unless one file has more.
const BLOCK_BYTES: u64 = 256 << 20;
/// The most images that the statistics are computed from.
const SAMPLED: usize = 1000;

/// Image files in order, with their labels. Paths are made when they are needed: there can be a million.
pub(super) struct ImageFiles<'list> {
    /// The path of each, by its index.
    pub(super) path: &'list (dyn Fn(usize) -> PathBuf + Sync),
    /// One label per file.
    pub(super) labels: &'list [i64],
}

/// Images of all parts, which are being written to the artifact.
pub(super) struct EncodedImages<'run> {
    context: &'run Context,
    total: usize,
    checked: Checked,
    memory: Memory,
}

impl<'run> EncodedImages<'run> {
    /// `total`: the number of images, for the progress.
    pub(super) fn new(total: usize, context: &'run Context) -> Self {
        Self { context, total, checked: Checked::default(), memory: Memory::for_images() }
    }

    /// Appends files to a part. Unusable ones are skipped; [`EncodedImages::finish`] reports them
    /// all.
    ///
    /// # Errors
    /// When the part cannot be written, or the stage is asked to stop.
    pub(super) fn append(
        &mut self,
        files: &ImageFiles<'_>,
        writer: &mut SamplesWriter,
    ) -> anyhow::Result<()> {
        let mut start = 0;
        while start < files.labels.len() {
            self.context.stop_point()?;
            let block = next_block(files, start);
            start = block.end;
            self.append_block(files, block, writer)?;
            report_images(self.context, self.checked.images(), Some(self.total));
        }
        Ok(())
    }

    fn append_block(
        &mut self,
        files: &ImageFiles<'_>,
        block: Range<usize>,
        writer: &mut SamplesWriter,
    ) -> anyhow::Result<()> {
        let images: Vec<Result<Vec<u8>, String>> = block
            .clone()
            .into_par_iter()
            .map(|index| read_image(&(files.path)(index), &self.memory))
            .collect();
        let labels = files.labels.get(block.clone()).unwrap_or_default();
        for ((index, image), &label) in block.zip(images).zip(labels) {
            match image {
                Ok(image) => {
                    self.checked.usable();
                    if self.checked.all_usable() {
                        writer.push(&image, label)?;
                    }
                }
                Err(problem) => self.checked.unusable(&(files.path)(index), &problem),
            }
        }
        Ok(())
    }

    /// Checks that every image is usable.
    ///
    /// # Errors
    /// With the number of unusable ones, and the first of them.
    pub(super) fn finish(self, advice: &str) -> anyhow::Result<()> {
        self.checked.finish(advice)
    }
}

/// The next files that are read at once.
fn next_block(files: &ImageFiles<'_>, start: usize) -> Range<usize> {
    let (mut end, mut bytes) = (start, 0);
    while end < files.labels.len().min(start + BLOCK) && bytes < BLOCK_BYTES {
        bytes += (files.path)(end).metadata().map_or(0, |metadata| metadata.len());
        end += 1;
    }
    start..end
}

/// The bytes of an image file that training can decode, or what is wrong with it.
fn read_image(path: &Path, memory: &Memory) -> Result<Vec<u8>, String> {
    let file = images::read(path)?;
    decode(&file, memory)?;
    Ok(file)
}

/// The pixels of an image file, as they are stored.
fn decode(file: &[u8], memory: &Memory) -> Result<DynamicImage, String> {
    let image = ImageFile::open(file).map_err(|problem| problem.to_string())?;
    image.check_size(MOST_IMAGE_PIXELS).map_err(|problem| problem.to_string())?;
    let _memory = memory.take(image.decoded_bytes());
    Ok(images::decode_whole(file, image)?.0)
}

/// Checks one image file by itself, as those of a data set are.
///
/// # Errors
/// With what is wrong with it.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check_image(file: &[u8]) -> Result<(), String> {
    decode(file, &Memory::for_images()).map(drop)
}

/// The statistics of images spread evenly over the list.
///
/// # Errors
/// With the first of them that cannot be decoded.
pub(super) fn sampled_statistics(
    files: &ImageFiles<'_>,
    context: &Context,
) -> anyhow::Result<ChannelStatistics> {
    let count = files.labels.len();
    let sampled = count.min(SAMPLED);
    let memory = Memory::for_images();
    let histograms: Vec<ChannelHistograms> = (0..sampled)
        .into_par_iter()
        .map(|place| {
            context.stop_point()?;
            let path = (files.path)(place * count / sampled);
            let image = images::read(&path).and_then(|file| decode(&file, &memory));
            let image = image.map_err(|problem| anyhow!("{}: {problem}", path.display()))?;
            let mut histograms = ChannelHistograms::new(3);
            histograms.add_interleaved(image.into_rgb8().as_raw());
            Ok(histograms)
        })
        .collect::<anyhow::Result<_>>()
        .context("among the images for the mean and std of the channels")?;
    let merged = histograms.iter().fold(ChannelHistograms::new(3), |sum, next| sum.merged(next));
    Ok(merged.statistics())
}
