//! `purify-labels`: labels that the features of the samples suggest.

use std::ops::Bound;

use serde_json::{Map, Value};

use crate::clean_labels::CleanLabels;
use crate::kind::{Problem, Rules};
use crate::known::{Known, KnownInputs};
use crate::parameter::{AT_LEAST_ONE, POSITIVE};

choices! {
    /// How a label is found.
    pub enum Purifier {
        /// The most frequent label of the `k` nearest samples.
        NearestNeighbours,
        /// WANN: as many neighbours as it takes near the sample, each counting by its reliability.
        AdaptiveNearestNeighbours,
        /// Linear regression of the labels on the features.
        Linear,
    }
}

kind! {
    /// Corrects labels by the features of the samples: linear algebra, without training a network.
    ///
    /// The samples that train correct each other; held-out samples keep their labels. No sample votes for itself. With `nearest-neighbours`
    /// and `linear`, its own label has no influence on the one that is found for it; with `adaptive-nearest-neighbours` it has an indirect one (below), and with
    /// `uses-clean` a direct one. The clean labels of the samples that train are only compared with the result, in the metrics.
    /// Neighbours are those of the largest cosine between features; of classes with equal votes, the first wins.
    ///
    /// - `nearest-neighbours`: the confidence is the share of the neighbours that have the label.
    /// - `adaptive-nearest-neighbours`: WANN (Di Salvo et al., 2024, arXiv 2408.14358). The size k of a sample is the first of
    ///   `k-min`, `k-min` + 2, ... below `k-max` for which its label is the most frequent one of its k nearest neighbours, else `k-max`; its reliability
    ///   is 1/k. As many neighbours as the size of the nearest one says vote, each by its reliability. As the sample can be a neighbour
    ///   of these, its own label can change their sizes and reliabilities, but not what they vote for. The confidence is the share of
    ///   the votes. The published code compares standardised features by their distance instead, and of classes with equal votes takes the one
    ///   whose voter is nearest.
    /// - `linear`: ridge regression of the labels, as one-hot vectors, on the features; each sample is predicted by the regression
    ///   without it, and the class with the largest value wins, whose value is the confidence, from 0 to 1. With `uses-clean`, labels are soft
    ///   and move by Adam so that the regression of them predicts the held-out samples, by their cross-entropy and squared errors, and its
    ///   prediction is the result: the linear algebra of DMLP (Tu et al., 2023, arXiv 2302.06810), without its penalty for unequal classes, and
    ///   with this prediction in place of its second corrector.
    ///
    /// With `share`, only those samples take their label that it is surest of: by their confidence, with `linear` also where the value
    /// is not from 0 to 1, and of equally sure ones by their place in the data set: if that is ordered by class, those of its first classes. With few neighbours, many samples are equally sure. A correction is wrong in the same way for
    /// samples that are alike, which a network learns; where it is sure, it is wrong less often.
    ///
    /// # Output
    ///
    /// It is taken wherever that of `corrupt-labels` is. `labels.safetensors` has, for the N samples of the training part,
    /// `labels`, `clean` and `given` (before), i64 `[N]`, and `confidence`, f32 `[N]`: that of the label that was found, also where a sample keeps its own because of
    /// `share`; 1 for held-out samples. `noise.json` compares the
    /// result with the clean labels, and `purification.json` says how it was made and whether clean labels were used. The metrics are
    ///
    /// - `changed-labels` of `samples`;
    /// - `mean-confidence`;
    /// - `clean-samples-used`;
    /// - `label-accuracy-before` and `label-accuracy-after`, from 0 to 1, with `labels`: how many of them are clean.
    PurifyLabels = "purify-labels", version 1, seeded false, output Labels;
    ports {
        /// The features of the samples.
        features: One[Features];
        /// The labels to correct. Without it: the data set's own, of which nothing is known to compare with.
        labels: Optional[Labels];
        /// Which samples are corrected. Without it: all training samples.
        split: Optional[Split];
    }
    parameters {
        /// How a label is found.
        method: Purifier = Purifier::AdaptiveNearestNeighbours;
        /// The share of the samples that take the label that is found: those that are surest. The others keep
        /// theirs. Without it: all take it.
        share: Option<f64> = None, in (Bound::Excluded(0.0), Bound::Included(1.0));
    }
    only if (method: [Purifier::NearestNeighbours]) {
        /// How many neighbours vote.
        k: u64 = 100, in AT_LEAST_ONE;
    }
    only if (method: [Purifier::AdaptiveNearestNeighbours]) {
        /// The fewest neighbours that vote: at most `k-max`.
        k_min: u64 = 11, in AT_LEAST_ONE;
        /// The most neighbours that vote.
        k_max: u64 = 51, in AT_LEAST_ONE;
    }
    only if (method: [Purifier::Linear]) {
        /// The penalty of the regression, as a share of the mean variance of a feature.
        ridge: f64 = 1e-2, in POSITIVE;
        /// Whether the held-out samples of the split, whose labels are clean, are used. Needs `split`.
        uses_clean: bool = false;
    }
    only if (method: [Purifier::Linear], uses_clean: [true]) {
        /// How often the labels move.
        steps: u32 = 100, in AT_LEAST_ONE;
        /// How far a label moves in a step.
        learning_rate: f64 = 0.01, in POSITIVE;
    }
    execution {}
    headline ["changed-labels", "label-accuracy-before", "label-accuracy-after", "clean-samples-used"]
}

