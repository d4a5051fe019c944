//! A folder of images: `train/<class>/`, `test/<class>/` and perhaps `val/<class>/`, JPEG, PNG or WebP of any size.
//!
//! The images are kept as encoded files, or become pixels: each is rotated according to its EXIF data, resized so that its
//! shorter side fits, and cropped from its centre. Their order is that of [`class_folders`](super::class_folders), however many threads decode.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use image::DynamicImage;
use image::imageops::{self, FilterType};
use pipeline_stages::formats::{
    DatasetInfo, ImageShape, MOST_IMAGE_PIXELS, Part, SamplesWriter, Storage,
};
use pipeline_stages::image_file::{ImageFile, ImageProblem};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::worker::Context;
use rayon::prelude::*;

use super::class_folders::{ClassListing, LabelledFile};
use super::encoded::{EncodedImages, ImageFiles, sampled_statistics};
use super::images::{self, Checked, Memory};
use super::raw::{RawDataset, RawSamples};
use super::source::SourceFolders;
use super::work::{report_images, thread_pool};

/// Bicubic with a = -0.5 and a scaled support when it shrinks (antialiasing): Pillow's bicubic.
const FILTER: FilterType = FilterType::CatmullRom;

/// The largest ratio of the sides: the centre of a longer image shows little, and resizing it takes much memory.
const MOST_ELONGATED: u64 = 100;

/// The most bytes that a decoded image may take: more than a hundred million pixels. A file of a few
/// kilobytes can claim any size.
const MOST_DECODED_BYTES: u64 = 512 << 20;

const ADVICE: &str = "fix or remove them";

/// Reads both parts, as pixels.
pub(super) fn read(
    stage: &Dataset,
    source: &SourceFolders,
    context: &Context,
) -> anyhow::Result<RawDataset> {
    let listing = ClassListing::of(stage, source, context)?;
    listing.write_files(&context.output)?;
    let ClassListing { classes, mut train, validation, test, .. } = listing;
    let validation_samples = validation.len();
    train.extend(validation);
    thread_pool(context)?.install(|| {
        let channels = if all_grey(&train) && all_grey(&test) { 1 } else { 3 };
        let side = stage.size as usize;
        let decoder = Decoder {
            image: ImageShape { channels, height: side, width: side },
            context,
            memory: Memory::for_images(),
            done: AtomicUsize::new(0),
            total: train.len() + test.len(),
        };
        let mut checked = Checked::default();
        let train = decoder.decode(&train, &mut checked)?;
        let test = decoder.decode(&test, &mut checked)?;
        checked.finish(ADVICE)?;
        Ok(RawDataset { classes, image: decoder.image, train, validation_samples, test })
    })
}

/// Writes both parts with the encoded images.
pub(super) fn write_encoded(
    stage: &Dataset,
    source: &SourceFolders,
    context: &Context,
) -> anyhow::Result<DatasetInfo> {
    let listing = ClassListing::of(stage, source, context)?;
    listing.write_files(&context.output)?;
    let ClassListing { classes, train, validation, test, .. } = listing;
    thread_pool(context)?.install(|| {
        let total = train.len() + validation.len() + test.len();
        let mut images = EncodedImages::new(total, context);
        for (part, lists) in [(Part::Train, &[&train, &validation][..]), (Part::Test, &[&test])] {
            let mut writer = SamplesWriter::encoded(&context.output, part)?;
            for files in lists {
                with_image_files(files, |files| images.append(files, &mut writer))?;
            }
            writer.finish()?;
        }
        images.finish(ADVICE)?;
        let statistics = with_image_files(&train, |files| sampled_statistics(files, context))?;
        Ok(DatasetInfo {
            format: stage.format.name().to_owned(),
            classes,
            storage: Storage::Encoded,
            image: ImageShape::ENCODED,
            train_samples: train.len() + validation.len(),
            validation_samples: validation.len(),
            test_samples: test.len(),
            channel_mean: statistics.mean,
            channel_std: statistics.std,
        })
    })
}

fn with_image_files<T>(files: &[LabelledFile], take: impl FnOnce(&ImageFiles<'_>) -> T) -> T {
    let labels: Vec<i64> = files.iter().map(|file| file.label as i64).collect();
    let path = |index: usize| files.get(index).map(|file| file.path.clone()).unwrap_or_default();
    take(&ImageFiles { path: &path, labels: &labels })
}

/// Whether all images are grey, from their headers. Unreadable images are found when they are decoded.
fn all_grey(files: &[LabelledFile]) -> bool {
    let is_grey = |file: &LabelledFile| match images::read(&file.path) {
        Ok(bytes) => ImageFile::open(&bytes).map_or(true, |image| image.is_grey()),
        Err(_) => true,
    };
    files.par_iter().all(is_grey)
}

/// Decodes images into one array.
struct Decoder<'read> {
    image: ImageShape,
    context: &'read Context,
    memory: Memory,
    done: AtomicUsize,
    total: usize,
}

