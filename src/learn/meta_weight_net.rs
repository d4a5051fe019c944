//! Meta-Weight-Net (Shu et al., NeurIPS 2019, algorithm 1): a small net V gives every sample a weight
//! by its loss, and is trained so that a step on the weighted batch lowers the loss on meta samples.
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

use std::path::Path;

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::CurveTable;
use pipeline_stages::kinds::{self, InnerRate, MetaLoss, Train};
use tch::{Device, Kind, Tensor};

use crate::forward_mode::derivative_along;
use crate::loss::SampleLoss;
use crate::network::{Mode, Record, Weighting};
use crate::optimizer::{Optimizer, Rule};
use crate::supervised::data::MetaBatch;
use crate::supervised::fit::{Outcome, RobustMethod, Step};
use crate::tally::Sums;

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

/// The method: the weighting net, and how it learns.
#[derive(Debug)]
pub struct MetaWeightNet {
    weighting: Weighting,
    optimizer: Optimizer,
    learning_rate: f64,
    /// The rate of the look-ahead step; that of the classifier's step where it is `None`.
    inner_rate: Option<f64>,
    shares: Shares,
    meta_loss: SampleLoss,
    /// Whether clean labels are known, beside those trained on.
    clean_known: bool,
    /// The losses from 0 that the curve of weights covers.
    curve_end: f64,
}

