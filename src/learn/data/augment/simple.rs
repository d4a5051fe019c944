//! Scaling, and the light augmentations of supervised training: flip, and crop after padding.

use anyhow::ensure;
use pipeline_stages::formats::{DatasetInfo, ImageShape, ModelInfo};
use pipeline_stages::kinds::Augmentation;

use super::reflection::reflected;
use crate::random::Stream;

/// Pixels that the crop may move an image by.
const PADDING: u32 = 4;

/// How pixels in [0, 1] are normalised, per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    /// What is subtracted.
    pub mean: Vec<f64>,
    /// What is divided by: the standard deviation.
    pub std: Vec<f64>,
}

impl Normalisation {
    /// None: pixels stay in [0, 1].
    pub fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// By the statistics of ImageNet, as torchvision's weights want it.
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// By the statistics of the training images.
    ///
    /// # Errors
    /// When the standard deviation of a channel is 0.
    pub fn of_dataset(info: &DatasetInfo) -> anyhow::Result<Self> {
        Self::checked(&info.channel_mean, &info.channel_std, info.image)
    }

    /// As a model was trained.
    ///
    /// # Errors
    /// When its `model.json` is invalid.
    pub fn of_model(info: &ModelInfo) -> anyhow::Result<Self> {
        Self::checked(&info.input_mean, &info.input_std, info.input)
    }

    fn checked(mean: &[f64], std: &[f64], image: ImageShape) -> anyhow::Result<Self> {
        ensure!(
            mean.len() == image.channels && std.len() == image.channels,
            "images have {} channels, but there are {} means and {} standard deviations",
            image.channels,
            mean.len(),
            std.len()
        );
        ensure!(
            std.iter().all(|&std| std > 0.0),
            "a channel of the images has a standard deviation of 0 (are all pixels the same?); \
             set normalise = \"none\""
        );
        Ok(Self { mean: mean.to_vec(), std: std.to_vec() })
    }

    /// Normalises an image in place: float [C,H,W] in [0, 1].
    pub fn apply(&self, image: &mut [f32]) {
        let plane = image.len() / self.mean.len().max(1);
        let channels = image.chunks_mut(plane.max(1)).zip(self.mean.iter().zip(&self.std));
        for (channel, (mean, std)) in channels {
            let (mean, std) = (*mean as f32, *std as f32);
            for value in channel {
                *value = (*value - mean) / std;
            }
        }
    }

    /// The value that each of the 256 bytes becomes, per channel.
    pub fn tables(&self) -> Vec<[f32; 256]> {
        let scale = |mean: &f64, std: &f64| {
            std::array::from_fn(|byte| ((byte as f64 / 255.0 - mean) / std) as f32)
        };
        self.mean.iter().zip(&self.std).map(|(mean, std)| scale(mean, std)).collect()
    }
}

/// A light augmentation, all draws made: a flip, and a window of the image's own size that is moved over the image with
/// a border that reflects it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlipCrop {
    /// Rows that the window is moved down by.
    pub down: i64,
    /// Columns that the window is moved right by.
    pub right: i64,
    /// Whether left and right of what it shows are exchanged.
    pub flipped: bool,
}

impl FlipCrop {
    /// Draws one as `augmentation` says.
    pub fn draw(augmentation: Augmentation, stream: &mut Stream) -> Self {
        let mut change = Self::default();
        if augmentation == Augmentation::CropFlip {
            change.down = i64::from(stream.below(2 * PADDING + 1)) - i64::from(PADDING);
            change.right = i64::from(stream.below(2 * PADDING + 1)) - i64::from(PADDING);
        }
        change.flipped = augmentation != Augmentation::None && stream.chance(0.5);
        change
    }

    /// Writes an image, u8 [C,H,W], changed, as floats of the same shape. `tables` has one table per
    /// channel, of [`Normalisation::tables`].
    pub fn apply(self, pixels: &[u8], shape: ImageShape, tables: &[[f32; 256]], out: &mut [f32]) {
        let ImageShape { height, width, .. } = shape;
        let columns: Vec<usize> = (0..width as i64)
            .map(|x| if self.flipped { width as i64 - 1 - x } else { x })
            .map(|x| reflected(x + self.right, width))
            .collect();
        let plane = height * width;
        for (channel, table) in tables.iter().enumerate() {
            for y in 0..height {
                let row = reflected(y as i64 + self.down, height);
                let source = &pixels[channel * plane + row * width..][..width];
                let target = &mut out[channel * plane + y * width..][..width];
                for (value, &column) in target.iter_mut().zip(&columns) {
                    *value = table[usize::from(source[column])];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    const SHAPE: ImageShape = ImageShape { channels: 1, height: 2, width: 3 };

    fn stream(index: u32) -> Stream {
        Stream::new(0, Purpose::Augmentation, 0, index)
    }

    fn augmented(
        pixels: &[u8],
        shape: ImageShape,
        augmentation: Augmentation,
        stream: &mut Stream,
        tables: &[[f32; 256]],
        out: &mut [f32],
    ) {
        FlipCrop::draw(augmentation, stream).apply(pixels, shape, tables, out);
    }

    fn plain() -> Vec<[f32; 256]> {
        Normalisation::none(1).tables()
    }

    #[test]
    fn without_augmentation_bytes_become_zero_to_one() {
        let mut out = [0.0; 6];
        let pixels = [0, 51, 255, 102, 0, 0];
        augmented(&pixels, SHAPE, Augmentation::None, &mut stream(0), &plain(), &mut out);
        assert_eq!(out, [0.0, 0.2, 1.0, 0.4, 0.0, 0.0]);
    }

    #[test]
    fn normalisation_subtracts_and_divides() {
        let by = Normalisation { mean: vec![0.5], std: vec![0.25] };
        assert_eq!(by.tables()[0][0], -2.0);
        assert_eq!(by.tables()[0][255], 2.0);
    }

    #[test]
    fn half_of_the_images_are_flipped() {
        let pixels = [0, 51, 255, 0, 51, 255];
        let flipped = (0..1000).filter(|&index| {
            let mut out = [0.0; 6];
            augmented(&pixels, SHAPE, Augmentation::Flip, &mut stream(index), &plain(), &mut out);
            out[0] == 1.0
        });
        assert!((430..570).contains(&flipped.count()));
    }

    #[test]
    fn every_offset_of_the_crop_occurs() {
        let shape = ImageShape { channels: 1, height: 16, width: 16 };
        let pixels: Vec<u8> = (0..=255).collect();
        let corners: std::collections::BTreeSet<u32> = (0..4000)
            .map(|index| {
                let mut out = [0.0; 256];
                let crop = Augmentation::CropFlip;
                augmented(&pixels, shape, crop, &mut stream(index), &plain(), &mut out);
                (out[4 * 16 + 4] * 255.0).round() as u32
            })
            .collect();
        // 9 rows; 9 columns without and 9 with a flip, overlapping.
        assert!(corners.len() >= 81, "{}", corners.len());
    }
}
