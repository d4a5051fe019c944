//! A mixture of two normal distributions of numbers, found by expectation and maximization (Dempster et al., 1977): how likely
//! each number is to come from the lower one.
//!
//! As scikit-learn's `GaussianMixture(n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4)`, which the authors of DivideMix use.
//! It begins at the two clusters of least squares, which scikit-learn looks for from a random start.

/// Steps at most.
const STEPS: usize = 10;
/// The mean log-likelihood that a step has to gain for another one to follow.
const TOLERANCE: f64 = 1e-2;
/// What is added to a variance.
const LEAST_VARIANCE: f64 = 5e-4;

/// One of the two distributions.
#[derive(Debug, Clone, Copy)]
struct Component {
    weight: f64,
    mean: f64,
    variance: f64,
}

impl Component {
    /// Of numbers, of each of which it has a share.
    fn of(numbers: &[f64], share: impl Fn(usize) -> f64) -> Self {
        let sum = |of: &dyn Fn(f64) -> f64| {
            let terms = numbers.iter().enumerate();
            terms.map(|(place, &number)| share(place) * of(number)).sum::<f64>()
        };
        let count = sum(&|_| 1.0) + 10.0 * f64::EPSILON;
        let mean = sum(&|number| number) / count;
        let variance = sum(&|number| (number - mean).powi(2)) / count + LEAST_VARIANCE;
        Self { weight: count / numbers.len() as f64, mean, variance }
    }

    /// The logarithm of its part of the density.
    fn log_density(self, number: f64) -> f64 {
        let Self { weight, mean, variance } = self;
        let deviation = (number - mean).powi(2) / variance;
        weight.ln() - 0.5 * (deviation + (std::f64::consts::TAU * variance).ln())
    }
}

/// The probability of each number that it comes from the distribution with the smaller mean. Equal numbers come from it.
pub fn probability_of_lower(numbers: &[f64]) -> Vec<f64> {
    let mut shares = lower_cluster(numbers);
    if shares.iter().all(|share| *share == 1.0) {
        return shares;
    }
    let mut components = maximize(numbers, &shares);
    let mut likelihood = f64::NEG_INFINITY;
    for _ in 0..STEPS {
        let before = likelihood;
        likelihood = expect(numbers, components, &mut shares);
        components = maximize(numbers, &shares);
        if (likelihood - before).abs() < TOLERANCE {
            break;
        }
    }
    expect(numbers, components, &mut shares);
    let [first, second] = components;
    if first.mean > second.mean {
        shares.iter_mut().for_each(|share| *share = 1.0 - *share);
    }
    shares
}

/// The distributions of which the first has these shares of the numbers.
fn maximize(numbers: &[f64], shares: &[f64]) -> [Component; 2] {
    let share = |place: usize| shares.get(place).copied().unwrap_or(0.0);
    [Component::of(numbers, share), Component::of(numbers, |place| 1.0 - share(place))]
}

/// Sets the shares that the first has of the numbers, and returns their mean log-likelihood.
fn expect(numbers: &[f64], [first, second]: [Component; 2], shares: &mut [f64]) -> f64 {
    let mut likelihood = 0.0;
    for (number, share) in numbers.iter().zip(shares) {
        let (one, other) = (first.log_density(*number), second.log_density(*number));
        let both = one.max(other) + (-(one - other).abs()).exp().ln_1p();
        *share = (one - both).exp();
        likelihood += both;
    }
    likelihood / numbers.len() as f64
}

/// 1 of each number in the lower one of the two clusters of least squares, 0 of each in the upper one. Equal numbers are low.
///
/// In one dimension a border is between the clusters, so that all of them can be tried (Fisher, "On grouping for maximum
/// homogeneity", 1958): the squares are least where the sum of s^2 / n is largest, with the sums s and the sizes n of both clusters.
fn lower_cluster(numbers: &[f64]) -> Vec<f64> {
    let mut order = numbers.to_vec();
    order.sort_by(f64::total_cmp);
    let total: f64 = order.iter().sum();
    let (mut border, mut most, mut lower) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
    for (place, (number, next)) in order.iter().zip(order.iter().skip(1)).enumerate() {
        lower += number;
        let (size, upper) = (place + 1, total - lower);
        let explained = lower * lower / size as f64 + upper * upper / (order.len() - size) as f64;
        if number < next && explained > most {
            (border, most) = (*number, explained);
        }
    }
    numbers.iter().map(|number| f64::from(u8::from(*number <= border))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_numbers_are_all_low() {
        for numbers in [vec![0.0; 7], vec![0.3], vec![]] {
            let found = probability_of_lower(&numbers);
            assert_eq!(found.len(), numbers.len());
            assert!(found.iter().all(|share| *share > 0.99), "{found:?}");
        }
    }

    #[test]
    fn one_number_far_away_is_no_heap_of_its_own() {
        let heaps = [0.02, 0.03, 0.04, 0.05, 0.3, 0.35, 0.4, 0.45].repeat(20);
        let found = probability_of_lower(&[heaps, vec![1.0]].concat());
        assert_eq!(found.iter().filter(|share| **share > 0.5).count(), 80);
    }

    proptest! {
        #[test]
        fn two_heaps_are_told_apart(
            low in proptest::collection::vec(0.0f64..0.2, 2..50),
            high in proptest::collection::vec(0.8f64..1.0, 2..50),
        ) {
            let found = probability_of_lower(&[&low[..], &high[..]].concat());
            for (place, share) in found.iter().enumerate() {
                prop_assert!((*share > 0.5) == (place < low.len()), "{}: {}", place, share);
            }
        }

        #[test]
        fn probabilities_are_from_zero_to_one(numbers in proptest::collection::vec(0.0f64..=1.0, 0..60)) {
            for share in probability_of_lower(&numbers) {
                prop_assert!((0.0..=1.0).contains(&share), "{}", share);
            }
        }
    }
}
