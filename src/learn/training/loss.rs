//! Losses: functions of tensors, without state.

use anyhow::Context as _;
use pipeline_stages::kinds::{Loss, Train};
use tch::{Kind, Tensor};

/// The loss of a labelled sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleLoss {
    /// -ln p_y.
    CrossEntropy,
    /// (1 - p_y^q) / q (Zhang and Sabuncu, "Generalized cross entropy loss", 2018).
    GeneralizedCrossEntropy {
        /// Towards 0 it becomes cross-entropy; at 1 it is 1 - p_y.
        q: f64,
    },
    /// The sum over the classes of |p - onehot(y)|, which is 2 (1 - p_y) (Ghosh et al., 2017).
    ///
    /// Measured, as in docs/results.md (20 epochs of `resnet8-fast` on 4,500 images of Fashion-MNIST, at 0.1), with three seeds at 80 % symmetric noise: 34.1 ± 10.3 % from scratch and 52.1 ± 21.5 from SimCLR, where
    /// cross-entropy has 57.1 ± 2.5 and 74.4 ± 6.5; at 90 %: 17.7 ± 15.5 and 27.6 ± 45.6. A supposition: it learns too slowly for 20 epochs.
    MeanAbsoluteError,
    /// forward -ln p_y + reverse R (1 - p_y), with R = -ln 1e-4 (Wang et al., "Symmetric cross entropy for robust learning
    /// with noisy labels", 2019).
    SymmetricCrossEntropy {
        /// The weight of the cross-entropy.
        forward: f64,
        /// The weight of the reverse one.
        reverse: f64,
    },
    /// active ln p_y / sum_k ln p_k + passive R (1 - p_y), with the same R (Ma et al., "Normalized loss functions for deep
    /// learning with noisy labels", 2020).
    ActivePassive {
        /// The weight of the normalised cross-entropy.
        active: f64,
        /// The weight of the reverse cross-entropy.
        passive: f64,
    },
    /// The cross-entropy to (1 - share) onehot(y) + share / K (Szegedy et al., 2016).
    LabelSmoothing {
        /// For all classes.
        share: f64,
    },
    /// -sum_k (given onehot(y)_k + (1 - given) p_k) ln p_k (Reed et al., "Training deep neural networks on noisy labels with
    /// bootstrapping", 2015); the targets have gradients too.
    SoftBootstrapping {
        /// The share of the label.
        given: f64,
    },
    /// The same with the likeliest class, one-hot, in the place of the prediction.
    HardBootstrapping {
        /// The share of the label.
        given: f64,
    },
    /// (pi KL(onehot(y) | m) + (1 - pi) KL(p | m)) / Z with m = pi onehot(y) + (1 - pi) p and Z = -(1 - pi) ln(1 - pi)
    /// (Englesson and Azizpour, "Generalized Jensen-Shannon divergence loss for learning with noisy labels", 2021). Of V views
    /// the mean has (1 - pi) / V each, and their divergences too.
    JensenShannon {
        /// pi, the share of the label.
        share: f64,
    },
}

/// What ln 0 counts as in a reverse cross-entropy, with the other sign: -ln 1e-4.
const REVERSE: f64 = 9.210_340_371_976_184;

impl SampleLoss {
    /// The loss that a stage asks for.
    pub fn of(parameters: &Train) -> Self {
        match parameters.loss {
            Loss::CrossEntropy => Self::CrossEntropy,
            Loss::GeneralizedCrossEntropy => Self::GeneralizedCrossEntropy { q: parameters.q },
            Loss::Mae => Self::MeanAbsoluteError,
            Loss::SymmetricCrossEntropy => Self::SymmetricCrossEntropy {
                forward: parameters.forward_weight,
                reverse: parameters.reverse_weight,
            },
            Loss::NceRce => Self::ActivePassive {
                active: parameters.active_weight,
                passive: parameters.passive_weight,
            },
            Loss::LabelSmoothing => Self::LabelSmoothing { share: parameters.smoothing },
            Loss::SoftBootstrapping => {
                Self::SoftBootstrapping { given: parameters.bootstrapped_share() }
            }
            Loss::HardBootstrapping => {
                Self::HardBootstrapping { given: parameters.bootstrapped_share() }
            }
            Loss::JensenShannon => Self::JensenShannon { share: parameters.label_share },
        }
    }

