//! `evaluate`: how good a classifier is on the test set.

use crate::kind::Rules;

crate::kind! {
    /// Evaluates a classifier on the test set: accuracy, loss, per-class accuracy, confusion matrix.
    ///
    /// Accuracies are fractions from 0 to 1. `metrics.json` has `test-accuracy`, `test-loss` (the mean
    /// cross-entropy) and `test-accuracy/CLASS` for every class that has test samples;
    /// `confusion.csv` counts samples, a row per true class, a column per predicted class.
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
