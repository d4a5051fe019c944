//! Images that stay the files that they are: read and checked by many threads, written in their order.
//!
//! Each is decoded once, so that none ends a training that has run for hours: 0.4 ms for a JPEG of 256x256 pixels on
//! one core, 7 minutes of one core for a million. The headers alone would take 0.01 ms, and say nothing of the rest.

use std::fs::File;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use image::{DynamicImage, ImageDecoder, ImageReader};
use pipeline_stages::formats::{MOST_IMAGE_PIXELS, SamplesWriter};
use pipeline_stages::worker::Context;
use rayon::prelude::*;

use super::statistics::{ChannelHistograms, ChannelStatistics};
use super::{image_folder, report_images};

/// Files read at once: of photographs as cameras make them, some hundred megabytes.
const BLOCK: usize = 32;
/// A larger file is no photograph.
const MOST_BYTES: u64 = 1 << 28;
/// What tells JPEG and PNG.
const SIGNATURES: [&[u8]; 2] = [&[0xff, 0xd8, 0xff], b"\x89PNG\r\n\x1a\n"];
/// How many files an error names.
const NAMED: usize = 5;
/// Images that the statistics are of, at most.
const SAMPLED: usize = 1000;

/// Image files in an order, with their labels. Paths are made when they are needed: there can be a million.
pub(super) struct ImageFiles<'list> {
    /// Where each is, by its place.
    pub(super) path: &'list (dyn Fn(usize) -> PathBuf + Sync),
    /// One label a file.
    pub(super) labels: &'list [i64],
}

/// Counts images over all parts, and keeps what is wrong with some.
pub(super) struct EncodedImages<'run> {
    context: &'run Context,
    total: usize,
    done: usize,
    unusable: usize,
    /// What is wrong with the first few.
    named: Vec<String>,
}

impl<'run> EncodedImages<'run> {
    /// `total`: how many images there are to come, for the progress.
    pub(super) fn new(total: usize, context: &'run Context) -> Self {
        Self { context, total, done: 0, unusable: 0, named: Vec::new() }
    }

    /// Appends files to a part. Those that can't be used are passed over until
    /// [`EncodedImages::finish`] tells them all.
    ///
    /// # Errors
    /// When the part can't be written, or the stage is asked to stop.
    pub(super) fn append(
        &mut self,
        files: &ImageFiles<'_>,
        writer: &mut SamplesWriter,
    ) -> anyhow::Result<()> {
        let mut start = 0;
        while start < files.labels.len() {
            self.context.stop_point()?;
            let block = start..files.labels.len().min(start + BLOCK);
            start = block.end;
            self.append_block(files, block, writer)?;
            report_images(self.context, self.done, Some(self.total));
        }
        Ok(())
    }

    fn append_block(
        &mut self,
        files: &ImageFiles<'_>,
        block: Range<usize>,
        writer: &mut SamplesWriter,
    ) -> anyhow::Result<()> {
        let images: Vec<Result<Vec<u8>, String>> =
            block.clone().into_par_iter().map(|index| read_image(&(files.path)(index))).collect();
        self.done += images.len();
        for (image, &label) in images.into_iter().zip(files.labels.get(block).unwrap_or_default()) {
            match image {
                Ok(image) if self.unusable == 0 => writer.push(&image, label)?,
                Ok(_) => {}
                Err(problem) => {
                    self.unusable += 1;
                    if self.named.len() < NAMED {
                        self.named.push(problem);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether every image was fit to be used.
    ///
    /// # Errors
    /// With how many were not, and the first of them.
    pub(super) fn finish(self, advice: &str) -> anyhow::Result<()> {
        if self.unusable == 0 {
            return Ok(());
        }
        let more = match self.unusable - self.named.len() {
            0 => String::new(),
            more => format!("\n  and {more} more"),
        };
        bail!(
            "{} of {} images can't be used:\n  {}{more}\n{advice}",
            self.unusable,
            self.done,
            self.named.join("\n  ")
        )
    }
}

/// The bytes of an image file that can be decoded, or what is wrong with it.
fn read_image(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let mut file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(&"there is no such file"),
        _ => wrong(&error),
    })?;
    let length = file.metadata().map_err(|error| wrong(&error))?.len();
    if length > MOST_BYTES {
        return Err(wrong(&format!("{length} bytes, too many for an image")));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.by_ref().take(MOST_BYTES).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    if bytes.is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    if !SIGNATURES.iter().any(|signature| bytes.starts_with(signature)) {
        return Err(wrong(&"neither JPEG nor PNG, going by its first bytes"));
    }
    check_decodes(&bytes).map_err(|problem| wrong(&problem))?;
    Ok(bytes)
}

/// Decodes an image as it is decoded on the way to training, and says what would be wrong there.
fn check_decodes(bytes: &[u8]) -> Result<(), String> {
    let damaged = |error: image::ImageError| format!("it is damaged: {error}");
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|error| damaged(error.into()))?;
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if !(1..=MOST_IMAGE_PIXELS).contains(&pixels) {
        return Err(format!(
            "it has {width}x{height} pixels, by what it says: the most are {MOST_IMAGE_PIXELS}; make it smaller or remove it"
        ));
    }
    decoder.orientation().map_err(damaged)?;
    DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok(())
}

/// The statistics over images spread evenly over the list.
///
/// # Errors
/// With the first of them that can't be decoded.
pub(super) fn sampled_statistics(
    files: &ImageFiles<'_>,
    context: &Context,
) -> anyhow::Result<ChannelStatistics> {
    let count = files.labels.len();
    let sampled = count.min(SAMPLED);
    let histograms: Vec<ChannelHistograms> = (0..sampled)
        .into_par_iter()
        .map(|place| {
            context.stop_point()?;
            let path = (files.path)(place * count / sampled);
            let mut histograms = ChannelHistograms::new(3);
            histograms.add_interleaved(image_folder::decode(&path)?.into_rgb8().as_raw());
            Ok(histograms)
        })
        .collect::<anyhow::Result<_>>()
        .context("among the images for the mean and deviation of the channels")?;
    let merged = histograms.iter().fold(ChannelHistograms::new(3), |sum, next| sum.merged(next));
    Ok(merged.statistics())
}
