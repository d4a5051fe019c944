//! `corrupt-labels`: label noise, drawn as the reference protocol draws it.

use std::collections::BTreeMap;

use crate::kind::{Problem, Rules, WithoutEffect};
use crate::known::KnownInputs;

choices! {
    /// The shape of the noise matrix (rows: the true class), or another source of labels.
    pub enum Noise {
        /// rate/K everywhere plus 1 - rate on the diagonal: the true class is among the targets.
        Symmetric,
        /// 1 - rate on the diagonal, rate on one other class, drawn for each row.
        Flip,
        /// 1 - rate on the diagonal, rate/2 on each of two other classes, drawn for each row.
        Flip2,
        /// 1 - rate on the diagonal, rate on the class that this one is mistaken for: built-in pairs for CIFAR-10 and CIFAR-100, or `pairs`.
        Asymmetric,
        /// No matrix: human labels of the images of CIFAR-10 or CIFAR-100 (CIFAR-10N, CIFAR-100N), from the port `human`.
        Human,
    }
}

choices! {
    /// Which human labels to take.
    pub enum HumanLabels {
        /// CIFAR-10N: the majority of three people (9 % wrong).
        Aggregate,
        /// CIFAR-10N: a wrong label, if one of the three people chose one (40 % wrong).
        Worse,
        /// CIFAR-10N: the first person (17 % wrong).
        Random1,
        /// CIFAR-10N: the second person (18 % wrong).
        Random2,
        /// CIFAR-10N: the third person (18 % wrong).
        Random3,
        /// CIFAR-100N: the one person (40 % wrong).
        Noisy,
    }
}

kind! {
    /// Corrupts training labels with a noise matrix, or replaces them with human labels.
    ///
    /// The draws are those of the reference protocol: NumPy's legacy generator (`seed`, `choice`),
    /// the matrix first, then one draw for each training sample in the order of the split. Held-out samples stay clean.
    /// The seed must fit in 32 bits, as NumPy's does. `noise.json` has the requested and the realised matrix.
    CorruptLabels = "corrupt-labels", version 2, seeded true, output Labels;
    ports {
        /// The data set.
        data: One[Dataset];
        /// Which samples to corrupt, in which order. Without it: all, from the first to the last.
        split: Optional[Split];
        /// For `human`: `CIFAR-10_human.pt` or `CIFAR-100_human.pt`.
        human: Optional[File, Directory];
    }
    parameters {
        /// The shape of the noise matrix.
        noise: Noise = Noise::Symmetric;
    }
    only if (noise: [Noise::Symmetric, Noise::Flip, Noise::Flip2, Noise::Asymmetric]) {
        /// The noise rate. It must be given.
        rate: Option<f64> = None, in crate::parameter::FRACTION;
    }
    only if (noise: [Noise::Asymmetric]) {
        /// Which class is mistaken for which, by name. Needed on data sets other than CIFAR-10 and CIFAR-100.
        pairs: BTreeMap<String, String> = BTreeMap::new();
    }
    only if (noise: [Noise::Human]) {
        /// Whose labels to take. It must be given.
        human_labels: Option<HumanLabels> = None;
    }
    execution {}
    headline ["noise-rate"]
}

impl CorruptLabels {
    fn pair_problems(&self) -> Vec<Problem> {
        let with_itself = self.pairs.iter().filter(|(source, target)| source == target);
        with_itself
            .map(|(class, _)| Problem::new("pairs", format!("'{class}' is mistaken for itself")))
            .collect()
    }

    /// What human labels need, and other noises must not have.
    fn human_problems(&self, connected: &[&str]) -> Vec<Problem> {
        let file = connected.contains(&"human");
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: &str| problems.push(Problem::new(field, message));
        if self.noise == Noise::Human {
            if !file {
                problem(
                    "noise",
                    "noise = \"human\" needs the port 'human': connect it to a stage that produces \
                     CIFAR-10_human.pt or CIFAR-100_human.pt",
                );
            }
            if self.human_labels.is_none() {
                problem("human-labels", "noise = \"human\" needs 'human-labels': whose to take");
            }
        } else {
            if self.rate.is_none() {
                problem("rate", "a stage of the kind 'corrupt-labels' needs 'rate'");
            }
            if file {
                problem("human", "'human' is only for noise = \"human\"");
            }
        }
        problems
    }
}

impl Rules for CorruptLabels {
    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        let mut problems = self.pair_problems();
        problems.extend(self.human_problems(connected));
        problems
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let needs_pairs = self.noise == Noise::Asymmetric && self.pairs.is_empty();
        if needs_pairs && inputs.at("data").has_noise_pairs == Some(false) {
            let message = "noise = \"asymmetric\" needs 'pairs' on this data set: which class is \
                           mistaken for which, such as pairs = { cat = \"dog\" } (only CIFAR-10 and \
                           CIFAR-100 have pairs of their own)";
            return vec![Problem::new("noise", message)];
        }
        Vec::new()
    }

    fn without_effect(&self) -> Vec<WithoutEffect> {
        let drawn = [Noise::Symmetric, Noise::Flip, Noise::Flip2, Noise::Asymmetric];
        let seed = WithoutEffect::unless("seed", "noise", self.noise, &drawn);
        (self.noise == Noise::Human).then_some(seed).into_iter().collect()
    }

    // With `pairs` for any noise: keys had it before groups of parameters existed.
    fn key_parameters(
        &self,
        mut all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        all.retain(|_, value| !value.is_null());
        all.entry("pairs").or_insert_with(|| serde_json::json!({}));
        all
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
        ] {
            let parameters = json!({"noise": noise, "rate": 0.4, "pairs": pairs});
            let stage: CorruptLabels = serde_json::from_value(parameters).unwrap();
            let found = stage.check(&[]).pop().map(|problem| problem.message);
            assert_eq!(found.as_deref(), expected);
        }
    }

    #[test]
    fn a_rate_is_needed_except_for_human_labels() {
        let human = |rate| json!({"noise": "human", "human-labels": "worse", "rate": rate});
        for (parameters, connected, expected) in [
            (json!({"rate": 0.5}), &[][..], None),
            (json!({}), &[], Some(("rate", "needs 'rate'"))),
            (human(json!(null)), &["human"], None),
            (human(json!(null)), &[], Some(("noise", "needs the port 'human'"))),
            (json!({"noise": "human"}), &["human"], Some(("human-labels", "whose to take"))),
            (json!({"rate": 0.5}), &["human"], Some(("human", "only for noise = \"human\""))),
        ] {
            let stage: CorruptLabels = serde_json::from_value(parameters.clone()).unwrap();
            let problems = stage.check(connected);
            let found = problems.first().map(|problem| problem.field.as_str());
            assert_eq!(found, expected.map(|(field, _)| field), "{parameters} {problems:?}");
            if let (Some(problem), Some((_, words))) = (problems.first(), expected) {
                assert!(problem.message.contains(words), "{problem:?}");
            }
        }
    }

    #[test]
    fn the_key_has_what_the_noise_uses() {
        let stage: CorruptLabels = serde_json::from_value(json!({"rate": 0.5})).unwrap();
        let key = serde_json::Value::Object(crate::kind::key_parameters(&stage));
        assert_eq!(key, json!({"noise": "symmetric", "rate": 0.5, "pairs": {}}));
    }
}
