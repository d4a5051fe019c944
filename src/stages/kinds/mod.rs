//! The stage kinds: one file each, and the one list.

mod class_names;
mod command;
mod corrupt_labels;
mod dataset;
mod download;
mod evaluate;
mod features;
mod import_weights;
mod pretrain_simclr;
mod pretrain_supervised;
mod probe;
mod purify_labels;
mod replace_images;
mod split;
mod summarize;
mod train;
mod unpack;

pub mod architecture;
pub mod precision;

pub use command::{Command, SandboxMode};
pub use corrupt_labels::{CorruptLabels, HumanLabels, Noise};
pub use dataset::{Dataset, DatasetFormat};
pub use download::{Download, Login};
pub use evaluate::Evaluate;
pub use features::Features;
pub use import_weights::{ImportWeights, InputNormalisation};
pub use pretrain_simclr::{Blur, PretrainOptimizer, PretrainSimclr};
pub use pretrain_supervised::{Keep, PretrainSupervised};
pub use probe::{Probe, ProbeClassifier};
pub use purify_labels::{Purifier, PurifyLabels};
pub use replace_images::ReplaceImages;
pub use split::{Split, SplitBy, SplitFrom};
pub use summarize::{Better, Summarize};
pub use train::{
    Augmentation, InnerRate, Loss, MetaLoss, MetaSamples, Method, Normalise, Optimizer, Sampling,
    Schedule, SelectBest, Train, Transition, ValidationLabels, ValidationTransform,
};
pub use unpack::{ArchiveFormat, Unpack};

/// Defines [`KindConfig`], [`PrepareStage`], [`LearnStage`], [`KINDS`] and the macros that pass a stage
/// to its body from the list of kinds.
macro_rules! kinds {
    ($d:tt prepare { $($prepare:ident),* $(,)? } learn { $($learn:ident),* $(,)? }) => {
        /// A stage whose body needs no torch.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind", content = "parameters", rename_all = "kebab-case")]
        pub enum PrepareStage { $($prepare($prepare)),* }

        /// A stage whose body needs torch.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind", content = "parameters", rename_all = "kebab-case")]
        #[expect(
            clippy::large_enum_variant,
            reason = "most stages of a large experiment are trainings, which are the largest: boxes would add to them"
        )]
        pub enum LearnStage { $($learn($learn)),* }

        /// All kinds.
        pub static KINDS: &[KindInfo] = &[
            $(KindInfo::of::<$prepare>(WorkerProgram::Prepare),)*
            $(KindInfo::of::<$learn>(WorkerProgram::Learn),)*
        ];

        impl KindConfig {
            /// Reads all parameters of a stage of this kind. `None` if the kind does not exist.
            pub fn read<'de, D: Deserializer<'de>>(kind: &str, parameters: D) -> Option<Result<Self, D::Error>> {
                match kind {
                    $(<$prepare>::NAME => Some(<$prepare>::deserialize(parameters)
                        .map(|stage| Self::Prepare(PrepareStage::$prepare(stage)))),)*
                    $(<$learn>::NAME => Some(<$learn>::deserialize(parameters)
                        .map(|stage| Self::Learn(LearnStage::$learn(stage)))),)*
                    _ => None,
                }
            }
        }

        /// Evaluates `$body` with `$parameters` bound to the stage's own parameters.
        macro_rules! with_parameters {
            ($d stage:expr, $d parameters:ident => $d body:expr) => {
                match $d stage {
                    $(KindConfig::Prepare(PrepareStage::$prepare($d parameters)) => $d body,)*
                    $(KindConfig::Learn(LearnStage::$learn($d parameters)) => $d body,)*
                }
            };
        }

        /// Evaluates an expression with the parameters of a [`PrepareStage`] of any kind:
        /// `match_prepare_stage!(stage, parameters => Body::run(parameters, context))`.
        /// It does not compile if the expression cannot take a kind.
        #[macro_export]
        macro_rules! match_prepare_stage {
            ($d stage:expr, $d parameters:ident => $d body:expr) => {
                match $d stage {
                    $($crate::PrepareStage::$prepare($d parameters) => $d body,)*
                }
            };
        }

        /// The same for a [`LearnStage`].
        #[macro_export]
        macro_rules! match_learn_stage {
            ($d stage:expr, $d parameters:ident => $d body:expr) => {
                match $d stage {
                    $($crate::LearnStage::$learn($d parameters) => $d body,)*
                }
            };
        }
    };
}

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::artifact::ArtifactType;
use crate::clean_labels::CleanLabels;
use crate::kind::{
    self, AxisVisitor, Cores, Kind, KindInfo, Problem, Rules, WithoutEffect, WorkerProgram,
};
use crate::known::{Known, KnownInputs, SplitId};
use crate::point::Point;

kinds! { $
    prepare { Download, Unpack, Dataset, Split, ReplaceImages, CorruptLabels, ImportWeights, Command, Summarize }
    learn { PretrainSimclr, PretrainSupervised, Features, PurifyLabels, Train, Evaluate, Probe }
}

