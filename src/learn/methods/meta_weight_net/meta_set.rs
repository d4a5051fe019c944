//! Which samples a meta batch has. Does not depend on images or labels.

use std::collections::BTreeMap;

use crate::random::{Purpose, Stream};

/// The samples that meta batches are drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaSet {
    /// All of them.
    pub samples: Vec<u32>,
    /// How many samples a batch has, all different.
    pub batch_size: usize,
    /// Names the draws.
    pub seed: u64,
}

impl MetaSet {
    /// The meta batch of one step: drawn from all samples again for every step, without repetition within the
    /// batch, as the reference protocol does. Of fewer samples than a batch has, all.
    pub fn batch(&self, epoch: u32, step_of_epoch: u32) -> Vec<u32> {
        let Self { samples, batch_size, seed } = self;
        let mut stream = Stream::new(*seed, Purpose::MetaBatch, epoch, step_of_epoch);
        // The beginning of a shuffle in place, of a list that is too long to be copied every step: only what was
        // moved is written down.
        let mut moved = BTreeMap::new();
        let wanted = samples.len().min(*batch_size);
        let draw = |place: usize| {
            let left = u32::try_from(samples.len() - place).unwrap_or(u32::MAX);
            let other = place + stream.below(left) as usize;
            let now = |place| moved.get(&place).copied().unwrap_or(place);
            let (here, drawn) = (now(place), now(other));
            moved.insert(other, here);
            samples.get(drawn).copied()
        };
        (0..wanted).filter_map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(samples: impl IntoIterator<Item = u32>, batch_size: usize, seed: u64) -> MetaSet {
        MetaSet { samples: samples.into_iter().collect(), batch_size, seed }
    }

    #[test]
    fn every_step_has_a_batch_of_its_own_and_every_sample_its_turn() {
        let meta = set(100..150, 10, 7);
        let batches: Vec<_> = (0..100).map(|step| meta.batch(0, step)).collect();
        let different: BTreeSet<_> = batches.iter().collect();
        assert_eq!(different.len(), 100);
        assert_ne!(batches[0], meta.batch(1, 0));
        assert_ne!(batches[0], set(100..150, 10, 8).batch(0, 0));
        // 20 draws of each are expected, with a standard deviation of 4.
        for sample in meta.samples {
            let drawn = batches.iter().flatten().filter(|other| **other == sample).count();
            assert!((4..=36).contains(&drawn), "sample {sample}: {drawn} times");
        }
    }

    proptest! {
        #[test]
        fn a_batch_is_the_beginning_of_a_shuffle(count in 1u32..60, size in 1usize..70, step: u32) {
            let mut pool: Vec<u32> = (0..count).collect();
            let batch = set(pool.clone(), size, 1).batch(2, step);
            let mut stream = Stream::new(1, Purpose::MetaBatch, 2, step);
            for place in 0..batch.len() {
                pool.swap(place, place + stream.below(count - place as u32) as usize);
            }
            prop_assert_eq!(&batch[..], &pool[..batch.len()]);
        }

        #[test]
        fn a_batch_has_different_samples_of_the_set(count in 1u32..60, size in 1usize..70, step: u32) {
            let samples: Vec<u32> = (0..count).map(|index| index * 3).collect();
            let batch = set(samples.clone(), size, 1).batch(2, step);
            let different: BTreeSet<_> = batch.iter().collect();
            prop_assert_eq!(batch.len(), size.min(samples.len()));
            prop_assert_eq!(different.len(), batch.len());
            prop_assert!(batch.iter().all(|sample| samples.contains(sample)));
        }
    }
}
