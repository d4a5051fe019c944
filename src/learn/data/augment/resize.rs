//! Bicubic resampling with antialiasing, as Pillow and torchvision do it: Keys' cubic kernel with
//! a = -0.5 (Keys, 1981), widened by the scale when an image shrinks; separable.

/// The weights that make one line of another length from a part of a line.
#[derive(Debug, Clone, Default)]
pub struct Resampler {
    /// Per output: the first input and where its weights begin and end.
    spans: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<f32>,
}

impl Resampler {
    /// From `length` inputs, starting at `start`, to `outputs`.
    pub fn prepare(&mut self, start: usize, length: usize, outputs: usize) {
        self.spans.clear();
        self.weights.clear();
        let scale = length as f64 / outputs as f64;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        for output in 0..outputs {
            let centre = (output as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(length);
            let begin = self.weights.len();
            let kernel = |input: usize| cubic((input as f64 - centre + 0.5) / stretch);
            let sum: f64 = (first..end).map(kernel).sum();
            self.weights.extend((first..end).map(|input| (kernel(input) / sum) as f32));
            self.spans.push((start + first, begin..self.weights.len()));
        }
    }

    /// Mirrors the outputs.
    pub fn flip(&mut self) {
        self.spans.reverse();
    }

    /// Per output: the first input, and the weights from there on.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.spans.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }

    /// The inputs that any output uses.
    pub fn inputs(&self) -> std::ops::Range<usize> {
        let first = self.outputs().map(|(first, _)| first).min().unwrap_or(0);
        let end = self.outputs().map(|(first, weights)| first + weights.len()).max().unwrap_or(0);
        first..end
    }
}

/// The resamplers of one count of outputs, by the length of the part; each is made once.
#[derive(Debug, Default)]
pub(super) struct ResamplerCache {
    outputs: usize,
    by_length: Vec<Option<Resampler>>,
}

impl ResamplerCache {
    /// Longer parts are not kept: there would be many, and large ones.
    const LONGEST: usize = 512;

    /// From `length` inputs, counted from the first one, to `outputs`.
    pub(super) fn of(&mut self, length: usize, outputs: usize) -> &Resampler {
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
        self.by_length[place].get_or_insert_with(|| {
            let mut resampler = Resampler::default();
            resampler.prepare(0, length, outputs);
            resampler
        })
    }
}

/// Keys' cubic convolution kernel, a = -0.5.
fn cubic(distance: f64) -> f64 {
    const A: f64 = -0.5;
    let x = distance.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_length_changes_nothing() {
        let mut resampler = Resampler::default();
        resampler.prepare(3, 5, 5);
        for (output, (first, weights)) in resampler.outputs().enumerate() {
            for (offset, weight) in weights.iter().enumerate() {
                let expected = if first + offset == output + 3 { 1.0 } else { 0.0 };
                assert!((weight - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn what_is_kept_and_what_is_not_is_the_same_as_made_again() {
        let mut cache = ResamplerCache::default();
        for (length, outputs) in [(20, 30), (600, 30), (700, 30), (20, 30), (20, 8), (600, 8)] {
            let mut other = Resampler::default();
            other.prepare(0, length, outputs);
            let found: Vec<_> = cache.of(length, outputs).outputs().collect();
            assert_eq!(found, other.outputs().collect::<Vec<_>>(), "{length} to {outputs}");
        }
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_stay_within_the_part(
            start in 0usize..50, length in 1usize..300, outputs in 1usize..100, flip: bool,
        ) {
            let mut resampler = Resampler::default();
            resampler.prepare(start, length, outputs);
            if flip {
                resampler.flip();
            }
            prop_assert_eq!(resampler.outputs().count(), outputs);
            let used = resampler.inputs();
            prop_assert!(used.start >= start && used.end <= start + length);
            for (_, weights) in resampler.outputs() {
                prop_assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            }
        }
    }
}