    /// The largest loss there is; `None` where there is no bound.
    pub fn bound(self) -> Option<f64> {
        match self {
            Self::GeneralizedCrossEntropy { q } => Some(1.0 / q),
            Self::MeanAbsoluteError => Some(2.0),
            Self::ActivePassive { active, passive } => Some(active + passive * REVERSE),
            Self::JensenShannon { share } => {
                Some(1.0 + share * share.ln() / ((1.0 - share) * (1.0 - share).ln()))
            }
            Self::CrossEntropy
            | Self::SymmetricCrossEntropy { .. }
            | Self::LabelSmoothing { .. }
            | Self::SoftBootstrapping { .. }
            | Self::HardBootstrapping { .. } => None,
        }
    }

    /// The loss of each sample, float [B]: `logits` float [B,K], `labels` int64 [B].
    ///
    /// Everything goes through log-softmax, so that a probability near zero keeps its gradient.
    ///
    /// # Errors
    /// When the shapes do not match.
    pub fn of_samples(self, logits: &Tensor, labels: &Tensor) -> anyhow::Result<Tensor> {
        let log_softmax = logits.f_log_softmax(-1, Kind::Float)?;
        let log_probability =
            log_softmax.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
        Ok(match self {
            Self::CrossEntropy => log_probability.f_neg()?,
            Self::GeneralizedCrossEntropy { q } => {
                // 1 - exp(x) would lose all digits of a small x, which is what a small q makes.
                log_probability.f_mul_scalar(q)?.f_expm1()?.f_neg()?.f_div_scalar(q)?
            }
            Self::MeanAbsoluteError => {
                log_probability.f_exp()?.f_neg()?.f_add_scalar(1.0)?.f_mul_scalar(2.0)?
            }
            Self::SymmetricCrossEntropy { forward, reverse } => {
                let error = log_probability.f_expm1()?.f_mul_scalar(-REVERSE * reverse)?;
                error.f_sub(&log_probability.f_mul_scalar(forward)?)?
            }
            Self::ActivePassive { active, passive } => {
                let error = log_probability.f_expm1()?.f_mul_scalar(-REVERSE * passive)?;
                // The sum is below -1 for two classes or more. For one it is 0, and so is what that is a share of.
                let of_all = row_sums(&log_softmax)?.f_clamp_max(-1.0)?;
                let share = log_probability.f_div(&of_all)?;
                error.f_add(&share.f_mul_scalar(active)?)?
            }
            Self::LabelSmoothing { share } => {
                let (_, classes) = log_softmax.size2()?;
                let of_all = row_sums(&log_softmax)?.f_mul_scalar(-share / classes as f64)?;
                of_all.f_sub(&log_probability.f_mul_scalar(1.0 - share)?)?
            }
            Self::SoftBootstrapping { given } => {
                let entropy = row_sums(&log_softmax.f_exp()?.f_mul(&log_softmax)?)?;
                let of_both = log_probability.f_mul_scalar(given)?;
                of_both.f_add(&entropy.f_mul_scalar(1.0 - given)?)?.f_neg()?
            }
            Self::HardBootstrapping { given } => {
                let likeliest = log_softmax.f_amax([1i64].as_slice(), false)?;
                let of_both = log_probability.f_mul_scalar(given)?;
                of_both.f_add(&likeliest.f_mul_scalar(1.0 - given)?)?.f_neg()?
            }
            Self::JensenShannon { share } => jensen_shannon(&[log_softmax], labels, share)?,
        })
    }

