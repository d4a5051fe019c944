//! Losses: functions of tensors, without state.

use pipeline_stages::kinds::Loss;
use tch::{Kind, Tensor};

/// The loss of a labelled sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleLoss {
    /// -ln p_y.
    CrossEntropy,
    /// (1 - p_y^q) / q (Zhang and Sabuncu, "Generalized cross entropy loss", 2018), not truncated.
    GeneralizedCrossEntropy {
        /// Towards 0 it becomes cross-entropy; at 1 it is 1 - p_y.
        q: f64,
    },
    /// The sum over the classes of |p - onehot(y)|, which is 2 (1 - p_y) (Ghosh et al., 2017).
    MeanAbsoluteError,
}

impl SampleLoss {
    /// The loss that a stage asks for. `q` is that of the generalized cross-entropy.
    pub fn of(loss: Loss, q: f64) -> Self {
        match loss {
            Loss::CrossEntropy => Self::CrossEntropy,
            Loss::GeneralizedCrossEntropy => Self::GeneralizedCrossEntropy { q },
            Loss::Mae => Self::MeanAbsoluteError,
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
        })
    }

    /// The mean over a batch, a scalar; otherwise as [`SampleLoss::of_samples`].
    ///
    /// # Errors
    /// When the shapes do not match.
    pub fn mean(self, logits: &Tensor, labels: &Tensor) -> anyhow::Result<Tensor> {
        Ok(self.of_samples(logits, labels)?.f_mean(Kind::Float)?)
    }
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
