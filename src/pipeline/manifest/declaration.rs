//! A stage as a manifest declares it, and what it is connected to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pipeline_stages::known::{Known, KnownInputs, SplitId};
use pipeline_stages::point::Point;
use pipeline_stages::{KindConfig, WorkerProgram, path_text};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::execution::StageExecution;
use super::executors::LOCAL;
use super::places::ValuePlaces;
use crate::stage_name::StageName;

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) name: StageName,
    /// Its kind and its parameters.
    pub(crate) stage: KindConfig,
    /// Per connected port, under its name in a manifest, the stages behind it, in the order in which
    /// they are listed. Never empty; the artifacts in a table of them are sorted by name.
    pub(crate) inputs: BTreeMap<String, Vec<Connection>>,
    /// The seed of its random draws: its own, or the experiment's.
    pub(crate) seed: u64,
    /// Whether its result follows from labels that are known to be right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) uses_clean_labels: bool,
    /// How to run it.
    pub(crate) execution: StageExecution,
    /// The line of its file, from 1, where it starts: all instances of a stage are on one.
    pub(crate) line: usize,
    /// The file that it is from, if that is not the manifest itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<StageFile>,
    /// Where its values are.
    #[serde(skip)]
    pub(crate) places: ValuePlaces,
}

/// A file that a manifest includes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageFile {
    /// Its name, as it is shown.
    pub(crate) name: String,
    /// Its folder, absolute: what relative paths of its stages are relative to.
    #[serde(with = "path_text")]
    pub(crate) folder: PathBuf,
}

/// An edge of the graph, at the end where the artifact is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// The name of the artifact, at a port that takes a table of them.
    pub(crate) name: Option<String>,
    /// The stage that produces it.
    pub(crate) from: StageName,
    /// Whether it is one of all instances of a stage (`evaluate@*`), which are told apart by their points.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) among_all: bool,
}

impl Connection {
    /// The point of the instance.
    pub(crate) fn point(&self) -> Point {
        self.from.point().collect()
    }
}

impl Stage {
    /// Every connection, with the name of its port, in the order of the ports' names.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (&str, &Connection)> {
        let ports = self.inputs.iter();
        ports.flat_map(|(port, all)| all.iter().map(move |one| (port.as_str(), one)))
    }

    /// What is known of its artifact before that exists.
    pub(crate) fn knows(&self, inputs: &KnownInputs) -> Known {
        self.stage.knows(inputs, || self.split_id())
    }

    /// Equal for splits that hold the same samples out, as far as that can be seen here.
    fn split_id(&self) -> SplitId {
        let from: Vec<_> =
            self.connections().map(|(port, one)| (port, one.from.as_str())).collect();
        let parameters = Value::Object(self.stage.key_parameters()).to_string();
        SplitId::of((parameters, self.seed, from))
    }

    /// The executor that it runs on: its own, or else the one for all kinds that learn. `None` where it runs here.
    pub(crate) fn executor_or<'s>(&'s self, for_learning: Option<&'s str>) -> Option<&'s str> {
        let learns = self.stage.info().worker == WorkerProgram::Learn;
        let name = self.execution.executor.as_deref().or(for_learning.filter(|_| learns))?;
        (name != LOCAL).then_some(name)
    }
}
