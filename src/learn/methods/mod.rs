//! The methods of training a classifier, one file or folder each, and the one list of them ([`of`]).
//!
//! A file reads from top to bottom like the algorithm box of its paper. What a method is, and what it is made from, is
//! in [`crate::training::method`].

pub mod co_teaching;
pub mod divide_mix;
mod early_learning;
pub mod elr;
pub mod elr_plus;
pub mod finetune;
pub mod forward_correction;
pub mod meta_weight_net;
pub mod sop;
pub mod truncated_loss;

use pipeline_stages::kinds::Method;

use crate::training::method::{Setup, TrainingMethod};

/// The method that a stage asks for, at its beginning.
///
/// # Errors
/// Those of the method: samples that it needs are missing, or libtorch cannot make its tensors.
pub fn of(setup: &mut Setup<'_>) -> anyhow::Result<Box<dyn TrainingMethod>> {
    Ok(match setup.recipe.parameters.method {
        Method::Finetune => Box::new(finetune::Finetune::new(setup)?),
        Method::MetaWeightNet => Box::new(meta_weight_net::MetaWeightNet::new(setup)?),
        Method::ForwardCorrection => Box::new(forward_correction::ForwardCorrection::new(setup)?),
        Method::Elr => Box::new(elr::Elr::new(setup)?),
        Method::Sop => Box::new(sop::Sop::new(setup)?),
        Method::CoTeaching => Box::new(co_teaching::CoTeaching::new(setup)?),
        Method::DivideMix => Box::new(divide_mix::DivideMix::new(setup)?),
        Method::ElrPlus => Box::new(elr_plus::ElrPlus::new(setup)?),
        Method::TruncatedLoss => Box::new(truncated_loss::TruncatedLoss::new(setup)?),
    })
}
