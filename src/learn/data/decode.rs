//! JPEG, PNG and WebP files in memory to pixels: eight bits, three channels, turned as their EXIF data say.
//!
//! Grey images become three equal channels; transparency is dropped; CMYK is converted. Does not know any data set.

use anyhow::Context as _;
use pipeline_stages::formats::{ImageShape, MOST_IMAGE_PIXELS};
use pipeline_stages::image_file::ImageFile;

/// Decodes an image file into u8 \[3,H,W\].
///
/// Does not check that the file is whole: what made the data set did.
///
/// # Errors
/// When it is not a JPEG, PNG or WebP, damaged, or of more than [`MOST_IMAGE_PIXELS`].
pub fn decode(file: &[u8]) -> anyhow::Result<(ImageShape, Vec<u8>)> {
    let image = ImageFile::open(file).context("its header cannot be read")?;
    image.check_size(MOST_IMAGE_PIXELS)?;
    let (mut image, orientation) = image.decode()?;
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
