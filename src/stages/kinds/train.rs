//! `train`: a classifier on (noisy) labels.

use super::architecture::Architecture;
use crate::kind::Rules;
use crate::parameter::{AT_LEAST_ONE, BELOW_ONE, NOT_NEGATIVE, POSITIVE};

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

choices! {
    /// What moves the weights.
    pub enum Optimizer {
        /// SGD with momentum.
        Sgd,
        /// Adam with betas 0.9 and 0.999.
        Adam,
    }
}

choices! {
    /// How the learning rate goes over the steps.
    pub enum Schedule {
        /// A linear rise over the share `warmup` of the steps, then half a cosine to zero.
        WarmupCosine,
        /// Falls linearly to zero.
        Linear,
        /// Stays.
        Constant,
        /// Multiplied by `step-factor` every `step-every` steps.
        Step,
    }
}

choices! {
    /// How a training image is changed before each use.
    pub enum Augmentation {
        /// Not at all.
        None,
        /// Flipped left to right, half of the time.
        Flip,
        /// Padded by 4 pixels (reflected) and cropped back at random, then flipped half of the time.
        CropFlip,
    }
}

choices! {
    /// How pixels are scaled. `model.json` says what was used, and evaluation does the same.
    pub enum Normalise {
        /// As the initial encoder was trained; from scratch as `dataset`.
        Auto,
        /// To [0, 1], and no more.
        None,
        /// To [0, 1], then by the mean and the deviation of the training images, per channel.
        Dataset,
    }
}

crate::kind! {
    /// Trains a classifier, from scratch or from pre-trained weights.
    ///
    /// The model is that of the last step, as in the reference protocol. Both its validation
    /// accuracy and the best one seen on the way are reported. Accuracies are fractions from 0 to 1.
    /// `curves.csv` has a row per epoch: the loss, the training accuracy against the labels trained on
    /// and against the clean ones, and the validation accuracy; NaN where it is not known.
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
        /// The q of the generalized cross-entropy; towards 0 it becomes cross-entropy, at 1 half the mean absolute error.
        q: f64 = 0.5, in (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(1.0));
        /// Passes over the training samples.
        epochs: u64 = 120, in AT_LEAST_ONE;
        /// Samples a step.
        batch_size: u64 = 100, in AT_LEAST_ONE;
        /// What moves the weights.
        optimizer: Optimizer = Optimizer::Sgd;
        /// The momentum of SGD.
        momentum: f64 = 0.9, in BELOW_ONE;
        /// The peak learning rate.
        learning_rate: f64 = 0.01, in POSITIVE;
        /// Weight decay; not on parameters with `bn` in their name.
        weight_decay: f64 = 1e-4, in NOT_NEGATIVE;
        /// How the learning rate goes over the steps.
        schedule: Schedule = Schedule::WarmupCosine;
        /// The share of the steps in which the learning rate of `warmup-cosine` rises linearly.
        warmup: f64 = 0.01, in BELOW_ONE;
        /// Steps between two changes of the learning rate of `step`.
        step_every: u64 = 40_000, in AT_LEAST_ONE;
        /// What `step` multiplies the learning rate by.
        step_factor: f64 = 0.5, in POSITIVE;
        /// How a training image is changed before each use.
        augmentation: Augmentation = Augmentation::Flip;
        /// How pixels are scaled.
        normalise: Normalise = Normalise::Auto;
        /// Epochs between two validations. The last epoch always has one.
        validate_every: u64 = 1, in AT_LEAST_ONE;
    }
    execution {}
    headline ["validation-accuracy"]
}

impl Rules for Train {}
