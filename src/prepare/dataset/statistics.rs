//! Mean and standard deviation of each channel: the statistics of the training images in `dataset.json`.

use pipeline_stages::formats::ImageShape;

/// Per channel, over all pixels in [0, 1].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChannelStatistics {
    pub(super) mean: Vec<f64>,
    /// The standard deviation (of the population, not of a sample).
    pub(super) std: Vec<f64>,
}

/// The statistics of `pixels`, u8 [N,C,H,W].
pub(super) fn channel_statistics(pixels: &[u8], image: ImageShape) -> ChannelStatistics {
    let mut histograms = ChannelHistograms::new(image.channels);
    histograms.add_planes(pixels, image);
    histograms.statistics()
}

/// How often each value occurs in each channel: enough for the statistics of any number of images.
#[derive(Debug, Clone)]
pub(super) struct ChannelHistograms {
    channels: Vec<[u64; 256]>,
}

impl ChannelHistograms {
    /// Without images.
    pub(super) fn new(channels: usize) -> Self {
        Self { channels: vec![[0; 256]; channels] }
    }

    /// Adds images, u8 [N,C,H,W].
    pub(super) fn add_planes(&mut self, pixels: &[u8], image: ImageShape) {
        let plane = (image.height * image.width).max(1);
        let histograms = self.channels.len().max(1);
        for (index, plane) in pixels.chunks_exact(plane).enumerate() {
            let Some(histogram) = self.channels.get_mut(index % histograms) else { return };
            for &value in plane {
                histogram[usize::from(value)] += 1;
            }
        }
    }

    /// Adds an image, u8 [H,W,C].
    pub(super) fn add_interleaved(&mut self, pixels: &[u8]) {
        for pixel in pixels.chunks_exact(self.channels.len().max(1)) {
            for (histogram, &value) in self.channels.iter_mut().zip(pixel) {
                histogram[usize::from(value)] += 1;
            }
        }
    }

    /// Adds the images of `other`, which has the same number of channels.
    pub(super) fn merged(mut self, other: &Self) -> Self {
        for (histogram, other) in self.channels.iter_mut().zip(&other.channels) {
            for (count, other) in histogram.iter_mut().zip(other) {
                *count += other;
            }
        }
        self
    }

    /// The statistics. Exact except for the last division: the sums are of integers.
    pub(super) fn statistics(&self) -> ChannelStatistics {
        let (mean, std) = self.channels.iter().map(moments).unzip();
        ChannelStatistics { mean, std }
    }
}

fn moments(histogram: &[u64; 256]) -> (f64, f64) {
    let sum = |power: u32| -> u128 {
        (0_u128..).zip(histogram).map(|(value, &count)| value.pow(power) * u128::from(count)).sum()
    };
    let (count, first, second) = (sum(0), sum(1), sum(2));
    if count == 0 {
        return (0.0, 0.0);
    }
    // count^2 times the variance, in integers: no cancellation.
    let spread = count * second - first * first;
    let scale = count as f64 * 255.0;
    (first as f64 / scale, (spread as f64).sqrt() / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channels_are_separate() {
        let image = ImageShape { channels: 2, height: 1, width: 2 };
        let statistics = channel_statistics(&[0, 255, 51, 51, 0, 255, 51, 51], image);
        assert_eq!(statistics.mean, [0.5, 0.2]);
        assert_eq!(statistics.std, [0.5, 0.0]);
    }

    #[test]
    fn interleaved_and_in_parts_is_the_same() {
        let image = ImageShape { channels: 2, height: 1, width: 2 };
        let mut first = ChannelHistograms::new(2);
        first.add_interleaved(&[0, 51, 255, 51]);
        let mut second = ChannelHistograms::new(2);
        second.add_planes(&[0, 255, 51, 51], image);
        let at_once = channel_statistics(&[0, 255, 51, 51, 0, 255, 51, 51], image);
        assert_eq!(first.merged(&second).statistics(), at_once);
    }

    proptest! {
        #[test]
        fn agrees_with_two_passes(pixels in proptest::collection::vec(any::<u8>(), 1..200)) {
            let image = ImageShape { channels: 1, height: 1, width: 1 };
            let statistics = channel_statistics(&pixels, image);
            let values: Vec<f64> = pixels.iter().map(|&value| f64::from(value) / 255.0).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
            prop_assert!((statistics.mean[0] - mean).abs() < 1e-12);
            prop_assert!((statistics.std[0] - variance.sqrt()).abs() < 1e-7);
        }
    }
}
