//! NumPy's legacy generator (`np.random.seed`, `np.random.choice`, `np.random.randn`), number for number.
//!
//! That generator is frozen: its draws are the same in every version of NumPy. Does not depend on what is drawn.

use anyhow::Context as _;
use pipeline_stages::kind::LARGEST_NUMPY_SEED;

use crate::mersenne_twister::MersenneTwister;

/// The state behind `np.random`.
#[derive(Clone)]
pub(crate) struct LegacyRandom {
    words: MersenneTwister,
    /// The second number of a pair, which the next [`LegacyRandom::normal`] returns.
    second_normal: Option<f64>,
}

impl LegacyRandom {
    /// `np.random.seed(seed)`.
    ///
    /// # Errors
    /// When the seed has more than 32 bits, which NumPy does not accept.
    pub(crate) fn new(seed: u64) -> anyhow::Result<Self> {
        let seed = u32::try_from(seed).ok().with_context(|| {
            format!("the seed {seed} is too large: NumPy's legacy generator, which draws the noise, accepts seeds up to {LARGEST_NUMPY_SEED}")
        })?;
        Ok(Self { words: MersenneTwister::new(seed), second_normal: None })
    }

    /// `np.random.random_sample()`: uniform in [0, 1), 53 bits from two words.
    pub(crate) fn uniform(&mut self) -> f64 {
        let high = f64::from(self.words.next_word() >> 5);
        let low = f64::from(self.words.next_word() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// `np.random.randn()`: a standard normal number, by Marsaglia's polar method.
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(second) = self.second_normal.take() {
            return second;
        }
        loop {
            let [second, first] = [self.uniform(), self.uniform()].map(|number| 2.0 * number - 1.0);
            let square = second * second + first * first;
            if square < 1.0 && square != 0.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.second_normal = Some(scale * second);
                return scale * first;
            }
        }
    }

    /// An integer from 0 to `highest`, inclusive, by masked rejection. For `highest` 0, nothing is drawn.
    fn up_to(&mut self, highest: u32) -> usize {
        if highest == 0 {
            return 0;
        }
        let mask = u32::MAX >> highest.leading_zeros();
        loop {
            let word = self.words.next_word() & mask;
            if word <= highest {
                return word as usize;
            }
        }
    }

    /// `np.random.choice(choices)`. `None` if `choices` is empty.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let highest = u32::try_from(choices.len().checked_sub(1)?).ok()?;
        choices.get(self.up_to(highest)).copied()
    }

    /// `np.random.choice(choices, 2, replace=False)`. `None` if there are fewer than two.
    pub(crate) fn two_of<T: Copy>(&mut self, choices: &[T]) -> Option<[T; 2]> {
        self.some_of(choices, 2)?.first_chunk().copied()
    }

    /// `np.random.choice(choices, count, replace=False)`: the first ones after a full shuffle.
    /// `None` if there are fewer.
    pub(crate) fn some_of<T: Copy>(&mut self, choices: &[T], count: usize) -> Option<Vec<T>> {
        let mut shuffled = choices.to_vec();
        for last in (1..u32::try_from(shuffled.len()).ok()?).rev() {
            let other = self.up_to(last);
            shuffled.swap(last as usize, other);
        }
        shuffled.truncate(count);
        (shuffled.len() == count).then_some(shuffled)
    }

    /// `np.random.choice(len(p), p=p)`.
    pub(crate) fn weighted(&mut self, distribution: &Cumulative) -> usize {
        distribution.at(self.uniform())
    }
}

/// A discrete distribution as `choice` uses it: cumulative sums, divided by the last.
pub(crate) struct Cumulative(Vec<f64>);

impl Cumulative {
    /// From these probabilities, which sum to one except for rounding.
    pub(crate) fn new(probabilities: &[f64]) -> Self {
        let mut sum = 0.0;
        let sums = probabilities.iter().map(|probability| {
            sum += probability;
            sum
        });
        let mut sums: Vec<f64> = sums.collect();
        for entry in &mut sums {
            *entry /= sum;
        }
        Self(sums)
    }

