//! Small images for a page, as `data:` URLs: the views of SimCLR, and samples whose label is wrong.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use pipeline_stages::formats::{DatasetInfo, ImageShape, Labels, Part, Samples, Storage};
use pipeline_stages::image_file::ImageFile;
use serde::Serialize;

/// The most samples of one set of labels.
const MOST_SAMPLES: usize = 24;
/// The longer side of a sample, in pixels.
const SAMPLE_SIDE: u32 = 96;
/// The longer side of `views.png`, in pixels.
const VIEWS_SIDE: u32 = 900;
/// A picture that is larger than this is a JPEG.
const LARGEST_PNG: usize = 16 << 10;
/// `views.png` is a JPEG if it is larger than this.
const LARGEST_VIEWS: usize = 96 << 10;
/// The most white lines side by side that are a gap in `views.png`.
const WIDEST_GAP: usize = 4;
/// A larger image, in pixels, is not decoded.
const MOST_PIXELS: u64 = 1 << 24;

/// A sample whose label is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct WrongLabel {
    /// Its place in the training part, from 0.
    pub(super) index: usize,
    /// The class that its label says.
    given: String,
    /// The class that it is of.
    clean: String,
    /// A `data:` URL.
    pub(super) image: String,
}

/// `views.png` as a `data:` URL. `None` if it is not an image.
pub(super) fn views(file: &[u8]) -> Option<String> {
    let image = decoded(file)?;
    let clear = without_gaps(&image);
    match png(&smaller(clear, VIEWS_SIDE))? {
        file if file.len() <= LARGEST_VIEWS => Some(url("png", &file)),
        // A JPEG has no transparent places: the gaps stay white.
        _ => data_url(image, VIEWS_SIDE),
    }
}

/// The image, with the white lines between its parts transparent, so that they have the colour of the page.
fn without_gaps(image: &DynamicImage) -> DynamicImage {
    let mut clear = image.to_rgba8();
    let (width, height) = clear.dimensions();
    let is_white = |x, y| clear.get_pixel(x, y).0 == [255; 4];
    let columns = gaps((0..width).map(|x| (0..height).all(|y| is_white(x, y))));
    let rows = gaps((0..height).map(|y| (0..width).all(|x| is_white(x, y))));
    for (x, y, pixel) in clear.enumerate_pixels_mut() {
        if columns[x as usize] || rows[y as usize] {
            pixel.0[3] = 0;
        }
    }
    clear.into()
}

/// Which lines are white, with at most [`WIDEST_GAP`] of them side by side: an image may have a white ground.
fn gaps(white: impl Iterator<Item = bool>) -> Vec<bool> {
    let mut lines: Vec<bool> = white.collect();
    for run in lines.chunk_by_mut(|one, other| one == other) {
        if run.len() > WIDEST_GAP {
            run.fill(false);
        }
    }
    lines
}

/// The images of data sets. Keeps the last one open.
#[derive(Default)]
pub(super) struct DataImages {
    opened: Option<(PathBuf, DatasetInfo, Samples)>,
}

impl std::fmt::Debug for DataImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DataImages").field(&self.opened.as_ref().map(|(path, ..)| path)).finish()
    }
}

impl DataImages {
    /// Some samples of a data set whose label is wrong, at even distances in the order of the data set.
    pub(super) fn wrong_labels(
        &mut self,
        labels: &Path,
        data: &Path,
    ) -> anyhow::Result<Vec<WrongLabel>> {
        let (_, info, samples) = match self.opened.take() {
            Some(opened) if opened.0 == data => self.opened.insert(opened),
            _ => self.opened.insert((
                data.to_owned(),
                DatasetInfo::read(data)?,
                Samples::open_any(data, Part::Train)?,
            )),
        };
        let labels = Labels::read(labels)?;
        labels.check(&samples.labels, info.classes.len())?;
        let pairs = labels.labels.iter().zip(&labels.clean).enumerate();
        let wrong: Vec<_> = pairs.filter(|(_, (given, clean))| given != clean).collect();
        let shown = wrong.len().min(MOST_SAMPLES);
        let chosen = (0..shown).map(|place| wrong[place * wrong.len() / shown]);
        let class = |label: i64| usize::try_from(label).ok().and_then(|at| info.classes.get(at));
        let chosen = chosen.map(|(index, (&given, &clean))| {
            Some(WrongLabel {
                index,
                given: class(given)?.clone(),
                clean: class(clean)?.clone(),
                image: data_url(sample(samples, index)?, SAMPLE_SIDE)?,
            })
        });
        chosen.map(|label| label.context("an image cannot be decoded")).collect()
    }
}

/// The image of a sample.
fn sample(samples: &Samples, index: usize) -> Option<DynamicImage> {
    if samples.storage() == Storage::Encoded {
        return decoded(samples.encoded(index)?);
    }
    let ImageShape { channels, height, width } = samples.image;
    let size = samples.image.bytes();
    let planes = samples.pixels().get(index.checked_mul(size)?..)?.get(..size)?;
    let (width, height, plane) =
        (u32::try_from(width).ok()?, u32::try_from(height).ok()?, height * width);
    if channels == 3 {
        let pixels = (0..plane)
            .flat_map(|at| [planes[at], planes[plane + at], planes[2 * plane + at]])
            .collect();
        return RgbImage::from_raw(width, height, pixels).map(DynamicImage::from);
    }
    // One channel is grey; of others that are not colours, the first is shown in grey.
    let grey = planes.get(..plane)?.to_vec();
    GrayImage::from_raw(width, height, grey).map(DynamicImage::from)
}

