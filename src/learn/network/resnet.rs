//! Residual networks (He et al., "Deep residual learning", 2016), with the names of
//! torchvision's state dict.
//!
//! Two families: torchvision's ResNets with projection shortcuts, as they are or with the CIFAR
//! stem (3x3 convolution with stride 1, no max-pool); and the CIFAR ResNets of depth 6n+2 with
//! parameter-free shortcuts (option A: subsample, pad channels with zeros on both sides).

use pipeline_stages::kinds::architecture::Architecture;
use tch::Tensor;

use super::layer::{BatchNorm, Bias, Convolution};
use super::pass::Pass;
use super::state::{Builder, Initial};

/// What is particular to one architecture.
struct Plan {
    stem: Stem,
    block: BlockKind,
    /// Of the convolutions within blocks.
    initial: Initial,
    /// Per stage: base channels and how many blocks.
    stages: &'static [(i64, usize)],
}

/// What comes before the first block.
#[derive(Debug, Clone, Copy)]
struct Stem {
    kernel: i64,
    stride: i64,
    initial: Initial,
    /// 3x3, stride 2, padding 1.
    max_pool: bool,
}

/// The kind of a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    /// Two 3x3 convolutions, projection shortcut where the shape changes.
    Basic,
    /// 1x1, 3x3, 1x1 with four times the channels; projection shortcut where the shape changes.
    Bottleneck,
    /// Two 3x3 convolutions, option-A shortcut where the shape changes.
    BasicOptionA,
}

impl BlockKind {
    fn expansion(self) -> i64 {
        if self == Self::Bottleneck { 4 } else { 1 }
    }
}

fn plan(architecture: Architecture) -> Plan {
    const RESNET18: &[(i64, usize)] = &[(64, 2), (128, 2), (256, 2), (512, 2)];
    const RESNET50: &[(i64, usize)] = &[(64, 3), (128, 4), (256, 6), (512, 3)];
    const RESNET32: &[(i64, usize)] = &[(16, 5), (32, 5), (64, 5)];
    const RESNET8: &[(i64, usize)] = &[(16, 1), (32, 1), (64, 1)];
    let initial = Initial::KaimingNormalFanOut;
    let stem = |kernel, stride, initial, max_pool| Stem { kernel, stride, initial, max_pool };
    // The reference replaces torchvision's 7x7 stem after it was initialised: PyTorch's default stays.
    let small = |block, stages| {
        let stem = stem(3, 1, Initial::UniformFanIn, false);
        Plan { stem, block, initial, stages }
    };
    let large = |block, stages| Plan { stem: stem(7, 2, initial, true), block, initial, stages };
    let cifar = |stride, initial, stages| {
        let stem = stem(3, stride, initial, false);
        Plan { stem, block: BlockKind::BasicOptionA, initial, stages }
    };
    match architecture {
        Architecture::Resnet8Fast => cifar(2, initial, RESNET8),
        Architecture::Resnet8 => cifar(1, initial, RESNET8),
        // The reference draws this one by PyTorch's default of `kaiming_normal_`.
        Architecture::Resnet32 => cifar(1, Initial::KaimingNormalFanIn, RESNET32),
        Architecture::Resnet18 => small(BlockKind::Basic, RESNET18),
        Architecture::Resnet50 => small(BlockKind::Bottleneck, RESNET50),
        Architecture::Resnet18At224 => large(BlockKind::Basic, RESNET18),
        Architecture::Resnet50At224 => large(BlockKind::Bottleneck, RESNET50),
    }
}

/// How many features the encoder of this architecture gives.
pub fn feature_count(architecture: Architecture) -> i64 {
    let plan = plan(architecture);
    plan.stages.last().map_or(0, |(channels, _)| channels * plan.block.expansion())
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
    /// When libtorch can't make the tensors.
    pub fn new(
        builder: &mut Builder,
        architecture: Architecture,
        image_channels: i64,
    ) -> anyhow::Result<Self> {
        let plan = plan(architecture);
        let mut channels = plan.stages.first().map_or(0, |(channels, _)| *channels);
        let shape = [image_channels, channels];
        let Stem { kernel, stride, initial, max_pool } = plan.stem;
        let conv1 = builder
            .within("conv1", |builder| Convolution::new(builder, shape, kernel, stride, initial))?;
        let bn1 =
            builder.within("bn1", |builder| BatchNorm::new(builder, channels, Bias::Trained))?;
        let mut blocks = Vec::new();
        for (stage, &(base, count)) in plan.stages.iter().enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let block = builder.within(format!("layer{}.{index}", stage + 1), |builder| {
                    Block::new(builder, &plan, channels, base, stride)
                })?;
                channels = base * plan.block.expansion();
                blocks.push(block);
            }
        }
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
    shortcut: Shortcut,
}

