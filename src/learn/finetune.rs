//! Fine-tuning: encoder and classifier together, by the mean loss of the batch.
//!
//! ```text
//! l_i   = loss(f(x_i), y_i)
//! theta = optimizer step on mean_i l_i
//! ```

use tch::Kind;

use crate::supervised::fit::{Outcome, RobustMethod, Step};

/// The method without state.
#[derive(Debug)]
pub struct Finetune;

impl RobustMethod for Finetune {
    fn step(&mut self, step: &mut Step<'_>) -> anyhow::Result<Outcome> {
        let logits = step.forward()?;
        let losses = step.loss.of_samples(&logits, &step.batch.labels)?;
        let mean = losses.f_mean(Kind::Float)?;
        step.optimizer.backward(&mean)?;
        step.optimizer.step(step.learning_rate, step.at.step)?;
        Ok(Outcome {
            losses: losses.f_detach()?,
            logits: logits.f_detach()?,
            weights: None,
            extra: Vec::new(),
        })
    }
}
