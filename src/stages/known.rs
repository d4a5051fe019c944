//! What is known of an artifact, from the parameters of the stages behind it or, once it exists, from itself: so that two
//! stages that do not fit together are a mistake in the manifest, not a failure hours later.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use crate::artifact::ArtifactType;
use crate::cifar_classes::{are_of_cifar10, are_of_cifar100};
use crate::formats::{DatasetInfo, FeaturesInfo, ImageShape, ModelInfo, Storage};
use crate::kinds::architecture::EncoderArchitecture;

/// What is known of an artifact. `None` if it is known only from the artifact itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The architecture of its encoder.
    pub architecture: Option<EncoderArchitecture>,
    /// The channels of its images, or of those that its network takes.
    pub channels: Option<u32>,
    /// Its images, or those that its network takes as they are.
    pub images: Option<Images>,
    /// Height and width of its images, where all have the same, or of those that its network takes as they are.
    pub image_size: Option<ImageSize>,
    /// How many classes it has.
    pub classes: Option<u64>,
    /// Their names, in the order of their labels.
    pub class_names: Option<Arc<[String]>>,
    /// How many training samples it has at most; of a split, how many it leaves to train.
    pub train_samples: Option<u64>,
    /// Whether its classes are those for which asymmetric noise has pairs of its own.
    pub has_noise_pairs: Option<bool>,
    /// Whether samples held out have the labels of the data set, which are known to be right: of labels, and of a split whose samples no stage
    /// corrupts or corrects.
    pub held_out_is_clean: Option<bool>,
    /// Of a split which one it is, of labels by which one the samples were held out whose labels are those of the data set.
    pub split: Option<SplitId>,
    /// The metrics that it may have.
    pub metrics: Option<KnownMetrics>,
}

/// What tells splits apart: equal where the same samples are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitId(u64);

impl SplitId {
    /// That of a split that follows from this.
    pub fn of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The metrics that stages of a kind may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownMetrics {
    /// The name of the kind.
    pub kind: &'static str,
    /// Their names. One that ends with `/` stands for all that begin with it.
    pub names: &'static [&'static str],
}

impl KnownMetrics {
    /// Whether a metric of this name is among them.
    pub fn has(&self, metric: &str) -> bool {
        let is_of = |name: &&str| match name.ends_with('/') {
            true => metric.starts_with(*name),
            false => metric == *name,
        };
        self.names.iter().any(is_of)
    }
}

impl std::fmt::Display for KnownMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |name: &&str| name.strip_suffix('/').map(|whole| format!("{whole}/..."));
        let names = self.names.iter().map(|one| name(one).unwrap_or_else(|| (*one).to_owned()));
        f.write_str(&names.collect::<Vec<_>>().join(", "))
    }
}

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    /// Pixels from top to bottom.
    pub height: u32,
    /// Pixels from left to right.
    pub width: u32,
}