#[derive(Debug)]
enum Shortcut {
    Identity,
    /// `downsample.0` and `downsample.1`.
    Projection(Convolution, BatchNorm),
    /// Option A: how many zero channels go before and behind.
    Subsample {
        before: i64,
        behind: i64,
    },
}

impl Block {
    fn new(
        builder: &mut Builder,
        plan: &Plan,
        inputs: i64,
        base: i64,
        stride: i64,
    ) -> anyhow::Result<Self> {
        let (kind, initial) = (plan.block, plan.initial);
        let outputs = base * kind.expansion();
        // Inputs, outputs, kernel, stride of each convolution.
        let shapes = match kind {
            BlockKind::Basic | BlockKind::BasicOptionA => {
                vec![([inputs, outputs], 3, stride), ([outputs, outputs], 3, 1)]
            }
            BlockKind::Bottleneck => {
                vec![([inputs, base], 1, 1), ([base, base], 3, stride), ([base, outputs], 1, 1)]
            }
        };
        let mut layers = Vec::new();
        for (index, (channels, kernel, stride)) in shapes.into_iter().enumerate() {
            let names = [format!("conv{}", index + 1), format!("bn{}", index + 1)];
            layers.push(normalised(builder, names, channels, [kernel, stride], initial)?);
        }
        let shortcut = if stride == 1 && inputs == outputs {
            Shortcut::Identity
        } else if kind == BlockKind::BasicOptionA {
            let before = (outputs - inputs) / 2;
            Shortcut::Subsample { before, behind: outputs - inputs - before }
        } else {
            let names = ["downsample.0".to_owned(), "downsample.1".to_owned()];
            let (convolution, norm) =
                normalised(builder, names, [inputs, outputs], [1, stride], initial)?;
            Shortcut::Projection(convolution, norm)
        };
        Ok(Self { layers, shortcut })
    }

    fn forward(&self, pass: &Pass, input: &Tensor) -> anyhow::Result<Tensor> {
        let mut hidden = input.shallow_clone();
        for (index, (convolution, norm)) in self.layers.iter().enumerate() {
            hidden = norm.forward(pass, &convolution.forward(pass, &hidden)?)?;
            if index + 1 < self.layers.len() {
                hidden = hidden.f_relu_()?;
            }
        }
        let shortcut = match &self.shortcut {
            Shortcut::Identity => input.shallow_clone(),
            Shortcut::Projection(convolution, norm) => {
                norm.forward(pass, &convolution.forward(pass, input)?)?
            }
            Shortcut::Subsample { before, behind } => {
                let every_other = input.f_slice(2, None, None, 2)?.f_slice(3, None, None, 2)?;
                every_other.f_constant_pad_nd([0, 0, 0, 0, *before, *behind])?
            }
        };
        Ok(hidden.f_add_(&shortcut)?.f_relu_()?)
    }
}

fn normalised(
    builder: &mut Builder,
    [convolution, norm]: [String; 2],
    channels: [i64; 2],
    [kernel, stride]: [i64; 2],
    initial: Initial,
) -> anyhow::Result<(Convolution, BatchNorm)> {
    let convolution = builder.within(convolution, |builder| {
        Convolution::new(builder, channels, kernel, stride, initial)
    })?;
    let norm =
        builder.within(norm, |builder| BatchNorm::new(builder, channels[1], Bias::Trained))?;
    Ok((convolution, norm))
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

    /// The deviation of a layer's first weights.
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
        ] {
            let found = deviation(architecture, name);
            assert!((found / expected - 1.0).abs() < 0.05, "{architecture}: {found}, {expected}");
        }
    }
}
