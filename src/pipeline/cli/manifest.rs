//! The manifest, the stages and the cache that a command is about.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::complete;
use crate::manifest::{Override, is_manifest};
use crate::shell;

/// A manifest, some of its stages, and where their results are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManifestArguments {
    /// The manifest, a `.toml` file [default: `pipeline.toml` in this folder, or in the nearest one above]
    #[arg(value_name = "MANIFEST", add = ArgValueCompleter::new(complete::manifest_or_stage))]
    pub(super) first: Option<PathBuf>,
    /// Only these stages: `train`, or some of its instances: `train@rate=0.9`, `train@method=lq-*` [default: all]
    #[arg(value_name = "STAGE", add = ArgValueCompleter::new(complete::stages))]
    pub(super) rest: Vec<String>,
    #[command(flatten)]
    pub(crate) with: WithArguments,
}

/// Options of every command that reads a manifest.
#[derive(Debug, Clone, Args)]
pub(crate) struct WithArguments {
    /// The cache [env: PIPELINE_CACHE; default: `cache` in the nearest folder above the manifest that
    /// has one or a `.git`]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Replace a value of the manifest for this call: `--set stages.train.epochs=3`
    #[arg(long = "set", value_name = "PATH=VALUE", add = ArgValueCompleter::new(complete::paths))]
    pub(crate) overrides: Vec<Override>,
    /// Add an axis to the matrix for this call: `--sweep stages.train.learning-rate=0.01,0.02`
    #[arg(long = "sweep", value_name = "PATH=VALUES", value_parser = Override::sweep, add = ArgValueCompleter::new(complete::paths))]
    pub(crate) sweeps: Vec<Override>,
    /// Only the stages at these values of the matrix: `--only rate=0.9,method=ce`. The same axis twice means either value
    #[arg(long, value_name = "AXIS=VALUE", value_delimiter = ',', add = ArgValueCompleter::new(complete::axis_values))]
    pub(crate) only: Vec<String>,
}

impl WithArguments {
    /// What is changed about the manifest, in this order.
    pub(crate) fn changes(&self) -> Vec<Override> {
        let sweeps = Override::with_distinct_axes(&self.sweeps);
        self.overrides.iter().cloned().chain(sweeps).collect()
    }
}

impl ManifestArguments {
    /// The manifest, where it is named: the first argument, if it ends in `.toml`. Else that is a stage, too.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.first.as_deref().filter(|first| is_manifest(first))
    }

    /// The patterns that name stages.
    pub(crate) fn stages(&self) -> Vec<String> {
        let first = self.first.as_deref().filter(|first| !is_manifest(first));
        let first = first.map(|first| first.to_string_lossy().into_owned());
        first.into_iter().chain(self.rest.iter().cloned()).collect()
    }

    /// The same, with this manifest where none was named.
    pub(crate) fn of(&self, manifest: PathBuf) -> Self {
        Self { first: Some(manifest), rest: self.stages(), with: self.with.clone() }
    }

    /// Another command for some stages of the same manifest, as somebody would type it.
    pub(crate) fn command(&self, verb: &str, stages: &[&str]) -> String {
        let mut words =
            Vec::from_iter(self.named().map(|path| path.to_string_lossy().into_owned()));
        words.extend(stages.iter().map(|&stage| stage.to_owned()));
        if let Some(cache) = &self.with.cache {
            words.extend(["--cache".to_owned(), cache.to_string_lossy().into_owned()]);
        }
        for value in &self.with.overrides {
            words.extend(["--set".to_owned(), value.to_string()]);
        }
        for value in &self.with.sweeps {
            words.extend(["--sweep".to_owned(), value.to_string()]);
        }
        let words = words.iter().map(|word| format!(" {}", shell::quoted(word)));
        format!("pipeline {verb}{}", words.collect::<String>())
    }

    /// The options that change the manifest, each as somebody would type it.
    pub(crate) fn changes(&self) -> Vec<String> {
        let set = self
            .with
            .overrides
            .iter()
            .map(|value| format!("--set {}", shell::quoted(&value.to_string())));
        let sweeps = self
            .with
            .sweeps
            .iter()
            .map(|value| format!("--sweep {}", shell::quoted(&value.to_string())));
        let only = self.with.only.iter().map(|value| format!("--only {}", shell::quoted(value)));
        set.chain(sweeps).chain(only).collect()
    }

    /// The same for the stages that were chosen here.
    pub(crate) fn command_again(&self, verb: &str) -> String {
        let stages = self.stages();
        let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
        let mut command = self.command(verb, &stages);
        if !self.with.only.is_empty() {
            command.push_str(&format!(" --only {}", shell::quoted(&self.with.only.join(","))));
        }
        command
    }
}
