//! Images that stay the files that they are: read and checked by many threads, written in their order.
//!
//! Knows JPEG and PNG by their first bytes; decodes only a sample, for the statistics.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pipeline_stages::formats::SamplesWriter;
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
const SIGNATURE_BYTES: u64 = 8;
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
        // Once one can't be used nothing will come of it: only find the others like it, quickly.
        let most = if self.unusable == 0 { MOST_BYTES } else { SIGNATURE_BYTES };
        let images: Vec<Result<Vec<u8>, String>> = block
            .clone()
            .into_par_iter()
            .map(|index| read_image(&(files.path)(index), most))
            .collect();
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

/// The first `most` bytes of an image file, or what is wrong with it.
fn read_image(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let wrong = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let mut file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(&"there is no such file"),
        _ => wrong(&error),
    })?;
    let length = file.metadata().map_err(|error| wrong(&error))?.len();
    if length > MOST_BYTES {
        return Err(wrong(&format!("{length} bytes, too many for an image")));
    }
    let mut bytes = Vec::with_capacity(length.min(most) as usize);
    file.by_ref().take(most).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    if bytes.is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    if !SIGNATURES.iter().any(|signature| bytes.starts_with(signature)) {
        return Err(wrong(&"neither JPEG nor PNG, going by its first bytes"));
    }
    Ok(bytes)
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