/// A stage: a kind and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KindConfig {
    /// Its body needs no torch.
    Prepare(PrepareStage),
    /// Its body needs torch.
    Learn(LearnStage),
}

impl KindConfig {
    /// The description of its kind.
    pub fn info(&self) -> &'static KindInfo {
        fn name<K: Kind>(_: &K) -> &'static str {
            K::NAME
        }
        let name = with_parameters!(self, parameters => name(parameters));
        kind_info(name).expect("the list has every kind")
    }

    /// The type of its output.
    pub fn output(&self) -> ArtifactType {
        with_parameters!(self, parameters => parameters.output()).unwrap_or(self.info().output)
    }

    /// The version of its results, for the key.
    pub fn version(&self) -> u32 {
        with_parameters!(self, parameters => parameters.version()).unwrap_or(self.info().version)
    }

    /// What is wrong with its parameters, given the ports that are connected.
    pub fn check(&self, connected: &[&str]) -> Vec<Problem> {
        with_parameters!(self, parameters => kind::check(parameters, connected))
    }

    /// What is wrong with its parameters, given what is known of its inputs.
    pub fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        with_parameters!(self, parameters => parameters.check_inputs(inputs))
    }

    /// What is wrong with its parameters, given the points of all instances at a port that takes them.
    pub fn check_points(&self, points: &[Point]) -> Vec<Problem> {
        with_parameters!(self, parameters => parameters.check_points(points))
    }

    /// Calls `visit` with each axis that its parameters name, which becomes what that returns.
    pub fn each_axis(&mut self, visit: &mut AxisVisitor<'_>) {
        with_parameters!(self, parameters => parameters.each_axis(visit));
    }

    /// Gives axes that the manifest does not have a place.
    pub fn place_axes(&mut self, axes: &[&str], points: &[Point]) {
        with_parameters!(self, parameters => parameters.place_axes(axes, points));
    }

    /// What labels that are known to be right do for its output, given what is known of its inputs, and what they do for each of these, with
    /// the name of its port.
    pub fn clean_labels<'a>(
        &self,
        known: &KnownInputs,
        inputs: impl IntoIterator<Item = (&'a str, CleanLabels)>,
    ) -> CleanLabels {
        with_parameters!(self, parameters => {
            let inputs = inputs.into_iter();
            let inherited = inputs.map(|(port, of)| parameters.inherits_clean_labels(port, of));
            inherited.fold(parameters.clean_labels(known), Ord::max)
        })
    }

    /// Takes in what clean labels do for the instances at a port that takes all of them, with their points.
    pub fn mark_clean_labels(&mut self, instances: &[(Point, CleanLabels)]) {
        with_parameters!(self, parameters => parameters.mark_clean_labels(instances));
    }

    /// Whether it runs without instances that have failed.
    pub fn allows_missing(&self) -> bool {
        with_parameters!(self, parameters => parameters.allows_missing())
    }

    /// The largest seed that its draws can begin with.
    pub fn largest_seed(&self) -> u64 {
        with_parameters!(self, parameters => parameters.largest_seed())
    }

    /// How many cores it uses, where the user does not say it.
    pub fn cores(&self) -> Cores {
        match self {
            Self::Learn(_) => Cores::Many,
            Self::Prepare(_) => with_parameters!(self, parameters => parameters.cores()),
        }
    }

    /// What is known of its output before it exists. `id` tells what it is, if it is a split.
    pub fn knows(&self, inputs: &KnownInputs, id: impl FnOnce() -> SplitId) -> Known {
        let known = with_parameters!(self, parameters => parameters.knows(inputs));
        let own = (self.output() == ArtifactType::Split).then(id);
        Known { split: own.or(known.split), ..known }
    }

    /// The parameters that have no effect with these values, of those that are asked for by name, whether or not they are set.
    pub fn without_effect(&self, asked: &dyn Fn(&str) -> bool) -> Vec<WithoutEffect> {
        with_parameters!(self, parameters => kind::without_effect(parameters, asked))
    }

    /// The parameters that enter the key, by name, with defaults filled in.
    pub fn key_parameters(&self) -> Map<String, Value> {
        with_parameters!(self, parameters => kind::key_parameters(parameters))
    }

    /// Files and folders outside the cache whose content enters the key.
    pub fn outside_paths(&self) -> Vec<crate::kind::OutsidePath> {
        with_parameters!(self, parameters => parameters.outside_paths())
    }

    /// What else is left out of the folders among these.
    pub fn ignore(&self) -> &[String] {
        with_parameters!(self, parameters => parameters.ignore())
    }
}

/// What the contract of this build is, as 16 hexadecimal digits, from its sources. Two builds that differ in it cannot work
/// together.
pub const FINGERPRINT: &str = env!("PIPELINE_CONTRACT");

/// The kind of this name.
pub fn kind_info(name: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests;
