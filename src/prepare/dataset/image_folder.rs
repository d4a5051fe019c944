//! A folder of images: `train/<class>/` and `test/<class>/`, JPEG or PNG of any size.
//!
//! The images are kept as the files that they are, or become pixels: each is turned as its EXIF data says, resized so that its
//! shorter side fits, and cropped from its centre. The order of classes and files is that of their names, however many threads decode.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, anyhow, bail, ensure};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageReader};
use pipeline_stages::formats::{DatasetInfo, ImageShape, Part, SamplesWriter, Storage};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::worker::Context;
use rayon::prelude::*;

use super::encoded::{EncodedImages, ImageFiles, sampled_statistics};
use super::source::Source;
use super::{RawDataset, RawSamples, no_such_class, report_images, sample_limit, thread_pool};
use crate::folder::entries;

/// Bicubic with a = -0.5, its support scaled when it shrinks, so that nothing aliases: what Pillow calls bicubic.
const FILTER: FilterType = FilterType::CatmullRom;

/// The longer side over the shorter one, at most: the centre of anything beyond says little, and resizing it takes much memory.
const MOST_ELONGATED: u32 = 100;

/// The most bytes that an image may take once decoded: a hundred million pixels and more. A file of some
/// kilobytes can claim any size, and every thread decodes one at a time.
const MOST_DECODED_BYTES: u64 = 512 << 20;

/// Reads both parts, as pixels.
pub(super) fn read(
    stage: &Dataset,
    source: &Source,
    context: &Context,
) -> anyhow::Result<RawDataset> {
    let Listing { classes, train, test } = Listing::of(stage, source, context)?;
    thread_pool(context)?.install(|| {
        let channels = if all_grey(&train)? && all_grey(&test)? { 1 } else { 3 };
        let side = stage.size as usize;
        let image = ImageShape { channels, height: side, width: side };
        let decoder = PartDecoder {
            image,
            context,
            done: AtomicUsize::new(0),
            total: train.len() + test.len(),
        };
        Ok(RawDataset {
            classes,
            image,
            train: decoder.decode(&train)?,
            test: decoder.decode(&test)?,
        })
    })
}

/// Writes both parts with the images as they are.
pub(super) fn write_encoded(
    stage: &Dataset,
    source: &Source,
    context: &Context,
) -> anyhow::Result<DatasetInfo> {
    let Listing { classes, train, test } = Listing::of(stage, source, context)?;
    thread_pool(context)?.install(|| {
        let mut images = EncodedImages::new(train.len() + test.len(), context);
        for (part, files) in [(Part::Train, &train), (Part::Test, &test)] {
            let mut writer = SamplesWriter::encoded(&context.output, part)?;
            with_image_files(files, |files| images.append(files, &mut writer))?;
            writer.finish()?;
        }
        images.finish("mend or remove them")?;
        let statistics = with_image_files(&train, |files| sampled_statistics(files, context))?;
        Ok(DatasetInfo {
            format: stage.format.name().to_owned(),
            classes,
            storage: Storage::Encoded,
            image: ImageShape::ENCODED,
            train_samples: train.len(),
            test_samples: test.len(),
            channel_mean: statistics.mean,
            channel_deviation: statistics.deviation,
            ..DatasetInfo::default()
        })
    })
}

