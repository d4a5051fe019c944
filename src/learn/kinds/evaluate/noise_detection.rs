//! Do losses tell wrong labels? A network that has not memorised them loses more on them.
//!
//! The area under the ROC curve of the loss as a detector: the probability that a sample with a wrong
//! label has a larger loss than one with a right label, ties counted half (the Mann-Whitney statistic).

use std::cmp::Ordering;

/// The area under the ROC curve of `losses` against `corrupted`, one each a sample; by mid-ranks.
/// `None` when there are no corrupted samples, or no others.
pub(super) fn area_under_curve(losses: &[f64], corrupted: &[bool]) -> Option<f64> {
    let mut samples: Vec<(f64, bool)> =
        losses.iter().copied().zip(corrupted.iter().copied()).collect();
    samples.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let positives = samples.iter().filter(|(_, corrupted)| *corrupted).count();
    let negatives = samples.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut rank_sum = 0.0;
    let mut before = 0;
    let tied = |(one, _): &(f64, bool), (other, _): &(f64, bool)| {
        one.partial_cmp(other) == Some(Ordering::Equal)
    };
    for ties in samples.chunk_by(tied) {
        let middle = before as f64 + (ties.len() + 1) as f64 / 2.0;
        rank_sum += middle * ties.iter().filter(|(_, corrupted)| *corrupted).count() as f64;
        before += ties.len();
    }
    let [positives, negatives] = [positives as f64, negatives as f64];
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference::{VECTORS, flags, numbers};
    use super::*;

    #[test]
    fn the_numbers_of_numpy() {
        for case in VECTORS["noise_detection"].as_array().unwrap() {
            let found = area_under_curve(&numbers(&case["losses"]), &flags(&case["corrupted"]));
            let expected = case["auc"].as_f64().unwrap();
            assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?} for {expected}");
        }
    }

    #[test]
    fn one_kind_of_label_says_nothing() {
        assert_eq!(area_under_curve(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(area_under_curve(&[1.0, 2.0], &[false, false]), None);
        assert_eq!(area_under_curve(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn it_is_the_share_of_pairs_in_the_right_order(
            samples in proptest::collection::vec((0u8..6, any::<bool>()), 0..40),
        ) {
            let losses: Vec<f64> = samples.iter().map(|(loss, _)| f64::from(*loss)).collect();
            let corrupted: Vec<bool> = samples.iter().map(|(_, corrupted)| *corrupted).collect();
            let mut pairs = 0.0;
            let mut ordered = 0.0;
            for (high, _) in samples.iter().filter(|(_, corrupted)| *corrupted) {
                for (low, _) in samples.iter().filter(|(_, corrupted)| !*corrupted) {
                    pairs += 1.0;
                    ordered += f64::from(high.cmp(low) as i8 + 1) / 2.0;
                }
            }
            match area_under_curve(&losses, &corrupted) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(area) => prop_assert!((area - ordered / pairs).abs() < 1e-12),
            }
        }
    }
}
