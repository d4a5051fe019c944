//! Meta-Weight-Net (Shu et al., "Meta-Weight-Net: learning an explicit mapping for sample weighting", NeurIPS 2019, algorithm 1): a
//! small net V gives every sample a weight by its loss, and is trained so that a step on the weighted batch lowers the loss on meta samples.
//!
//! With the classifier's parameters theta, those of V phi, the sample losses l_i(theta) on a batch of n, and the shares
//! s_i = v_i / n, or v_i / sum_j v_j when weights are normalised:
//!
//! ```text
//! v_i    = V_phi(l_i)                                  l_i is a number to V
//! theta' = theta - alpha grad_theta sum_i s_i l_i      the look-ahead
//! phi    = optimizer step on L_meta(theta')
//! theta  = optimizer step on sum_i s_i l_i             s_i by the new phi
//! ```
//!
//! The second line makes theta' a function of phi (equations 3 to 5 there). But phi enters it through the shares
//! alone, so no graph of a graph is needed. With h = grad_theta' L_meta(theta') and the slopes
//! t_i = <h, grad_theta l_i>, which are the derivative of the losses along h:
//!
//! ```text
//! grad_phi L_meta(theta') = sum_i (d theta' / d s_i)^T h grad_phi s_i = -alpha sum_i t_i grad_phi s_i
//! ```
//!
//! That is exact. One forward pass on the batch gives l, the look-ahead, the last line and the values at which the
//! slopes are taken; it is the only one to move the running statistics.
//!
//! With MixUp, which the paper does not use, l_i is the loss of the sample i in the images that it is a part of: lambda times that under y_i of the one that
//! is mostly x_i, and 1 - lambda times that under y_i of the one that x_i was mixed into. So a weight is a sample's, and the weighted
//! loss of a pair i, j is lambda v_i loss(y_i) + (1 - lambda) v_j loss(y_j). The meta batch is not mixed.
//!
//! Measured, as in docs/results.md: 20 epochs of `resnet8-fast` from scratch on 4,500 images of Fashion-MNIST, three seeds, ± half of
//! a 95 % interval. Test accuracy with 500 clean samples to learn from, at a learning rate of 0.05, at 50 % symmetric noise: 79.5 ± 3.3 %, where
//! cross-entropy has 77.2 ± 1.9; at 80 % 60.2 ± 3.4 and 57.1 ± 2.5; at 90 % 35.6 ± 2.5 and 36.8 ± 11.2.

mod meta_set;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use pipeline_stages::formats::CurveTable;
use pipeline_stages::kinds::{InnerRate, MetaLoss, MetaSamples, Optimizer, Train};
use tch::{Device, Kind, Tensor};

use self::meta_set::MetaSet;
use crate::data::batches::StepSamples;
use crate::network::forward_mode::derivative_along;
use crate::network::{ConvolutionOutputs, Mode, Weighting};
use crate::training::batch::Batch;
use crate::training::decay;
use crate::training::epoch_sums::Sums;
use crate::training::loss::SampleLoss;
use crate::training::method::{Learner, Setup, StepOutput, TrainingMethod};
use crate::training::optimizer::{NetworkOptimizer, Rule};
use crate::training::training_data::small_batch_note;
use crate::training::training_loop::StepPosition;

/// The momentum of the weighting net's SGD.
const MOMENTUM: f64 = 0.9;
/// Losses at which the learned weights are written.
const CURVE_POINTS: i64 = 301;

/// What every sample counts by its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shares {
    /// The weight over the size of the batch.
    OfBatch,
    /// The weight over the sum of the weights.
    Normalised,
}

/// The method: a classifier, and a net that weighs the samples that it learns from.
#[derive(Debug)]
pub struct MetaWeightNet {
    learner: Learner,
    loss: SampleLoss,
    weighting: Weighting,
    /// What moves the weighting net.
    optimizer: NetworkOptimizer,
    /// That of the weighting net.
    learning_rate: f64,
    inner_rate: InnerRate,
    /// Alpha of the next step, a scalar.
    inner_learning_rate: Tensor,
    shares: Shares,
    meta_set: MetaSet,
    /// Where the meta samples come from: it says which of their labels count.
    meta_samples: MetaSamples,
    meta_loss: SampleLoss,
    /// The losses from 0 that the curve of weights covers.
    curve_end: f64,
}