fn with_image_files<T>(files: &[LabelledFile], take: impl FnOnce(&ImageFiles<'_>) -> T) -> T {
    let labels: Vec<i64> = files.iter().map(|file| file.label as i64).collect();
    let path = |index: usize| files.get(index).map(|file| file.path.clone()).unwrap_or_default();
    take(&ImageFiles { path: &path, labels: &labels })
}

/// What is in the folders.
struct Listing {
    classes: Vec<String>,
    train: Vec<LabelledFile>,
    test: Vec<LabelledFile>,
}

impl Listing {
    fn of(stage: &Dataset, source: &Source, context: &Context) -> anyhow::Result<Self> {
        let (train_folder, test_folder) = find_parts(source)?;
        let classes = ordered_classes(stage, &train_folder)?;
        let list = |folder: &Path, part| {
            let files = list_part(folder, &classes, sample_limit(stage, part))?;
            if files.left_out > 0 {
                let (count, folder) = (files.left_out, folder.display());
                context.note(format!(
                    "{folder}: {count} entries without .jpg, .jpeg or .png left out"
                ));
            }
            Ok::<_, anyhow::Error>(files.images)
        };
        let (train, test) = (list(&train_folder, Part::Train)?, list(&test_folder, Part::Test)?);
        Ok(Self { classes, train, test })
    }
}

/// An image file and its class.
struct LabelledFile {
    path: PathBuf,
    label: usize,
}

/// What is in the folders of a part's classes.
struct PartFiles {
    images: Vec<LabelledFile>,
    /// How many entries have no name of an image.
    left_out: usize,
}

/// The folders `train` and `test`, side by side.
fn find_parts(source: &Source) -> anyhow::Result<(PathBuf, PathBuf)> {
    let both = |folder: &PathBuf| (folder.join("train"), folder.join("test"));
    let mut found = source.folders().iter().map(both).filter(|(train, _)| train.is_dir());
    let Some((train, test)) = found.next() else {
        bail!(
            "there is no folder 'train' in {}; expected train/<class>/ and test/<class>/",
            source.in_words()
        );
    };
    if let Some((other, _)) = found.next() {
        bail!("which of the two is it: {} or {}?", train.display(), other.display());
    }
    ensure!(
        test.is_dir(),
        "there is no folder {}: move some images of each class there, as test/<class>/, to evaluate on",
        test.display()
    );
    Ok((train, test))
}

/// The classes in the order of their labels: the folders by name, or as `classes` orders them.
fn ordered_classes(stage: &Dataset, train: &Path) -> anyhow::Result<Vec<String>> {
    let mut folders = Vec::new();
    for folder in entries(train)?.into_iter().filter(|entry| entry.is_dir()) {
        folders.push(folder_name(&folder)?);
    }
    ensure!(!folders.is_empty(), "{} has no folders: expected one for each class", train.display());
    let Some(given) = &stage.classes else { return Ok(folders) };
    for name in given {
        ensure!(folders.contains(name), "'classes': {}", no_such_class(name, &folders));
    }
    for folder in &folders {
        ensure!(
            given.contains(folder),
            "'classes' leaves out the folder '{folder}' of {}",
            train.display()
        );
    }
    Ok(given.clone())
}

fn folder_name(folder: &Path) -> anyhow::Result<String> {
    let name = folder.file_name().and_then(|name| name.to_str());
    Ok(name
        .with_context(|| format!("the name of the folder {} is no UTF-8", folder.display()))?
        .to_owned())
}

/// The images of a part: class by class, in the order of the files' names.
///
/// With a limit, from every class in turn: the first images would otherwise be of one class.
fn list_part(part: &Path, classes: &[String], limit: usize) -> anyhow::Result<PartFiles> {
    for folder in entries(part)?.into_iter().filter(|entry| entry.is_dir()) {
        let name = folder_name(&folder)?;
        ensure!(classes.contains(&name), "{}: {}", folder.display(), no_such_class(&name, classes));
    }
    let mut ranked = Vec::new();
    let mut left_out = 0;
    for (label, class) in classes.iter().enumerate() {
        let folder = part.join(class);
        let all = if folder.is_dir() { entries(&folder)? } else { Vec::new() };
        let (images, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|path| is_image(path));
        left_out += others.len();
        let images = images.into_iter().map(|path| LabelledFile { path, label });
        ranked.extend(images.enumerate());
    }
    ensure!(
        !ranked.is_empty(),
        "{} has no images (.jpg, .jpeg, .png) in its classes' folders",
        part.display()
    );
    ranked.sort_by_key(|(rank, file)| (*rank, file.label));
    ranked.truncate(limit);
    ranked.sort_by_key(|(rank, file)| (file.label, *rank));
    Ok(PartFiles { images: ranked.into_iter().map(|(_, file)| file).collect(), left_out })
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether no image has colours, going by the headers.
fn all_grey(files: &[LabelledFile]) -> anyhow::Result<bool> {
    let has_color = |file: &LabelledFile| Ok(decoder(&file.path)?.color_type().has_color());
    let colors: Vec<bool> = files.par_iter().map(has_color).collect::<anyhow::Result<_>>()?;
    Ok(!colors.contains(&true))
}

fn decoder(path: &Path) -> anyhow::Result<impl ImageDecoder> {
    // By content: files with a wrong ending are common.
    let decoder = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(image::ImageError::from)
        .and_then(ImageReader::into_decoder)
        .map_err(|error| undecodable(path, &error))?;
    let (width, height) = decoder.dimensions();
    ensure!(
        decoder.total_bytes() <= MOST_DECODED_BYTES,
        "{} is of {width}x{height} pixels, by what it says: too large to be decoded; make it smaller or remove it",
        path.display()
    );
    Ok(decoder)
}

fn undecodable(path: &Path, error: &image::ImageError) -> anyhow::Error {
    anyhow!("{} can't be decoded: {error}; mend or remove it", path.display())
}

fn decoded(decoder: impl ImageDecoder, path: &Path) -> anyhow::Result<DynamicImage> {
    DynamicImage::from_decoder(decoder).map_err(|error| undecodable(path, &error))
}

/// The pixels of an image file, as they are stored.
///
/// # Errors
/// When it can't be decoded.
pub(super) fn decode(path: &Path) -> anyhow::Result<DynamicImage> {
    decoded(decoder(path)?, path)
}

/// Decodes images into one array.
struct PartDecoder<'read> {
    image: ImageShape,
    context: &'read Context,
    done: AtomicUsize,
    total: usize,
}

impl PartDecoder<'_> {
    fn decode(&self, files: &[LabelledFile]) -> anyhow::Result<RawSamples> {
        let mut pixels = Vec::new();
        let bytes = files.len().saturating_mul(self.image.bytes());
        pixels.try_reserve_exact(bytes).with_context(|| {
            format!("{} images take {bytes} bytes of memory, more than there is", files.len())
        })?;
        pixels.resize(bytes, 0);
        let slots: Vec<_> = pixels
            .par_chunks_exact_mut(self.image.bytes())
            .zip(files)
            .map(|(slot, file)| {
                self.context.stop_point()?;
                self.decode_into(slot, &file.path)
            })
            .collect();
        // The first error in the order of the files, whichever thread met it first.
        slots.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(RawSamples { pixels, labels: files.iter().map(|file| file.label as i64).collect() })
    }

    fn decode_into(&self, slot: &mut [u8], path: &Path) -> anyhow::Result<()> {
        let mut decoder = decoder(path)?;
        let orientation = decoder.orientation().map_err(|error| undecodable(path, &error))?;
        let decoded = decoded(decoder, path)?;
        let mut decoded = if self.image.channels == 1 {
            DynamicImage::ImageLuma8(decoded.into_luma8())
        } else {
            DynamicImage::ImageRgb8(decoded.into_rgb8())
        };
        decoded.apply_orientation(orientation);
        let (width, height) = (decoded.width(), decoded.height());
        ensure!(
            width.max(height) / width.min(height).max(1) <= MOST_ELONGATED,
            "{} is of {width}x{height} pixels: too narrow to be cropped to a square",
            path.display()
        );
        let fitted = fit(&decoded, self.image.width as u32);
        let plane = self.image.height * self.image.width;
        for (index, pixel) in fitted.as_bytes().chunks_exact(self.image.channels).enumerate() {
            for (channel, &value) in pixel.iter().enumerate() {
                slot[channel * plane + index] = value;
            }
        }
        self.report();
        Ok(())
    }

    fn report(&self) {
        let done = 1 + self.done.fetch_add(1, Ordering::Relaxed);
        report_images(self.context, done, Some(self.total));
    }
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
