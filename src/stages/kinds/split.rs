//! `split`: which training samples train, and which are held out.

use crate::kind::Rules;

choices! {
    /// Who says which samples are held out.
    pub enum SplitBy {
        /// A seeded draw.
        Random,
        /// The data set: the samples that it sets aside for validation, as Clothing1M does.
        Dataset,
    }
}

crate::kind! {
    /// Holds training samples out, for validation and as the clean meta set.
    ///
    /// The random draw is that of the reference protocol: PyTorch's `randperm(N)` from a CPU generator
    /// seeded with `seed`; the first N - holdout indices train, the rest is held out.
    Split = "split", version 1, seeded true, output Split;
    ports {
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// Who says which samples are held out.
        by: SplitBy = SplitBy::Random;
    }
    only if (by: [SplitBy::Random]) {
        /// How many training samples are held out. By default 1000.
        holdout: Option<u64> = None, in crate::parameter::AT_LEAST_ONE;
    }
    execution {}
    headline ["train-samples", "validation-samples"]
}

impl Split {
    /// What the reference protocol holds out.
    const DEFAULT_HOLDOUT: u64 = 1000;

    /// How many training samples a random draw holds out.
    pub fn random_holdout(&self) -> u64 {
        self.holdout.unwrap_or(Self::DEFAULT_HOLDOUT)
    }
}

impl Rules for Split {
    // Without `by` where it is the default, as in keys from before there was a choice.
    fn key_parameters(
        &self,
        mut all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        if self.by == SplitBy::Random {
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
    fn a_holdout_of_1000_is_the_default() {
        let key = |parameters| Value::Object(crate::kind::key_parameters(&split(parameters)));
        assert_eq!(key(json!({})), json!({"holdout": 1000}));
        assert_eq!(key(json!({})), key(json!({"by": "random", "holdout": 1000})));
        assert_eq!(key(json!({"by": "dataset"})), json!({"by": "dataset"}));
    }
}
