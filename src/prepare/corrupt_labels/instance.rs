//! Part-dependent label noise: which label a sample gets depends on its pixels (Xia et al., "Part-dependent label noise:
//! towards instance-dependent label noise", NeurIPS 2020, algorithm 2).
//!
//! The draws are those of its authors' `get_instance_noisy_label`, in the same order: a flip rate for each sample, the projections
//! of all classes, a label for each sample. Does not depend on the names of classes.

use anyhow::bail;
use pipeline_stages::kinds::CorruptLabels;
use pipeline_stages::message::{Progress, Unit};
use pipeline_stages::worker::Context;

use crate::bisection;
use crate::numpy_random::{Cumulative, LegacyRandom};

/// The standard deviation of the flip rates, before they are truncated.
const SPREAD: f64 = 0.1;
/// Flip rates from one look at whether to stop to the next.
const BLOCK: usize = 256;

/// The labelled samples of a data set.
pub(super) struct LabelledImages<'d> {
    /// u8 [N,P], with the P pixels of all channels of a sample.
    pub(super) pixels: &'d [u8],
    /// P.
    pub(super) size: usize,
    /// The class of each.
    pub(super) classes: &'d [usize],
    /// How many classes there are.
    pub(super) class_count: usize,
}

/// New classes for the samples of `order`, in that order.
///
/// # Errors
/// With too many classes for a projection, with one class, or when it was asked to stop.
pub(super) fn draw(
    images: &LabelledImages<'_>,
    order: &[usize],
    rate: f64,
    random: &mut LegacyRandom,
    context: &Context,
) -> anyhow::Result<Vec<usize>> {
    let mut drawn = vec![0; order.len()];
    each_draw(images, order, rate, random, context, |place, classes, uniform| {
        drawn[place] = classes.at(uniform);
    })?;
    Ok(drawn)
}

/// What the class of each place in `order` is drawn from, and the uniform number that draws it; class by class.
fn each_draw(
    images: &LabelledImages<'_>,
    order: &[usize],
    rate: f64,
    random: &mut LegacyRandom,
    context: &Context,
    mut take: impl FnMut(usize, &Cumulative, f64),
) -> anyhow::Result<()> {
    let &LabelledImages { pixels, size, classes, class_count } = images;
    if let Some(problem) = CorruptLabels::instance_problem(size as u64, class_count as u64) {
        bail!(problem);
    }
    let mut flip_rates = Vec::with_capacity(order.len());
    for block in order.chunks(BLOCK) {
        context.stop_point()?;
        flip_rates.extend(block.iter().map(|_| flip_rate(rate, random.uniform())));
    }
    // The draws of the labels follow on all projections, which may not fit in memory together: the projections are
    // drawn twice, the second time one after the other.
    let mut again = random.clone();
    for _ in 0..class_count {
        context.stop_point()?;
        for _ in 0..size * class_count {
            random.normal();
        }
    }
    let uniform: Vec<f64> = order.iter().map(|_| random.uniform()).collect();

    let mut places = vec![Vec::new(); class_count];
    for (place, &sample) in order.iter().enumerate() {
        places[classes[sample]].push(place);
    }
    let mut done = 0;
    for (class, places) in places.iter().enumerate() {
        context.stop_point()?;
        let projection = Projection::draw(class, class_count, size, &mut again);
        for &place in places {
            context.stop_point()?;
            let pixels = &pixels[order[place] * size..][..size];
            let row = projection.probabilities(pixels, flip_rates[place]);
            take(place, &Cumulative::new(&row), uniform[place]);
        }
        done += places.len() as u64;
        let total = Some(order.len() as u64);
        context.progress(Progress { done, total, unit: Unit::Samples, phase: None });
    }
    Ok(())
}

/// The quantile of the normal distribution around `mean` with standard deviation [`SPREAD`], truncated to [0, 1].
fn flip_rate(mean: f64, uniform: f64) -> f64 {
    let cumulative = |rate: f64| standard_normal((rate - mean) / SPREAD);
    let (low, high) = (cumulative(0.0), cumulative(1.0));
    let wanted = low + uniform * (high - low);
    bisection::turn(0.0, 1.0, |rate| cumulative(rate) < wanted)
}

/// The cumulative standard normal distribution, for numbers up to 10 or so: the series of Abramowitz and Stegun,
/// Handbook of Mathematical Functions (1964), 26.2.11.
fn standard_normal(number: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (number, 0.0_f64, 1.0);
    while term.abs() > sum.abs() * 1e-18 {
        sum += term;
        odd += 2.0;
        term *= number * number / odd;
    }
    let density = (-number * number / 2.0).exp() / std::f64::consts::TAU.sqrt();
    0.5 + density * sum
}

/// For one true class, a random projection of the pixels to a number for each label.
struct Projection {
    class: usize,
    /// How many labels there are.
    classes: usize,
    /// [P,K]: pixel, label.
    weights: Vec<f32>,
}

impl Projection {
    fn draw(class: usize, classes: usize, pixels: usize, random: &mut LegacyRandom) -> Self {
        let weights = (0..pixels * classes).map(|_| random.normal() as f32).collect();
        Self { class, classes, weights }
    }

