//! What is known of an artifact before it exists, from the parameters of the stages behind it: so that
//! two stages that do not fit together are a mistake in the manifest, not a failure hours later.

use std::collections::BTreeMap;

use crate::kinds::architecture::Architecture;

/// What is known of an artifact. `None` if it is known only from the artifact itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The architecture of its encoder.
    pub architecture: Option<Architecture>,
    /// The channels of its images, or of those that its network takes.
    pub channels: Option<u32>,
    /// Its images, or those that its network takes as they are.
    pub images: Option<Images>,
    /// How many classes it has.
    pub classes: Option<u64>,
    /// How many training samples it has at most.
    pub train_samples: Option<u64>,
    /// Whether its classes are those for which asymmetric noise has pairs of its own.
    pub has_noise_pairs: Option<bool>,
}

/// The form of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Pixels, all images of the same size.
    Pixels,
    /// Encoded files, of any size.
    Encoded,
}

/// What is known of the inputs of a stage.
#[derive(Debug, Clone, Default)]
pub struct KnownInputs(BTreeMap<String, Known>);

impl KnownInputs {
    /// These inputs, by the name of their port.
    pub fn new(inputs: impl IntoIterator<Item = (String, Known)>) -> Self {
        Self(inputs.into_iter().collect())
    }

    /// What is known of the artifact at a port; nothing if none is connected.
    pub fn at(&self, port: &str) -> Known {
        self.0.get(port).copied().unwrap_or_default()
    }
}

/// Both values, if both are known and they differ.
pub(crate) fn differing<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<(T, T)> {
    one.zip(other).filter(|(one, other)| one != other)
}
