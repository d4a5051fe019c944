//! Resampling with antialiasing, separable: each line of an image by the same weights, as Pillow and
//! torchvision (`antialias=True`, its default) do it. The filter is widened by the scale when an image shrinks.

use std::ops::Range;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
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
pub struct Resizing {
    /// By what.
    pub filter: Filter,
    /// The part of the line.
    pub part: Range<usize>,
    /// The length that it gets.
    pub length: usize,
    /// What is kept of that.
    pub kept: Range<usize>,
}

/// The weights by which lines are resampled.
#[derive(Debug, Clone, PartialEq)]
pub struct ResampleWeights {
    /// Per output: the first input, and where its weights are.
    outputs: Vec<(usize, Range<usize>)>,
    weights: Vec<f32>,
}

impl Resizing {
    /// A part brought to another length by the cubic filter, all of which is kept.
    pub fn bicubic(part: Range<usize>, length: usize) -> Self {
        Self { filter: Filter::Bicubic, part, length, kept: 0..length }
    }
}

impl ResampleWeights {
    /// The weights that do this.
    pub fn new(resizing: &Resizing) -> Self {
        let Resizing { filter, part, length, kept } = resizing;
        let scale = part.len() as f64 / *length as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let mut made = Self { outputs: Vec::with_capacity(kept.len()), weights: Vec::new() };
        for output in kept.clone() {
            let centre = (output as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(part.len());
            let weight = |input: usize| filter.at((input as f64 - centre + 0.5) / stretch);
            let sum: f64 = (first..end).map(weight).sum();
            let begin = made.weights.len();
            made.weights.extend((first..end).map(|input| (weight(input) / sum) as f32));
            made.outputs.push((part.start + first, begin..made.weights.len()));
        }
        made
    }

    /// Mirrors the outputs.
    pub fn mirror(&mut self) {
        self.outputs.reverse();
    }

    /// Per output: the first input, and the weights from there on.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.outputs.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }

    /// The inputs that any output uses.
    fn inputs(&self) -> Range<usize> {
        let first = self.outputs().map(|(first, _)| first).min().unwrap_or(0);
        let end = self.outputs().map(|(first, weights)| first + weights.len()).max().unwrap_or(0);
        first..end
    }
}

/// The bicubic weights to one length, by the length of the part; each are made once.
#[derive(Debug, Default)]
pub(super) struct WeightsCache {
    outputs: usize,
    by_length: Vec<Option<ResampleWeights>>,
}

impl WeightsCache {
    /// Longer parts are not kept: there would be many, and large ones.
    const LONGEST: usize = 512;

    /// From `length` inputs, counted from the first one, to `outputs`.
    pub(super) fn of(&mut self, length: usize, outputs: usize) -> &ResampleWeights {
        if self.outputs != outputs {
            *self = Self { outputs, by_length: Vec::new() };
        }
        // The first place, which no part has, serves those that are not kept.
        let kept = length <= Self::LONGEST;
        let place = if kept { length } else { 0 };
        if self.by_length.len() <= place {
            self.by_length.resize(place + 1, None);
        }
        if !kept {
            self.by_length[place] = None;
        }
        self.by_length[place]
            .get_or_insert_with(|| ResampleWeights::new(&Resizing::bicubic(0..length, outputs)))
    }
}

/// Resamples a plane of bytes, `width` a row, rows first. The result is in \[0, 1\]: what a cubic
/// filter overshoots is cut off.
pub(super) fn resample(
    plane: &[u8],
    width: usize,
    across: &ResampleWeights,
    down: &ResampleWeights,
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

    #[test]
    fn the_same_length_changes_nothing() {
        let weights = ResampleWeights::new(&Resizing::bicubic(3..8, 5));
        for (output, (first, weights)) in weights.outputs().enumerate() {
            for (offset, weight) in weights.iter().enumerate() {
                let expected = if first + offset == output + 3 { 1.0 } else { 0.0 };
                assert!((weight - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn what_is_kept_and_what_is_not_is_the_same_as_made_again() {
        let mut cache = WeightsCache::default();
        for (length, outputs) in [(20, 30), (600, 30), (700, 30), (20, 30), (20, 8), (600, 8)] {
            let again = ResampleWeights::new(&Resizing::bicubic(0..length, outputs));
            assert_eq!(cache.of(length, outputs), &again, "{length} to {outputs}");
        }
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_stay_within_the_part(
            start in 0usize..50, part in 1usize..400, length in 1usize..300, cut in 0.0f64..1.0,
            cubic: bool,
        ) {
            let first = (cut * length as f64) as usize;
            let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
            let resizing = Resizing { filter, part: start..start + part, length, kept: first..length };
            let mut lines = ResampleWeights::new(&resizing);
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
            let lines = |part, length| ResampleWeights::new(&Resizing { filter, part: 0..part, length, kept: 0..length });
            let mut out = vec![f32::NAN; to_height * to_width];
            let plane = vec![colour; height * width];
            resample(&plane, width, &lines(width, to_width), &lines(height, to_height), &mut out);
            prop_assert!(out.iter().all(|value| (value - f32::from(colour) / 255.0).abs() < 1e-5));
        }
    }
}
