//! Random numbers by counter: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011).
//!
//! A stream is named by (seed, purpose, epoch, index) and has no state outside itself. So a draw
//! depends neither on the thread that makes it nor on what was drawn before, and an interrupted run
//! draws after its resumption what it would have drawn anyway.

/// What random numbers are for. The numbers are part of the results: never reuse or change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The initial value of a tensor; the index counts the tensors of an encoder, the epoch the networks of a method.
    InitialEncoder = 1,
    /// As above, for a projection head.
    InitialProjection = 2,
    /// The order of the samples in an epoch.
    SampleOrder = 3,
    /// How a sample is augmented for training; the index is the sample.
    Augmentation = 4,
    /// The first of the two views of a sample.
    FirstView = 5,
    /// The second.
    SecondView = 6,
    /// Which samples of a class an epoch has; the index is the class.
    ClassBalance = 7,
    /// The initial values of a weighting net.
    InitialWeighting = 8,
    /// The samples of a meta batch; the index is the step within the epoch.
    MetaBatch = 9,
    /// How a sample is augmented that is not only trained on, as that of a meta batch; the epoch is the step of the run, in
    /// epochs of the usual length, the index the sample.
    OtherAugmentation = 10,
    /// How a held-out sample is augmented for an evaluation on the way; the epoch is the steps done before it, the index the
    /// sample.
    ValidationAugmentation = 11,
    /// The first numbers that a method keeps of a sample to explain its label; the index is the sample.
    InitialSampleNoise = 12,
    /// How the samples of a step are augmented that an epoch has beyond the usual number; the epoch is the steps done before
    /// it, the index the sample.
    FurtherStepAugmentation = 13,
    /// With what the images of a step are mixed; the index is the step within the epoch.
    Mixing = 14,
    /// The order of the samples on one side of a division; the index is the side, those of the second network from
    /// 2, and 4 more whenever its samples come again.
    DivisionOrder = 15,
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    /// Block, index, epoch, purpose.
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of this name. Each has 2^34 numbers of 32 bits.
    pub fn new(seed: u64, purpose: Purpose, epoch: u32, index: u32) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        let counter = [0, index, epoch, purpose as u32];
        Self { key, counter, block: [0; 4], used: 4 }
    }

    /// The stream of another view of the same sample. The first view, 0, has the stream of [`Stream::new`].
    #[must_use]
    pub fn of_view(mut self, view: u32) -> Self {
        self.counter[3] |= view << 16;
        self
    }

    /// Uniform over all 32-bit numbers.
    pub fn bits(&mut self) -> u32 {
        if self.used == self.block.len() {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        let high = u64::from(self.bits() >> 5);
        let low = u64::from(self.bits() >> 6);
        ((high << 26) | low) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Uniform over 0..`bound`, without bias (Lemire, "Fast random integer generation in an
    /// interval", 2019). Zero for a bound of zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        loop {
            let product = u64::from(self.bits()) * u64::from(bound);
            let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Two independent standard normal numbers (Box and Muller).
    pub fn normal_pair(&mut self) -> (f64, f64) {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        (radius * cosine, radius * sine)
    }

    /// A number of Beta(alpha, alpha).
    pub fn symmetric_beta(&mut self, alpha: f64) -> f64 {
        let difference = self.log_gamma(alpha) - self.log_gamma(alpha);
        1.0 / (1.0 + difference.exp())
    }

    /// The logarithm of a number of the gamma distribution of this shape and of scale 1 (Marsaglia and Tsang, "A simple
    /// method for generating gamma variables", 2000). Of a small shape, most numbers themselves are too small for an f64.
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let power = (1.0 - self.uniform()).ln() / shape;
            return self.log_gamma(shape + 1.0) + power;
        }
        let d = shape - 1.0 / 3.0;
        loop {
            let (normal, _) = self.normal_pair();
            let cube = (1.0 + normal / (9.0 * d).sqrt()).powi(3);
            let bound = 0.5 * normal * normal + d * (1.0 - cube + cube.ln());
            // Not a number where the cube is not positive, and then it is drawn again.
            if (1.0 - self.uniform()).ln() < bound {
                return (d * cube).ln();
            }
        }
    }

    /// Shuffles (Fisher and Yates). All orders are equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(u32::try_from(last + 1).unwrap_or(u32::MAX)) as usize;
            items.swap(last, other);
        }
    }
}

