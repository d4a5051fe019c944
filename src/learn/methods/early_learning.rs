//! What the two methods of early-learning regularization have in common ([`elr`](super::elr), [`elr_plus`](super::elr_plus)): the targets of the
//! samples, and the term that keeps a network at them.

use tch::{Kind, Tensor};

use crate::training::loss::row_sums;
use crate::training::method::Setup;

/// No probability is nearer to 0 or 1 than this.
const MARGIN: f64 = 1e-4;

/// What a network is kept at.
#[derive(Debug)]
pub struct Targets {
    /// t, float [N,K].
    targets: Tensor,
    /// beta.
    momentum: f64,
}

impl Targets {
    /// Those of all samples at the beginning, by this name in the checkpoints.
    ///
    /// # Errors
    /// As [`Setup::per_sample`].
    pub fn new(name: &str, setup: &mut Setup<'_>) -> anyhow::Result<Self> {
        let targets = setup.per_sample(name, &[i64::try_from(setup.classes)?])?;
        Ok(Self { targets, momentum: setup.recipe.parameters.target_momentum })
    }

    /// Of all samples, float [N,K].
    pub fn all(&self) -> &Tensor {
        &self.targets
    }

    /// Moves those of these samples, int64 [B], towards probabilities, float [B,K]. Returns them.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn move_towards(
        &mut self,
        samples: &Tensor,
        probabilities: &Tensor,
    ) -> anyhow::Result<Tensor> {
        let _no_gradients = tch::no_grad_guard();
        let shares = probabilities.f_div(&row_sums(probabilities)?.f_unsqueeze(1)?)?;
        let targets = self.targets.f_index_select(0, samples)?;
        let targets = targets.f_lerp(&shares, 1.0 - self.momentum)?;
        let _ = self.targets.f_index_copy_(0, samples, &targets)?;
        Ok(targets)
    }
}

/// The probabilities of logits, float [B,K], none too near to 0 or 1.
///
/// # Errors
/// When libtorch fails.
pub fn probabilities(logits: &Tensor) -> anyhow::Result<Tensor> {
    Ok(logits.f_softmax(-1, Kind::Float)?.f_clamp(MARGIN, 1.0 - MARGIN)?)
}

/// ln(1 - <p, t>) of each sample, float [B]: the lower, the more they agree. Probabilities and targets are float [B,K].
///
/// # Errors
/// When their shapes differ.
pub fn regularizers(probabilities: &Tensor, targets: &Tensor) -> anyhow::Result<Tensor> {
    let agreement = row_sums(&probabilities.f_mul(targets)?)?;
    Ok(agreement.f_neg()?.f_add_scalar(1.0)?.f_log()?)
}