/// What to say of meta samples whose labels may be wrong, and a loss that is not robust to these.
fn unsuited_loss_note(parameters: &Train) -> Option<String> {
    let is_unsuited = parameters.meta_samples == MetaSamples::Training
        && parameters.meta_loss == MetaLoss::CrossEntropy;
    is_unsuited.then(|| {
        "the weights are learned from the training samples by the cross-entropy with their given labels, and so favour what wrong labels say: \
         set meta-loss = \"mae\", or meta-samples = \"held-out\""
            .to_owned()
    })
}

impl MetaWeightNet {
    /// The method at its beginning.
    ///
    /// # Errors
    /// As [`Setup::learner`], and when there are no meta samples.
    pub fn new(setup: &mut Setup<'_>) -> anyhow::Result<Self> {
        let parameters = &setup.recipe.parameters;
        let samples = match parameters.meta_samples {
            MetaSamples::HeldOut => setup.validation,
            MetaSamples::Training => setup.train,
        };
        ensure!(
            !samples.is_empty(),
            "the split does not hold out any samples, and Meta-Weight-Net learns from them: \
             hold some out, or set meta-samples = \"training\" and meta-loss = \"mae\""
        );
        let batch_size = parameters.meta_batch_size.unwrap_or(parameters.batch_size);
        let batch_size = usize::try_from(batch_size)?;
        let note = small_batch_note("the meta set", samples.len(), "meta-batch-size", batch_size);
        setup.notes.extend(note);
        setup.notes.extend(unsuited_loss_note(parameters));
        let learner = setup.learner()?;
        let weighting = Weighting::new(parameters.meta_hidden, setup.seed, setup.device)?;
        let rule = match parameters.meta_optimizer {
            Optimizer::Sgd => Rule::Nesterov { momentum: MOMENTUM },
            Optimizer::Adam => Rule::ADAM,
        };
        let decay = parameters.meta_weight_decay;
        let loss = SampleLoss::of(parameters);
        Ok(Self {
            learner,
            loss,
            optimizer: setup.optimizer(rule, decay, weighting.state(), decay::all)?,
            weighting,
            learning_rate: parameters.meta_learning_rate,
            inner_rate: parameters.inner_rate,
            inner_learning_rate: Tensor::f_full(
                [0i64; 0].as_slice(),
                parameters.inner_learning_rate,
                (Kind::Float, setup.device),
            )?,
            shares: match parameters.normalise_weights {
                true => Shares::Normalised,
                false => Shares::OfBatch,
            },
            meta_set: MetaSet { samples: samples.to_vec(), batch_size, seed: setup.seed },
            meta_samples: parameters.meta_samples,
            meta_loss: match parameters.meta_loss {
                MetaLoss::CrossEntropy => SampleLoss::CrossEntropy,
                MetaLoss::Mae => SampleLoss::MeanAbsoluteError,
            },
            curve_end: largest_usual_loss(loss, setup.classes),
        })
    }

    /// The net that weighs the samples.
    pub fn weighting(&self) -> &Weighting {
        &self.weighting
    }

    /// Weights float [B] -> shares float [B].
    fn shares(&self, weights: &Tensor) -> anyhow::Result<Tensor> {
        Ok(match self.shares {
            Shares::OfBatch => weights.f_div_scalar(weights.size1()? as f64)?,
            Shares::Normalised => {
                // Weights that are all zero stay so.
                let sum = weights.f_sum(Kind::Float)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
                weights.f_div(&sum)?
            }
        })
    }
}