/// Ten rounds of Philox with four 32-bit words.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The known answers of the Random123 distribution for philox4x32-10.
    #[test]
    fn the_generator_makes_the_published_numbers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn every_part_of_the_name_makes_another_stream() {
        let first = |mut stream: Stream| (0..4).map(|_| stream.bits()).collect::<Vec<_>>();
        let streams = [
            first(Stream::new(1, Purpose::FirstView, 0, 0)),
            first(Stream::new(2, Purpose::FirstView, 0, 0)),
            first(Stream::new(1 << 32, Purpose::FirstView, 0, 0)),
            first(Stream::new(1, Purpose::SecondView, 0, 0)),
            first(Stream::new(1, Purpose::FirstView, 1, 0)),
            first(Stream::new(1, Purpose::FirstView, 0, 1)),
            first(Stream::new(1, Purpose::FirstView, 0, 0).of_view(1)),
        ];
        for (index, stream) in streams.iter().enumerate() {
            assert!(!streams[..index].contains(stream), "stream {index} is not its own");
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut stream = Stream::new(7, Purpose::Augmentation, 0, 0);
        let count = 200_000;
        let uniform: Vec<f64> = (0..count).map(|_| stream.uniform()).collect();
        let normal: Vec<f64> = (0..count / 2)
            .flat_map(|_| {
                let (first, second) = stream.normal_pair();
                [first, second]
            })
            .collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let square =
            |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        assert!((mean(&uniform) - 0.5).abs() < 0.005);
        assert!((square(&uniform) - 1.0 / 3.0).abs() < 0.005);
        assert!(mean(&normal).abs() < 0.01);
        assert!((square(&normal) - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_symmetric_beta_has_its_moments() {
        let count = 50_000;
        for alpha in [1e-3, 0.2, 1.0, 4.0, 1e3] {
            let mut stream = Stream::new(7, Purpose::Mixing, 0, 0);
            let drawn = (0..count).map(|_| stream.symmetric_beta(alpha) - 0.5);
            let [mut mean, mut variance, mut fourth] = [0.0; 3];
            for number in drawn {
                assert!(number.abs() <= 0.5, "{alpha}: {number}");
                mean += number / f64::from(count);
                variance += number.powi(2) / f64::from(count);
                fourth += number.powi(4) / f64::from(count);
            }
            let expected = 0.25 / (2.0 * alpha + 1.0);
            let kurtosis = 3.0 - 6.0 / (2.0 * alpha + 3.0);
            assert!(mean.abs() < 5.0 * (expected / f64::from(count)).sqrt(), "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.04, "{alpha}: {variance}");
            let found = fourth / variance.powi(2);
            assert!((found / kurtosis - 1.0).abs() < 0.06, "{alpha}: {found}, not {kurtosis}");
        }
    }

    #[test]
    fn all_orders_of_three_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for index in 0..6000 {
            let mut items = [0, 1, 2];
            Stream::new(3, Purpose::SampleOrder, 0, index).shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn below_stays_below(seed: u64, bound in 1u32..) {
            let mut stream = Stream::new(seed, Purpose::SampleOrder, 0, 0);
            for _ in 0..20 {
                prop_assert!(stream.below(bound) < bound);
            }
        }

        #[test]
        fn a_shuffle_keeps_all_items(seed: u64, length in 0usize..200) {
            let mut items: Vec<usize> = (0..length).collect();
            Stream::new(seed, Purpose::SampleOrder, 0, 0).shuffle(&mut items);
            items.sort_unstable();
            prop_assert_eq!(items, (0..length).collect::<Vec<_>>());
        }
    }
}
