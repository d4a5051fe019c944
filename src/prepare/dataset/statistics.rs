//! Mean and deviation of each channel: what `dataset.json` tells about the training images.

use pipeline_stages::formats::ImageShape;

/// Per channel, over all pixels in [0, 1].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChannelStatistics {
    /// The mean.
    pub(super) mean: Vec<f64>,
    /// The standard deviation (of the population, not of a sample).
    pub(super) deviation: Vec<f64>,
}

/// The statistics of `pixels`, u8 [N,C,H,W]. Exact but for the last division: it sums integers.
pub(super) fn channel_statistics(pixels: &[u8], image: ImageShape) -> ChannelStatistics {
    let mut histograms = vec![[0_u64; 256]; image.channels];
    let plane = (image.height * image.width).max(1);
    for (index, plane) in pixels.chunks_exact(plane).enumerate() {
        let histogram = &mut histograms[index % image.channels];
        for &value in plane {
            histogram[usize::from(value)] += 1;
        }
    }
    let (mean, deviation) = histograms.iter().map(moments).unzip();
    ChannelStatistics { mean, deviation }
}

fn moments(histogram: &[u64; 256]) -> (f64, f64) {
    let sum = |power: u32| -> u128 {
        (0_u128..).zip(histogram).map(|(value, &count)| value.pow(power) * u128::from(count)).sum()
    };
    let (count, first, second) = (sum(0), sum(1), sum(2));
    if count == 0 {
        return (0.0, 0.0);
    }
    // count^2 times the variance, in integers: nothing cancels.
    let spread = count * second - first * first;
    let scale = count as f64 * 255.0;
    (first as f64 / scale, (spread as f64).sqrt() / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channels_are_apart() {
        let image = ImageShape { channels: 2, height: 1, width: 2 };
        let statistics = channel_statistics(&[0, 255, 51, 51, 0, 255, 51, 51], image);
        assert_eq!(statistics.mean, [0.5, 0.2]);
        assert_eq!(statistics.deviation, [0.5, 0.0]);
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
            prop_assert!((statistics.deviation[0] - variance.sqrt()).abs() < 1e-7);
        }
    }
}