impl MetaWeightNet {
    /// theta' = theta - alpha grad_theta sum_i s_i l_i, in the order of the trained tensors. The graph stays.
    fn look_ahead(&self, losses: &Tensor, shares: &Tensor) -> anyhow::Result<Vec<Tensor>> {
        let parameters: Vec<&Tensor> = self.trained().collect();
        let weighted = shares.f_mul(losses)?.f_sum(Kind::Float)?;
        let gradients = Tensor::f_run_backward(&[weighted], &parameters, true, false)?;
        let _no_gradients = tch::no_grad_guard();
        let moved = parameters.iter().zip(gradients);
        let moved = moved.map(|(parameter, gradient)| {
            let ahead = parameter.f_sub(&gradient.f_mul(&self.inner_learning_rate)?)?;
            Ok(ahead.f_set_requires_grad(true)?)
        });
        moved.collect()
    }

    /// L_meta(theta'), a scalar without graph, and h = grad_theta' L_meta(theta').
    fn meta_gradient(
        &self,
        ahead: &[Tensor],
        meta: &Batch,
    ) -> anyhow::Result<(Tensor, Vec<Tensor>)> {
        let labels = match self.meta_samples {
            MetaSamples::HeldOut => &meta.clean_labels,
            MetaSamples::Training => &meta.labels,
        };
        let network = &self.learner.network;
        let values = network.state().values_with(ahead)?;
        let logits = network.forward_with(values, &meta.images, Mode::LookAhead)?;
        let loss = self.meta_loss.mean(&logits, labels)?;
        let gradient = Tensor::f_run_backward(&[&loss], ahead, false, false)?;
        Ok((loss.f_detach()?, gradient))
    }

    /// t_i = <h, grad_theta l_i>, float [B], along the pass that computed the l_i.
    fn slopes_along(
        &self,
        direction: &[Tensor],
        batch: &Batch,
        outputs: ConvolutionOutputs,
    ) -> anyhow::Result<Tensor> {
        let parameters: Vec<Tensor> = self.trained().map(Tensor::shallow_clone).collect();
        let network = &self.learner.network;
        derivative_along(&parameters, direction, |duals| {
            let values = network.state().values_with(duals)?;
            let logits = network.forward_dual(values, &batch.all_views()?, &outputs)?;
            batch.losses_of_samples(|labels| self.loss.of_samples(&logits, labels))
        })
    }

    fn trained(&self) -> impl Iterator<Item = &Tensor> {
        self.learner.network.state().trained().map(|named| &named.tensor)
    }
}

impl TrainingMethod for MetaWeightNet {
    fn learners(&self) -> Vec<&Learner> {
        vec![&self.learner]
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        vec![&mut self.learner]
    }

    /// A new meta batch for every step.
    fn select(&self, epoch: u32, usual: Vec<Vec<u32>>) -> anyhow::Result<Vec<StepSamples>> {
        let steps = (0u32..).zip(usual).map(|(step, train)| StepSamples {
            others: vec![self.meta_set.batch(epoch, step).into()],
            ..train.into()
        });
        Ok(steps.collect())
    }

    fn begin_step(&mut self, learning_rate: f64, at: StepPosition) -> anyhow::Result<()> {
        self.learner.optimizer.begin_step(learning_rate, at.steps_before)?;
        self.optimizer.begin_step(self.learning_rate, at.steps_before)?;
        if self.inner_rate == InnerRate::Scheduled {
            let _ = self.inner_learning_rate.f_fill_(learning_rate)?;
        }
        Ok(())
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn compute(&mut self, batch: &Batch, others: &[Batch]) -> anyhow::Result<StepOutput> {
        let [meta] = others else { bail!("a step has one meta batch") };

        // l, and v as a function of phi.
        let network = &self.learner.network;
        let (logits, outputs) = network.forward_with_outputs(&batch.all_views()?, Mode::Train)?;
        let losses = batch.losses_of_samples(|labels| self.loss.of_samples(&logits, labels))?;
        let known_losses = losses.f_detach()?;
        let shares = self.shares(&self.weighting.forward(&known_losses)?)?;

        // theta', h and t.
        let ahead = self.look_ahead(&losses, &shares.f_detach()?)?;
        let (meta_loss, direction) = self.meta_gradient(&ahead, meta)?;
        let slopes = self.slopes_along(&direction, batch, outputs)?;

        // phi: the gradient of this sum is the one above.
        let along = slopes.f_mul(&shares)?.f_sum(Kind::Float)?;
        let along = along.f_mul(&self.inner_learning_rate)?.f_neg()?;
        self.optimizer.zero_gradients()?;
        along.f_backward()?;
        self.optimizer.step()?;

        // theta, by the new weights.
        let weights = tch::no_grad(|| self.weighting.forward(&known_losses))?;
        let weighted = self.shares(&weights)?.f_mul(&losses)?.f_sum(Kind::Float)?;
        self.learner.optimizer.backward(&weighted)?;
        self.learner.optimizer.step()?;

        let extra = sums_of(batch, &weights, meta_loss)?;
        let weights = Some(weights);
        Ok(StepOutput { losses: known_losses, logits: logits.f_detach()?, weights, extra })
    }

    fn has_weights(&self) -> bool {
        true
    }

    fn sums(&self) -> &'static [&'static str] {
        &["meta-steps", "meta-loss", "clean", "clean-weight", "corrupted", "corrupted-weight"]
    }

