//! The encoders as tensors: their names, as other programs have them, in the order of PyTorch's `state_dict`.
//!
//! Files of other programs are checked against these tensors, and `src/learn/network/` builds its networks from the same
//! tables. Does not depend on files or on a tensor library.

pub mod residual;
mod tensor;
pub mod transformer;

pub use tensor::{ElementType, TensorSpec};

use crate::kinds::architecture::EncoderArchitecture;

/// The tensors of an encoder for images with this many channels.
pub fn encoder(
    architecture: impl Into<EncoderArchitecture>,
    image_channels: usize,
) -> Vec<TensorSpec> {
    match architecture.into() {
        EncoderArchitecture::Residual(architecture) => {
            residual::encoder(architecture, image_channels)
        }
        EncoderArchitecture::Transformer(transformer) => {
            transformer::encoder(transformer, image_channels)
        }
    }
}

/// A layer that every encoder of the kind of this one has, and that sees the pixels.
pub fn stem(architecture: EncoderArchitecture) -> &'static str {
    match architecture {
        EncoderArchitecture::Residual(_) => residual::STEM,
        EncoderArchitecture::Transformer(_) => transformer::STEM,
    }
}

/// Whether a name is that of a layer of an encoder of the kind of this one, not of a head or something else.
pub fn has_layer(architecture: EncoderArchitecture, name: &str) -> bool {
    match architecture {
        EncoderArchitecture::Residual(_) => residual::has_layer(name),
        EncoderArchitecture::Transformer(_) => transformer::has_layer(name),
    }
}

/// How many features an encoder produces.
pub fn feature_count(architecture: impl Into<EncoderArchitecture>) -> usize {
    match architecture.into() {
        EncoderArchitecture::Residual(architecture) => {
            residual::Layers::of(architecture, 1).features()
        }
        EncoderArchitecture::Transformer(transformer) => transformer::Size::of(transformer).width,
    }
}

/// Pixels along each side of the images that an encoder is made for.
pub fn image_size(architecture: impl Into<EncoderArchitecture>) -> usize {
    match architecture.into() {
        EncoderArchitecture::Residual(architecture) => {
            residual::Layers::of(architecture, 1).image_size
        }
        EncoderArchitecture::Transformer(transformer) => {
            transformer::Size::of(transformer).image_size
        }
    }
}