impl PurifyLabels {
    /// Whether clean labels of held-out samples decide.
    pub fn needs_clean(&self) -> bool {
        self.method == Purifier::Linear && self.uses_clean
    }

    /// Why neighbours would find about the same label for all of this many samples, at the parameter that says how many of them vote.
    pub fn neighbours_problem(&self, samples: u64) -> Option<Problem> {
        let (field, fewest) = match self.method {
            Purifier::NearestNeighbours => ("k", self.k),
            Purifier::AdaptiveNearestNeighbours => ("k-min", self.k_min),
            Purifier::Linear => return None,
        };
        let others = samples.saturating_sub(1);
        (fewest >= others).then(|| {
            let message = format!(
                "{field} = {fewest}, but {samples} samples train: all others would vote for each, and about all would get the same \
                 label; choose a '{field}' below the number of samples of a class"
            );
            Problem::new(field, message)
        })
    }

    /// Whether only some samples take the label that is found.
    fn is_for_some(&self) -> bool {
        self.share.is_some_and(|share| share < 1.0)
    }
}

impl Rules for PurifyLabels {
    fn clean_labels(&self, inputs: &KnownInputs) -> CleanLabels {
        match self.needs_clean() || inputs.learns_from_held_out() {
            true => CleanLabels::Decide,
            false => CleanLabels::Unused,
        }
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let known = ["features", "split"].map(|port| inputs.at(port).train_samples);
        let samples = known.into_iter().flatten().min();
        samples.and_then(|samples| self.neighbours_problem(samples)).into_iter().collect()
    }

    fn knows(&self, inputs: &KnownInputs) -> Known {
        let before = inputs.at("labels");
        let held_out_is_clean =
            before.held_out_is_clean.map(|is_clean| is_clean && inputs.has("split"));
        Known { held_out_is_clean, split: before.split, ..Known::default() }
    }

    fn version(&self) -> Option<u32> {
        // In version 1, values above 1 counted as equally sure, and so did those below 0.
        (self.method == Purifier::Linear && self.is_for_some()).then_some(2)
    }

