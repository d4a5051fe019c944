//! Networks: a residual encoder, with a classifier or with a projection head on top; an encoder of any architecture, frozen; a net
//! that weighs samples.
//!
//! Does not depend on losses, optimizers or files.

pub mod forward_mode;
mod frozen;
mod layer;
mod pass;
mod resnet;
mod state;
#[cfg(test)]
mod state_dict;
mod vit;
mod weighting;
pub mod weights;

use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use tch::{Device, Kind, Tensor};

pub use frozen::FrozenEncoder;
pub use layer::{BatchNorm, Bias, Convolution, Linear};
pub use pass::{ConvolutionOutputs, Mode, Pass};
pub use resnet::{Encoder, feature_count};
pub use state::{
    Builder, Initial, NetworkState, NetworkTensor, Slot, TensorRole, Values, bytes_of,
};
pub use weighting::Weighting;

use crate::random::Purpose;

/// An encoder with a linear classifier: torchvision's ResNet, whose classifier is called `fc`.
#[derive(Debug)]
pub struct Classifier {
    encoder: Encoder,
    fc: Linear,
    state: NetworkState,
    precision: Precision,
}

impl Classifier {
    /// A fresh one: the encoder drawn by the seed, the last layer zero.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(
        architecture: Architecture,
        image_channels: usize,
        classes: usize,
        seed: u64,
        device: Device,
    ) -> anyhow::Result<Self> {
        Self::numbered(0, architecture, image_channels, classes, seed, device)
    }

    /// One of several networks, counted from 0, each with draws of its own. The last layer of the first is zero; those of the
    /// others are drawn, so that networks differ that take over the same encoder.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn numbered(
        number: u32,
        architecture: Architecture,
        image_channels: usize,
        classes: usize,
        seed: u64,
        device: Device,
    ) -> anyhow::Result<Self> {
        let mut builder = Builder::new(seed, Purpose::InitialEncoder, device).of_network(number);
        let encoder = Encoder::new(&mut builder, architecture, i64::try_from(image_channels)?)?;
        let shape = [feature_count(architecture), i64::try_from(classes)?];
        let fc = builder.within("fc", |builder| match number {
            0 => Linear::zero(builder, shape),
            _ => Linear::uniform(builder, shape),
        })?;
        Ok(Self { encoder, fc, state: builder.finish(), precision: Precision::F32 })
    }

    /// The same network, computing in another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Images [N,C,H,W] -> logits, float [N,K], with the network's own weights.
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> anyhow::Result<Tensor> {
        self.forward_with(self.state.values(), images, mode)
    }

    /// Images [N,C,H,W] -> logits, float [N,K], with other values in the place of the weights.
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward_with(
        &self,
        values: Values,
        images: &Tensor,
        mode: Mode,
    ) -> anyhow::Result<Tensor> {
        self.logits(&Pass::new(values, mode, self.precision), images)
    }

    /// [`Classifier::forward`], and what its convolutions returned, for [`Classifier::forward_dual`].
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward_with_outputs(
        &self,
        images: &Tensor,
        mode: Mode,
    ) -> anyhow::Result<(Tensor, ConvolutionOutputs)> {
        let outputs = ConvolutionOutputs::default();
        let pass = Pass::new(self.state.values(), mode, self.precision);
        let logits = self.logits(&pass.with_outputs(outputs.clone()), images)?;
        Ok((logits, outputs))
    }

    /// Images [N,C,H,W] -> logits as dual numbers, float [N,K]. The values of `duals` and the images are
    /// those of the pass that `outputs` are from.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn forward_dual(
        &self,
        duals: Values,
        images: &Tensor,
        outputs: &ConvolutionOutputs,
    ) -> anyhow::Result<Tensor> {
        let pass = Pass::new(duals, Mode::Derivative, self.precision);
        self.logits(&pass.with_outputs(outputs.clone()), images)
    }

    fn logits(&self, pass: &Pass, images: &Tensor) -> anyhow::Result<Tensor> {
        let features = self.encoder.forward(pass, images)?;
        // In bf16 the last layer is rounded as all others are, and what follows is in f32: so does PyTorch's autocast.
        Ok(self.fc.forward(pass, &features)?.f_to_kind(Kind::Float)?)
    }

    /// All tensors: those of the encoder, then `fc`.
    pub fn state(&self) -> &NetworkState {
        &self.state
    }

    /// Whether a tensor of this name belongs to the classifier and not to the encoder.
    pub fn in_head(name: &str) -> bool {
        name.starts_with("fc.")
    }
}

