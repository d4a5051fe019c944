//! Resampling with antialiasing, separable: each line of an image by the same weights, as Pillow and
//! torchvision (`antialias=True`, its default) do it. The filter is widened by the scale when an image shrinks.

use std::ops::Range;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = -0.5 (Keys, 1981), as Pillow has it; plain torch without antialiasing has -0.75.
    Bicubic,
}

impl Filter {
    /// It is zero from this distance on.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// What is made of a line: a part of it, brought to another length, of which some is kept.
#[derive(Debug, Clone)]
pub(super) struct Resizing {
    pub(super) filter: Filter,
    /// The part of the line.
    pub(super) part: Range<usize>,
    /// The length that it gets.
    pub(super) length: usize,
    /// What is kept of that.
    pub(super) kept: Range<usize>,
}

/// The weights by which lines are resampled.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    /// Per output: the first input, and where its weights are.
    outputs: Vec<(usize, Range<usize>)>,
    weights: Vec<f32>,
}

impl Lines {
    pub(super) fn new(resizing: &Resizing) -> Self {
        let Resizing { filter, part, length, kept } = resizing;
        let scale = part.len() as f64 / *length as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let mut lines = Self { outputs: Vec::with_capacity(kept.len()), weights: Vec::new() };
        for output in kept.clone() {
            let centre = (output as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(part.len());
            let weight = |input: usize| filter.at((input as f64 - centre + 0.5) / stretch);
            let sum: f64 = (first..end).map(weight).sum();
            let begin = lines.weights.len();
            lines.weights.extend((first..end).map(|input| (weight(input) / sum) as f32));
            lines.outputs.push((part.start + first, begin..lines.weights.len()));
        }
        lines
    }

    /// Mirrors the outputs.
    pub(super) fn mirror(&mut self) {
        self.outputs.reverse();
    }

    fn outputs(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.outputs.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }

    /// The inputs that any output uses.
    fn inputs(&self) -> Range<usize> {
        let first = self.outputs().map(|(first, _)| first).min().unwrap_or(0);
        let end = self.outputs().map(|(first, weights)| first + weights.len()).max().unwrap_or(0);
        first..end
    }
}

/// Resamples a plane of bytes, `width` a row, rows first. The result is in \[0, 1\]: what a cubic
/// filter overshoots is cut off.
pub(super) fn resample(
    plane: &[u8],
    width: usize,
    across: &Lines,
    down: &Lines,
    target: &mut [f32],
) {
    let out_width = across.outputs.len();
    let rows = down.inputs();
    let mut between = vec![0f32; rows.len() * out_width];
    for (row, line) in rows.clone().zip(between.chunks_mut(out_width)) {
        let pixels = &plane[row * width..][..width];
        for ((first, weights), value) in across.outputs().zip(line) {
            let inputs = &pixels[first..first + weights.len()];
            *value =
                inputs.iter().zip(weights).map(|(&pixel, weight)| f32::from(pixel) * weight).sum();
        }
    }
    for ((first, weights), line) in down.outputs().zip(target.chunks_mut(out_width)) {
        line.fill(0.0);
        for (row, weight) in (first - rows.start..).zip(weights) {
            for (value, input) in line.iter_mut().zip(&between[row * out_width..][..out_width]) {
                *value += weight * input;
            }
        }
        for value in line {
            *value = (*value / 255.0).clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn weights_sum_to_one_and_stay_within_the_part(
            start in 0usize..50, part in 1usize..400, length in 1usize..300, cut in 0.0f64..1.0,
            cubic: bool,
        ) {
            let first = (cut * length as f64) as usize;
            let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
            let resizing = Resizing { filter, part: start..start + part, length, kept: first..length };
            let mut lines = Lines::new(&resizing);
            lines.mirror();
            prop_assert_eq!(lines.outputs.len(), length - first);
            let used = lines.inputs();
            prop_assert!(used.start >= start && used.end <= start + part);
            for (_, weights) in lines.outputs() {
                prop_assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            }
        }

        #[test]
        fn a_plane_of_one_colour_keeps_it(
            height in 1usize..20, width in 1usize..20, to_height in 1usize..20, to_width in 1usize..20,
            colour: u8, cubic: bool,
        ) {
            let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
            let lines = |part, length| Lines::new(&Resizing { filter, part: 0..part, length, kept: 0..length });
            let mut out = vec![f32::NAN; to_height * to_width];
            let plane = vec![colour; height * width];
            resample(&plane, width, &lines(width, to_width), &lines(height, to_height), &mut out);
            prop_assert!(out.iter().all(|value| (value - f32::from(colour) / 255.0).abs() < 1e-5));
        }
    }
}
