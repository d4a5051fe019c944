//! Gaussian blur, with torchvision's definition: a normalised, separable kernel, borders reflected without
//! the edge itself.

use pipeline_stages::formats::ImageShape;

use crate::data::augment::reflection::reflected;

/// A blur, all draws made.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianBlur {
    /// From the centre outwards.
    weights: Vec<f32>,
}

impl GaussianBlur {
    /// A kernel of `2 radius + 1` pixels; `deviation`, the standard deviation, in pixels, above 0.
    pub fn new(radius: usize, deviation: f64) -> Self {
        let density = |distance: usize| (-0.5 * (distance as f64 / deviation).powi(2)).exp();
        let sum: f64 = density(0) + 2.0 * (1..=radius).map(density).sum::<f64>();
        Self { weights: (0..=radius).map(|distance| (density(distance) / sum) as f32).collect() }
    }

    /// Blurs an image, float \[C,H,W\], in place.
    pub fn apply(&self, image: &mut [f32], shape: ImageShape) {
        let ImageShape { height, width, .. } = shape;
        let mut between = vec![0f32; height * width];
        for plane in image.chunks_mut((height * width).max(1)) {
            for (line, blurred) in plane.chunks(width).zip(between.chunks_mut(width)) {
                self.blur_line(line, blurred);
            }
            for (row, target) in plane.chunks_mut(width).enumerate() {
                self.blur_across(&between, row, height, target);
            }
        }
    }

    fn blur_line(&self, line: &[f32], blurred: &mut [f32]) {
        let radius = self.weights.len() - 1;
        let at = |index: i64| line[reflected(index, line.len())];
        for (x, value) in blurred.iter_mut().enumerate() {
            let x = x as i64;
            let inside = x >= radius as i64 && x + (radius as i64) < line.len() as i64;
            *value = self.weights[0] * line[x as usize];
            for (distance, weight) in self.weights.iter().enumerate().skip(1) {
                let distance = distance as i64;
                *value += weight
                    * if inside {
                        line[(x - distance) as usize] + line[(x + distance) as usize]
                    } else {
                        at(x - distance) + at(x + distance)
                    };
            }
        }
    }

    /// One row of the vertical pass.
    fn blur_across(&self, between: &[f32], row: usize, height: usize, target: &mut [f32]) {
        let width = target.len();
        let line = |index: i64| &between[reflected(index, height) * width..][..width];
        let row = row as i64;
        for (value, input) in target.iter_mut().zip(line(row)) {
            *value = self.weights[0] * input;
        }
        for (distance, weight) in self.weights.iter().enumerate().skip(1) {
            let (above, below) = (line(row - distance as i64), line(row + distance as i64));
            for ((value, above), below) in target.iter_mut().zip(above).zip(below) {
                *value += weight * (above + below);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_in_range_stays_there(
            height in 1usize..12, width in 1usize..12, radius in 0usize..8, deviation in 0.1f64..2.0,
            values in proptest::collection::vec(0f32..=1.0, 144),
        ) {
            let shape = ImageShape { channels: 1, height, width };
            let mut image = values[..height * width].to_vec();
            GaussianBlur::new(radius, deviation).apply(&mut image, shape);
            prop_assert!(image.iter().all(|value| (-1e-6..=1.000_001).contains(value)));
        }
    }
}
