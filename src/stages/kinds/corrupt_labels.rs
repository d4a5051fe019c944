//! `corrupt-labels`: label noise, drawn as the reference protocol draws it.

use std::collections::BTreeMap;

use crate::kind::{Problem, Rules};

choices! {
    /// The shape of the noise matrix (rows: the true class).
    pub enum Noise {
        /// rate/K everywhere plus 1 - rate on the diagonal: the true class is among the targets.
        Symmetric,
        /// 1 - rate on the diagonal, rate on one other class, drawn for each row.
        Flip,
        /// 1 - rate on the diagonal, rate/2 on each of two other classes, drawn for each row.
        Flip2,
        /// 1 - rate on the diagonal, rate on the class that this one is mistaken for: CIFAR-10's and CIFAR-100's own pairs, or `pairs`.
        Asymmetric,
    }
}

crate::kind! {
    /// Corrupts training labels with a noise matrix.
    ///
    /// The draws are those of the reference protocol: NumPy's legacy generator (`seed`, `choice`),
    /// the matrix first, then one draw for each training sample in the order of the split. Held-out samples stay clean.
    /// The seed must fit in 32 bits, as NumPy's does. `noise.json` has the requested and the realised matrix.
    CorruptLabels = "corrupt-labels", version 1, seeded true, output Labels;
    ports {
        /// The data set.
        data: One[Dataset];
        /// Which samples to corrupt, in which order. Without it: all, from the first to the last.
        split: Optional[Split];
    }
    parameters {
        /// The shape of the noise matrix.
        noise: Noise = Noise::Symmetric;
        /// The noise rate.
        rate: f64, in crate::parameter::FRACTION;
        /// For `asymmetric` on other data sets: which class is mistaken for which, by name.
        pairs: BTreeMap<String, String> = BTreeMap::new();
    }
    execution {}
    headline ["noise-rate"]
}

impl Rules for CorruptLabels {
    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        if !self.pairs.is_empty() && self.noise != Noise::Asymmetric {
            return vec![Problem::new("pairs", "'pairs' goes with noise = \"asymmetric\" only")];
        }
        let with_itself = self.pairs.iter().filter(|(source, target)| source == target);
        with_itself
            .map(|(class, _)| Problem::new("pairs", format!("'{class}' is mistaken for itself")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pairs_go_with_asymmetric_noise_and_change_the_class() {
        for (noise, pairs, expected) in [
            ("asymmetric", json!({"cat": "dog"}), None),
            ("asymmetric", json!({"cat": "cat"}), Some("'cat' is mistaken for itself")),
            ("flip", json!({"cat": "dog"}), Some("'pairs' goes with noise = \"asymmetric\" only")),
        ] {
            let parameters = json!({"noise": noise, "rate": 0.4, "pairs": pairs});
            let stage: CorruptLabels = serde_json::from_value(parameters).unwrap();
            let found = stage.check(&[]).pop().map(|problem| problem.message);
            assert_eq!(found.as_deref(), expected);
        }
    }

    #[test]
    fn a_rate_is_needed() {
        let error = serde_json::from_value::<CorruptLabels>(json!({})).unwrap_err().to_string();
        assert_eq!(error, "missing 'rate'");
    }
}