    /// How likely each label is for a sample of the class: 1 - `flip_rate` for the class; the others share `flip_rate` by
    /// the softmax of the sample's projection.
    fn probabilities(&self, pixels: &[u8], flip_rate: f64) -> Vec<f64> {
        let mut row = vec![0.0; self.classes];
        for (&pixel, weights) in pixels.iter().zip(self.weights.chunks_exact(self.classes)) {
            for (entry, &weight) in row.iter_mut().zip(weights) {
                *entry += f64::from(pixel) * f64::from(weight);
            }
        }
        row[self.class] = f64::NEG_INFINITY;
        let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        for entry in &mut row {
            *entry = (*entry - highest).exp();
            sum += *entry;
        }
        for entry in &mut row {
            *entry *= flip_rate / sum;
        }
        row[self.class] = 1.0 - flip_rate;
        row
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use pipeline_stages::ArtifactType::{Dataset, Directory};
    use pipeline_stages::formats::{Labels, Part, Samples, read_json};
    use pipeline_stages::worker::Stopped;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::fixture::Fixture;
    use crate::reference::{digest, reference_path};
    use crate::samples::unpack_fashion_mnist;

    /// What PyTorch and SciPy computed.
    #[derive(Deserialize)]
    struct Case {
        images: String,
        seed: u64,
        rate: f64,
        drawn: usize,
        flip_rates: Vec<f64>,
        probabilities: Vec<Vec<f64>>,
        first: Vec<i64>,
        sha256: String,
        wrong: usize,
    }

    fn cases(images: &str) -> Vec<Case> {
        let cases: Vec<Case> = read_json(&reference_path("instance_noise.json")).unwrap();
        cases.into_iter().filter(|case| case.images == images).collect()
    }

    fn check_labels(case: &Case, labels: &[i64], clean: &[i64]) {
        let name = format!("{} at {}, seed {}", case.images, case.rate, case.seed);
        let wrong = labels.iter().zip(clean).filter(|(label, clean)| label != clean).count();
        assert_eq!(labels[..case.first.len()], case.first, "{name}");
        assert_eq!(wrong, case.wrong, "{name}");
        assert_eq!(digest(labels), case.sha256, "{name}");
    }

    #[test]
    fn labels_of_real_images_are_those_of_the_reference() {
        let mut test = Fixture::new();
        let source = test.folder().join("source");
        unpack_fashion_mnist(&source);
        let from = ("source", Directory, source.as_path());
        let (data, _) = test.run_on("dataset", json!({"format": "idx"}), &[from], 0, None).unwrap();
        let cases = cases("fashion-mnist");
        assert_eq!(cases.iter().map(|case| case.drawn).sum::<usize>(), 40_000);
        for case in cases {
            let parameters = json!({"noise": "instance", "rate": case.rate});
            let from = ("data", Dataset, data.as_path());
            let (noisy, metrics) =
                test.run_on("corrupt-labels", parameters, &[from], case.seed, None).unwrap();
            let noisy = Labels::read(&noisy).unwrap();
            check_labels(&case, &noisy.labels, &noisy.clean);
            assert_eq!(metrics["noise-rate"], case.wrong as f64 / case.drawn as f64);
        }
    }

    /// The reference computes in 32 bits, so a label may differ where a draw is as near to a boundary as that rounds.
    #[test]
    fn draws_near_a_boundary_are_counted() {
        let mut test = Fixture::new();
        let source = test.folder().join("source");
        unpack_fashion_mnist(&source);
        let from = ("source", Directory, source.as_path());
        let (data, _) = test.run_on("dataset", json!({"format": "idx"}), &[from], 0, None).unwrap();
        let samples = Samples::open(&data, Part::Train).unwrap();
        let classes: Vec<usize> = samples.labels.iter().map(|&label| label as usize).collect();
        let (pixels, size) = (samples.pixels(), samples.image.bytes());
        let images = LabelledImages { pixels, size, classes: &classes, class_count: 10 };
        let order: Vec<usize> = (0..classes.len()).collect();
        let context = test.context("corrupt-labels", &json!({"noise": "instance", "rate": 0.1}));
        let widths = [1e-6, 1e-4, 1e-2];
        let mut counts = [0; 3];
        for case in cases("fashion-mnist") {
            let mut random = LegacyRandom::new(case.seed).unwrap();
            let count = |_, drawn_from: &Cumulative, uniform| {
                let distance = drawn_from.distance_to_a_boundary(uniform);
                for (count, width) in counts.iter_mut().zip(widths) {
                    *count += usize::from(distance < width);
                }
            };
            each_draw(&images, &order, case.rate, &mut random, &context, count).unwrap();
        }
        // None is within the first width, so no label may differ from the reference, and none does (above).
        assert_eq!(counts, [0, 17, 1356]);
    }

    #[test]
    fn every_draw_is_that_of_the_reference() {
        let cases = cases("formula");
        assert_eq!(cases.len(), 3);
        let clean: Vec<usize> = (0..400).map(|sample| sample % 3).collect();
        let pixels = (0..400).flat_map(|sample| {
            (0..105)
                .map(move |place| ((sample * 31 + place * 17 + sample * place * 7) % 11 / 9) as u8)
        });
        let pixels: Vec<u8> = pixels.collect();
        let images = LabelledImages { pixels: &pixels, size: 105, classes: &clean, class_count: 3 };
        let test = Fixture::new();
        let context = test.context("corrupt-labels", &json!({"noise": "instance", "rate": 0.1}));
        for case in cases {
            let order: Vec<usize> = (0..case.drawn).map(|sample| sample * 237 % 400).collect();
            let mut random = LegacyRandom::new(case.seed).unwrap();
            let flip_rates = order.iter().map(|_| flip_rate(case.rate, random.uniform()));
            let flip_rates: Vec<f64> = flip_rates.collect();
            let projections: [_; 3] =
                std::array::from_fn(|class| Projection::draw(class, 3, 105, &mut random));
            for (index, expected) in case.probabilities.iter().enumerate() {
                assert!((flip_rates[index] - case.flip_rates[index]).abs() < 1e-12);
                let (sample, flip_rate) = (order[index], flip_rates[index]);
                let pixels = &pixels[sample * 105..][..105];
                let found = projections[clean[sample]].probabilities(pixels, flip_rate);
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
                }
            }
            let mut random = LegacyRandom::new(case.seed).unwrap();
            let drawn = draw(&images, &order, case.rate, &mut random, &context).unwrap();
            let as_labels = |classes: &[usize]| -> Vec<i64> {
                classes.iter().map(|&class| class as i64).collect()
            };
            let labels = as_labels(&super::super::replaced(&clean, &order, drawn));
            check_labels(&case, &labels, &as_labels(&clean));
        }
    }

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        for (number, expected) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (-1.0, 0.158_655_253_931_457_1),
            (1.959_963_984_540_054, 0.975),
            (5.0, 0.999_999_713_348_428_1),
            (10.0, 1.0),
            (-10.0, 0.0),
        ] {
            let found = standard_normal(number);
            assert!((found - expected).abs() < 1e-14, "{number}: {found}");
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let test = Fixture::new();
        let context = test.context("corrupt-labels", &json!({"noise": "instance", "rate": 0.1}));
        for (class_count, size, words) in
            [(1, 4, "at least two classes"), (1000, 3 << 20, "fewer classes")]
        {
            let images = LabelledImages { pixels: &[], size, classes: &[], class_count };
            let mut random = LegacyRandom::new(1).unwrap();
            let error = draw(&images, &[], 0.5, &mut random, &context).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn means_of_flip_rates_are_those_of_the_help() {
        for (rate, mean) in [(0.0, 0.08), (0.1, 0.13), (0.2, 0.21), (0.9, 0.87), (1.0, 0.92)] {
            let places = (0..200).map(|place| (f64::from(place) + 0.5) / 200.0);
            let found = places.map(|uniform| flip_rate(rate, uniform)).sum::<f64>() / 200.0;
            assert!((found - mean).abs() < 0.005, "{rate}: {found}");
        }
    }

    #[test]
    fn it_stops_before_it_draws_and_from_class_to_class() {
        let test = Fixture::new();
        let parameters = json!({"noise": "instance", "rate": 0.1});
        let images =
            LabelledImages { pixels: &[0; 6], size: 2, classes: &[0, 1, 2], class_count: 3 };
        let stops_at = |reports, order: &[usize]| {
            let context = test.context_that_stops("corrupt-labels", &parameters, reports);
            context.stop_flag().store(reports == 0, Ordering::Relaxed);
            let mut random = LegacyRandom::new(1).unwrap();
            let result = draw(&images, order, 0.5, &mut random, &context);
            assert!(result.unwrap_err().is::<Stopped>());
            (context.kept_events().len(), random.uniform())
        };
        let first = LegacyRandom::new(1).unwrap().uniform();
        assert_eq!(stops_at(0, &[0, 1, 2]), (0, first));
        assert_eq!(stops_at(0, &[]), (0, first), "also without a flip rate");
        assert_eq!(stops_at(2, &[0, 1, 2]).0, 2);
    }

    proptest! {
        #[test]
        fn flip_rates_rise_with_their_draw(mean in 0.0..=1.0_f64, one in 0.0..1.0_f64, other in 0.0..1.0_f64) {
            let (low, high) = (one.min(other), one.max(other));
            let [first, second] = [low, high].map(|uniform| flip_rate(mean, uniform));
            prop_assert!((0.0..=1.0).contains(&first) && first <= second && second <= 1.0);
        }

        #[test]
        fn probabilities_sum_to_one(seed: u32, flip in 0.0..=1.0_f64, pixels in proptest::collection::vec(0_u8.., 12)) {
            let mut random = LegacyRandom::new(seed.into()).unwrap();
            let row = Projection::draw(2, 4, 12, &mut random).probabilities(&pixels, flip);
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert_eq!(row[2], 1.0 - flip);
            prop_assert!(row.iter().all(|entry| (0.0..=1.0).contains(entry)));
        }
    }
}
