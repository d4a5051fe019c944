//! What the paper is, and its equations. With p_i = softmax(f(x_i)) and targets t_i that are zero at the beginning:
//!
//! ```text
//! theta = optimizer step on mean_i l_i - <t_i, ln p_i>
//! t_i   = m t_i + (1 - m) p_i
//! ```

use tch::{Kind, Tensor};

use crate::training::batch::Batch;
use crate::training::loss::{SampleLoss, row_sums};
use crate::training::method::{Learner, Setup, StepOutput, TrainingMethod};

/// The method.
#[derive(Debug)]
pub struct Averaging {
    learner: Learner,
    loss: SampleLoss,
    /// t, float [N,K].
    targets: Tensor,
    /// m.
    momentum: f64,
}

impl Averaging {
    /// The method at its beginning.
    ///
    /// # Errors
    /// As [`Setup::learner`], and when the targets do not fit into memory.
    pub fn new(setup: &mut Setup<'_>) -> anyhow::Result<Self> {
        let parameters = &setup.recipe.parameters;
        Ok(Self {
            learner: setup.learner()?,
            loss: SampleLoss::of(parameters),
            targets: setup.per_sample("targets", &[i64::try_from(setup.classes)?])?,
            momentum: parameters.target_momentum,
        })
    }
}

impl TrainingMethod for Averaging {
    fn learners(&self) -> Vec<&Learner> {
        vec![&self.learner]
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        vec![&mut self.learner]
    }

    fn compute(&mut self, batch: &Batch, _others: &[Batch]) -> anyhow::Result<StepOutput> {
        let logits = self.learner.forward(&batch.all_views()?)?;
        let losses = batch.losses(|labels, _| self.loss.of_samples(&logits, labels))?;
        let targets = self.targets.f_index_select(0, &batch.samples)?;
        let log_softmax = logits.f_log_softmax(-1, Kind::Float)?;
        let agreements = row_sums(&batch.mixed(&targets)?.f_mul(&log_softmax)?)?;
        let logits = logits.f_detach()?;
        let seen = self.learner.unmixed(batch)?.unwrap_or(logits.shallow_clone());
        let targets = targets.f_lerp(&seen.f_softmax(-1, Kind::Float)?, 1.0 - self.momentum)?;
        let Learner { optimizer, .. } = &mut self.learner;
        optimizer.backward(&losses.f_sub(&agreements)?.f_mean(Kind::Float)?)?;
        optimizer.step()?;
        let _ = self.targets.f_index_copy_(0, &batch.samples, &targets)?;
        Ok(StepOutput { losses: losses.f_detach()?, logits, weights: None, extra: [].into() })
    }
}
