//! A folder in memory for one input, and stages that read it: readers take paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_stages::message::{Execution, Input, PROTOCOL, Request};
use pipeline_stages::worker::Context;
use pipeline_stages::{ArtifactType, KindConfig};
use serde_json::Value;
use tempfile::TempDir;

/// A folder that is removed when it is dropped.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    /// An empty one, in memory where the system has such a place.
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("pipeline-fuzz-").tempdir_in(parent);
        Self(folder.expect("a scratch folder can be made"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file below it and returns its path.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a scratch folder can be made");
        }
        std::fs::write(&path, bytes).expect("a scratch file can be written");
        path
    }

    /// Runs a stage with the folder `input` of this one at its only port, into the folder `output`; whether it ends well.
    pub(crate) fn run(
        &self,
        kind: &str,
        port: &str,
        artifact: ArtifactType,
        parameters: &Value,
    ) -> bool {
        let folder = |name: &str| {
            let path = self.path().join(name);
            std::fs::create_dir_all(&path).expect("a scratch folder can be made");
            path
        };
        let config = KindConfig::read(kind, parameters).expect("a kind").expect("its parameters");
        let KindConfig::Prepare(stage) = &config else { panic!("'{kind}' needs libtorch") };
        let context = Context::for_test(Request {
            protocol: PROTOCOL,
            stage: config.clone(),
            seed: 0,
            inputs: BTreeMap::from([(
                port.to_owned(),
                vec![Input::new(None, folder("input"), artifact)],
            )]),
            missing: BTreeMap::new(),
            output: folder("output"),
            checkpoint: folder("checkpoint"),
            folder: folder("folder"),
            execution: Execution::default(),
        });
        // An error is an answer too. Whoever reads it must be able to.
        let result = pipeline_prepare::fuzzing::run(stage, &context);
        result.map_err(|error| assert!(!format!("{error:#}").is_empty())).is_ok()
    }

    /// Everything below it, with the targets of links; nothing is followed.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let (mut paths, mut folders) = (Vec::new(), vec![self.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a scratch folder can be listed") {
                let path = entry.expect("a scratch folder can be listed").path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                paths.push(path);
            }
        }
        paths
    }
}
