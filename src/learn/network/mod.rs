//! Networks: a residual encoder, with a classifier or with a projection head on top.
//!
//! Knows no loss, no optimizer and no file.

mod layer;
mod resnet;
mod state;

use pipeline_stages::kinds::architecture::Architecture;
use tch::{Device, Tensor};

pub use layer::{BatchNorm, Bias, Convolution, Linear, Mode};
pub use resnet::{Encoder, feature_count};
pub use state::{Builder, Initial, NamedTensor, Role, State, bytes_of};

use crate::random::Purpose;

/// An encoder with a linear classifier: torchvision's ResNet, whose classifier is called `fc`.
#[derive(Debug)]
pub struct Classifier {
    encoder: Encoder,
    fc: Linear,
    state: State,
}

impl Classifier {
    /// A fresh one: the encoder drawn by the seed, the classifier zero.
    ///
    /// # Errors
    /// When libtorch can't make the tensors.
    pub fn new(
        architecture: Architecture,
        image_channels: usize,
        classes: usize,
        seed: u64,
        device: Device,
    ) -> anyhow::Result<Self> {
        let mut builder = Builder::new(seed, Purpose::InitialEncoder, device);
        let encoder = Encoder::new(&mut builder, architecture, i64::try_from(image_channels)?)?;
        let shape = [feature_count(architecture), i64::try_from(classes)?];
        let fc = builder.within("fc", |builder| Linear::zero(builder, shape))?;
        Ok(Self { encoder, fc, state: builder.finish() })
    }

    /// Images [N,C,H,W] -> logits [N,K].
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> anyhow::Result<Tensor> {
        self.fc.forward(&self.encoder.forward(images, mode)?)
    }

    /// All tensors: those of the encoder, then `fc`.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a tensor of this name belongs to the classifier and not to the encoder.
    pub fn in_head(name: &str) -> bool {
        name.starts_with("fc.")
    }
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
    state: State,
}

impl Projector {
    /// A fresh one, drawn by the seed.
    ///
    /// # Errors
    /// When libtorch can't make the tensors.
    pub fn new(
        architecture: Architecture,
        image_channels: usize,
        projection_size: i64,
        seed: u64,
        device: Device,
    ) -> anyhow::Result<Self> {
        let mut builder = Builder::new(seed, Purpose::InitialEncoder, device);
        let encoder = Encoder::new(&mut builder, architecture, i64::try_from(image_channels)?)?;
        let state = builder.finish();

        let features = feature_count(architecture);
        let mut builder = Builder::new(seed, Purpose::InitialProjection, device);
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
        let state = state.joined(builder.finish());
        Ok(Self { encoder, fc1, bn1, fc2, bn2, state })
    }

    /// Images [N,C,H,W] -> projections [N,P], not normalised.
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> anyhow::Result<Tensor> {
        let features = self.encoder.forward(images, mode)?;
        let hidden = self.bn1.forward(&self.fc1.forward(&features)?, mode)?.f_relu_()?;
        self.bn2.forward(&self.fc2.forward(&hidden)?, mode)
    }

    /// All tensors: those of the encoder, then `projection.*`.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a tensor of this name belongs to the projection head and not to the encoder.
    pub fn in_head(name: &str) -> bool {
        name.starts_with("projection.")
    }
}
