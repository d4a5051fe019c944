//! The shape of an array of images in a file of NumPy.

use pipeline_stages::formats::ImageShape;

/// Checks that an array of this shape has `count` images, [N, C*H*W] or [N,C,H,W]: in any other, as many bytes are other pixels.
///
/// # Errors
/// With the shape, what is expected and, of channels that come last, what to do.
pub(super) fn check_shape(shape: &[usize], count: usize, image: ImageShape) -> Result<(), String> {
    let ImageShape { channels, height, width } = image;
    let bytes = image.bytes();
    if shape == [count, bytes] || shape == [count, channels, height, width] {
        return Ok(());
    }
    let remedy = match shape {
        [.., last] if shape.len() == 4 && *last == channels => {
            "; the channels come last, as in torchvision's '.data': write it with data.transpose(0, 3, 1, 2), or take the \
             files that the data set is published in"
        }
        _ => "",
    };
    Err(format!(
        "the shape {shape:?}; expected {count} images of {bytes} bytes, one for each label: [{count}, {bytes}] or \
         [{count}, {channels}, {height}, {width}]{remedy}"
    ))
}
