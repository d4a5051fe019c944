//! Which samples of an epoch a network learns from with their labels, and which without. Does not depend on images or labels.

use crate::data::batches::{SampleSet, StepSamples, batch_count, cut};
use crate::data::mixing::Mixing;
use crate::random::{Purpose, Stream};

/// Each side of a division has as many samples, whatever is known of them.
const FEWEST: usize = 2;

/// The samples that one network takes as rightly labelled, and all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    /// Those that keep their labels.
    pub labelled: Vec<u32>,
    /// Those whose labels are not used.
    pub unlabelled: Vec<u32>,
}

impl Division {
    /// Of samples, each with the probability that its label is right: labelled are those above a threshold. There are at
    /// least two on each side: the likeliest, and the least likely ones.
    pub fn new(samples: &[(u32, f64)], above: f64) -> Self {
        let mut order = samples.to_vec();
        order.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let count = order.iter().take_while(|(_, probability)| *probability > above).count();
        let most = order.len().saturating_sub(FEWEST);
        let (labelled, unlabelled) = order.split_at(count.min(most).max(FEWEST.min(most)));
        let numbers = |side: &[(u32, f64)]| side.iter().map(|(sample, _)| *sample).collect();
        Self { labelled: numbers(labelled), unlabelled: numbers(unlabelled) }
    }
}

/// What the steps of an epoch are made by.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Samples of each side in a step.
    pub batch_size: usize,
    /// Of the distribution of the shares in which images are mixed, where they are.
    pub alpha: Option<f64>,
    /// Names all draws.
    pub seed: u64,
    /// The epoch.
    pub epoch: u32,
}

impl Steps {
    /// The steps of an epoch in which both networks learn, each from its division: the labelled samples of the first are
    /// trained on; others are its unlabelled ones, and the labelled and unlabelled ones of the second. All have two views.
    /// The labelled batches have the mixing of all views of both sides.
    ///
    /// There are enough steps for the labelled samples of both. The samples of a side that has fewer come again, in another order.
    /// No side may be empty.
    pub fn of(self, divisions: [Division; 2]) -> Vec<StepSamples> {
        let steps =
            divisions.each_ref().map(|one| batch_count(one.labelled.len(), self.batch_size));
        let steps = steps.into_iter().max().unwrap_or(0);
        let [first, second] = divisions;
        let pairs = |Division { labelled, unlabelled }, side: u32| {
            self.batches(labelled, side).zip(self.batches(unlabelled, side + 1))
        };
        let pairs = pairs(first, 0).zip(pairs(second, 2));
        let steps = (0u32..).zip(pairs.take(steps));
        let steps =
            steps.map(|(step, ((first, first_unlabelled), (second, second_unlabelled)))| {
                let [first, first_unlabelled] = self.sets(step, 0, [first, first_unlabelled]);
                let [second, second_unlabelled] = self.sets(step, 1, [second, second_unlabelled]);
                StepSamples {
                    train: first,
                    come_again: true,
                    others: vec![first_unlabelled, second, second_unlabelled],
                }
            });
        steps.collect()
    }

    /// The batches of the side of this number, again and again, each time in another order.
    fn batches(self, mut side: Vec<u32>, number: u32) -> impl Iterator<Item = Vec<u32>> {
        (number..).step_by(4).flat_map(move |index| {
            Stream::new(self.seed, Purpose::DivisionOrder, self.epoch, index).shuffle(&mut side);
            cut(&side, self.batch_size)
        })
    }

    /// The two sides of one network in a step.
    fn sets(self, step: u32, network: u32, sides: [Vec<u32>; 2]) -> [SampleSet; 2] {
        let rows = 2 * sides.iter().map(Vec::len).sum::<usize>();
        let mut stream = Stream::new(self.seed, Purpose::Mixing, self.epoch, step).of_view(network);
        let mixing = self.alpha.map(|alpha| Mixing::draw(&mut stream, alpha, rows));
        let [labelled, unlabelled] = sides.map(|side| SampleSet::of_views(side, 2));
        [SampleSet { mixing, ..labelled }, unlabelled]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn division(labelled: std::ops::Range<u32>, unlabelled: std::ops::Range<u32>) -> Division {
        Division { labelled: labelled.collect(), unlabelled: unlabelled.collect() }
    }

    #[test]
    fn every_labelled_sample_has_its_turn_in_every_epoch() {
        let steps = |epoch| {
            let steps = Steps { batch_size: 4, alpha: Some(4.0), seed: 3, epoch };
            steps.of([division(0..10, 10..20), division(0..17, 17..20)])
        };
        let epoch = steps(0);
        // 17 in batches of 4: the one that is left joins the batch before it.
        assert_eq!(epoch.len(), 4);
        assert_eq!(epoch, steps(0));
        assert_ne!(epoch[0], steps(1)[0]);
        let seen = |of: &dyn Fn(&StepSamples) -> &SampleSet| -> BTreeSet<u32> {
            epoch.iter().flat_map(|step| of(step).indices.clone()).collect()
        };
        assert_eq!(seen(&|step| &step.train), (0..10).collect());
        assert_eq!(seen(&|step| &step.others[0]), (10..20).collect());
        assert_eq!(seen(&|step| &step.others[1]), (0..17).collect());
        assert_eq!(seen(&|step| &step.others[2]), (17..20).collect());
        for StepSamples { train, come_again, others } in &epoch {
            assert!(*come_again);
            let [unlabelled, second, second_unlabelled] = &others[..] else { panic!("three") };
            for (labelled, unlabelled) in [(train, unlabelled), (second, second_unlabelled)] {
                let rows = 2 * (labelled.indices.len() + unlabelled.indices.len());
                assert_eq!(labelled.mixing.as_ref().unwrap().partners.len(), rows);
                assert!(
                    unlabelled.mixing.is_none() && labelled.views == 2 && unlabelled.views == 2
                );
            }
            let share = |set: &SampleSet| set.mixing.as_ref().unwrap().share;
            assert_ne!(share(train), share(second));
        }
        // Its ten samples have come once after two batches of 4 and the last of 2: then they come in another order.
        assert_ne!(epoch[3].train.indices, epoch[0].train.indices);
    }

    proptest! {
        #[test]
        fn a_division_is_by_the_threshold_but_for_empty_sides(
            probabilities in proptest::collection::vec(0.0f64..=1.0, 4..40), above in 0.0f64..1.0,
        ) {
            let samples: Vec<(u32, f64)> = (0u32..).zip(probabilities.iter().copied()).collect();
            let Division { labelled, unlabelled } = Division::new(&samples, above);
            let all: BTreeSet<u32> = labelled.iter().chain(&unlabelled).copied().collect();
            prop_assert_eq!(all.len(), samples.len());
            let of = |side: &[u32]| side.iter().map(|&one| probabilities[one as usize]).collect::<Vec<_>>();
            let (least, most) = (of(&labelled), of(&unlabelled));
            let least = least.into_iter().fold(1.0, f64::min);
            let most = most.into_iter().fold(0.0, f64::max);
            prop_assert!(least >= most);
            let right = probabilities.iter().filter(|one| **one > above).count();
            prop_assert_eq!(labelled.len(), right.clamp(2, samples.len() - 2));
        }
    }
}
