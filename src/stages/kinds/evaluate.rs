//! `evaluate`: how good a classifier is on the test set.

use crate::kind::Rules;

crate::kind! {
    /// Evaluates a classifier: accuracy, loss, per-class accuracy, confusion matrix.
    Evaluate = "evaluate", version 1, seeded false, output Metrics;
    ports {
        /// The classifier.
        model: One[Model];
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// Samples a step.
        batch_size: u64 = 500, in crate::parameter::AT_LEAST_ONE;
    }
    execution {}
    headline ["test-accuracy", "test-loss"]
}

impl Rules for Evaluate {}
