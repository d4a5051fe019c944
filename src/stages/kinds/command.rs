//! `command`: any program, with declared inputs, outputs, environment and files.

use std::collections::BTreeMap;

use crate::ArtifactType;
use crate::kind::{Problem, Rules};

/// The artifact type that a command says it gives.
pub type CommandOutput = ArtifactType;

crate::kind! {
    /// Runs a program of yours.
    ///
    /// It starts in the manifest's folder. In `run`, `{output}` is the folder to write to and
    /// `{inputs.NAME}` the folder of an input; the environment has the same as `PIPELINE_OUTPUT` and
    /// `PIPELINE_INPUT_NAME`. It sees PATH, HOME, USER, LANG, TMPDIR and what `environment` and
    /// `pass-environment` name, nothing else.
    Command = "command", version 1, seeded false, output Directory;
    ports {
        /// The artifacts that it reads, by name.
        inputs: Named[];
    }
    parameters {
        /// The program and its arguments. No shell takes part.
        run: Option<Vec<String>> = None;
        /// A line for `sh -c`, instead of `run`.
        shell: Option<String> = None;
        /// Environment variables to set.
        environment: BTreeMap<String, String> = BTreeMap::new();
        /// The files and folders of yours that it reads (its script, its configuration), relative to the manifest.
        files: Vec<String> = Vec::new();
        /// What it must have written, as paths in the output folder.
        outputs: Vec<String> = Vec::new();
        /// The type of its output.
        output: CommandOutput = ArtifactType::Directory;
    }
    execution {
        /// Environment variables to hand through from your own environment. They don't enter the key.
        pass_environment: Vec<String> = Vec::new();
    }
    headline []
}

impl Rules for Command {
    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        match (&self.run, &self.shell) {
            (None, None) => {
                vec![Problem::new(
                    "kind",
                    "nothing to run: give run = [\"program\", \"argument\"], or shell = \"...\"",
                )]
            }
            (Some(_), Some(_)) => {
                vec![Problem::new(
                    "shell",
                    "the stage has both 'run' and 'shell': drop one of them",
                )]
            }
            (Some(run), None) if run.is_empty() => {
                vec![Problem::new("run", "'run' is empty: it needs at least a program")]
            }
            _ => Vec::new(),
        }
    }

    fn output(&self) -> Option<ArtifactType> {
        Some(self.output)
    }

    fn outside_paths(&self) -> Vec<String> {
        self.files.clone()
    }
}
