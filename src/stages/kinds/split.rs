//! `split`: which training samples train, and which are held out.

use crate::kind::{Problem, Rules, WithoutEffect};
use crate::known::{Known, KnownInputs};

choices! {
    /// Who decides which samples are held out.
    pub enum SplitBy {
        /// A seeded draw.
        Random,
        /// The data set: the samples that it sets aside for validation, as Clothing1M does.
        Dataset,
    }
}

choices! {
    /// Where the samples come from that are held out.
    pub enum SplitFrom {
        /// From the training samples.
        Train,
        /// From the folder `val/` beside `train/`, of an `image-folder`: all of its images.
        ValFolder,
    }
}

kind! {
    /// Holds training samples out, for validation and as the clean meta set.
    ///
    /// The random draw is that of the reference protocol: PyTorch's `randperm(N)` from a CPU generator
    /// seeded with `seed`; the first N - holdout indices train, the rest is held out. N does not count samples
    /// that the data set itself sets aside; those are in no random split.
    Split = "split", version 2, seeded true, output Split;
    ports {
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// Where the samples come from that are held out.
        from: SplitFrom = SplitFrom::Train;
    }
    only if (from: [SplitFrom::Train]) {
        /// Who decides which samples are held out.
        by: SplitBy = SplitBy::Random;
    }
    only if (from: [SplitFrom::Train], by: [SplitBy::Random]) {
        /// How many training samples are held out. By default 1000.
        holdout: Option<u64> = None, in crate::parameter::AT_LEAST_ONE;
    }
    execution {}
    headline ["train-samples", "validation-samples"]
}

impl Split {
    /// What the reference protocol holds out.
    const DEFAULT_HOLDOUT: u64 = 1000;

    /// How many training samples a random split holds out.
    pub fn random_holdout(&self) -> u64 {
        self.holdout.unwrap_or(Self::DEFAULT_HOLDOUT)
    }

    fn draws_at_random(&self) -> bool {
        self.from == SplitFrom::Train && self.by == SplitBy::Random
    }
}

impl Rules for Split {
    fn knows(&self, inputs: &KnownInputs) -> Known {
        let held_out_is_clean = (!self.draws_at_random()).then_some(true);
        let holdout = if self.draws_at_random() { self.random_holdout() } else { 0 };
        let train_samples = inputs.at("data").train_samples;
        let train_samples = train_samples
            .and_then(|samples| samples.checked_sub(holdout))
            .filter(|samples| *samples > 0);
        Known { held_out_is_clean, train_samples, ..Known::default() }
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let holdout = self.random_holdout();
        let samples = inputs.at("data").train_samples;
        let too_few = samples.filter(|samples| self.draws_at_random() && *samples <= holdout);
        let problem = |samples| {
            let message = format!(
                "holdout = {holdout} leaves nothing to train on: the data set has {samples} training samples"
            );
            Problem::new("holdout", message)
        };
        too_few.map(problem).into_iter().collect()
    }

    fn without_effect(&self) -> Vec<WithoutEffect> {
        let seed = match (self.from, self.by) {
            (SplitFrom::Train, SplitBy::Random) => return Vec::new(),
            (SplitFrom::Train, by) => WithoutEffect::unless("seed", "by", by, &[SplitBy::Random]),
            (from, _) => WithoutEffect::unless("seed", "from", from, &[SplitFrom::Train]),
        };
        vec![seed]
    }

    // Without `from` and `by` if they are the default: older keys do not have them.
    fn key_parameters(
        &self,
        mut all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        if self.from == SplitFrom::Train {
            all.remove("from");
        }
        if self.draws_at_random() {
            all.remove("by");
            all.insert("holdout".into(), self.random_holdout().into());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn split(parameters: Value) -> Split {
        serde_json::from_value(parameters).unwrap()
    }

    #[test]
    fn the_key_of_a_split_by_folder_has_no_other_parameters() {
        let from = json!({"from": "val-folder"});
        assert_eq!(Value::Object(crate::kind::key_parameters(&split(from.clone()))), from);
    }

    #[test]
    fn a_holdout_of_1000_is_the_default() {
        let key = |parameters| Value::Object(crate::kind::key_parameters(&split(parameters)));
        assert_eq!(key(json!({})), json!({"holdout": 1000}));
        assert_eq!(key(json!({})), key(json!({"by": "random", "holdout": 1000})));
        assert_eq!(key(json!({"by": "dataset"})), json!({"by": "dataset"}));
    }
}