    fn key_parameters(&self, mut all: Map<String, Value>) -> Map<String, Value> {
        // Without it, keys are those of versions that did not have it.
        if !self.is_for_some() {
            all.remove("share");
        }
        all
    }

    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.method == Purifier::AdaptiveNearestNeighbours && self.k_min > self.k_max {
            let message = format!("'k-min' is {}, more than 'k-max' ({})", self.k_min, self.k_max);
            problems.push(Problem::new("k-min", message));
        }
        if self.needs_clean() && !connected.contains(&"split") {
            let message = "the clean samples are those that a split holds out: connect 'split'";
            problems.push(Problem::new("uses-clean", message));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(parameters: Value, connected: &[&str]) -> Vec<String> {
        let stage: PurifyLabels = serde_json::from_value(parameters).unwrap();
        stage.check(connected).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_share_is_in_the_key_where_some_keep_their_labels() {
        let key = |parameters: Value| {
            crate::kind::key_parameters(
                &serde_json::from_value::<PurifyLabels>(parameters).unwrap(),
            )
        };
        assert_eq!(key(json!({"share": 1.0})), key(json!({})));
        assert_eq!(key(json!({"share": 0.5}))["share"], json!(0.5));
    }

    #[test]
    fn only_a_regression_for_some_has_a_newer_version() {
        for (method, share, version) in [
            ("linear", json!(0.5), Some(2)),
            ("linear", json!(1.0), None),
            ("linear", json!(null), None),
            ("nearest-neighbours", json!(0.5), None),
            ("adaptive-nearest-neighbours", json!(0.5), None),
        ] {
            let stage = json!({"method": method, "share": share});
            let stage: PurifyLabels = serde_json::from_value(stage).unwrap();
            assert_eq!(stage.version(), version, "{method}, {share}");
        }
    }

    #[test]
    fn sizes_are_in_order() {
        assert_eq!(problems(json!({"k-min": 60}), &[]), ["k-min"]);
        assert!(problems(json!({"k-min": 51}), &[]).is_empty());
        assert!(problems(json!({"k-min": 60, "method": "linear"}), &[]).is_empty());
    }

    #[test]
    fn all_others_are_too_many_neighbours() {
        let known = |train_samples| Known { train_samples, ..Known::default() };
        for (parameters, features, split, field) in [
            (json!({"method": "nearest-neighbours"}), Some(100), None, Some("k")),
            (json!({"method": "nearest-neighbours"}), Some(101), None, Some("k")),
            (json!({"method": "nearest-neighbours"}), Some(102), None, None),
            (json!({"method": "nearest-neighbours"}), Some(5000), Some(90), Some("k")),
            (json!({"method": "nearest-neighbours"}), None, None, None),
            (json!({"k-max": 5000}), Some(5000), None, None),
            (json!({"k-min": 20}), Some(20), None, Some("k-min")),
            (json!({"method": "linear"}), Some(2), None, None),
        ] {
            let stage: PurifyLabels = serde_json::from_value(parameters.clone()).unwrap();
            let ports = [("features", features), ("split", split)];
            let inputs = ports.map(|(port, samples)| (port.to_owned(), known(samples)));
            let problems = stage.check_inputs(&KnownInputs::new(inputs));
            let found = problems.first().map(|problem| problem.field.as_str());
            assert_eq!(found, field, "{parameters} {problems:?}");
        }
    }

    #[test]
    fn clean_samples_come_from_a_split() {
        let linear = json!({"method": "linear", "uses-clean": true});
        assert_eq!(problems(linear.clone(), &["features"]), ["uses-clean"]);
        assert!(problems(linear.clone(), &["features", "split"]).is_empty());
        let uses = |parameters: Value| {
            let stage: PurifyLabels = serde_json::from_value(parameters).unwrap();
            stage.clean_labels(&KnownInputs::default()) == CleanLabels::Decide
        };
        assert!(uses(linear) && !uses(json!({"uses-clean": true})));
        assert!(problems(json!({"uses-clean": true}), &["features"]).is_empty());
    }

    #[test]
    fn held_out_labels_stay_what_they_are_where_a_split_holds_them_out() {
        let stage: PurifyLabels = serde_json::from_value(json!({})).unwrap();
        let labels = |held_out_is_clean| {
            ("labels".to_owned(), Known { held_out_is_clean, ..Known::default() })
        };
        let split = || ("split".to_owned(), Known::default());
        for (before, after) in [(Some(true), Some(true)), (Some(false), Some(false)), (None, None)]
        {
            let inputs = KnownInputs::new([labels(before), split()]);
            assert_eq!(stage.knows(&inputs).held_out_is_clean, after);
            assert_eq!(stage.clean_labels(&inputs), CleanLabels::Unused);
        }
        let of_all = KnownInputs::new([labels(Some(true))]);
        assert_eq!(stage.knows(&of_all).held_out_is_clean, Some(false));
        assert_eq!(stage.clean_labels(&of_all), CleanLabels::Decide, "clean labels vote");
    }
}
