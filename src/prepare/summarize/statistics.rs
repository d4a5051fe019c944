//! What is known of several values: mean, standard deviation, interval.

use super::student::t_95;

/// What is known of one or more values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Statistics {
    /// How many values there are.
    pub n: usize,
    /// How many of them are NaN or infinite.
    pub not_finite: usize,
    /// NaN or infinite if one of the values is.
    pub mean: f64,
    /// The sample standard deviation: the squares are divided by n - 1. `None` for one value; NaN if one is not finite.
    pub std: Option<f64>,
    /// The 95 % interval of the mean by Student's t distribution. `None` for one value, and if one is not finite.
    pub interval: Option<(f64, f64)>,
    /// NaN if one of the values is.
    pub min: f64,
    /// NaN if one of the values is.
    pub max: f64,
}

impl Statistics {
    /// `None` without values.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let (&first, n) = (values.first()?, values.len());
        let count = n as f64;
        let not_finite = values.iter().filter(|value| !value.is_finite()).count();
        let mean = mean(values);
        let std = (n > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
            (squares / (count - 1.0)).sqrt()
        });
        let interval = std.filter(|_| not_finite == 0).map(|std| {
            let half = t_95(n - 1) * std / count.sqrt();
            (mean - half, mean + half)
        });
        // f64::min and max would drop NaN.
        let extreme = |choose: fn(f64, f64) -> f64| {
            let keep =
                |one: f64, other: f64| if other.is_nan() { other } else { choose(one, other) };
            values
                .iter()
                .fold(first, |one, &other| if one.is_nan() { one } else { keep(one, other) })
        };
        Some(Self {
            n,
            not_finite,
            mean,
            std,
            interval,
            min: extreme(f64::min),
            max: extreme(f64::max),
        })
    }

    /// Half of the interval's length.
    pub(super) fn half_interval(&self) -> Option<f64> {
        self.interval.map(|(low, high)| (high - low) / 2.0)
    }
}

/// The mean of at least one value, exact to the last digits also where the values are large and close to each other.
pub(super) fn mean(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if !mean.is_finite() {
        return mean;
    }
    mean + values.iter().map(|value| value - mean).sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use pipeline_stages::formats::read_json;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::reference::reference_path;

    #[derive(Deserialize)]
    struct Vectors {
        t_quantiles: Vec<(usize, f64)>,
        samples: Vec<Sample>,
        pairs: Vec<Pair>,
    }

    #[derive(Deserialize)]
    struct Sample {
        values: Vec<f64>,
        summary: Expected,
    }

    #[derive(Deserialize)]
    struct Pair {
        baseline: Vec<f64>,
        other: Vec<f64>,
        summary: Expected,
    }

    #[derive(Deserialize)]
    struct Expected {
        n: usize,
        mean: f64,
        std: Option<f64>,
        low: Option<f64>,
        high: Option<f64>,
        min: f64,
        max: f64,
    }

    fn vectors() -> Vectors {
        read_json(&reference_path("summarize/vectors.json")).unwrap()
    }

    fn assert_close(found: f64, expected: f64, scale: f64, what: &str) {
        assert!(
            (found - expected).abs() <= 1e-12 * scale,
            "{what}: {found}, but SciPy: {expected}"
        );
    }

    fn compare(values: &[f64], expected: &Expected) {
        let found = Statistics::of(values).unwrap();
        let scale = expected.min.abs().max(expected.max.abs());
        assert_eq!((found.n, found.not_finite), (expected.n, 0));
        assert_eq!((found.min, found.max), (expected.min, expected.max));
        assert_close(found.mean, expected.mean, scale, "mean");
        assert_eq!(found.std.is_some(), expected.std.is_some());
        assert_eq!(found.interval.map(|it| it.0).is_some(), expected.low.is_some());
        if let (Some(std), Some((low, high))) = (found.std, found.interval) {
            assert_close(std, expected.std.unwrap(), scale, "standard deviation");
            assert_close(low, expected.low.unwrap(), scale, "low");
            assert_close(high, expected.high.unwrap(), scale, "high");
        }
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        for (degrees, expected) in vectors().t_quantiles {
            // The rounding of many terms adds up: 4e-11 for a million degrees of freedom.
            assert_close(t_95(degrees), expected, 100.0, &format!("{degrees} degrees of freedom"));
        }
    }

    #[test]
    fn statistics_are_those_of_numpy_and_scipy() {
        for sample in vectors().samples {
            compare(&sample.values, &sample.summary);
        }
        for pair in vectors().pairs {
            let both = pair.other.iter().zip(&pair.baseline);
            compare(
                &both.map(|(other, baseline)| other - baseline).collect::<Vec<_>>(),
                &pair.summary,
            );
        }
    }

    #[test]
    fn what_is_not_finite_is_not_dropped() {
        for (values, mean, min) in [
            ([1.0, f64::NAN, 3.0], f64::NAN, f64::NAN),
            ([f64::NAN, 1.0, 3.0], f64::NAN, f64::NAN),
            ([1.0, 3.0, f64::INFINITY], f64::INFINITY, 1.0),
            ([f64::NEG_INFINITY, 3.0, f64::INFINITY], f64::NAN, f64::NEG_INFINITY),
        ] {
            let found = Statistics::of(&values).unwrap();
            let same = |one: f64, other: f64| one == other || one.is_nan() && other.is_nan();
            assert!(same(found.mean, mean) && same(found.min, min), "{values:?}: {found:?}");
            assert!(
                found.std.unwrap().is_nan() && found.interval.is_none() && found.not_finite > 0
            );
        }
        assert_eq!(Statistics::of(&[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_mean_is_between_the_ends_and_shifts_with_the_values(
            values in prop::collection::vec(-1e3..1e3_f64, 1..30), shift in -1e3..1e3_f64,
        ) {
            let one = Statistics::of(&values).unwrap();
            prop_assert!(one.min - 1e-9 <= one.mean && one.mean <= one.max + 1e-9);
            let moved: Vec<f64> = values.iter().map(|value| value + shift).collect();
            let other = Statistics::of(&moved).unwrap();
            prop_assert!((other.mean - one.mean - shift).abs() < 1e-9);
            prop_assert_eq!(one.std.is_some(), values.len() > 1);
            if let (Some(one), Some(other)) = (one.half_interval(), other.half_interval()) {
                prop_assert!((one - other).abs() < 1e-8);
            }
        }
    }
}