impl Decoder<'_> {
    /// The pixels of images. Unusable ones are zeros, and their problems go to `checked`.
    fn decode(&self, files: &[LabelledFile], checked: &mut Checked) -> anyhow::Result<RawSamples> {
        let mut pixels = Vec::new();
        let bytes = files.len().saturating_mul(self.image.bytes());
        pixels.try_reserve_exact(bytes).with_context(|| {
            format!("{} images take {bytes} bytes of memory, more than is available", files.len())
        })?;
        pixels.resize(bytes, 0);
        let results: Vec<Result<(), String>> = pixels
            .par_chunks_exact_mut(self.image.bytes())
            .zip(files)
            .map(|(slot, file)| {
                self.context.stop_point()?;
                let result = self.decode_into(slot, &file.path);
                let done = 1 + self.done.fetch_add(1, Ordering::Relaxed);
                report_images(self.context, done, Some(self.total));
                Ok(result)
            })
            .collect::<anyhow::Result<_>>()?;
        for (result, file) in results.iter().zip(files) {
            match result {
                Ok(()) => checked.usable(),
                Err(problem) => checked.unusable(&file.path, problem),
            }
        }
        Ok(RawSamples { pixels, labels: files.iter().map(|file| file.label as i64).collect() })
    }

    fn decode_into(&self, slot: &mut [u8], path: &Path) -> Result<(), String> {
        let file = images::read(path)?;
        let image = ImageFile::open(&file).map_err(|problem| problem.to_string())?;
        let bytes = bytes_taken(&image, self.image.width as u64)?;
        let _memory = self.memory.take(file.len() as u64 + bytes);
        let (decoded, orientation) = images::decode_whole(&file, image)?;
        let mut decoded = if self.image.channels == 1 {
            DynamicImage::ImageLuma8(decoded.into_luma8())
        } else {
            DynamicImage::ImageRgb8(decoded.into_rgb8())
        };
        decoded.apply_orientation(orientation);
        let fitted = fit(&decoded, self.image.width as u32);
        let plane = self.image.height * self.image.width;
        for (index, pixel) in fitted.as_bytes().chunks_exact(self.image.channels).enumerate() {
            for (channel, &value) in pixel.iter().enumerate() {
                slot[channel * plane + index] = value;
            }
        }
        Ok(())
    }
}

/// The memory that it takes to decode an image and to resize it to `side`; an error if too much.
pub(super) fn bytes_taken(image: &ImageFile<'_>, side: u64) -> Result<u64, String> {
    let (width, height) = (u64::from(image.width), u64::from(image.height));
    let (longer, shorter) = (width.max(height), width.min(height));
    if shorter == 0 || image.decoded_bytes() > MOST_DECODED_BYTES {
        let (width, height) = (image.width, image.height);
        return Err(ImageProblem::Size { width, height }.to_string());
    }
    // Resized in one direction, four floats a pixel; then in both.
    let half_resized = longer * side * 16;
    let resized = longer * side / shorter * side;
    if longer / shorter > MOST_ELONGATED || (longer > shorter && resized > MOST_IMAGE_PIXELS) {
        return Err(format!("{width}x{height} pixels are too narrow to be cropped to a square"));
    }
    // Twice the decoded bytes: it is converted, and rotated.
    Ok(2 * image.decoded_bytes() + half_resized + 4 * resized)
}

/// The centre of an image, `side` pixels square, after its shorter side was resized to `side`.
fn fit(image: &DynamicImage, side: u32) -> DynamicImage {
    let (width, height) = (image.width(), image.height());
    let shorter = width.min(height).max(1);
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(shorter)) as u32;
    let (scaled_width, scaled_height) = (scaled(width).max(side), scaled(height).max(side));
    let (left, top) = ((scaled_width - side) / 2, (scaled_height - side) / 2);
    let resized = match image {
        DynamicImage::ImageLuma8(grey) => {
            DynamicImage::ImageLuma8(imageops::resize(grey, scaled_width, scaled_height, FILTER))
        }
        other => DynamicImage::ImageRgb8(imageops::resize(
            &other.to_rgb8(),
            scaled_width,
            scaled_height,
            FILTER,
        )),
    };
    resized.crop_imm(left, top, side, side)
}
