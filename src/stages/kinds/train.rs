//! `train`: a classifier on (noisy) labels.

use super::architecture::Architecture;
use crate::kind::Rules;
use crate::parameter::{AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE};

choices! {
    /// How a classifier is trained.
    pub enum Method {
        /// Encoder and classifier together, by the loss alone.
        Finetune,
    }
}

choices! {
    /// The loss of a sample.
    pub enum Loss {
        /// -ln p_y.
        CrossEntropy,
        /// (1 - p_y^q) / q, not truncated.
        GeneralizedCrossEntropy,
        /// The mean absolute error to the one-hot label: 2 (1 - p_y).
        Mae,
    }
}

crate::kind! {
    /// Trains a classifier, from scratch or from pre-trained weights.
    Train = "train", version 1, seeded true, output Model;
    ports {
        /// The data set.
        data: One[Dataset];
        /// The labels to train on. Without it: the data set's own.
        labels: Optional[Labels];
        /// Which samples train and which validate. Without it: all train.
        split: Optional[Split];
        /// The encoder to start from. Without it: from scratch.
        init: Optional[Weights, Model];
    }
    parameters {
        /// How the classifier is trained.
        method: Method = Method::Finetune;
        /// The encoder.
        architecture: Architecture = Architecture::Resnet18;
        /// The loss of a sample.
        loss: Loss = Loss::CrossEntropy;
        /// The q of the generalized cross-entropy.
        q: f64 = 0.5, in crate::parameter::FRACTION;
        /// Passes over the training samples.
        epochs: u64 = 120, in AT_LEAST_ONE;
        /// Samples a step.
        batch_size: u64 = 100, in AT_LEAST_ONE;
        /// The peak learning rate.
        learning_rate: f64 = 0.01, in POSITIVE;
        /// Weight decay.
        weight_decay: f64 = 1e-4, in NOT_NEGATIVE;
        /// The share of the steps in which the learning rate rises linearly.
        warmup: f64 = 0.01, in FRACTION;
    }
    execution {}
    headline ["validation-accuracy"]
}

impl Rules for Train {}
