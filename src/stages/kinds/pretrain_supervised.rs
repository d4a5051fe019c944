//! `pretrain-supervised`: an encoder from a classification of other images.

use super::architecture::Architecture;
use super::precision::Precision;
use super::train::{Augmentation, Normalise, Schedule, image_problems};
use crate::kind::{Problem, Rules, WithoutEffect};
use crate::known::{Known, KnownInputs};
use crate::parameter::{AT_LEAST_ONE, BELOW_ONE, NOT_NEGATIVE, POSITIVE};

choices! {
    /// Which network of the training becomes the artifact.
    pub enum Keep {
        /// The first one with the best accuracy on the test set; without a test set, the last one.
        BestOnTest,
        /// That of the last update, even if the training ended because the test accuracy fell.
        Last,
    }
}

kind! {
    /// Pre-trains an encoder by classifying labelled images, with SGD momentum 0.9 and cross-entropy.
    ///
    /// The defaults are the reference recipe for ImageNet32. The artifact holds the encoder
    /// (`weights.safetensors`), its classifier beside it (`classifier.safetensors`), the loss and the learning rate per epoch
    /// (`curves.csv`), the accuracy and the mean cross-entropy on the test set during training (`evaluations.csv`). As in the
    /// reference, the test set decides when the training ends and which network is kept: it should have
    /// other images than those that the encoder is for.
    PretrainSupervised = "pretrain-supervised", version 5, seeded true, output Weights;
    ports {
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// The encoder.
        architecture: Architecture = Architecture::Resnet50;
        /// Updates of the weights; a training may end within an epoch.
        ///
        /// The default is 100 epochs of ImageNet32: the reference asks for 500,000, but ends only after whole epochs.
        updates: u64 = 500_500, in AT_LEAST_ONE;
        /// Images per update.
        ///
        /// All of them, if there are fewer. One image left over at the end of an epoch joins the update before it.
        batch_size: u64 = 256, in AT_LEAST_ONE;
        /// The peak learning rate.
        learning_rate: f64 = 0.02, in POSITIVE;
        /// Weight decay, of all parameters: batch norm and biases too.
        weight_decay: f64 = 1e-3, in NOT_NEGATIVE;
        /// How the learning rate goes over the updates.
        schedule: Schedule = Schedule::Step;
        /// How a training image is changed before each use.
        augmentation: Augmentation = Augmentation::Flip;
        /// How pixels are scaled. `auto` is `dataset` here.
        normalise: Normalise = Normalise::Imagenet;
        /// The precision of the network's matrix products and convolutions.
        precision: Precision = Precision::F32;
        /// Updates between two evaluations on the test set. Without it: once an epoch. The last update always has one.
        evaluate_every: Option<u64> = None, in AT_LEAST_ONE;
        /// The training does not end early before this many updates.
        stop_after: u64 = 50_000;
        /// It ends when the test accuracy is this much below the best one; 1 is never.
        stop_drop: f64 = 0.1, in POSITIVE;
        /// Which weights the artifact holds.
        keep: Keep = Keep::BestOnTest;
    }
    only if (schedule: [Schedule::WarmupCosine]) {
        /// The share of the updates in which the learning rate rises linearly.
        warmup: f64 = 0.01, in BELOW_ONE;
    }
    only if (schedule: [Schedule::Step]) {
        /// Updates between two changes of the learning rate.
        step_every: u64 = 100_000, in AT_LEAST_ONE;
        /// The factor of each change.
        step_factor: f64 = 0.5, in POSITIVE;
    }
    execution {}
    headline ["test-accuracy"]
}

impl Rules for PretrainSupervised {
    fn version(&self) -> Option<u32> {
        self.precision.newer_than(5)
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        image_problems(&inputs.at("data"), self.normalise, self.augmentation)
    }

    fn without_effect(&self) -> Vec<WithoutEffect> {
        // An accuracy cannot fall by more than 1.
        let never_ends_early = self.stop_drop >= 1.0;
        let reason = "a 'stop-drop' of 1 or more, which never ends a training early";
        never_ends_early.then(|| WithoutEffect::with("stop-after", reason)).into_iter().collect()
    }

    fn knows(&self, inputs: &KnownInputs) -> Known {
        let channels = inputs.at("data").channels;
        Known { architecture: Some(self.architecture.into()), channels, ..Known::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kind;

    #[test]
    fn what_has_no_effect_is_not_in_the_key() {
        let key = |parameters: Value| {
            kind::key_parameters(&serde_json::from_value::<PretrainSupervised>(parameters).unwrap())
        };
        assert_eq!(key(json!({})), key(json!({"warmup": 0.5})));
        assert_ne!(key(json!({})), key(json!({"step-every": 7})));
        let linear = |every: u64| key(json!({"schedule": "linear", "step-every": every}));
        assert_eq!(linear(7), linear(8));
    }
}
