//! `evaluate`: how good a classifier is.

use crate::clean_labels::CleanLabels;
use crate::kind::{Kind, Problem, Rules};
use crate::known::{Images, Known, KnownInputs, KnownMetrics, differing};

kind! {
    /// Evaluates a classifier: accuracies, loss, calibration, and whether its losses detect wrong labels.
    ///
    /// The network computes in f32, regardless of the precision of its training.
    ///
    /// # Output
    ///
    /// Accuracies are fractions from 0 to 1. What is not known is left out. `metrics.json` has
    ///
    /// - `test-accuracy`: on the test set, of the model as it is: that of its last step, if `train` chose no other one;
    /// - `test-accuracy-at-best-validation`: that of the first step with the best validation accuracy;
    /// - `best-test-accuracy-chosen-on-test`: the best of all evaluations during training. It is chosen on
    ///   the test set, so it is too optimistic: only for comparison with papers that report it.
    ///   This and the one before come from the model's `evaluations.csv`, which `train` writes while
    ///   `track-test` is true; they are of the data set that it was trained on;
    /// - `test-top5-accuracy`: the true class is among the five likeliest, with more than five classes;
    /// - `test-accuracy/CLASS`, for every class that has test samples;
    /// - `test-loss`: the mean cross-entropy;
    /// - `test-ece`: the expected calibration error: the mean difference between confidence and accuracy over
    ///   15 equally wide bins of confidence, weighted by their samples (Guo et al., 2017);
    /// - `noise-detection-auc`, with `labels`: how well the loss of a training sample under its given label
    ///   predicts whether that label is wrong: the area under the ROC curve, 1 for perfectly, 0.5 for not at all.
    ///   Left out when no label is wrong, or all are.
    ///
    /// `confusion.csv` counts samples, a row per true class, a column per predicted class.
    /// `reliability.csv` has a row per bin of confidence: its samples, their mean confidence, their accuracy;
    /// NaN in a bin without samples.
    ///
    /// `predictions.safetensors` has every prediction, for the test set and, with `labels`, for the training samples that
    /// count. For N samples and K classes, with `test.` or `train.` before each name:
    ///
    /// - `index`, i64 `[N]`: the place of the sample in this part of the data set, from 0;
    /// - `logits`, f32 `[N,K]`: the outputs of the network, before the softmax;
    /// - `predicted`, i64 `[N]`: the class with the largest logit;
    /// - `label-clean`, i64 `[N]`, and `loss-clean`, f64 `[N]`: the label of the data set, and the cross-entropy
    ///   under it, in nats;
    /// - `label-given` and `loss-given`, in `train` only: the same for the label that was trained on.
    ///
    /// Python reads it with `safetensors.numpy.load_file`. It takes at most 4 K + 48 bytes a sample.
    Evaluate = "evaluate", version 6, seeded false, output Metrics;
    ports {
        /// The classifier.
        model: One[Model];
        /// The data set.
        data: One[Dataset];
        /// The labels of the training samples, right and wrong, for `noise-detection-auc`.
        labels: Optional[Labels];
        /// Which training samples count for `noise-detection-auc`: those that train. Without it: all.
        split: Optional[Split];
    }
    parameters {
        /// Samples per step. Without it: 500, fewer for images larger than 64 pixels.
        batch_size: Option<u64> = None, in crate::parameter::AT_LEAST_ONE;
    }
    execution {}
    headline ["test-accuracy", "test-loss"]
}

impl Evaluate {
    /// The metric whose step is chosen by the samples held out.
    pub const AT_BEST_VALIDATION: &str = "test-accuracy-at-best-validation";

    /// All that it may write.
    pub const METRICS: KnownMetrics = KnownMetrics {
        kind: <Self as Kind>::NAME,
        names: &[
            "test-accuracy",
            Self::AT_BEST_VALIDATION,
            "best-test-accuracy-chosen-on-test",
            "test-top5-accuracy",
            "test-accuracy/",
            "test-loss",
            "test-ece",
            "noise-detection-auc",
        ],
    };
}

impl Rules for Evaluate {
    // Of the training it reads the best step. With the labels it only compares.
    fn inherits_clean_labels(&self, port: &str, of_input: CleanLabels) -> CleanLabels {
        match port {
            "labels" | "split" => CleanLabels::Unused,
            _ => of_input,
        }
    }

    fn knows(&self, _inputs: &KnownInputs) -> Known {
        Known { metrics: Some(Self::METRICS), ..Known::default() }
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let (data, model) = (inputs.at("data"), inputs.at("model"));
        let mut problems = Vec::new();
        if let Some((of_model, own)) = differing(model.classes, data.classes) {
            let message = format!("the model has {of_model} classes, but the data set has {own}");
            problems.push(Problem::new("data", message));
        }
        if let Some((of_model, own)) = differing(model.channels, data.channels) {
            let message = format!(
                "the model takes images with {of_model} channels, but the data set has {own}"
            );
            problems.push(Problem::new("data", message));
        }
        if (model.images, data.images) == (Some(Images::Pixels), Some(Images::Encoded)) {
            let message = "the model takes images as they are, and those of this data set are encoded, \
                           of any size: train the model with 'image-size', or use a data set of pixels";
            problems.push(Problem::new("data", message));
        } else if let Some((of_model, own)) = differing(model.image_size, data.image_size) {
            let message = format!(
                "the model takes images of {of_model} pixels as they are, and those of this data set have {own}: \
                 train the model with 'image-size', or give it images of its size"
            );
            problems.push(Problem::new("data", message));
        }
        problems
    }

    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        if connected.contains(&"split") && !connected.contains(&"labels") {
            let message = "'split' chooses which labels count for noise-detection-auc: connect \
                           'labels' too, or drop 'split'";
            return vec![Problem::new("split", message)];
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_goes_with_labels() {
        let stage: Evaluate = serde_json::from_value(serde_json::json!({})).unwrap();
        assert_eq!(stage.check(&["model", "data", "split"]).len(), 1);
        assert!(stage.check(&["model", "data", "split", "labels"]).is_empty());
        assert!(stage.check(&["model", "data"]).is_empty());
    }
}
