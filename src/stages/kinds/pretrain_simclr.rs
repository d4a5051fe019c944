//! `pretrain-simclr`: contrastive pre-training of an encoder.

use super::architecture::Architecture;
use super::precision::Precision;
use crate::kind::Rules;
use crate::known::{Known, KnownInputs};
use crate::parameter::{AT_LEAST_ONE, BELOW_ONE, FRACTION, NOT_NEGATIVE, POSITIVE};

choices! {
    /// The optimizer of contrastive pre-training. All with momentum 0.9 or the equivalent.
    pub enum PretrainOptimizer {
        /// LARS around SGD momentum 0.9, trust coefficient 0.001: for large batches.
        Lars,
        /// SGD momentum 0.9.
        Sgd,
        /// Adam with betas 0.9 and 0.999: for small batches and few epochs.
        Adam,
    }
}

choices! {
    /// Whether views are blurred, half of the time.
    pub enum Blur {
        /// Views of at least 64 pixels are blurred: the paper blurs ImageNet's views, but not CIFAR's.
        Auto,
        /// All views are blurred.
        Always,
        /// No view is blurred.
        Never,
    }
}

kind! {
    /// Pre-trains an encoder with SimCLR, on the training images without their labels.
    ///
    /// On all of them, also those that a `split` holds out: it sees no label. Images that the data set itself sets aside for
    /// validation, as Clothing1M does (`clean_val`), are not among them.
    ///
    /// The defaults are the full recipe, for a GPU. For a CPU, set parameters: a small
    /// architecture, few epochs, a smaller batch, `optimizer = "adam"` with a learning rate near 1e-3.
    ///
    /// # Output
    ///
    /// The artifact holds the encoder (`weights.safetensors`), the projection head beside it
    /// (`projection.safetensors`) and per epoch the loss, the learning rate and the contrastive accuracy, which is how often a view's nearest view is the
    /// other one of its image (`curves.csv`). `views.png` shows 8 of the training images, evenly
    /// spaced, in a row each: the image, and its two views in the first epoch. Of images with neither one nor three channels it
    /// shows the first in grey; their views differ in brightness and contrast, but not in saturation and hue, and none is made grey.
    PretrainSimclr = "pretrain-simclr", version 6, seeded true, output Weights;
    ports {
        /// The data set.
        data: One[Dataset];
    }
    parameters {
        /// The encoder.
        architecture: Architecture = Architecture::Resnet18;
        /// Passes over the training set. An epoch leaves out the last batch if it is not full.
        epochs: u32 = 1000, in AT_LEAST_ONE;
        /// Images per step; each is augmented to two views.
        ///
        /// All of them, if there are fewer.
        batch_size: u64 = 1024, in 2.0..;
        /// The length of the vectors that the loss compares.
        projection_size: u32 = 128, in 1.0..=65536.0;
        /// The temperature of the NT-Xent loss.
        temperature: f64 = 0.5, in POSITIVE;
        /// The optimizer.
        optimizer: PretrainOptimizer = PretrainOptimizer::Lars;
        /// The peak learning rate.
        learning_rate: f64 = 4.0, in POSITIVE;
        /// Weight decay; not on parameters with `bn` or `bias` in their name.
        weight_decay: f64 = 1e-6, in NOT_NEGATIVE;
        /// The share of the steps in which the learning rate rises linearly; then it falls along a cosine.
        warmup: f64 = 0.01, in BELOW_ONE;
        /// The smallest share of an image that a crop covers.
        crop_area_min: f64 = 0.08, in FRACTION;
        /// The strength of the colour jitter: brightness, contrast and saturation vary by 0.8 times this, hue by 0.2 times this.
        jitter_strength: f64 = 0.5, in FRACTION;
        /// The side in pixels of the views. Without it: that of the data set's images; for encoded images 224.
        image_size: Option<u32> = None, in 1.0..=4096.0;
        /// Whether views are blurred, half of the time: Gaussian, with a standard deviation of 0.1 to 2 pixels, as in the paper of SimCLR, a kernel of a tenth of the side, and reflected borders. The SimCLR code that Ghosh and Lan (2021) credit has 0.2 to 2 pixels and zeros beyond the borders, with the same kernel at 224 pixels.
        blur: Blur = Blur::Auto;
        /// The precision of the network's matrix products and convolutions.
        precision: Precision = Precision::F32;
    }
    execution {}
    headline ["loss"]
}

impl Rules for PretrainSimclr {
    fn version(&self) -> Option<u32> {
        self.precision.newer_than(6)
    }

    fn knows(&self, inputs: &KnownInputs) -> Known {
        let channels = inputs.at("data").channels;
        Known { architecture: Some(self.architecture.into()), channels, ..Known::default() }
    }
}
