//! The layers that the networks here are made of: convolution, batch norm, linear.

use anyhow::ensure;
use tch::Tensor;

use super::pass::{Mode, Pass};
use super::state::{Builder, Initial, Role, Slot};

/// A convolution without bias, padded so that stride 1 keeps the size.
#[derive(Debug)]
pub struct Convolution {
    weight: Slot,
    stride: i64,
    padding: i64,
}

impl Convolution {
    /// `inputs` -> `outputs` channels, `kernel` x `kernel`.
    ///
    /// # Errors
    /// When libtorch can't make the tensor.
    pub fn new(
        builder: &mut Builder,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
        initial: Initial,
    ) -> anyhow::Result<Self> {
        let shape = [outputs, inputs, kernel, kernel];
        let weight = builder.float("weight", &shape, initial, Role::Trained)?;
        Ok(Self { weight, stride, padding: kernel / 2 })
    }

    /// [N,C,H,W] -> [N,C',H',W'].
    ///
    /// # Errors
    /// When the shapes don't match.
    pub fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        let (input, weight) = (pass.in_precision(input)?, pass.factor(self.weight)?);
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        Ok(input.f_conv2d(&weight, None::<&Tensor>, stride, padding, [1, 1], 1)?)
    }
}

/// Whether a batch norm's bias is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// It is.
    Trained,
    /// It stays zero.
    Fixed,
}

/// Batch normalisation over all dimensions but the second (Ioffe and Szegedy, 2015), with PyTorch's
/// momentum 0.1 and epsilon 1e-5.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Slot,
    bias: Slot,
    running_mean: Slot,
    running_var: Slot,
    num_batches_tracked: Slot,
}

impl BatchNorm {
    const MOMENTUM: f64 = 0.1;
    const EPSILON: f64 = 1e-5;

    /// Over `channels` channels; weight 1, bias 0.
    ///
    /// # Errors
    /// When libtorch can't make the tensors.
    pub fn new(builder: &mut Builder, channels: i64, bias: Bias) -> anyhow::Result<Self> {
        let bias_role = match bias {
            Bias::Trained => Role::Trained,
            Bias::Fixed => Role::Kept,
        };
        let mut float = |name: &str, value: f64, role: Role| {
            builder.float(name, &[channels], Initial::Constant(value), role)
        };
        Ok(Self {
            weight: float("weight", 1.0, Role::Trained)?,
            bias: float("bias", 0.0, bias_role)?,
            running_mean: float("running_mean", 0.0, Role::Kept)?,
            running_var: float("running_var", 1.0, Role::Kept)?,
            num_batches_tracked: builder.counter("num_batches_tracked")?,
        })
    }

    /// [N,C,...] -> the same.
    ///
    /// # Errors
    /// When the shapes don't match, or a channel of a batch has but one value and so no variance.
    pub fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        ensure!(
            pass.mode == Mode::Evaluate || has_variance(&input.size()),
            "a batch has one image, of one pixel where it is normalised: batch norm needs more than one value. \
             Change batch-size so that the last batch of an epoch has more than one image too"
        );
        if pass.mode == Mode::Train {
            let _ = pass.value(self.num_batches_tracked).shallow_clone().f_add_scalar_(1)?;
        }
        let [running_mean, running_var] =
            [self.running_mean, self.running_var].map(|slot| match pass.mode {
                Mode::Train | Mode::Evaluate => Some(pass.value(slot)),
                Mode::LookAhead => None,
            });
        Ok(input.f_batch_norm(
            Some(pass.value(self.weight)),
            Some(pass.value(self.bias)),
            running_mean,
            running_var,
            pass.mode != Mode::Evaluate,
            Self::MOMENTUM,
            Self::EPSILON,
            true,
        )?)
    }
}

/// Whether a channel of a tensor [N,C,...] has more than one value.
fn has_variance(shape: &[i64]) -> bool {
    let channels = shape.get(1).copied().unwrap_or(1);
    shape.iter().product::<i64>() > channels
}

/// A linear layer.
#[derive(Debug)]
pub struct Linear {
    weight: Slot,
    bias: Option<Slot>,
}

impl Linear {
    /// With a bias; both zero, as the reference protocol starts its classifier.
    ///
    /// # Errors
    /// When libtorch can't make the tensors.
    pub fn zero(builder: &mut Builder, [inputs, outputs]: [i64; 2]) -> anyhow::Result<Self> {
        let zero = Initial::Constant(0.0);
        let weight = builder.float("weight", &[outputs, inputs], zero, Role::Trained)?;
        let bias = builder.float("bias", &[outputs], zero, Role::Trained)?;
        Ok(Self { weight, bias: Some(bias) })
    }

    /// Without a bias, from PyTorch's default.
    ///
    /// # Errors
    /// When libtorch can't make the tensor.
    pub fn without_bias(
        builder: &mut Builder,
        [inputs, outputs]: [i64; 2],
    ) -> anyhow::Result<Self> {
        let shape = [outputs, inputs];
        let weight = builder.float("weight", &shape, Initial::UniformFanIn, Role::Trained)?;
        Ok(Self { weight, bias: None })
    }

    /// [N,D] -> [N,D'].
    ///
    /// # Errors
    /// When the shapes don't match.
    pub fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        let bias = self.bias.map(|bias| pass.factor(bias)).transpose()?;
        Ok(pass.in_precision(input)?.f_linear(&pass.factor(self.weight)?, bias.as_ref())?)
    }
}
