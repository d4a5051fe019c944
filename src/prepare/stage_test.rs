//! For tests: runs the body of one stage on files in a temporary folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_stages::message::{Execution, Input, Metrics, PROTOCOL, Request};
use pipeline_stages::worker::Context;
use pipeline_stages::{ArtifactType, Stage};
use serde_json::Value;

/// A temporary folder and the stages that were run in it.
pub(crate) struct StageTest {
    folder: tempfile::TempDir,
    stages: usize,
}

impl StageTest {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), stages: 0 }
    }

    /// The manifest's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, with the folders above it, and gives its path.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs a stage and gives its output folder and metrics.
    pub(crate) fn run(
        &mut self,
        kind: &str,
        parameters: Value,
        inputs: &[(&str, ArtifactType, &Path)],
        seed: u64,
        threads: Option<u32>,
    ) -> anyhow::Result<(PathBuf, Metrics)> {
        let stage = Stage::read(kind, parameters).unwrap().unwrap();
        let mut ports: BTreeMap<String, Vec<Input>> = BTreeMap::new();
        for (port, artifact, path) in inputs {
            let input = Input { name: None, path: (*path).to_owned(), artifact: *artifact };
            ports.entry((*port).to_owned()).or_default().push(input);
        }
        self.stages += 1;
        let output = self.folder().join(format!("output-{}", self.stages));
        std::fs::create_dir(&output).unwrap();
        let context = Context::for_test(Request {
            protocol: PROTOCOL,
            stage: stage.clone(),
            seed,
            inputs: ports,
            output: output.clone(),
            checkpoint: self.folder().to_owned(),
            folder: self.folder().to_owned(),
            execution: Execution { threads, ..Execution::default() },
        });
        let Stage::Prepare(stage) = stage else { panic!("{kind} is not a kind of this crate") };
        let metrics = crate::run(&stage, &context)?;
        Ok((output, metrics))
    }
}
