//! The layers that the networks here are made of: convolution, batch norm, linear.

use tch::Tensor;

use super::state::{Builder, Initial, Role};

/// Whether batch norm uses the statistics of the batch, and keeps them, or those kept before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Of the batch; running statistics move.
    Train,
    /// Kept before; nothing moves.
    Evaluate,
}

/// A convolution without bias, padded so that stride 1 keeps the size.
#[derive(Debug)]
pub struct Convolution {
    weight: Tensor,
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
    pub fn forward(&self, input: &Tensor) -> anyhow::Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        Ok(input.f_conv2d(&self.weight, None::<&Tensor>, stride, padding, [1, 1], 1)?)
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
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
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
    /// When the shapes don't match.
    pub fn forward(&self, input: &Tensor, mode: Mode) -> anyhow::Result<Tensor> {
        if mode == Mode::Train {
            let _ = self.num_batches_tracked.shallow_clone().f_add_scalar_(1)?;
        }
        Ok(input.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode == Mode::Train,
            Self::MOMENTUM,
            Self::EPSILON,
            true,
        )?)
    }
}

/// A linear layer.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
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
    pub fn forward(&self, input: &Tensor) -> anyhow::Result<Tensor> {
        Ok(input.f_linear(&self.weight, self.bias.as_ref())?)
    }
}
