//! Which samples a meta batch has. Does not depend on images or labels.

use std::collections::BTreeMap;

use pipeline_stages::kinds::MetaSamples;

use crate::random::{Purpose, Stream};

/// Where meta batches are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaDraw {
    /// From which samples, and with which labels.
    pub source: MetaSamples,
    /// How many samples a batch has, all different.
    pub batch_size: usize,
}

impl MetaDraw {
    /// The meta batch of one step: drawn from all of `samples` again for every step, without repetition within the
    /// batch, as the reference protocol does. Of fewer samples than a batch has, all.
    pub fn batch(&self, samples: &[u32], seed: u64, epoch: u32, step_of_epoch: u32) -> Vec<u32> {
        let mut stream = Stream::new(seed, Purpose::MetaBatch, epoch, step_of_epoch);
        // The beginning of a shuffle in place, of a list that is too long to be copied every step: only what was
        // moved is written down.
        let mut moved = BTreeMap::new();
        let wanted = self.batch_size.min(samples.len());
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

    fn draw(batch_size: usize) -> MetaDraw {
        MetaDraw { source: MetaSamples::HeldOut, batch_size }
    }

    #[test]
    fn every_step_has_a_batch_of_its_own_and_every_sample_its_turn() {
        let samples: Vec<u32> = (100..150).collect();
        let batches: Vec<_> = (0..100).map(|step| draw(10).batch(&samples, 7, 0, step)).collect();
        let different: BTreeSet<_> = batches.iter().collect();
        assert_eq!(different.len(), 100);
        assert_ne!(batches[0], draw(10).batch(&samples, 7, 1, 0));
        assert_ne!(batches[0], draw(10).batch(&samples, 8, 0, 0));
        // 20 draws of each are expected, with a standard deviation of 4.
        for sample in samples {
            let drawn = batches.iter().flatten().filter(|other| **other == sample).count();
            assert!((4..=36).contains(&drawn), "sample {sample}: {drawn} times");
        }
    }

    proptest! {
        #[test]
        fn a_batch_is_the_beginning_of_a_shuffle(count in 1u32..60, size in 1usize..70, step: u32) {
            let mut pool: Vec<u32> = (0..count).collect();
            let batch = draw(size).batch(&pool, 1, 2, step);
            let mut stream = Stream::new(1, Purpose::MetaBatch, 2, step);
            for place in 0..batch.len() {
                pool.swap(place, place + stream.below(count - place as u32) as usize);
            }
            prop_assert_eq!(&batch[..], &pool[..batch.len()]);
        }

        #[test]
        fn a_batch_has_different_samples_of_the_set(count in 1u32..60, size in 1usize..70, step: u32) {
            let samples: Vec<u32> = (0..count).map(|index| index * 3).collect();
            let batch = draw(size).batch(&samples, 1, 2, step);
            let different: BTreeSet<_> = batch.iter().collect();
            prop_assert_eq!(batch.len(), size.min(samples.len()));
            prop_assert_eq!(different.len(), batch.len());
            prop_assert!(batch.iter().all(|sample| samples.contains(sample)));
        }
    }
}