/// The logits of the mean of several predictions: ln (1/n sum_k softmax(l_k)); float [B,K] each. Those of one are its own.
///
/// # Errors
/// When there are none, or their shapes differ.
pub fn mean_prediction(logits: &[Tensor]) -> anyhow::Result<Tensor> {
    if let [one] = logits {
        return Ok(one.shallow_clone());
    }
    let logs = logits.iter().map(|logits| logits.f_log_softmax(1, Kind::Float));
    let logs = Tensor::f_stack(&logs.collect::<Result<Vec<_>, _>>()?, 0)?;
    let sum = logs.f_logsumexp([0i64].as_slice(), false)?;
    Ok(sum.f_sub_scalar((logits.len() as f64).ln())?)
}

/// An encoder with SimCLR's projection head: linear, batch norm, ReLU, linear, batch norm; the linear
/// layers without bias, the last batch norm with a bias that stays zero.
#[derive(Debug)]
pub struct Projector {
    encoder: Encoder,
    fc1: Linear,
    bn1: BatchNorm,
    fc2: Linear,
    bn2: BatchNorm,
    state: NetworkState,
    precision: Precision,
}

impl Projector {
    /// A fresh one, drawn by the seed.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(
        architecture: Architecture,
        image_channels: usize,
        projection_size: i64,
        seed: u64,
        device: Device,
    ) -> anyhow::Result<Self> {
        let mut builder = Builder::new(seed, Purpose::InitialEncoder, device);
        let encoder = Encoder::new(&mut builder, architecture, i64::try_from(image_channels)?)?;
        builder.begin(Purpose::InitialProjection);

        let features = feature_count(architecture);
        let [fc1, bn1, fc2, bn2] =
            ["fc1", "bn1", "fc2", "bn2"].map(|name| format!("projection.{name}"));
        let fc1 =
            builder.within(fc1, |builder| Linear::without_bias(builder, [features, features]))?;
        let bn1 =
            builder.within(bn1, |builder| BatchNorm::new(builder, features, Bias::Trained))?;
        let fc2 = builder
            .within(fc2, |builder| Linear::without_bias(builder, [features, projection_size]))?;
        let bn2 =
            builder.within(bn2, |builder| BatchNorm::new(builder, projection_size, Bias::Fixed))?;
        let (state, precision) = (builder.finish(), Precision::F32);
        Ok(Self { encoder, fc1, bn1, fc2, bn2, state, precision })
    }

    /// The same network, computing in another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Images [N,C,H,W] -> projections, float [N,P], not normalised, with the network's own weights.
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> anyhow::Result<Tensor> {
        self.forward_with(self.state.values(), images, mode)
    }

    /// Images [N,C,H,W] -> projections, float [N,P], not normalised, with other values in the place of the weights.
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward_with(
        &self,
        values: Values,
        images: &Tensor,
        mode: Mode,
    ) -> anyhow::Result<Tensor> {
        let pass = Pass::new(values, mode, self.precision);
        let features = self.encoder.forward(&pass, images)?;
        let hidden = self.bn1.forward(&pass, &self.fc1.forward(&pass, &features)?)?.f_relu_()?;
        let projection = self.bn2.forward(&pass, &self.fc2.forward(&pass, &hidden)?)?;
        Ok(projection.f_to_kind(Kind::Float)?)
    }

    /// All tensors: those of the encoder, then `projection.*`.
    pub fn state(&self) -> &NetworkState {
        &self.state
    }

    /// Whether a tensor of this name belongs to the projection head and not to the encoder.
    pub fn in_head(name: &str) -> bool {
        name.starts_with("projection.")
    }
}
