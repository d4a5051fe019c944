//! How a classifier is trained: everything but its data and its method.

use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{
    self, Augmentation, Keep, Normalise, Sampling, Train, ValidationTransform,
};

use super::decay;
use super::loss::SampleLoss;
use super::optimizer::Rule;
use super::schedule::Schedule;

/// Everything about a supervised training but its data.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The encoder.
    pub architecture: Architecture,
    /// The loss of a sample.
    pub loss: SampleLoss,
    /// How long it trains.
    pub length: Length,
    /// Samples a step.
    pub batch_size: u64,
    /// Which samples an epoch has.
    pub sampling: Sampling,
    /// How many samples an epoch has; as many as train where it is `None`.
    pub samples_per_epoch: Option<u64>,
    /// What moves the weights.
    pub rule: Rule,
    /// Weight decay, of the parameters that `decays` names.
    pub weight_decay: f64,
    /// Whether a parameter of this name is decayed.
    pub decays: fn(&str) -> bool,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// How the learning rate goes.
    pub schedule: Schedule,
    /// How a training image is changed.
    pub augmentation: Augmentation,
    /// The side of the images that the network sees; the data set's own where it is `None`.
    pub image_size: Option<u32>,
    /// The port of the encoder that it starts from.
    pub init_port: &'static str,
    /// How pixels are scaled.
    pub normalise: Normalise,
    /// The precision of large products.
    pub precision: Precision,
    /// How the samples held out are shown to an evaluation on the way.
    pub validation_transform: ValidationTransform,
    /// Steps between two evaluations; once an epoch where it is `None`.
    pub evaluate_every: Option<u64>,
    /// Whether the test set is evaluated on the way.
    pub track_test: bool,
    /// Whether the loss of every sample in every epoch is recorded.
    pub sample_losses: bool,
    /// When the training ends early.
    pub early_end: Option<EarlyEnd>,
    /// Which of the networks on the way becomes the artifact.
    pub keep: Keep,
}

/// How long a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many passes over the training samples.
    Epochs(u32),
    /// So many steps; it may end within an epoch.
    Steps(u64),
}

/// Ends a training whose accuracy falls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EarlyEnd {
    /// Not before this many steps.
    pub after: u64,
    /// When the accuracy on the test set is this much below the best.
    pub drop: f64,
}

impl Recipe {
    /// The recipe of a `train` stage.
    pub fn of(parameters: &Train) -> Self {
        Self {
            architecture: parameters.architecture,
            loss: SampleLoss::of(parameters.loss, parameters.q),
            length: Length::Epochs(parameters.epochs),
            batch_size: parameters.batch_size,
            sampling: parameters.sampling,
            samples_per_epoch: parameters.samples_per_epoch,
            rule: match parameters.optimizer {
                kinds::Optimizer::Sgd => Rule::Sgd { momentum: parameters.momentum },
                kinds::Optimizer::Adam => Rule::ADAM,
            },
            weight_decay: parameters.weight_decay,
            decays: decay::supervised,
            learning_rate: parameters.learning_rate,
            schedule: Schedule::of(
                parameters.schedule,
                parameters.warmup,
                parameters.step_every,
                parameters.step_factor,
            ),
            augmentation: parameters.augmentation,
            image_size: parameters.image_size,
            init_port: "init",
            normalise: parameters.normalise,
            precision: parameters.precision,
            validation_transform: parameters.validation_transform,
            evaluate_every: parameters.evaluate_every,
            track_test: parameters.track_test,
            sample_losses: parameters.sample_losses,
            early_end: None,
            keep: Keep::Last,
        }
    }
}
