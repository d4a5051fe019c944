//! What `pipeline export` takes.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::manifest::{ManifestArguments, WithArguments};
use crate::complete;
use crate::manifest::is_manifest;
use crate::shell;

#[derive(Debug, Args)]
#[command(override_usage = "\
pipeline export [OPTIONS] [MANIFEST] DIR [STAGE]...\n       \
pipeline export [OPTIONS] [MANIFEST] STAGE DIR")]
pub(crate) struct ExportArguments {
    /// The manifest, a `.toml` file [default: `pipeline.toml` in this folder, or in the nearest one above]; the folder to write,
    /// one that does not exist or is empty; and stages: before it the one whose artifact is written, or after it those that are
    /// described, with what they need [default: all]
    #[arg(value_name = "MANIFEST|DIR|STAGE", required = true, add = ArgValueCompleter::new(complete::manifest_or_stage))]
    arguments: Vec<OsString>,
    #[command(flatten)]
    with: WithArguments,
    /// The format [default: ro-crate, or files where one stage is named before DIR]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<ExportFormat>,
    /// Copy all artifacts, also data and weights
    #[arg(long)]
    pub(crate) all: bool,
    /// The licence of the results, preferably a URL: `https://spdx.org/licenses/CC-BY-4.0`
    #[arg(long, value_name = "LICENCE")]
    pub(crate) license: Option<String>,
}

impl ExportArguments {
    /// The manifest without stages, as other commands take it.
    pub(crate) fn manifest(&self) -> ManifestArguments {
        let first = self.named().map(Path::to_owned);
        ManifestArguments { first, rest: Vec::new(), with: self.with.clone() }
    }

    /// The manifest, where it is named.
    fn named(&self) -> Option<&Path> {
        self.arguments.first().map(Path::new).filter(|first| is_manifest(first))
    }

    /// The folder and the stages.
    fn words(&self) -> &[OsString] {
        self.arguments.get(usize::from(self.named().is_some())..).unwrap_or_default()
    }

    /// The manifest with the stages of a crate.
    pub(crate) fn manifest_of_crate(&self) -> ManifestArguments {
        ManifestArguments { rest: self.stages(), ..self.manifest() }
    }

    /// The folder of a crate.
    pub(crate) fn folder(&self) -> &Path {
        self.words().first().map_or(Path::new(""), Path::new)
    }

    fn stages(&self) -> Vec<String> {
        self.words().iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// The stage of an artifact, and the folder for it.
    pub(crate) fn stage_and_folder(&self) -> Option<(Cow<'_, str>, &Path)> {
        match self.words() {
            [stage, folder] => Some((stage.to_string_lossy(), Path::new(folder))),
            _ => None,
        }
    }

    /// The command, without where things are on this machine.
    pub(crate) fn command(&self) -> String {
        let name = self.named().and_then(Path::file_name);
        let name = name.map(|name| name.to_string_lossy().into_owned());
        let words = name.into_iter().chain(["DIR".to_owned()]).chain(self.stages());
        let words = words.map(|word| format!(" {}", shell::quoted(&word)));
        let all = if self.all { " --all" } else { "" };
        format!("pipeline export{}{all}", words.collect::<String>())
    }
}

/// What an experiment is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The experiment: RO-Crate 1.1, with the profile Process Run Crate 0.5
    RoCrate,
    /// The artifact of one stage: its files
    Files,
    /// The same, with its weights as a state dict: `torch.load("weights.pt", weights_only=True)`
    Torch,
}
