//! How a classifier is trained, and what it is shown: everything but the data themselves and the method.

use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{
    self, Augmentation, Normalise, Sampling, SelectBest, Train, ValidationLabels,
    ValidationTransform,
};

use super::decay;
use super::loss::SampleLoss;
use super::optimizer::Rule;
use super::schedule::Schedule;

/// What an encoder is shown, and how: in a training of a classifier, or frozen below a probe.
#[derive(Debug, Clone)]
pub struct DataRecipe {
    /// The port of the encoder that it starts from.
    pub init_port: &'static str,
    /// Samples a step.
    pub batch_size: u64,
    /// Which samples an epoch has.
    pub sampling: Sampling,
    /// How many samples an epoch has; as many as train where it is `None`.
    pub samples_per_epoch: Option<u64>,
    /// How a training image is changed.
    pub augmentation: Augmentation,
    /// The side of the images that the network sees; the data set's own where it is `None`.
    pub image_size: Option<u32>,
    /// How pixels are scaled.
    pub normalise: Normalise,
    /// How the samples held out are shown to an evaluation on the way.
    pub validation_transform: ValidationTransform,
    /// Which labels they are judged by there.
    pub validation_labels: ValidationLabels,
    /// Whether the test set is evaluated on the way.
    pub track_test: bool,
}

/// How a classifier is trained.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The encoder.
    pub architecture: Architecture,
    /// What it is shown.
    pub data: DataRecipe,
    /// The loss of a sample.
    pub loss: SampleLoss,
    /// Views of a sample in a step.
    pub views: u32,
    /// The alpha of MixUp, where images are mixed.
    pub mixup: Option<f64>,
    /// How long it trains.
    pub length: Length,
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
    /// The precision of large products.
    pub precision: Precision,
    /// Steps between two evaluations; once an epoch where it is `None`.
    pub evaluate_every: Option<u64>,
    /// Whether the loss of every sample in every epoch is recorded.
    pub sample_losses: bool,
    /// When the training ends early.
    pub early_end: Option<EarlyEnd>,
    /// Which of the networks on the way becomes the artifact.
    pub chosen: Chosen,
}

/// Which networks become the artifact: those after an evaluation, of equal ones after the first, or a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The last one.
    Last,
    /// The best one on the samples held out.
    BestOnValidation,
    /// The best one on the test set.
    BestOnTest,
    /// The mean of those after each of this many last epochs.
    MeanOfLast(u32),
}

/// How long a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// This many passes over the training samples.
    Epochs(u32),
    /// This many steps; it may end within an epoch.
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
            data: DataRecipe {
                init_port: "init",
                batch_size: parameters.batch_size,
                sampling: parameters.sampling,
                samples_per_epoch: parameters.samples_per_epoch,
                augmentation: parameters.augmentation,
                image_size: parameters.image_size,
                normalise: parameters.normalise,
                validation_transform: parameters.validation_transform,
                validation_labels: parameters.validation_labels,
                track_test: parameters.track_test,
            },
            loss: SampleLoss::of(parameters),
            views: match (parameters.method, parameters.loss) {
                (kinds::Method::Finetune, kinds::Loss::JensenShannon) => parameters.views,
                _ => 1,
            },
            mixup: match parameters.method {
                // It mixes what it guessed.
                kinds::Method::DivideMix => None,
                method => method.mixup(parameters.mixup),
            },
            length: Length::Epochs(parameters.epochs),
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
            precision: parameters.precision,
            evaluate_every: parameters.evaluate_every,
            sample_losses: parameters.sample_losses,
            early_end: None,
            chosen: match parameters.select_best {
                SelectBest::Last => Chosen::Last,
                SelectBest::Validation => Chosen::BestOnValidation,
                SelectBest::Average => Chosen::MeanOfLast(parameters.average_epochs),
            },
        }
    }
}
