//! How a classifier is trained: the parameters of `train`, and what other kinds that train one do otherwise.

use pipeline_stages::kinds::{Method, SelectBest, Train};

use super::decay;

/// How a classifier is trained.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Those of a stage `train`. Of another kind those that it has too, and the defaults of `train` for the others.
    pub parameters: Train,
    /// How long it trains.
    pub length: Length,
    /// Whether a parameter of this name is decayed.
    pub decays: fn(&str) -> bool,
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
            length: Length::Epochs(parameters.epochs),
            decays: decay::supervised,
            early_end: None,
            chosen: match parameters.select_best {
                SelectBest::Last => Chosen::Last,
                SelectBest::Validation => Chosen::BestOnValidation,
                SelectBest::Average => Chosen::MeanOfLast(parameters.average_epochs),
            },
            parameters: parameters.clone(),
        }
    }

    /// The alpha of MixUp, where the images of a step are mixed.
    pub fn mixup(&self) -> Option<f64> {
        match self.parameters.method {
            // It mixes what it guessed.
            Method::DivideMix => None,
            method => method.mixup(self.parameters.mixup),
        }
    }
}