impl ImageSize {
    fn of(shape: ImageShape) -> Option<Self> {
        let height = u32::try_from(shape.height).ok()?;
        Some(Self { height, width: u32::try_from(shape.width).ok()? })
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

impl Known {
    /// What an artifact says of itself. `None` for a type that says nothing, or where it cannot be read.
    pub fn of_artifact(artifact: ArtifactType, folder: &Path) -> Option<Self> {
        match artifact {
            ArtifactType::Dataset => {
                DatasetInfo::read(folder).ok().map(|info| Self::of_data(&info))
            }
            ArtifactType::Weights | ArtifactType::Model => {
                ModelInfo::read(folder).ok().map(|info| Self::of_model(&info))
            }
            ArtifactType::Features => {
                FeaturesInfo::read(folder).ok().map(|info| Self::of_data(&info.data).of_features())
            }
            _ => None,
        }
    }

    /// What is known of the features of this data set.
    pub(crate) fn of_features(self) -> Self {
        let Self { classes, train_samples, .. } = self;
        Self { classes, train_samples, ..Self::default() }
    }

    fn of_data(info: &DatasetInfo) -> Self {
        let is_encoded = info.storage == Storage::Encoded;
        Self {
            channels: u32::try_from(info.image.channels).ok(),
            images: Some(if is_encoded { Images::Encoded } else { Images::Pixels }),
            image_size: if is_encoded { None } else { ImageSize::of(info.image) },
            classes: Some(info.classes.len() as u64),
            class_names: Some(info.classes.as_slice().into()),
            train_samples: Some(info.train_samples.saturating_sub(info.validation_samples) as u64),
            has_noise_pairs: Some(has_noise_pairs(&info.classes)),
            ..Self::default()
        }
    }

    fn of_model(info: &ModelInfo) -> Self {
        let takes_as_they_are = info.input_crop.is_none();
        Self {
            architecture: EncoderArchitecture::named(&info.architecture),
            channels: u32::try_from(info.input.channels).ok(),
            images: takes_as_they_are.then_some(Images::Pixels),
            image_size: ImageSize::of(info.input).filter(|_| takes_as_they_are),
            classes: (!info.classes.is_empty()).then_some(info.classes.len() as u64),
            ..Self::default()
        }
    }

    /// How many values an image has: those of all channels of its pixels, where all images have the same size.
    pub fn values(&self) -> Option<u64> {
        let ImageSize { height, width } = self.image_size?;
        let pixels = u64::from(height) * u64::from(width);
        Some(pixels.saturating_mul(self.channels?.into()))
    }

    /// This, and what `other` knows where this knows nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            architecture: self.architecture.or(other.architecture),
            channels: self.channels.or(other.channels),
            images: self.images.or(other.images),
            image_size: self.image_size.or(other.image_size),
            classes: self.classes.or(other.classes),
            class_names: self.class_names.or(other.class_names),
            train_samples: self.train_samples.or(other.train_samples),
            has_noise_pairs: self.has_noise_pairs.or(other.has_noise_pairs),
            held_out_is_clean: self.held_out_is_clean.or(other.held_out_is_clean),
            split: self.split.or(other.split),
            metrics: self.metrics.or(other.metrics),
        }
    }
}

/// Whether asymmetric noise has pairs of its own for these classes.
pub(crate) fn has_noise_pairs(classes: &[String]) -> bool {
    are_of_cifar10(classes) || are_of_cifar100(classes)
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
    /// These inputs, by the name of their port. Of several at one port, nothing is known where they are not alike.
    pub fn new(inputs: impl IntoIterator<Item = (String, Known)>) -> Self {
        let mut known = BTreeMap::new();
        for (port, input) in inputs {
            match known.entry(port) {
                Entry::Vacant(free) => {
                    free.insert(input);
                }
                Entry::Occupied(mut at_port) if *at_port.get() != input => {
                    at_port.insert(Known::default());
                }
                Entry::Occupied(_) => {}
            }
        }
        Self(known)
    }

    /// What is known of the artifact at a port; nothing if none is connected.
    pub fn at(&self, port: &str) -> Known {
        self.0.get(port).cloned().unwrap_or_default()
    }

    /// Whether an artifact is connected to a port.
    pub(crate) fn has(&self, port: &str) -> bool {
        self.0.contains_key(port)
    }

    /// Whether a stage that takes `labels` and `split` learns from clean labels that were held out before: it holds nothing out itself, or by
    /// another split.
    pub(crate) fn learns_from_held_out(&self) -> bool {
        let (labels, split) = (self.at("labels"), self.at("split").split);
        let holds_out_others = !self.has("split") || differing(labels.split, split).is_some();
        holds_out_others && labels.held_out_is_clean == Some(true)
    }
}

/// Both values, if both are known and they differ.
pub(crate) fn differing<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<(T, T)> {
    one.zip(other).filter(|(one, other)| one != other)
}
