//! JPEG and PNG files in memory to pixels: eight bits, three channels, turned as their EXIF data say.
//!
//! Grey images become three equal channels; transparency is dropped; CMYK is converted. Knows no data set.

use std::io::Cursor;

use anyhow::{Context as _, ensure};
use image::{DynamicImage, ImageDecoder, ImageReader};
use pipeline_stages::formats::{ImageShape, MOST_IMAGE_PIXELS};

/// Decodes an image file into u8 \[3,H,W\].
///
/// # Errors
/// When it is no JPEG or PNG, damaged, or of more than [`MOST_IMAGE_PIXELS`].
pub fn decode(file: &[u8]) -> anyhow::Result<(ImageShape, Vec<u8>)> {
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format()?;
    let mut decoder =
        reader.into_decoder().context("it is not a JPEG or PNG file, or its header is damaged")?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    ensure!(
        (1..=MOST_IMAGE_PIXELS).contains(&pixels),
        "its header says {width}x{height} pixels, which is not a photograph"
    );
    let orientation = decoder.orientation().context("its EXIF data are damaged")?;
    let mut image = DynamicImage::from_decoder(decoder).context("it is damaged")?;
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let shape =
        ImageShape { channels: 3, height: image.height() as usize, width: image.width() as usize };
    Ok((shape, planes(image.as_raw())))
}

/// u8 \[H,W,3\] as u8 \[3,H,W\].
fn planes(interleaved: &[u8]) -> Vec<u8> {
    let plane = interleaved.len() / 3;
    let mut planes = vec![0; 3 * plane];
    let (reds, rest) = planes.split_at_mut(plane);
    let (greens, blues) = rest.split_at_mut(plane);
    let colours = reds.iter_mut().zip(greens).zip(blues);
    for (((red, green), blue), pixel) in colours.zip(interleaved.as_chunks::<3>().0) {
        [*red, *green, *blue] = *pixel;
    }
    planes
}
