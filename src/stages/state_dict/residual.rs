//! The residual networks: one table of their layers, and the tensors that result from it, with the names of
//! torchvision's ResNets, or of DivideMix's for the pre-activation network.

use super::tensor::{ElementType, TensorSpec};
use crate::kinds::architecture::Architecture;

/// The weight of the first convolution, which every one of them has.
pub const STEM: &str = "conv1.weight";

/// The layers of an encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// `conv1`, with `bn1` behind it.
    pub stem: Convolution,
    /// Whether a max-pool follows: 3x3, stride 2, padding 1.
    pub max_pool: bool,
    /// The residual blocks.
    pub blocks: Vec<Block>,
    /// Pixels along each side of the images that it is made for.
    pub image_size: usize,
}

/// A convolution without a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Pixels along each side of its kernel.
    pub kernel: usize,
    /// The stride: pixels from one place of the kernel to the next.
    pub stride: usize,
}

/// A residual block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// `layer1.0`.
    pub name: String,
    /// `conv1`, `conv2`, ..., with `bn1`, `bn2`, ...
    pub convolutions: Vec<Convolution>,
    /// Whether each batch norm, with its ReLU, is before its convolution; otherwise it is behind it.
    pub pre_activation: bool,
    /// The shortcut around them.
    pub shortcut: Shortcut,
}

/// The shortcut around the convolutions of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortcut {
    /// The input.
    Identity,
    /// `downsample.0`, with `downsample.1`.
    Projection(Convolution),
    /// `shortcut.0`, without a batch norm.
    BareProjection(Convolution),
    /// Every other pixel of every other row, and this many channels of zeros on both sides together.
    Subsample {
        /// How many channels the block adds.
        added: usize,
    },
}

/// The kind of the blocks of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    /// Two 3x3 convolutions; a projection where the shape changes.
    Basic,
    /// The same two, each behind its batch norm and ReLU; a projection without batch norm where the shape changes.
    PreActivation,
    /// 1x1, 3x3 and 1x1 with four times the channels; a projection where the shape changes.
    Bottleneck,
    /// Two 3x3 convolutions; subsampled where the shape changes (option A of the paper).
    OptionA,
}

impl Layers {
    /// Those of an architecture, for images with this many channels.
    pub fn of(architecture: Architecture, image_channels: usize) -> Self {
        use BlockKind::{Basic, Bottleneck, OptionA, PreActivation};
        const RESNET18: &[(usize, usize)] = &[(64, 2), (128, 2), (256, 2), (512, 2)];
        // Of ResNet-34 and of ResNet-50.
        const RESNET34: &[(usize, usize)] = &[(64, 3), (128, 4), (256, 6), (512, 3)];
        const RESNET32: &[(usize, usize)] = &[(16, 5), (32, 5), (64, 5)];
        const RESNET8: &[(usize, usize)] = &[(16, 1), (32, 1), (64, 1)];
        // The stem's kernel and stride; per stage the base channels and how many blocks.
        let (kernel, stride, kind, stages) = match architecture {
            Architecture::Resnet8Fast => (3, 2, OptionA, RESNET8),
            Architecture::Resnet8 => (3, 1, OptionA, RESNET8),
            Architecture::Resnet32 => (3, 1, OptionA, RESNET32),
            Architecture::Resnet18 => (3, 1, Basic, RESNET18),
            Architecture::Resnet34 => (3, 1, Basic, RESNET34),
            Architecture::PreactResnet18 => (3, 1, PreActivation, RESNET18),
            Architecture::Resnet50 => (3, 1, Bottleneck, RESNET34),
            Architecture::Resnet18At224 => (7, 2, Basic, RESNET18),
            Architecture::Resnet50At224 => (7, 2, Bottleneck, RESNET34),
        };
        let large = kernel == 7;
        let mut channels = stages[0].0;
        let stem = Convolution { inputs: image_channels, outputs: channels, kernel, stride };
        let mut blocks = Vec::new();
        for (stage, &(base, count)) in stages.iter().enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                blocks.push(Block::new(name, kind, channels, base, stride));
                channels = base * kind.expansion();
            }
        }
        Self { stem, max_pool: large, blocks, image_size: if large { 224 } else { 32 } }
    }

    /// How many features it produces.
    pub fn features(&self) -> usize {
        let last = self.blocks.last().and_then(|block| block.convolutions.last());
        last.map_or(self.stem.outputs, |convolution| convolution.outputs)
    }
}

impl BlockKind {
    /// Output channels of a block per base channel.
    fn expansion(self) -> usize {
        if self == Self::Bottleneck { 4 } else { 1 }
    }
}

impl Block {
    fn new(name: String, kind: BlockKind, inputs: usize, base: usize, stride: usize) -> Self {
        let outputs = base * kind.expansion();
        let convolution =
            |inputs, outputs, kernel, stride| Convolution { inputs, outputs, kernel, stride };
        let convolutions = match kind {
            BlockKind::Basic | BlockKind::PreActivation | BlockKind::OptionA => {
                vec![convolution(inputs, outputs, 3, stride), convolution(outputs, outputs, 3, 1)]
            }
            BlockKind::Bottleneck => vec![
                convolution(inputs, base, 1, 1),
                convolution(base, base, 3, stride),
                convolution(base, outputs, 1, 1),
            ],
        };
        let shortcut = match kind {
            _ if stride == 1 && inputs == outputs => Shortcut::Identity,
            BlockKind::OptionA => Shortcut::Subsample { added: outputs - inputs },
            BlockKind::PreActivation => {
                Shortcut::BareProjection(convolution(inputs, outputs, 1, stride))
            }
            BlockKind::Basic | BlockKind::Bottleneck => {
                Shortcut::Projection(convolution(inputs, outputs, 1, stride))
            }
        };
        Self { name, convolutions, pre_activation: kind == BlockKind::PreActivation, shortcut }
    }
}

