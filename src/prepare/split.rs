//! The body of `split`: a seeded hold-out, number for number that of the reference protocol, or the
//! data set's own.
//!
//! Draws the permutation of PyTorch. Does not depend on what the samples are.

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{DatasetInfo, Part, Samples, SplitIndices};
use pipeline_stages::kinds::{Split, SplitBy, SplitFrom};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::body::Body;
use crate::mersenne_twister::MersenneTwister;

impl Body for Split {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let data = context.input("data")?;
        let samples = Samples::open_any(data, Part::Train)?.labels.len();
        let aside = DatasetInfo::read(data)?.validation_samples;
        let indices = match (self.from, self.by) {
            (SplitFrom::ValFolder, _) => {
                ensure!(
                    aside > 0,
                    "this data set has no images in a folder val/: put some there, next to train/, or draw some, \
                     without 'from'"
                );
                set_aside(samples, aside)?
            }
            (SplitFrom::Train, SplitBy::Random) => {
                hold_out(samples.saturating_sub(aside), self.random_holdout(), context.seed)?
            }
            (SplitFrom::Train, SplitBy::Dataset) => set_aside(samples, aside)?,
        };
        indices.write(&context.output)?;
        Ok(Metrics::of_counts([
            ("train-samples", indices.train.len()),
            ("validation-samples", indices.validation.len()),
        ]))
    }
}

/// The first `samples - holdout` indices of a seeded permutation train, the rest is held out.
fn hold_out(samples: usize, holdout: u64, seed: u64) -> anyhow::Result<SplitIndices> {
    let train_samples = usize::try_from(holdout)
        .ok()
        .and_then(|holdout| samples.checked_sub(holdout))
        .filter(|&rest| rest > 0)
        .with_context(|| {
            format!(
                "holdout = {holdout} leaves nothing to train on: the data set has {samples} training samples"
            )
        })?;
    let mut train = torch_permutation(samples, seed)?;
    let validation = train.split_off(train_samples);
    Ok(SplitIndices { train, validation })
}

/// The last `validation` samples are held out.
fn set_aside(samples: usize, validation: usize) -> anyhow::Result<SplitIndices> {
    ensure!(
        validation > 0,
        "this data set does not set samples aside for validation: draw some with by = \"random\""
    );
    let train = samples.checked_sub(validation).filter(|&train| train > 0).with_context(|| {
        format!("the data set has {samples} training samples and {validation} of them for validation: it is damaged")
    })?;
    let (train, samples) = (train as i64, samples as i64);
    Ok(SplitIndices { train: (0..train).collect(), validation: (train..samples).collect() })
}

/// Above this length PyTorch draws 64-bit words instead.
const LONGEST_PERMUTATION: usize = (u32::MAX / 20) as usize;

/// `torch.randperm(length, generator=torch.Generator().manual_seed(seed))`, on the CPU.
///
/// A Fisher-Yates shuffle from the front: at `i`, swap with `i + word mod (length - i)`. PyTorch seeds
/// the Mersenne Twister with the low 32 bits of the seed.
fn torch_permutation(length: usize, seed: u64) -> anyhow::Result<Vec<i64>> {
    ensure!(
        length < LONGEST_PERMUTATION,
        "'split' can draw from fewer than {LONGEST_PERMUTATION} samples; the data set has {length}"
    );
    let mut generator = MersenneTwister::new((seed & 0xffff_ffff) as u32);
    let mut permutation: Vec<i64> = (0..length as i64).collect();
    for index in 0..length.saturating_sub(1) {
        let offset = generator.next_word() as usize % (length - index);
        permutation.swap(index, index + offset);
    }
    Ok(permutation)
}

#[cfg(test)]
mod tests {
    use pipeline_stages::formats::read_json;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::reference::{digest, reference_path};

    #[derive(Deserialize)]
    struct Case {
        seed: u64,
        length: usize,
        first: Vec<i64>,
        sha256: String,
    }

    #[test]
    fn permutations_are_those_of_torch() {
        let cases: Vec<Case> = read_json(&reference_path("torch_randperm.json")).unwrap();
        assert!(cases.len() >= 10);
        for case in cases {
            let drawn = torch_permutation(case.length, case.seed).unwrap();
            let name = format!("randperm({}) with seed {}", case.length, case.seed);
            assert_eq!(drawn[..case.first.len()], case.first, "{name}");
            assert_eq!(digest(&drawn), case.sha256, "{name}");
        }
    }

    #[test]
    fn a_holdout_of_everything_is_an_error() {
        for holdout in [10, 11, u64::MAX] {
            let error = hold_out(10, holdout, 1).unwrap_err().to_string();
            assert!(error.contains("leaves nothing to train on"), "{error}");
            assert!(error.contains("10 training samples"), "{error}");
        }
        assert_eq!(hold_out(10, 9, 1).unwrap().train.len(), 1);
    }

    #[test]
    fn the_data_set_can_choose_who_is_held_out() {
        let split = set_aside(5, 2).unwrap();
        assert_eq!((split.train, split.validation), (vec![0, 1, 2], vec![3, 4]));
        let error = set_aside(5, 0).unwrap_err().to_string();
        assert!(error.contains("does not set samples aside") && error.contains("by = \"random\""));
        for validation in [5, 6] {
            assert!(set_aside(5, validation).unwrap_err().to_string().contains("damaged"));
        }
    }

    proptest! {
        #[test]
        fn every_sample_is_on_one_side(samples in 2_usize..500, share in 0.0..1.0_f64, seed: u64) {
            let holdout = 1 + ((samples - 2) as f64 * share) as u64;
            let split = hold_out(samples, holdout, seed).unwrap();
            prop_assert_eq!(split.validation.len() as u64, holdout);
            let mut all = [split.train, split.validation].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..samples as i64).collect::<Vec<_>>());
        }
    }
}
