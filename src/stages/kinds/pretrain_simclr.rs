//! `pretrain-simclr`: contrastive pre-training of an encoder.

use super::architecture::Architecture;
use crate::kind::Rules;
use crate::parameter::{AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE};

crate::kind! {
    /// Pre-trains an encoder with SimCLR, on the training images without their labels.
    PretrainSimclr = "pretrain-simclr", version 1, seeded true, output Weights;
    ports {
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// The encoder.
        architecture: Architecture = Architecture::Resnet18;
        /// Passes over the training set.
        epochs: u64 = 1000, in AT_LEAST_ONE;
        /// Images a step; each gives two views.
        batch_size: u64 = 1024, in 2.0..;
        /// The temperature of the NT-Xent loss.
        temperature: f64 = 0.5, in POSITIVE;
        /// The peak learning rate.
        learning_rate: f64 = 4.0, in POSITIVE;
        /// Weight decay.
        weight_decay: f64 = 1e-6, in NOT_NEGATIVE;
        /// The share of the steps in which the learning rate rises linearly.
        warmup: f64 = 0.01, in FRACTION;
    }
    execution {}
    headline ["loss"]
}

impl Rules for PretrainSimclr {}
