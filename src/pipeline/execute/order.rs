//! In which order stages start: those of a higher priority first, then those with the longest way to the end of the run.
//!
//! Pure, and linear but for the sorting.

use std::cmp::Reverse;

/// What decides when a stage starts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Weight {
    /// What the user gave it.
    pub(crate) priority: i64,
    /// The seconds that it may take; `None` where no run is like it.
    pub(crate) seconds: Option<f64>,
}

/// The places of stages in the order in which they start. `readers` are, for each stage, the places of those that read it: each
/// comes after it. Among equals, the earlier place comes first.
///
/// A stage has the priority of the most urgent one that needs it. Its way is the seconds that it and the stages after it
/// take, one after the other, along the longest path, in whole seconds: chance decides about parts of them, and any stage counts
/// as one at least. Where the seconds of a stage are not known, the median of the others stands for them, so that without any it is
/// the number of stages.
pub(crate) fn order(weights: &[Weight], readers: &[Vec<usize>]) -> Vec<usize> {
    let unknown = median(weights.iter().filter_map(|weight| weight.seconds)).unwrap_or(1.0);
    let mut ways: Vec<(i64, f64)> = Vec::with_capacity(weights.len());
    ways.resize(weights.len(), (i64::MIN, 0.0));
    for (place, weight) in weights.iter().enumerate().rev() {
        let after = readers[place].iter().filter_map(|reader| ways.get(*reader));
        let (mut priority, mut longest) = (weight.priority, 0.0_f64);
        for (of_reader, way) in after {
            priority = priority.max(*of_reader);
            longest = longest.max(*way);
        }
        let own = weight.seconds.filter(|seconds| *seconds >= 0.0).unwrap_or(unknown);
        ways[place] = (priority, own.round().max(1.0) + longest);
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    // Stable: among equals the earlier one stays first.
    order.sort_by(|one, other| {
        let ((one, way), (other, other_way)) = (ways[*one], ways[*other]);
        Reverse(one).cmp(&Reverse(other)).then(other_way.total_cmp(&way))
    });
    order
}

fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.filter(|number| *number >= 0.0).collect();
    let middle = numbers.len() / 2;
    (!numbers.is_empty()).then(|| *numbers.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(seconds: &[Option<f64>]) -> Vec<Weight> {
        seconds.iter().map(|&seconds| Weight { priority: 0, seconds }).collect()
    }

    #[test]
    fn the_longest_way_comes_first() {
        // Two chains, 0 to 1 and 2 to 3 to 4, and 5 alone.
        let readers = [vec![1], vec![], vec![3], vec![4], vec![], vec![]];
        assert_eq!(order(&weights(&[None; 6]), &readers), [2, 0, 3, 1, 4, 5], "by depth");
        let seconds = [Some(1.0), Some(50.0), Some(2.0), Some(3.0), Some(4.0), Some(9.0)];
        assert_eq!(order(&weights(&seconds), &readers), [0, 1, 2, 5, 3, 4], "by seconds");
        // The last one is not known, and counts as the median.
        let seconds = [Some(1.0), Some(50.0), Some(7.0), Some(3.0), Some(8.0), None];
        assert_eq!(order(&weights(&seconds), &readers), [0, 1, 2, 3, 4, 5]);
        let seconds = [Some(0.3), Some(0.9), Some(1.4), Some(0.01), Some(0.02), Some(1.2)];
        assert_eq!(order(&weights(&seconds), &readers), [2, 0, 3, 1, 4, 5], "by chance");
        for odd in [f64::NAN, -1.0] {
            assert_eq!(order(&weights(&[Some(odd), Some(2.0)]), &[vec![], vec![]]), [0, 1]);
        }
        assert_eq!(order(&[], &[]), [0; 0]);
    }

    #[test]
    fn a_priority_goes_before_and_holds_for_what_is_needed() {
        let readers = [vec![], vec![2], vec![], vec![]];
        let with = |priority: [i64; 4]| {
            let weight = |priority| Weight { priority, seconds: Some(1.0) };
            order(&priority.map(weight), &readers)
        };
        assert_eq!(with([0, 0, 0, 0]), [1, 0, 2, 3]);
        assert_eq!(with([0, 0, 5, 0]), [1, 2, 0, 3], "its input is as urgent");
        assert_eq!(with([0, 0, 0, 1]), [3, 1, 0, 2]);
        assert_eq!(with([-1, 0, -5, 0]), [1, 3, 0, 2], "and the less urgent come last");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every stage is in the order once, and comes before those that read it: what it needs is at least as urgent and its way
        /// is longer.
        #[test]
        fn an_order_has_every_stage_before_its_readers(
            edges in proptest::collection::vec((0..12_usize, 0..12_usize), 0..40),
            given in proptest::collection::vec((-3..3_i64, proptest::option::of(0.1..9.0_f64)), 12),
        ) {
            let mut readers = vec![Vec::new(); 12];
            for (from, to) in edges.into_iter().filter(|(from, to)| from < to) {
                readers[from].push(to);
            }
            let weights: Vec<_> =
                given.into_iter().map(|(priority, seconds)| Weight { priority, seconds }).collect();
            let found = order(&weights, &readers);
            let mut at = [usize::MAX; 12];
            found.iter().enumerate().for_each(|(index, place)| at[*place] = index);
            prop_assert!(found.len() == 12 && at.iter().all(|place| *place < 12));
            for (place, readers) in readers.iter().enumerate() {
                prop_assert!(readers.iter().all(|reader| at[place] < at[*reader]));
            }
        }
    }
}
