//! `features`: what a frozen encoder makes of every image.

use super::architecture::EncoderArchitecture;
use super::precision::Precision;
use crate::kind::{Problem, Rules};
use crate::known::{Known, KnownInputs, differing};
use crate::parameter::AT_LEAST_ONE;
use crate::state_dict::transformer::Size;

kind! {
    /// Computes the features of every image with a frozen encoder, for probes and for correcting labels.
    ///
    /// The encoder runs in evaluation mode and sees each image once, not augmented; pixels are scaled as it was trained, as
    /// `probe` does. With N samples in a part of the data set and F features, `features.safetensors` has, with `train.` or
    /// `test.` before each name:
    ///
    /// - `features`, f32 `[N,F]`: row i is about sample i of the part, also of those that a split holds out;
    /// - `label-clean`, i64 `[N]`: the label of the data set.
    ///
    /// `features.json` describes the data set and the encoder. Python reads the first with `safetensors.numpy.load_file`.
    /// It takes 4 F + 8 bytes a sample. The pass starts again when it is interrupted.
    Features = "features", version 1, seeded false, output Features;
    ports {
        /// The encoder; of a model of two networks that of the first.
        weights: One[Weights, Model];
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// The side in pixels of the images that the encoder sees. Without it: the data set's own; for encoded images and for vision transformers 224.
        image_size: Option<u32> = None, in 1.0..=4096.0;
        /// The precision of the encoder's matrix products and convolutions.
        precision: Precision = Precision::F32;
        /// Samples per step. It can change the last digits. Without it: 500, fewer for images larger than 64 pixels.
        batch_size: Option<u64> = None, in AT_LEAST_ONE;
    }
    execution {}
    headline ["train-samples", "test-samples", "dimension"]
}

impl Rules for Features {
    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        encoder_problems(inputs, self.image_size)
    }

    fn knows(&self, inputs: &KnownInputs) -> Known {
        inputs.at("data").of_features()
    }
}

/// What does not fit between the encoder at the port `weights` and the images at the port `data`, of which it sees squares of
/// this side.
pub(super) fn encoder_problems(inputs: &KnownInputs, image_size: Option<u32>) -> Vec<Problem> {
    let (data, weights) = (inputs.at("data"), inputs.at("weights"));
    let mut problems = Vec::new();
    if let Some((of_weights, own)) = differing(weights.channels, data.channels) {
        let message = format!(
            "the encoder takes images with {of_weights} channels, but the data set has {own}"
        );
        problems.push(Problem::new("weights", message));
    }
    if let (Some(side), Some(EncoderArchitecture::Transformer(encoder))) =
        (image_size, weights.architecture)
    {
        let patch = Size::of(encoder).patch as u32;
        if side % patch != 0 {
            let message = format!(
                "{encoder} sees patches of {patch}x{patch} pixels: {side} is not a multiple of {patch}, as {} is",
                side.div_ceil(patch) * patch
            );
            problems.push(Problem::new("image-size", message));
        }
    }
    problems
}
