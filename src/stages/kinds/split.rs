//! `split`: a seeded hold-out of the training set.

use crate::kind::Rules;

crate::kind! {
    /// Holds training samples out, for validation and as the clean meta set.
    ///
    /// The draw is that of the reference protocol: PyTorch's `randperm(N)` from a CPU generator
    /// seeded with `seed`; the first N - holdout indices train, the rest is held out.
    Split = "split", version 1, seeded true, output Split;
    ports {
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// How many training samples are held out.
        holdout: u64 = 1000, in crate::parameter::AT_LEAST_ONE;
    }
    execution {}
    headline ["train-samples", "validation-samples"]
}

impl Rules for Split {}