impl MetaWeightNet {
    /// The method at its beginning. `classes` is how many the classifier has.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(
        parameters: &Train,
        classes: usize,
        clean_known: bool,
        seed: u64,
        device: Device,
    ) -> anyhow::Result<Self> {
        let weighting = Weighting::new(parameters.meta_hidden, seed, device)?;
        let rule = match parameters.meta_optimizer {
            kinds::Optimizer::Sgd => Rule::Nesterov { momentum: MOMENTUM },
            kinds::Optimizer::Adam => Rule::ADAM,
        };
        let decay = parameters.meta_weight_decay;
        Ok(Self {
            optimizer: Optimizer::new(rule, decay, weighting.state(), |_| true)?,
            weighting,
            learning_rate: parameters.meta_learning_rate,
            inner_rate: match parameters.inner_rate {
                InnerRate::Constant => Some(parameters.inner_learning_rate),
                InnerRate::Scheduled => None,
            },
            shares: match parameters.normalise_weights {
                true => Shares::Normalised,
                false => Shares::OfBatch,
            },
            meta_loss: match parameters.meta_loss {
                MetaLoss::CrossEntropy => SampleLoss::CrossEntropy,
                MetaLoss::Mae => SampleLoss::MeanAbsoluteError,
            },
            clean_known,
            curve_end: largest_usual_loss(SampleLoss::of(parameters.loss, parameters.q), classes),
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

impl RobustMethod for MetaWeightNet {
    fn step(&mut self, step: &mut Step<'_>) -> anyhow::Result<Outcome> {
        let meta = step.batch.meta.as_ref().context("this batch has no meta samples")?;
        let inner_rate = self.inner_rate.unwrap_or(step.learning_rate);

        // l, and v as a function of phi.
        let (logits, record) = step.network.forward_recorded(&step.batch.images, Mode::Train)?;
        let losses = step.loss.of_samples(&logits, &step.batch.labels)?;
        let known_losses = losses.f_detach()?;
        let shares = self.shares(&self.weighting.forward(&known_losses)?)?;

        // theta', h and t.
        let ahead = look_ahead(step, &losses, &shares.f_detach()?, inner_rate)?;
        let (meta_loss, direction) = meta_gradient(step, &ahead, meta, self.meta_loss)?;
        let slopes = slopes_along(step, &direction, record)?;

        // phi: the gradient of this sum is the one above.
        let along = slopes.f_mul(&shares)?.f_sum(Kind::Float)?.f_mul_scalar(-inner_rate)?;
        self.optimizer.zero_gradients()?;
        along.f_backward()?;
        self.optimizer.step(self.learning_rate, step.at.step)?;

        // theta, by the new weights.
        let weights = tch::no_grad(|| self.weighting.forward(&known_losses))?;
        let weighted = self.shares(&weights)?.f_mul(&losses)?.f_sum(Kind::Float)?;
        step.optimizer.backward(&weighted)?;
        step.optimizer.step(step.learning_rate, step.at.step)?;

        let extra = sums_of(step, &weights, meta_loss)?;
        let weights = Some(weights);
        Ok(Outcome { losses: known_losses, logits: logits.f_detach()?, weights, extra })
    }

    fn tensors(&self) -> Vec<(String, &Tensor)> {
        let state = self.weighting.state().tensors().iter();
        let mut tensors: Vec<_> = state.map(|named| (named.name.clone(), &named.tensor)).collect();
        tensors.extend(self.optimizer.kept());
        tensors
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
        let weight = |sum: &str, count: &str| match self.clean_known {
            true => sums.mean(sum, count),
            false => f64::NAN,
        };
        let all = sums.get("clean-weight") + sums.get("corrupted-weight");
        vec![
            sums.mean("meta-loss", "meta-steps"),
            all / sums.get("samples"),
            weight("clean-weight", "clean"),
            weight("corrupted-weight", "corrupted"),
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

/// theta' = theta - alpha grad_theta sum_i s_i l_i, in the order of the trained tensors. The graph stays.
fn look_ahead(
    step: &Step<'_>,
    losses: &Tensor,
    shares: &Tensor,
    inner_rate: f64,
) -> anyhow::Result<Vec<Tensor>> {
    let parameters: Vec<&Tensor> = trained(step).collect();
    let weighted = shares.f_mul(losses)?.f_sum(Kind::Float)?;
    let gradients = Tensor::f_run_backward(&[weighted], &parameters, true, false)?;
    let _no_gradients = tch::no_grad_guard();
    let moved = parameters.iter().zip(gradients);
    let moved = moved.map(|(parameter, gradient)| {
        let ahead = parameter.f_sub(&gradient.f_mul_scalar(inner_rate)?)?;
        Ok(ahead.f_set_requires_grad(true)?)
    });
    moved.collect()
}

/// L_meta(theta'), a scalar without graph, and h = grad_theta' L_meta(theta').
fn meta_gradient(
    step: &Step<'_>,
    ahead: &[Tensor],
    meta: &MetaBatch,
    loss: SampleLoss,
) -> anyhow::Result<(Tensor, Vec<Tensor>)> {
    let values = step.network.state().values_with(ahead)?;
    let logits = step.network.forward_with(values, &meta.images, Mode::LookAhead)?;
    let loss = loss.mean(&logits, &meta.labels)?;
    let gradient = Tensor::f_run_backward(&[&loss], ahead, false, false)?;
    Ok((loss.f_detach()?, gradient))
}

/// t_i = <h, grad_theta l_i>, float [B], along the pass that computed the l_i.
fn slopes_along(step: &Step<'_>, direction: &[Tensor], record: Record) -> anyhow::Result<Tensor> {
    let parameters: Vec<Tensor> = trained(step).map(Tensor::shallow_clone).collect();
    derivative_along(&parameters, direction, |duals| {
        let values = step.network.state().values_with(duals)?;
        let logits = step.network.forward_dual(values, &step.batch.images, &record)?;
        step.loss.of_samples(&logits, &step.batch.labels)
    })
}

fn trained<'a>(step: &'a Step<'_>) -> impl Iterator<Item = &'a Tensor> {
    step.network.state().trained().map(|named| &named.tensor)
}

/// In the order of the method's sums. `weights` float [B] are V's own, not the shares.
fn sums_of(step: &Step<'_>, weights: &Tensor, meta_loss: Tensor) -> anyhow::Result<Vec<Tensor>> {
    let clean = step.batch.labels.f_eq_tensor(&step.batch.clean_labels)?;
    let one = Tensor::f_ones([0i64; 0].as_slice(), (Kind::Int64, weights.device()))?;
    let mut sums = vec![one, meta_loss];
    for group in [&clean, &clean.f_logical_not()?] {
        sums.push(group.f_sum(Kind::Int64)?);
        sums.push(weights.f_mul(group)?.f_sum(Kind::Double)?);
    }
    Ok(sums)
}

/// Three times the cross-entropy of guessing among the classes, ln K; or the largest loss there can be.
fn largest_usual_loss(loss: SampleLoss, classes: usize) -> f64 {
    let usual = 3.0 * (classes.max(2) as f64).ln();
    match loss {
        SampleLoss::CrossEntropy => usual,
        SampleLoss::GeneralizedCrossEntropy { q } => usual.min(1.0 / q),
        SampleLoss::MeanAbsoluteError => 2.0,
    }
}

fn numbers(tensor: &Tensor) -> anyhow::Result<Vec<f64>> {
    Ok(Vec::try_from(tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?)
}
