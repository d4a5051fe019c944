//! The encoders that the kinds offer: residual networks, which are trained here, and vision transformers, whose weights come
//! from elsewhere.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::parameter::{Choice, Parameter, ParameterType, not_a_choice};

choices! {
    /// A residual network.
    pub enum Architecture {
        /// `resnet8` with a stem of stride 2: a quarter of the work, for two CPU cores. 64 features.
        Resnet8Fast as "resnet8-fast",
        /// The CIFAR ResNet of depth 6n+2 with n = 1 (16-32-64 channels, option-A shortcuts), 64 features.
        Resnet8,
        /// torchvision's ResNet-18 with the CIFAR stem, 512 features.
        Resnet18,
        /// The pre-activation ResNet-18 of DivideMix, ELR+ and SOP, for CIFAR: batch norm and ReLU before each convolution of a block, a 3x3 stem with its own, none behind the last block. Every block adds what its first ReLU returns, where He et al. add the input of the block. 512 features.
        PreactResnet18,
        /// The CIFAR ResNet of depth 6n+2 with n = 5 (16-32-64 channels, option-A shortcuts), 64 features.
        Resnet32,
        /// torchvision's ResNet-34 with the CIFAR stem (of ELR, SOP and CIFAR-N, among others), 512 features.
        Resnet34,
        /// torchvision's ResNet-50 with the CIFAR stem, 2048 features.
        Resnet50,
        /// torchvision's ResNet-18 as it is, for images of 224 pixels: 7x7 stem of stride 2, max-pool. 512 features.
        Resnet18At224 as "resnet18-224",
        /// torchvision's ResNet-50 as it is, for images of 224 pixels: 7x7 stem of stride 2, max-pool. 2048 features.
        Resnet50At224 as "resnet50-224",
    }
}

choices! {
    /// A vision transformer, by timm's name. It is not trained here: its features are used.
    pub enum Transformer {
        /// ViT-Ti/16, not trained here: patches of 16 pixels in images of 224. 192 features.
        VitTiny as "vit_tiny_patch16_224",
        /// ViT-S/16, not trained here: patches of 16 pixels in images of 224. 384 features.
        VitSmall as "vit_small_patch16_224",
        /// ViT-B/16, not trained here: patches of 16 pixels in images of 224. 768 features.
        VitBase as "vit_base_patch16_224",
        /// DINOv2's ViT-S/14 without registers, not trained here: patches of 14 pixels in images of 518. 384 features.
        Dinov2Small as "vit_small_patch14_dinov2",
        /// DINOv2's ViT-B/14 without registers, not trained here: patches of 14 pixels in images of 518. 768 features.
        Dinov2Base as "vit_base_patch14_dinov2",
    }
}

/// The architecture of any encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncoderArchitecture {
    /// It can be trained here.
    Residual(Architecture),
    /// It cannot.
    Transformer(Transformer),
}

impl EncoderArchitecture {
    /// Every one, in the order of their declaration.
    pub fn all() -> impl Iterator<Item = Self> {
        let residual = Architecture::ALL.iter().copied().map(Self::Residual);
        residual.chain(Transformer::ALL.iter().copied().map(Self::Transformer))
    }

    /// The one with a name, as it is in a manifest and in `model.json`.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|architecture| architecture.name() == name)
    }

    /// The name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Residual(architecture) => architecture.name(),
            Self::Transformer(transformer) => transformer.name(),
        }
    }

    /// The side in pixels of its inputs where the user says nothing; `None`: that of the images.
    pub fn usual_side(self) -> Option<u32> {
        match self {
            Self::Residual(_) => None,
            Self::Transformer(_) => Some(224),
        }
    }
}

impl Architecture {
    /// What is wrong with initial weights of this encoder, for a training of this network; `None` where they are of the same.
    pub fn problem_with(self, initial: EncoderArchitecture) -> Option<String> {
        match initial {
            EncoderArchitecture::Residual(initial) if initial == self => None,
            EncoderArchitecture::Residual(initial) => Some(format!(
                "the initial weights are of a {initial}, but this stage trains a {self}: \
                 set architecture = \"{initial}\" here, or train the initial weights with '{self}'"
            )),
            EncoderArchitecture::Transformer(initial) => Some(format!(
                "the initial weights are of a {initial}, and vision transformers are not trained here: use their \
                 features, by a stage of the kind 'features' or 'probe', or start from a residual network"
            )),
        }
    }
}

impl From<Architecture> for EncoderArchitecture {
    fn from(architecture: Architecture) -> Self {
        Self::Residual(architecture)
    }
}

impl From<Transformer> for EncoderArchitecture {
    fn from(transformer: Transformer) -> Self {
        Self::Transformer(transformer)
    }
}

impl fmt::Display for EncoderArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for EncoderArchitecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for EncoderArchitecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::named(&text).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Self::name).collect();
            serde::de::Error::custom(not_a_choice(&text, &names))
        })
    }
}

impl Parameter for EncoderArchitecture {
    fn value_type() -> ParameterType {
        static TABLE: std::sync::OnceLock<Vec<Choice>> = std::sync::OnceLock::new();
        ParameterType::Choice(
            TABLE.get_or_init(|| {
                [Architecture::choice_table(), Transformer::choice_table()].concat()
            }),
        )
    }
}
