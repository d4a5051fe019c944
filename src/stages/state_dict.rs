//! The tensors of each encoder: their names, shapes and types, in the order of PyTorch's `state_dict`,
//! with the names of torchvision's ResNets.
//!
//! The one list that files from elsewhere are held against. Knows no file, and no tensor library: the
//! networks themselves are built in `src/learn/network/`, and a test there compares.

use crate::kinds::architecture::Architecture;

/// What a network needs under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// As in `layer1.0.conv1.weight`.
    pub name: String,
    /// The length of each dimension; none for a scalar.
    pub shape: Vec<usize>,
    /// The type of the elements.
    pub element: ElementType,
}

/// The type of the elements of a tensor of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// Weights and running statistics.
    F32,
    /// Counters: `num_batches_tracked`.
    I64,
}

/// The kind of a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Two 3x3 convolutions, and a projection where the shape changes.
    Basic,
    /// 1x1, 3x3 and 1x1 with four times the channels, and a projection where the shape changes.
    Bottleneck,
    /// Two 3x3 convolutions; shortcuts without tensors.
    OptionA,
}

/// What is particular to one architecture.
struct Plan {
    stem_kernel: usize,
    block: Block,
    /// Per stage: base channels and how many blocks.
    stages: &'static [(usize, usize)],
    /// Pixels along each side of the images that it is made for.
    image_size: usize,
}

fn plan(architecture: Architecture) -> Plan {
    const RESNET18: &[(usize, usize)] = &[(64, 2), (128, 2), (256, 2), (512, 2)];
    const RESNET50: &[(usize, usize)] = &[(64, 3), (128, 4), (256, 6), (512, 3)];
    let small = |block, stages| Plan { stem_kernel: 3, block, stages, image_size: 32 };
    let large = |block, stages| Plan { stem_kernel: 7, block, stages, image_size: 224 };
    match architecture {
        Architecture::Resnet8Fast | Architecture::Resnet8 => {
            small(Block::OptionA, &[(16, 1), (32, 1), (64, 1)])
        }
        Architecture::Resnet32 => small(Block::OptionA, &[(16, 5), (32, 5), (64, 5)]),
        Architecture::Resnet18 => small(Block::Basic, RESNET18),
        Architecture::Resnet50 => small(Block::Bottleneck, RESNET50),
        Architecture::Resnet18At224 => large(Block::Basic, RESNET18),
        Architecture::Resnet50At224 => large(Block::Bottleneck, RESNET50),
    }
}

/// The tensors of an encoder for images with so many channels.
pub fn encoder(architecture: Architecture, image_channels: usize) -> Vec<TensorSpec> {
    let plan = plan(architecture);
    let mut table = Table::default();
    let mut inputs = plan.stages.first().map_or(0, |(channels, _)| *channels);
    table.convolution("conv1", [image_channels, inputs], plan.stem_kernel);
    table.norm("bn1", inputs);
    for (stage, &(base, count)) in plan.stages.iter().enumerate() {
        for index in 0..count {
            let halved = stage > 0 && index == 0;
            let block = format!("layer{}.{index}", stage + 1);
            inputs = table.block(&block, plan.block, inputs, base, halved);
        }
    }
    table.0
}

/// How many features an encoder gives.
pub fn feature_count(architecture: Architecture) -> usize {
    let plan = plan(architecture);
    plan.stages.last().map_or(0, |(base, _)| base * plan.block.expansion())
}

/// Pixels along each side of the images that an architecture is made for.
pub fn image_size(architecture: Architecture) -> usize {
    plan(architecture).image_size
}

impl Block {
    /// Output channels of a block per base channel.
    fn expansion(self) -> usize {
        if self == Self::Bottleneck { 4 } else { 1 }
    }
}

/// The tensors so far.
#[derive(Default)]
struct Table(Vec<TensorSpec>);

impl Table {
    fn add(&mut self, name: String, shape: Vec<usize>, element: ElementType) {
        self.0.push(TensorSpec { name, shape, element });
    }

    fn convolution(&mut self, name: &str, [inputs, outputs]: [usize; 2], kernel: usize) {
        let shape = vec![outputs, inputs, kernel, kernel];
        self.add(format!("{name}.weight"), shape, ElementType::F32);
    }

    fn norm(&mut self, name: &str, channels: usize) {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            self.add(format!("{name}.{part}"), vec![channels], ElementType::F32);
        }
        self.add(format!("{name}.num_batches_tracked"), Vec::new(), ElementType::I64);
    }

    /// Adds a block, and gives its output channels. `halved`: whether it halves the image.
    fn block(
        &mut self,
        name: &str,
        kind: Block,
        inputs: usize,
        base: usize,
        halved: bool,
    ) -> usize {
        let outputs = base * kind.expansion();
        let convolutions = match kind {
            Block::Basic | Block::OptionA => vec![([inputs, outputs], 3), ([outputs, outputs], 3)],
            Block::Bottleneck => vec![([inputs, base], 1), ([base, base], 3), ([base, outputs], 1)],
        };
        for (index, (channels, kernel)) in convolutions.into_iter().enumerate() {
            self.convolution(&format!("{name}.conv{}", index + 1), channels, kernel);
            self.norm(&format!("{name}.bn{}", index + 1), channels[1]);
        }
        if (halved || inputs != outputs) && kind != Block::OptionA {
            self.convolution(&format!("{name}.downsample.0"), [inputs, outputs], 1);
            self.norm(&format!("{name}.downsample.1"), outputs);
        }
        outputs
    }
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
    fn as_many_parameters_as_published() {
        // torchvision's, without the classifier; the 7x7 stem is 9,408 of them, the 3x3 stem 1,728.
        assert_eq!(count(Architecture::Resnet18At224), (120, 11_689_512 - 513_000));
        assert_eq!(count(Architecture::Resnet18), (120, 11_689_512 - 513_000 - 9_408 + 1_728));
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
            assert_eq!(last.unwrap().shape, [feature_count(architecture)]);
        }
    }
}