/// The image in a file, the right way up.
fn decoded(file: &[u8]) -> Option<DynamicImage> {
    let file = ImageFile::open(file).ok()?;
    file.check_size(MOST_PIXELS).ok()?;
    let (mut image, orientation) = file.decode().ok()?;
    image.apply_orientation(orientation);
    Some(image)
}

/// An image, made smaller until no side is longer than `side`, as a `data:` URL.
fn data_url(image: DynamicImage, side: u32) -> Option<String> {
    let image = smaller(image, side);
    let image = match image.color().has_color() {
        true => DynamicImage::from(image.to_rgb8()),
        false => DynamicImage::from(image.to_luma8()),
    };
    let mut file = png(&image)?;
    let mut format = "png";
    if file.len() > LARGEST_PNG {
        file.clear();
        image.write_with_encoder(JpegEncoder::new_with_quality(&mut file, 85)).ok()?;
        format = "jpeg";
    }
    Some(url(format, &file))
}

/// The image, or a smaller one, until no side is longer than `side`.
fn smaller(image: DynamicImage, side: u32) -> DynamicImage {
    let is_large = image.width().max(image.height()) > side;
    if is_large { image.thumbnail(side, side) } else { image }
}

fn png(image: &DynamicImage) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    image.write_to(&mut Cursor::new(&mut file), ImageFormat::Png).ok()?;
    Some(file)
}

fn url(format: &str, file: &[u8]) -> String {
    format!("data:image/{format};base64,{}", STANDARD.encode(file))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pipeline_stages::formats::write_samples;

    use super::*;

    /// The image in a `data:` URL, and its format.
    fn shown(url: &str) -> (String, DynamicImage) {
        let (head, body) = url.split_once(";base64,").expect("base64");
        let file = STANDARD.decode(body).expect("base64");
        (head.to_owned(), decoded(&file).expect("an image"))
    }

    /// A data set of `labels.len()` images of 3 x 2 pixels with `channels` channels, whose bytes count up.
    fn data(folder: &Path, channels: usize, labels: &[i64]) {
        let image = ImageShape { channels, height: 2, width: 3 };
        let pixels: Vec<u8> = (0..image.bytes() * labels.len()).map(|byte| byte as u8).collect();
        write_samples(folder, Part::Train, image, &pixels, labels).expect("writable");
        let classes = vec!["cat".to_owned(), "dog".to_owned()];
        DatasetInfo { classes, image, ..DatasetInfo::default() }.write(folder).expect("writable");
    }

    #[test]
    fn wrong_labels_have_the_pixels_of_their_sample() {
        for channels in 1..=4 {
            let folder = tempfile::tempdir().expect("a folder");
            let (of_data, of_labels) = (folder.path().join("data"), folder.path().join("labels"));
            for folder in [&of_data, &of_labels] {
                fs::create_dir(folder).expect("writable");
            }
            let clean = vec![0, 1, 0];
            data(&of_data, channels, &clean);
            let labels = Labels { labels: vec![0, 0, 1], clean };
            labels.write(&of_labels).expect("writable");
            let mut images = DataImages::default();
            let wrong = images.wrong_labels(&of_labels, &of_data).expect("labels");
            let words = wrong.iter().map(|wrong| (wrong.index, &*wrong.clean, &*wrong.given));
            assert_eq!(words.collect::<Vec<_>>(), [(1, "dog", "cat"), (2, "cat", "dog")]);
            let (head, image) = shown(&wrong[0].image);
            assert_eq!((&*head, image.width(), image.height()), ("data:image/png", 3, 2));
            let (start, plane) = (6 * channels as u8, 6);
            let shown = if channels == 3 { 3 } else { 1 };
            let expected: Vec<u8> = (0..plane)
                .flat_map(|at| (0..shown).map(move |channel| start + channel * plane + at))
                .collect();
            assert_eq!(image.as_bytes(), expected);
        }
    }

    #[test]
    fn labels_of_another_data_set_are_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        data(folder.path(), 1, &[0, 1]);
        Labels { labels: vec![0], clean: vec![0] }.write(folder.path()).expect("writable");
        let error = DataImages::default().wrong_labels(folder.path(), folder.path());
        assert!(error.expect_err("one label for two images").to_string().contains("1 labels"));
    }

    #[test]
    fn gaps_between_views_are_transparent() {
        let sheet = GrayImage::from_fn(12, 10, |x, y| {
            image::Luma([if x % 6 >= 4 || y == 9 { 255 } else { (x * y) as u8 }])
        });
        let mut file = Vec::new();
        sheet.write_to(&mut Cursor::new(&mut file), ImageFormat::Png).expect("a PNG");
        let (head, image) = shown(&views(&file).expect("an image"));
        assert_eq!(head, "data:image/png");
        for (x, y, pixel) in image.to_rgba8().enumerate_pixels() {
            let is_gap = x % 6 >= 4 || y == 9;
            assert_eq!(pixel.0[3] == 0, is_gap, "{x} {y}");
        }
        assert_eq!(gaps([true; 9].into_iter()), [false; 9], "a white ground");
        let (gap, image) = ([true; WIDEST_GAP], [false; 20]);
        let lines = [&image[..], &gap, &image].concat();
        assert_eq!(gaps(lines.iter().copied()), lines, "images that are wider than a gap");
    }

    #[test]
    fn large_images_are_made_smaller() {
        let noise = RgbImage::from_fn(400, 200, |x, y| {
            image::Rgb([(x * 7 + y * 13) as u8, (x * y) as u8, (x ^ y) as u8])
        });
        let (head, image) =
            shown(&data_url(DynamicImage::from(noise), SAMPLE_SIDE).expect("an image"));
        assert_eq!((image.width(), image.height()), (96, 48));
        assert!(head == "data:image/png" || head == "data:image/jpeg");
        assert_eq!(views(b"not an image"), None);
    }
}