    fn columns(&self) -> &'static [&'static str] {
        &["meta-loss", "weight", "weight-clean", "weight-corrupted"]
    }

    fn row(&self, sums: &Sums) -> Vec<f64> {
        let all = sums.get("clean-weight") + sums.get("corrupted-weight");
        vec![
            sums.mean("meta-loss", "meta-steps"),
            all / sums.get("samples"),
            sums.mean_of_clean("clean-weight", "clean"),
            sums.mean_of_clean("corrupted-weight", "corrupted"),
        ]
    }

    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        let parameter = self.weighting.state().tensors().first().context("the net is empty")?;
        let options = (Kind::Float, parameter.tensor.device());
        let losses = Tensor::f_linspace(0.0, self.curve_end, CURVE_POINTS, options)?;
        let weights = self.weighting.forward(&losses)?;
        let mut table = CurveTable::new(&["loss", "weight"]);
        for (loss, weight) in numbers(&losses)?.into_iter().zip(numbers(&weights)?) {
            ensure!(
                weight.is_finite(),
                "the weighting net diverged: try a smaller meta-learning-rate"
            );
            table.push(&[loss, weight]);
        }
        table.write(&folder.join("weight-curve.csv"))
    }
}

/// What a step counts. `weights` float [B] are V's own, not the shares.
fn sums_of(
    batch: &Batch,
    weights: &Tensor,
    meta_loss: Tensor,
) -> anyhow::Result<BTreeMap<&'static str, Tensor>> {
    let clean = batch.labels.f_eq_tensor(&batch.clean_labels)?;
    let corrupted = clean.f_logical_not()?;
    let one = Tensor::f_ones([0i64; 0].as_slice(), (Kind::Int64, weights.device()))?;
    let sum = |group: &Tensor| weights.f_mul(group)?.f_sum(Kind::Double);
    Ok([
        ("meta-steps", one),
        ("meta-loss", meta_loss),
        ("clean", clean.f_sum(Kind::Int64)?),
        ("clean-weight", sum(&clean)?),
        ("corrupted", corrupted.f_sum(Kind::Int64)?),
        ("corrupted-weight", sum(&corrupted)?),
    ]
    .into())
}

/// Three times the cross-entropy of guessing among the classes, ln K; or the largest loss there can be.
fn largest_usual_loss(loss: SampleLoss, classes: usize) -> f64 {
    let usual = 3.0 * (classes.max(2) as f64).ln();
    loss.bound().map_or(usual, |bound| usual.min(bound))
}

fn numbers(tensor: &Tensor) -> anyhow::Result<Vec<f64>> {
    Ok(Vec::try_from(tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_wrong_labels_mislead_is_noted() {
        let is_noted = |meta_samples, meta_loss| {
            let stage = Train { meta_samples, meta_loss, ..Train::default() };
            unsuited_loss_note(&stage).is_some()
        };
        assert!(is_noted(MetaSamples::Training, MetaLoss::CrossEntropy));
        assert!(!is_noted(MetaSamples::Training, MetaLoss::Mae));
        assert!(!is_noted(MetaSamples::HeldOut, MetaLoss::CrossEntropy));
    }
}
