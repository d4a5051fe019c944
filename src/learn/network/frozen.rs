//! An encoder of any architecture that is used as it is, in evaluation mode: what makes features.

use pipeline_stages::kinds::architecture::EncoderArchitecture;
use pipeline_stages::kinds::precision::Precision;
use tch::{Device, Tensor};

use super::pass::{Mode, Pass};
use super::resnet::Encoder;
use super::state::{Builder, NetworkState};
use super::vit::VisionTransformer;
use crate::random::Purpose;

/// An encoder that is not trained.
#[derive(Debug)]
pub struct FrozenEncoder {
    layers: Layers,
    state: NetworkState,
    precision: Precision,
}

#[derive(Debug)]
enum Layers {
    Residual(Encoder),
    Transformer(VisionTransformer),
}

impl FrozenEncoder {
    /// One whose values a file must replace: see [`super::weights::read_into`].
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(
        architecture: EncoderArchitecture,
        image_channels: usize,
        precision: Precision,
        device: Device,
    ) -> anyhow::Result<Self> {
        let mut builder = Builder::new(0, Purpose::InitialEncoder, device);
        let channels = i64::try_from(image_channels)?;
        let layers = match architecture {
            EncoderArchitecture::Residual(architecture) => {
                Layers::Residual(Encoder::new(&mut builder, architecture, channels)?)
            }
            EncoderArchitecture::Transformer(transformer) => {
                Layers::Transformer(VisionTransformer::new(&mut builder, transformer, channels)?)
            }
        };
        Ok(Self { layers, state: builder.finish(), precision })
    }

    /// Images [N,C,H,W] -> features, float [N,F], without a graph.
    ///
    /// # Errors
    /// When the encoder does not take images of this shape.
    pub fn features(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let _no_gradients = tch::no_grad_guard();
        let pass = Pass::new(self.state.values(), Mode::Evaluate, self.precision);
        match &self.layers {
            Layers::Residual(encoder) => encoder.forward(&pass, images),
            Layers::Transformer(encoder) => encoder.forward(&pass, images),
        }
    }

    /// All tensors.
    pub fn state(&self) -> &NetworkState {
        &self.state
    }
}
