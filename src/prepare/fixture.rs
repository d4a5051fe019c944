//! For tests: a stage's folders in a temporary folder, and the context of a worker over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_stages::message::{Event, Execution, Input, Metrics, PROTOCOL, Request};
use pipeline_stages::worker::Context;
use pipeline_stages::{ArtifactType, KindConfig, PrepareStage};

/// The folders of one stage. Its parameters are JSON, as in a request.
pub(crate) struct Fixture {
    root: tempfile::TempDir,
    inputs: BTreeMap<String, Vec<Input>>,
    /// How many stages [`Fixture::run_on`] has run.
    stages: usize,
    notes: Vec<String>,
}

impl Fixture {
    /// Empty folders.
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        for name in ["output", "checkpoint", "folder"] {
            std::fs::create_dir(root.path().join(name)).expect("a folder");
        }
        Self { root, inputs: BTreeMap::new(), stages: 0, notes: Vec::new() }
    }

    /// Connects an artifact with these files to a port.
    pub(crate) fn with_input(
        mut self,
        port: &str,
        name: Option<&str>,
        artifact: ArtifactType,
        files: &[(&str, &[u8])],
    ) -> Self {
        let at_port = self.inputs.entry(port.to_owned()).or_default();
        let path = self.root.path().join(format!("input-{port}-{}", at_port.len()));
        std::fs::create_dir(&path).expect("a folder");
        for (file, content) in files {
            std::fs::write(path.join(file), content).expect("a file");
        }
        at_port.push(Input::new(name.map(str::to_owned), path, artifact));
        self
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.root.path().join("output")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.root.path().join("checkpoint")
    }

    /// The manifest's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("folder")
    }

    /// The stage with these inputs. It must have no problem.
    fn stage(&self, kind: &str, parameters: &serde_json::Value) -> PrepareStage {
        let named = |(port, inputs): (&String, &Vec<Input>)| -> Vec<String> {
            let name = |input: &Input| match &input.name {
                Some(name) => format!("{port}.{name}"),
                None => port.clone(),
            };
            inputs.iter().map(name).collect()
        };
        let connected: Vec<String> = self.inputs.iter().flat_map(named).collect();
        let connected: Vec<&str> = connected.iter().map(String::as_str).collect();
        connected_stage(kind, parameters, &connected)
    }

    /// Writes a file below the manifest's folder, with the folders above it, and returns its path.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A stage on these artifacts, and its context, with an output folder of its own.
    pub(crate) fn on(
        &mut self,
        kind: &str,
        parameters: serde_json::Value,
        inputs: &[(&str, ArtifactType, &Path)],
        seed: u64,
        threads: Option<u32>,
    ) -> (PrepareStage, Context) {
        let mut ports: BTreeMap<String, Vec<Input>> = BTreeMap::new();
        for (port, artifact, path) in inputs {
            let input = Input::new(None, *path, *artifact);
            ports.entry((*port).to_owned()).or_default().push(input);
        }
        self.stages += 1;
        let output = self.root().join(format!("output-{}", self.stages));
        std::fs::create_dir(&output).unwrap();
        let KindConfig::Prepare(stage) = KindConfig::read(kind, parameters).unwrap().unwrap()
        else {
            panic!("{kind} is not a kind of this crate")
        };
        let context = Context::for_test(Request {
            protocol: PROTOCOL,
            stage: KindConfig::Prepare(stage.clone()),
            seed,
            inputs: ports,
            missing: BTreeMap::new(),
            output,
            checkpoint: self.checkpoint(),
            folder: self.folder(),
            execution: Execution { threads, ..Execution::default() },
        });
        (stage, context)
    }

    /// Runs a stage on these artifacts, into an output folder of its own, and returns that folder and the metrics.
    pub(crate) fn run_on(
        &mut self,
        kind: &str,
        parameters: serde_json::Value,
        inputs: &[(&str, ArtifactType, &Path)],
        seed: u64,
        threads: Option<u32>,
    ) -> anyhow::Result<(PathBuf, Metrics)> {
        let (stage, context) = self.on(kind, parameters, inputs, seed, threads);
        let result = crate::run(&stage, &context);
        self.notes = notes(&context);
        Ok((context.output, result?))
    }

    /// What the last stage of [`Fixture::run_on`] noted.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The context that a worker would make for a stage.
    pub(crate) fn context(&self, kind: &str, parameters: &serde_json::Value) -> Context {
        Context::for_test(self.request(kind, parameters))
    }

    /// The same, of a stage that is asked to stop when it has reported its progress this many times.
    pub(crate) fn context_that_stops(
        &self,
        kind: &str,
        parameters: &serde_json::Value,
        reports: usize,
    ) -> Context {
        Context::for_test_that_stops(self.request(kind, parameters), reports)
    }

    fn request(&self, kind: &str, parameters: &serde_json::Value) -> Request {
        Request {
            protocol: PROTOCOL,
            stage: KindConfig::Prepare(self.stage(kind, parameters)),
            seed: 0,
            inputs: self.inputs.clone(),
            missing: BTreeMap::new(),
            output: self.output(),
            checkpoint: self.checkpoint(),
            folder: self.folder(),
            execution: Execution::default(),
        }
    }

    /// Runs a stage to its end. The error is the message for the user.
    pub(crate) fn run(
        &self,
        kind: &str,
        parameters: &serde_json::Value,
    ) -> Result<Metrics, String> {
        let context = self.context(kind, parameters);
        crate::run(&self.stage(kind, parameters), &context).map_err(|error| format!("{error:#}"))
    }

    /// Every path in the output folder, sorted; folders end in a slash.
    pub(crate) fn output_paths(&self) -> Vec<String> {
        paths_below(&self.output())
    }
}

/// A stage without inputs from the parameters in a manifest. It must have no problem.
pub(crate) fn stage(kind: &str, parameters: &serde_json::Value) -> PrepareStage {
    connected_stage(kind, parameters, &[])
}

fn connected_stage(kind: &str, parameters: &serde_json::Value, connected: &[&str]) -> PrepareStage {
    let stage = KindConfig::read(kind, parameters).expect("a kind").expect("valid parameters");
    assert_eq!(stage.check(connected), [], "{kind}: {parameters}");
    match stage {
        KindConfig::Prepare(stage) => stage,
        KindConfig::Learn(_) => unreachable!("{kind} is not a kind of this crate"),
    }
}

/// Every path below a folder, sorted; folders end in a slash.
pub(crate) fn paths_below(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, paths: &mut Vec<String>) {
        for entry in folder.read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            let name =
                path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                paths.push(format!("{name}/"));
                walk(root, &path, paths);
            } else {
                paths.push(name);
            }
        }
    }
    let mut paths = Vec::new();
    walk(folder, folder, &mut paths);
    paths.sort();
    paths
}

/// The notes among the events of a context.
pub(crate) fn notes(context: &Context) -> Vec<String> {
    let note = |event| if let Event::Note { text } = event { Some(text) } else { None };
    context.kept_events().into_iter().filter_map(note).collect()
}
