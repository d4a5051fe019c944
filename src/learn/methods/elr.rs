//! Early-learning regularization (Liu et al., "Early-learning regularization prevents memorization of noisy labels", NeurIPS
//! 2020): a network that has not learned the wrong labels yet says what is right; its earlier predictions become targets,
//! and a term keeps the network at them.
//!
//! With p_i = softmax(f(x_i)), each probability within 1e-4 and 1 - 1e-4, and targets t_i that are zero at the beginning:
//!
//! ```text
//! t_i   = beta t_i + (1 - beta) p_i / sum_k p_ik        p_i is a number here
//! theta = optimizer step on mean_i l_i + lambda mean_i ln(1 - <p_i, t_i>)
//! ```
//!
//! The paper's l_i is the cross-entropy; here it is the loss of the stage. ELR+ is a method of its own ([`elr_plus`](super::elr_plus)).
//!
//! With MixUp it is ELR+ with one network that is its own average: l_i is the mixed loss, p_i in the first line is of x_i not mixed, in a
//! pass that moves nothing, and t_i in the second line is mixed as x_i is.
//!
//! Measured, as in docs/results.md: 20 epochs of `resnet8-fast` from scratch on 4,500 images of Fashion-MNIST, three seeds, ± half of
//! a 95 % interval. Test accuracy at 50 % symmetric noise (lambda = 3): 83.1 ± 1.9 %, where cross-entropy has
//! 77.2 ± 1.9; at 80 % 65.2 ± 0.7 and 57.1 ± 2.5; at 90 % 36.4 ± 5.1 and 36.8 ± 11.2.
//! From SimCLR: 83.5 ± 1.2, 74.8 ± 3.6 and 52.4 ± 6.2, cross-entropy 81.0 ± 4.1, 74.4 ± 6.5 and 59.4 ± 6.7.
//! From SimCLR at 40 % asymmetric noise (beta = 0.9, lambda = 1): 79.1 ± 0.1 and 76.7 ± 1.0.

use tch::{Kind, Tensor};

use super::early_learning::{Targets, probabilities, regularizers};
use crate::training::batch::Batch;
use crate::training::loss::SampleLoss;
use crate::training::method::{Learner, Setup, StepOutput, TrainingMethod};

/// The method.
#[derive(Debug)]
pub struct Elr {
    learner: Learner,
    loss: SampleLoss,
    targets: Targets,
    /// lambda.
    regularization: f64,
}

impl Elr {
    /// The method at its beginning.
    ///
    /// # Errors
    /// As [`Setup::learner`], and when there is no memory for the targets.
    pub fn new(setup: &mut Setup<'_>) -> anyhow::Result<Self> {
        let parameters = &setup.recipe.parameters;
        Ok(Self {
            learner: setup.learner()?,
            loss: SampleLoss::of(parameters),
            targets: Targets::new("targets", setup)?,
            regularization: parameters.regularization,
        })
    }

    /// What the network is kept at, float [N,K].
    pub fn targets(&self) -> &Tensor {
        self.targets.all()
    }
}

impl TrainingMethod for Elr {
    fn learners(&self) -> Vec<&Learner> {
        vec![&self.learner]
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        vec![&mut self.learner]
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn compute(&mut self, batch: &Batch, _others: &[Batch]) -> anyhow::Result<StepOutput> {
        let logits = self.learner.forward(&batch.all_views()?)?;
        let losses = batch.losses(|labels, _| self.loss.of_samples(&logits, labels))?;
        let predictions = probabilities(&logits)?;
        let unmixed = self.learner.unmixed(batch)?;
        let unmixed = unmixed.map_or(Ok(predictions.shallow_clone()), |one| probabilities(&one))?;
        let targets = batch.mixed(&self.targets.move_towards(&batch.samples, &unmixed)?)?;
        let regularizers = regularizers(&predictions, &targets)?;
        let regularizer = regularizers.f_mean(Kind::Float)?.f_mul_scalar(self.regularization)?;
        let Learner { optimizer, .. } = &mut self.learner;
        optimizer.backward(&losses.f_mean(Kind::Float)?.f_add(&regularizer)?)?;
        optimizer.step()?;
        Ok(StepOutput {
            losses: losses.f_detach()?,
            logits: logits.f_detach()?,
            weights: None,
            extra: [("regularizer", regularizers.f_detach()?.f_sum(Kind::Double)?)].into(),
        })
    }

    fn sums(&self) -> &'static [&'static str] {
        &["regularizer"]
    }
}