    /// What is drawn with this uniform number.
    pub(crate) fn at(&self, uniform: f64) -> usize {
        self.0.partition_point(|&probability| probability <= uniform)
    }

    /// How far from this uniform number the nearest one is at which another one of the values begins.
    #[cfg(test)]
    pub(crate) fn distance_to_a_boundary(&self, uniform: f64) -> f64 {
        let (_, boundaries) = self.0.split_last().expect("there is a value");
        boundaries.iter().map(|end| (end - uniform).abs()).fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use pipeline_stages::formats::read_json;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::reference::reference_path;

    #[derive(Deserialize)]
    struct Case {
        seed: u64,
        uniform: Vec<f64>,
        one_of: Vec<(usize, usize)>,
        two_of: Vec<(usize, [usize; 2])>,
        weighted: Vec<usize>,
        last: f64,
        normal: Vec<f64>,
        behind_normal: f64,
        some_of: Vec<(usize, Vec<usize>)>,
    }

    #[test]
    fn draws_are_those_of_numpy() {
        let cases: Vec<Case> = read_json(&reference_path("numpy_draws.json")).unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let mut random = LegacyRandom::new(case.seed).unwrap();
            let seed = case.seed;
            for (index, expected) in case.uniform.iter().enumerate() {
                assert_eq!(random.uniform(), *expected, "seed {seed}, uniform {index}");
            }
            for (size, expected) in case.one_of {
                let everything: Vec<usize> = (0..size).collect();
                assert_eq!(
                    random.one_of(&everything),
                    Some(expected),
                    "seed {seed}, one of {size}"
                );
            }
            for (size, expected) in case.two_of {
                let everything: Vec<usize> = (0..size).collect();
                assert_eq!(
                    random.two_of(&everything),
                    Some(expected),
                    "seed {seed}, two of {size}"
                );
            }
            let distribution = Cumulative::new(&[0.1, 0.2, 0.3, 0.4]);
            for (index, expected) in case.weighted.iter().enumerate() {
                assert_eq!(
                    random.weighted(&distribution),
                    *expected,
                    "seed {seed}, weighted {index}"
                );
            }
            assert_eq!(random.uniform(), case.last, "seed {seed}, last");
            for (index, expected) in case.normal.iter().enumerate() {
                // Logarithms of other systems differ in the last bit.
                let difference = (random.normal() - expected).abs();
                assert!(difference <= 1e-15 * expected.abs(), "seed {seed}, normal {index}");
            }
            assert_eq!(random.uniform(), case.behind_normal, "seed {seed}, behind normal");
            for (size, expected) in case.some_of {
                let everything: Vec<usize> = (0..size).collect();
                let found = random.some_of(&everything, expected.len());
                assert_eq!(found, Some(expected), "seed {seed}, some of {size}");
            }
        }
    }

    #[test]
    fn a_seed_beyond_32_bits_is_refused() {
        let error = LegacyRandom::new(1 << 32).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("4294967296 is too large")));
    }

    #[test]
    fn nothing_to_choose_from() {
        let mut random = LegacyRandom::new(1).unwrap();
        assert_eq!(random.one_of::<u8>(&[]), None);
        assert_eq!(random.two_of(&[7]), None);
        assert_eq!(random.some_of(&[7], 2), None);
        assert_eq!(random.some_of::<u8>(&[], 0), Some(Vec::new()));
        assert_eq!(random.one_of(&[7]), Some(7));
    }

    proptest! {
        #[test]
        fn a_weighted_draw_has_weight(weights in proptest::collection::vec(0.0..1.0_f64, 2..20), seed: u32) {
            let sum: f64 = weights.iter().sum();
            prop_assume!(sum > 0.1);
            let probabilities: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
            let drawn = LegacyRandom::new(seed.into()).unwrap().weighted(&Cumulative::new(&probabilities));
            prop_assert!(probabilities[drawn] > 0.0);
        }

        #[test]
        fn two_are_two(size in 2_usize..40, seed: u32) {
            let everything: Vec<usize> = (0..size).collect();
            let [first, second] = LegacyRandom::new(seed.into()).unwrap().two_of(&everything).unwrap();
            prop_assert!(first != second && first < size && second < size);
        }
    }
}
