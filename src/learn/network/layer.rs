//! The layers that the networks here are made of: convolution, batch norm, linear.

use anyhow::{Context as _, bail, ensure};
use tch::{Kind, Tensor};

use super::pass::{Mode, Pass};
use super::state::{Builder, Initial, Slot, TensorRole};
use crate::network::forward_mode;

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
    /// When libtorch cannot make the tensor.
    pub fn new(
        builder: &mut Builder,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
        initial: Initial,
    ) -> anyhow::Result<Self> {
        let shape = [outputs, inputs, kernel, kernel];
        let weight = builder.float("weight", &shape, initial, TensorRole::Trained)?;
        Ok(Self { weight, stride, padding: kernel / 2 })
    }

    /// [N,C,H,W] -> [N,C',H',W'].
    ///
    /// # Errors
    /// When the shapes do not match.
    pub fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        let (input, weight) = (pass.in_precision(input)?, pass.factor(self.weight)?);
        if pass.mode == Mode::Derivative {
            return self.forward_dual(&input, &weight, &pass.kept(self.weight)?);
        }
        let output = self.apply(&input, &weight)?;
        pass.keep(self.weight, &output)?;
        Ok(output)
    }

    /// [`Convolution::forward`] of dual numbers whose values are known to give `output`.
    fn forward_dual(
        &self,
        input: &Tensor,
        weight: &Tensor,
        output: &Tensor,
    ) -> anyhow::Result<Tensor> {
        let (input, along_input) = forward_mode::split(input)?;
        let (weight, along_weight) = forward_mode::split(weight)?;
        let along_weight = along_weight.context("the direction has no part for a weight")?;
        let mut along = self.apply(&input, &along_weight)?;
        // The images do not depend on the weights.
        if let Some(along_input) = along_input {
            along = along.f_add_(&self.apply(&along_input, &weight)?)?;
        }
        forward_mode::join(output, &along)
    }

    fn apply(&self, input: &Tensor, weight: &Tensor) -> anyhow::Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        Ok(input.f_conv2d(weight, None::<&Tensor>, stride, padding, [1, 1], 1)?)
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
    /// When libtorch cannot make the tensors.
    pub fn new(builder: &mut Builder, channels: i64, bias: Bias) -> anyhow::Result<Self> {
        let bias_role = match bias {
            Bias::Trained => TensorRole::Trained,
            Bias::Fixed => TensorRole::Kept,
        };
        let mut float = |name: &str, value: f64, role: TensorRole| {
            builder.float(name, &[channels], Initial::Constant(value), role)
        };
        Ok(Self {
            weight: float("weight", 1.0, TensorRole::Trained)?,
            bias: float("bias", 0.0, bias_role)?,
            running_mean: float("running_mean", 0.0, TensorRole::Kept)?,
            running_var: float("running_var", 1.0, TensorRole::Kept)?,
            num_batches_tracked: builder.counter("num_batches_tracked")?,
        })
    }

    /// [N,C,...] -> the same.
    ///
    /// # Errors
    /// When the shapes do not match, or a channel of a batch has only one value, and so no variance.
    pub fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        ensure!(
            pass.mode == Mode::Evaluate || has_variance(&input.size()),
            "a step has one image, of one pixel where it is normalised, and batch norm needs more than one value: \
             set batch-size (and meta-batch-size) to 2 or more, and train on at least 2 images"
        );
        if pass.mode == Mode::Train {
            let _ = pass.value(self.num_batches_tracked).shallow_clone().f_add_scalar_(1)?;
        }
        if pass.mode == Mode::Derivative {
            return self.forward_dual(pass, input);
        }
        let [running_mean, running_var] =
            [self.running_mean, self.running_var].map(|slot| match pass.mode {
                Mode::Train | Mode::Evaluate => Some(pass.value(slot)),
                Mode::LookAhead | Mode::Derivative => None,
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

    /// [`BatchNorm::forward`] of dual numbers, by kernels that go over the tensors a few times: libtorch's own rule is made
    /// of some twenty operations and takes a third of a pass.
    ///
    /// With y = gamma x^ + beta, the Jacobian dy/dx is symmetric: per channel it is gamma / standard deviation times a
    /// projection. So the derivative along dx is what running backwards makes of the gradient dx. Along the
    /// parameters it is dgamma x^ + dbeta, a batch norm with these parameters.
    fn forward_dual(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        let (input, along_input) = forward_mode::split(input)?;
        let (weight, along_weight) = forward_mode::split(pass.value(self.weight))?;
        let (bias, along_bias) = forward_mode::split(pass.value(self.bias))?;
        let along = [along_input, along_weight, along_bias];
        let [Some(along_input), Some(along_weight), Some(along_bias)] = along else {
            bail!("the direction has no part for a batch norm");
        };
        let norm = |input: &Tensor, weight: &Tensor, bias: &Tensor| {
            let none = None::<&Tensor>;
            let (momentum, epsilon) = (Self::MOMENTUM, Self::EPSILON);
            input.f_batch_norm(Some(weight), Some(bias), none, none, true, momentum, epsilon, true)
        };
        let along_parameters = norm(&input, &along_weight, &along_bias)?;
        let input = input.f_detach()?.f_set_requires_grad(true)?;
        let (output, gradient) = tch::with_grad(|| -> anyhow::Result<_> {
            let output = norm(&input, &weight.f_detach()?, &bias.f_detach()?)?;
            let along = output.f_mul(&along_input)?.f_sum(Kind::Float)?;
            Ok((output.f_detach()?, Tensor::f_run_backward(&[along], &[&input], false, false)?))
        })?;
        let along_input = gradient.first().context("no gradient")?;
        forward_mode::join(&output, &along_parameters.f_add(along_input)?)
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
    /// When libtorch cannot make the tensors.
    pub fn zero(builder: &mut Builder, [inputs, outputs]: [i64; 2]) -> anyhow::Result<Self> {
        let zero = Initial::Constant(0.0);
        let weight = builder.float("weight", &[outputs, inputs], zero, TensorRole::Trained)?;
        let bias = builder.float("bias", &[outputs], zero, TensorRole::Trained)?;
        Ok(Self { weight, bias: Some(bias) })
    }

    /// With a bias; both from PyTorch's default, uniform within 1 / sqrt(inputs).
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn uniform(builder: &mut Builder, [inputs, outputs]: [i64; 2]) -> anyhow::Result<Self> {
        let initial = Initial::Within(1.0 / (inputs as f64).sqrt());
        let weight = builder.float("weight", &[outputs, inputs], initial, TensorRole::Trained)?;
        let bias = builder.float("bias", &[outputs], initial, TensorRole::Trained)?;
        Ok(Self { weight, bias: Some(bias) })
    }

    /// Without a bias, from PyTorch's default.
    ///
    /// # Errors
    /// When libtorch cannot make the tensor.
    pub fn without_bias(
        builder: &mut Builder,
        [inputs, outputs]: [i64; 2],
    ) -> anyhow::Result<Self> {
        let shape = [outputs, inputs];
        let weight = builder.float("weight", &shape, Initial::UniformFanIn, TensorRole::Trained)?;
        Ok(Self { weight, bias: None })
    }

    /// [N,D] -> [N,D'].
    ///
    /// # Errors
    /// When the shapes do not match.
    pub fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        let bias = self.bias.map(|bias| pass.factor(bias)).transpose()?;
        Ok(pass.in_precision(input)?.f_linear(&pass.factor(self.weight)?, bias.as_ref())?)
    }
}