    /// The same of several views of the samples: what compares them sees all, other losses see the first.
    ///
    /// # Errors
    /// When there is no view, or the shapes do not match.
    pub fn of_views(self, views: &[Tensor], labels: &Tensor) -> anyhow::Result<Tensor> {
        match self {
            Self::JensenShannon { share } => {
                let views = views.iter().map(|logits| logits.f_log_softmax(-1, Kind::Float));
                jensen_shannon(&views.collect::<Result<Vec<_>, _>>()?, labels, share)
            }
            _ => self.of_samples(views.first().context("a sample has a view")?, labels),
        }
    }

    /// The mean over a batch, a scalar; otherwise as [`SampleLoss::of_samples`].
    ///
    /// # Errors
    /// When the shapes do not match.
    pub fn mean(self, logits: &Tensor, labels: &Tensor) -> anyhow::Result<Tensor> {
        Ok(self.of_samples(logits, labels)?.f_mean(Kind::Float)?)
    }
}

/// The sums of the rows of a matrix, float [B,K] -> float [B].
///
/// # Errors
/// When it is not a matrix.
pub fn row_sums(matrix: &Tensor) -> anyhow::Result<Tensor> {
    Ok(matrix.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
}

/// Of the label and any number of predictions, float [B,K] each, as logarithms; the predictions have the rest of the share
/// in equal parts.
fn jensen_shannon(views: &[Tensor], labels: &Tensor, share: f64) -> anyhow::Result<Tensor> {
    let first = views.first().context("a sample has a view")?;
    let (_, classes) = first.size2()?;
    let rest = 1.0 - share;
    let of_each = rest / views.len() as f64;
    let mut mean = labels.f_one_hot(classes)?.f_to_kind(Kind::Float)?.f_mul_scalar(share)?;
    for view in views {
        mean = mean.f_add(&view.f_exp()?.f_mul_scalar(of_each)?)?;
    }
    // A probability of zero has no part in any of the divergences.
    let log_mean = mean.f_clamp_min(f64::from(f32::MIN_POSITIVE))?.f_log()?;
    let of_label = log_mean.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    let mut sum = of_label.f_mul_scalar(-share)?;
    for view in views {
        let divergence = row_sums(&view.f_exp()?.f_mul(&view.f_sub(&log_mean)?)?)?;
        sum = sum.f_add(&divergence.f_mul_scalar(of_each)?)?;
    }
    Ok(sum.f_div_scalar(-rest * rest.ln())?)
}

/// NT-Xent (Chen et al., "A simple framework for contrastive learning", 2020, equation 1).
///
/// `views` is float [2N,D]: all first views, then all second views. Each row is normalised to
/// length 1; the logits of a row are its cosines with all others, divided by the temperature, and its label is
/// its other view. Returns the mean cross-entropy over the 2N rows, and the share of rows whose
/// other view has the largest logit.
///
/// # Errors
/// When `views` is not a matrix.
pub fn nt_xent(views: &Tensor, temperature: f64) -> anyhow::Result<(Tensor, Tensor)> {
    let (rows, _) = views.size2()?;
    let unit = unit_rows(views)?;
    let mut logits = unit.f_mm(&unit.f_transpose(0, 1)?)?.f_div_scalar(temperature)?;
    let itself = Tensor::f_eye(rows, (Kind::Bool, views.device()))?;
    logits = logits.f_masked_fill(&itself, f64::NEG_INFINITY)?;
    let other = Tensor::f_arange(rows, (Kind::Int64, views.device()))?.f_roll(rows / 2, 0)?;
    let found = logits.f_argmax(1, false)?.f_eq_tensor(&other)?.f_to_kind(Kind::Float)?;
    let loss =
        logits.f_cross_entropy_loss(&other, None::<&Tensor>, tch::Reduction::Mean, -100, 0.0)?;
    Ok((loss, found.f_mean(Kind::Float)?))
}

/// The rows of a matrix scaled to length 1; a row of zeros stays, and has a gradient of zero.
///
/// # Errors
/// When it is not a matrix.
pub fn unit_rows(matrix: &Tensor) -> anyhow::Result<Tensor> {
    // The norm operator: its gradient at zero is zero, where that of a square root is not a number.
    let length = matrix.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), true)?;
    Ok(matrix.f_div(&length.f_clamp_min(1e-12)?)?)
}