/// The tensors of an encoder for images with this many channels.
pub fn encoder(architecture: Architecture, image_channels: usize) -> Vec<TensorSpec> {
    let layers = Layers::of(architecture, image_channels);
    let mut tensors = normalised("conv1", "bn1", layers.stem);
    for Block { name, convolutions, pre_activation, shortcut } in &layers.blocks {
        for (index, convolution) in (1..).zip(convolutions) {
            let [layer, norm] = [format!("{name}.conv{index}"), format!("{name}.bn{index}")];
            if *pre_activation {
                tensors.extend(batch_norm(&norm, convolution.inputs));
                tensors.push(weight(&layer, *convolution));
            } else {
                tensors.extend(normalised(&layer, &norm, *convolution));
            }
        }
        match shortcut {
            Shortcut::Identity | Shortcut::Subsample { .. } => {}
            Shortcut::BareProjection(projection) => {
                tensors.push(weight(&format!("{name}.shortcut.0"), *projection));
            }
            Shortcut::Projection(projection) => {
                let [layer, norm] = [0, 1].map(|index| format!("{name}.downsample.{index}"));
                tensors.extend(normalised(&layer, &norm, *projection));
            }
        }
    }
    tensors
}

/// Whether a name is that of a layer of such an encoder, not of a head or something else.
pub fn has_layer(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    first == "conv1" || first == "bn1" || is_stage(first)
}

/// Whether what is before a name of [`STEM`] is that of a block, whose first layer is called as the stem is.
pub fn is_in_a_block(prefix: &str) -> bool {
    prefix.split('.').any(is_stage)
}

/// `layer1`, `layer2`, ...
fn is_stage(part: &str) -> bool {
    let digits = part.strip_prefix("layer").unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
}

/// The tensors of a convolution and of the batch norm behind it.
fn normalised(layer: &str, norm: &str, convolution: Convolution) -> Vec<TensorSpec> {
    let mut tensors = vec![weight(layer, convolution)];
    tensors.extend(batch_norm(norm, convolution.outputs));
    tensors
}

fn weight(layer: &str, Convolution { inputs, outputs, kernel, .. }: Convolution) -> TensorSpec {
    let shape = vec![outputs, inputs, kernel, kernel];
    TensorSpec { name: format!("{layer}.weight"), shape, element: ElementType::F32 }
}

fn batch_norm(layer: &str, channels: usize) -> Vec<TensorSpec> {
    let tensor =
        |part: &str, shape, element| TensorSpec { name: format!("{layer}.{part}"), shape, element };
    let parts = ["weight", "bias", "running_mean", "running_var"];
    let mut tensors: Vec<TensorSpec> =
        parts.iter().map(|part| tensor(part, vec![channels], ElementType::F32)).collect();
    tensors.push(tensor("num_batches_tracked", Vec::new(), ElementType::I64));
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(architecture: Architecture) -> (usize, usize) {
        let tensors = encoder(architecture, 3);
        // What PyTorch calls parameters: no running statistics, no counters.
        let trained = tensors
            .iter()
            .filter(|spec| spec.element == ElementType::F32 && !spec.name.contains(".running_"));
        (tensors.len(), trained.map(|spec| spec.shape.iter().product::<usize>()).sum())
    }

    #[test]
    fn the_number_of_parameters_is_the_published_one() {
        // torchvision's, without the classifier; the 7x7 stem is 9,408 of them, the 3x3 stem 1,728.
        assert_eq!(count(Architecture::Resnet18At224), (120, 11_689_512 - 513_000));
        assert_eq!(count(Architecture::Resnet18), (120, 11_689_512 - 513_000 - 9_408 + 1_728));
        assert_eq!(count(Architecture::Resnet34), (216, 21_797_672 - 513_000 - 9_408 + 1_728));
        // 11,171,274 in PyTorch, of which 5,130 are the classifier's, for ten classes.
        assert_eq!(count(Architecture::PreactResnet18), (105, 11_171_274 - 5_130));
        assert_eq!(count(Architecture::Resnet50At224), (318, 25_557_032 - 2_049_000));
        assert_eq!(count(Architecture::Resnet50), (318, 25_557_032 - 2_049_000 - 9_408 + 1_728));
        // He et al., table 6: 0.46 million, of which 650 are the classifier's.
        assert_eq!(count(Architecture::Resnet32), (186, 464_154 - 650));
        assert_eq!(count(Architecture::Resnet8), (42, 75_290 - 650));
    }

    #[test]
    fn the_features_are_the_channels_of_the_last_layer() {
        for &architecture in Architecture::ALL {
            let tensors = encoder(architecture, 1);
            let last = tensors.iter().rev().find(|spec| spec.name.ends_with(".running_var"));
            assert_eq!(last.unwrap().shape, [Layers::of(architecture, 1).features()]);
        }
    }
}
