//! Residual networks (He et al., "Deep residual learning", 2016), with the names of
//! torchvision's state dict.
//!
//! Three families: torchvision's ResNets with projection shortcuts, as they are or with the CIFAR
//! stem (3x3 convolution with stride 1, no max-pool); the CIFAR ResNets of depth 6n+2 with
//! parameter-free shortcuts (option A: subsample, pad channels with zeros on both sides); and the pre-activation ResNet of
//! DivideMix (Li et al., 2020; He et al., "Identity mappings in deep residual networks", 2016), with that one's names.

use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::state_dict::residual::{self, Layers};
use tch::Tensor;

use super::layer::{BatchNorm, Bias, Convolution};
use super::pass::Pass;
use super::state::{Builder, Initial};

/// How the convolutions of an architecture begin: the stem, and those of the blocks.
fn initial(architecture: Architecture) -> [Initial; 2] {
    match architecture {
        // The reference draws this one by PyTorch's default of `kaiming_normal_`.
        Architecture::Resnet32 => [Initial::KaimingNormalFanIn; 2],
        // DivideMix leaves PyTorch's default.
        Architecture::PreactResnet18 => [Initial::UniformFanIn; 2],
        // The reference replaces torchvision's 7x7 stem after it was initialised: PyTorch's default stays.
        Architecture::Resnet18 | Architecture::Resnet34 | Architecture::Resnet50 => {
            [Initial::UniformFanIn, Initial::KaimingNormalFanOut]
        }
        Architecture::Resnet8Fast
        | Architecture::Resnet8
        | Architecture::Resnet18At224
        | Architecture::Resnet50At224 => [Initial::KaimingNormalFanOut; 2],
    }
}

/// How many features the encoder of this architecture produces.
pub fn feature_count(architecture: Architecture) -> i64 {
    pipeline_stages::state_dict::feature_count(architecture) as i64
}

/// A residual encoder.
#[derive(Debug)]
pub struct Encoder {
    conv1: Convolution,
    bn1: BatchNorm,
    max_pool: bool,
    blocks: Vec<Block>,
}

impl Encoder {
    /// Builds `conv1`, `bn1`, `layer1`, ...
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(
        builder: &mut Builder,
        architecture: Architecture,
        image_channels: i64,
    ) -> anyhow::Result<Self> {
        let Layers { stem, max_pool, blocks, .. } =
            Layers::of(architecture, usize::try_from(image_channels)?);
        let [of_stem, of_blocks] = initial(architecture);
        let (conv1, bn1) =
            normalised(builder, ["conv1".to_owned(), "bn1".to_owned()], stem, of_stem)?;
        let blocks = blocks.iter().map(|block| {
            builder.within(&block.name, |builder| Block::new(builder, block, of_blocks))
        });
        let blocks = blocks.collect::<anyhow::Result<_>>()?;
        Ok(Self { conv1, bn1, max_pool, blocks })
    }

    /// Images [N,C,H,W] -> features [N,F], averaged over the pixels.
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward(&self, pass: &Pass, images: &Tensor) -> anyhow::Result<Tensor> {
        // The images, too: they are smaller than what comes out of the stem.
        let stem = self.conv1.forward(pass, &channels_last(images)?)?;
        let stem = channels_last(&stem)?;
        let mut hidden = self.bn1.forward(pass, &stem)?.f_relu_()?;
        if self.max_pool {
            hidden = hidden.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        }
        for block in &self.blocks {
            hidden = block.forward(pass, &hidden)?;
        }
        Ok(hidden.f_mean_dim([2i64, 3].as_slice(), false, tch::Kind::Float)?)
    }
}

/// A residual block.
#[derive(Debug)]
struct Block {
    layers: Vec<(Convolution, BatchNorm)>,
    /// Whether each batch norm is before its convolution.
    pre_activation: bool,
    shortcut: Shortcut,
}

#[derive(Debug)]
enum Shortcut {
    Identity,
    /// `downsample.0` and `downsample.1`.
    Projection(Convolution, BatchNorm),
    /// `shortcut.0`.
    BareProjection(Convolution),
    /// Option A: how many zero channels go before and behind.
    Subsample {
        before: i64,
        behind: i64,
    },
}

impl Block {
    fn new(
        builder: &mut Builder,
        block: &residual::Block,
        initial: Initial,
    ) -> anyhow::Result<Self> {
        let layers = (1..).zip(&block.convolutions).map(|(index, convolution)| {
            let names = [format!("conv{index}"), format!("bn{index}")];
            match block.pre_activation {
                true => pre_activated(builder, names, *convolution, initial),
                false => normalised(builder, names, *convolution, initial),
            }
        });
        let layers = layers.collect::<anyhow::Result<_>>()?;
        let shortcut = match block.shortcut {
            residual::Shortcut::Identity => Shortcut::Identity,
            residual::Shortcut::Subsample { added } => {
                let (added, before) = (added as i64, added as i64 / 2);
                Shortcut::Subsample { before, behind: added - before }
            }
            residual::Shortcut::BareProjection(projection) => {
                let name = "shortcut.0".to_owned();
                Shortcut::BareProjection(bare(builder, name, projection, initial)?)
            }
            residual::Shortcut::Projection(projection) => {
                let names = [0, 1].map(|index| format!("downsample.{index}"));
                let (convolution, norm) = normalised(builder, names, projection, initial)?;
                Shortcut::Projection(convolution, norm)
            }
        };
        Ok(Self { layers, pre_activation: block.pre_activation, shortcut })
    }

    fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        if self.pre_activation {
            return self.forward_pre_activated(pass, input);
        }
        let mut hidden = input.shallow_clone();
        for (index, (convolution, norm)) in self.layers.iter().enumerate() {
            hidden = norm.forward(pass, &convolution.forward(pass, &hidden)?)?;
            if index + 1 < self.layers.len() {
                hidden = hidden.f_relu_()?;
            }
        }
        Ok(hidden.f_add_(&self.shortcut.forward(pass, input)?)?.f_relu_()?)
    }

    /// The shortcut begins behind the first ReLU, also where it is the identity.
    fn forward_pre_activated(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        let mut hidden = input.shallow_clone();
        let mut shortcut = None;
        for (convolution, norm) in &self.layers {
            let active = norm.forward(pass, &hidden)?.f_relu_()?;
            if shortcut.is_none() {
                shortcut = Some(self.shortcut.forward(pass, &active)?);
            }
            hidden = convolution.forward(pass, &active)?;
        }
        // Not in place: a record may hold what the convolution returned.
        Ok(match shortcut {
            Some(shortcut) => hidden.f_add(&shortcut)?,
            None => hidden,
        })
    }
}

impl Shortcut {
    fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        match self {
            Self::Identity => Ok(input.shallow_clone()),
            Self::Projection(convolution, norm) => {
                norm.forward(pass, &convolution.forward(pass, input)?)
            }
            Self::BareProjection(convolution) => convolution.forward(pass, input),
            Self::Subsample { before, behind } => {
                let every_other = input.f_slice(2, None, None, 2)?.f_slice(3, None, None, 2)?;
                Ok(every_other.f_constant_pad_nd([0, 0, 0, 0, *before, *behind])?)
            }
        }
    }
}

/// A convolution, and the batch norm behind it.
fn normalised(
    builder: &mut Builder,
    [convolution, norm]: [String; 2],
    layer: residual::Convolution,
    initial: Initial,
) -> anyhow::Result<(Convolution, BatchNorm)> {
    let convolution = bare(builder, convolution, layer, initial)?;
    Ok((convolution, batch_norm(builder, norm, layer.outputs)?))
}

/// A convolution, and the batch norm before it.
fn pre_activated(
    builder: &mut Builder,
    [convolution, norm]: [String; 2],
    layer: residual::Convolution,
    initial: Initial,
) -> anyhow::Result<(Convolution, BatchNorm)> {
    let norm = batch_norm(builder, norm, layer.inputs)?;
    Ok((bare(builder, convolution, layer, initial)?, norm))
}

fn bare(
    builder: &mut Builder,
    name: String,
    layer: residual::Convolution,
    initial: Initial,
) -> anyhow::Result<Convolution> {
    let [inputs, outputs, kernel, stride] =
        [layer.inputs, layer.outputs, layer.kernel, layer.stride].map(|size| size as i64);
    builder.within(name, |builder| {
        Convolution::new(builder, [inputs, outputs], kernel, stride, initial)
    })
}

fn batch_norm(builder: &mut Builder, name: String, channels: usize) -> anyhow::Result<BatchNorm> {
    builder.within(name, |builder| BatchNorm::new(builder, channels as i64, Bias::Trained))
}

/// The same values with channels innermost in memory, which is what the fast kernels want. All that
/// follows keeps the layout.
fn channels_last(tensor: &Tensor) -> anyhow::Result<Tensor> {
    Ok(tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::random::Purpose;

    /// The standard deviation of a layer's first weights.
    fn deviation(architecture: Architecture, name: &str) -> f64 {
        let mut builder = Builder::new(3, Purpose::InitialEncoder, Device::Cpu);
        Encoder::new(&mut builder, architecture, 3).unwrap();
        let state = builder.finish();
        let named = state.tensors().iter().find(|named| named.name == name).unwrap();
        named.tensor.std(false).double_value(&[])
    }

    #[test]
    fn first_weights_have_the_deviation_of_their_fan() {
        for (architecture, name, expected) in [
            // 16 channels in, 32 out.
            (Architecture::Resnet32, "layer2.0.conv1.weight", (2.0f64 / (16.0 * 9.0)).sqrt()),
            (Architecture::Resnet8, "layer2.0.conv1.weight", (2.0f64 / (32.0 * 9.0)).sqrt()),
            (Architecture::Resnet18, "layer2.0.conv1.weight", (2.0f64 / (128.0 * 9.0)).sqrt()),
            // Uniform within the root of the fan-in.
            (
                Architecture::PreactResnet18,
                "layer2.0.conv1.weight",
                (3.0f64 * 64.0 * 9.0).sqrt().recip(),
            ),
        ] {
            let found = deviation(architecture, name);
            assert!((found / expected - 1.0).abs() < 0.05, "{architecture}: {found}, {expected}");
        }
    }
}
