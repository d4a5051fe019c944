//! What a job is to do: plain data, so that another process can run it from a file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, ensure};
use pipeline_stages::message::{self, Device, Hello, Input, RanOn, Request};
use pipeline_stages::path_text;
use pipeline_stages::point::Point;
use serde::{Deserialize, Deserializer, Serialize};

use crate::cache::{Cache, KnownResult, LARGEST_TEXT, Owner, Pinned, Stored, read_file};
use crate::digest::{Digest, FieldHasher};
use crate::gpus::Gpu;
use crate::key::{self, KeyPart, OutsideDigest, StageKey};
use crate::manifest::{Executors, Manifest, Stage};
use crate::reason::Reason;
use crate::stage_name::StageName;

/// What is to be done for a stage that must run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Why it must run.
    pub(crate) reason: Reason,
    pub(crate) key: StageKey,
    /// What the key was made of.
    pub(crate) parts: Vec<KeyPart>,
}

/// All that the body of a job needs: plain data, so that another process can run it from a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobSpec {
    /// The build that wrote it: another one may know the kind differently.
    pub(crate) by: Hello,
    #[serde(with = "path_text")]
    pub(crate) cache: PathBuf,
    pub(crate) experiment: String,
    /// The folder of the stage's file.
    #[serde(with = "path_text")]
    pub(crate) folder: PathBuf,
    /// The stage.
    pub(crate) declaration: Stage,
    /// Why it runs, and under which key.
    #[serde(flatten)]
    pub(crate) work: Work,
    /// The artifacts at its ports: the port, the input there, and what is in the store.
    pub(crate) inputs: Vec<(String, Input, Stored)>,
    /// Per port that takes all instances of a stage, the points of those that have failed.
    pub(crate) missing: BTreeMap<String, Vec<Point>>,
    /// The GPUs that it may use, where it was handed some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gpus: Vec<Gpu>,
    /// Where it runs, if that is not in the process that asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<JobPlace>,
    /// What its job goes on with, one after the other, behind its own stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) next: Vec<Following>,
    /// The name of [what its job submits](Left) instead, where nobody else does: once for all jobs of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) submits: Option<Digest>,
}

/// What the jobs of a run that was left submit themselves, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) executors: Executors,
    /// The stages without results when the first of these jobs was submitted, each after its inputs.
    pub(crate) stages: Vec<Following>,
}

/// A stage that can become ready with the results of others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Following {
    pub(crate) declaration: Stage,
    /// The folder of the stage's file.
    #[serde(with = "path_text")]
    pub(crate) folder: PathBuf,
    /// What it reads outside the cache.
    pub(crate) outside: Vec<OutsideDigest>,
    /// What of that which it reads is there.
    pub(crate) results: Vec<(StageName, StageKey)>,
    /// Whether it is to run again although it may have a result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_forced: bool,
    /// Where it runs. `None` where only a run can run it: jobs may look for its result, and do not begin it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) executor: Option<String>,
}

impl Following {
    /// The stages that it reads, some more than once.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &StageName> {
        self.declaration.connections().map(|(_, connection)| &connection.from)
    }
}

/// Which stage a job is about.
#[derive(Debug, Deserialize)]
pub(crate) struct JobName {
    pub(crate) experiment: String,
    #[serde(rename = "declaration", deserialize_with = "name_in")]
    pub(crate) stage: StageName,
}

impl JobName {
    /// That of the job in a file, whichever build has written it.
    pub(crate) fn of_job(spec: &Path) -> Option<Self> {
        serde_json::from_slice(&read_file(spec, LARGEST_TEXT).ok()?).ok()
    }
}

/// The name in the declaration of a stage.
fn name_in<'de, D: Deserializer<'de>>(declaration: D) -> Result<StageName, D::Error> {
    #[derive(Deserialize)]
    struct Named {
        name: StageName,
    }
    Ok(Named::deserialize(declaration)?.name)
}

/// Where a job runs that nobody needs to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct JobPlace {
    /// The name of its executor.
    pub(crate) executor: String,
    /// What no other job has, also none of another cache.
    pub(crate) token: String,
    /// A command of a shell with which the job puts itself back into the queue, where its scheduler can do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requeue: Option<String>,
    /// Whether it goes on in the allocation of another job, which may have little time left: that this one does not come to its end
    /// there says nothing against it.
    #[serde(default)]
    pub(crate) inherits: bool,
}

impl JobPlace {
    /// For a new job of this executor.
    pub(crate) fn new(executor: &str, requeue: Option<&str>) -> Self {
        let Owner { pid, host, .. } = Owner::this_process();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let token = FieldHasher::new("job").text(&format!("{pid} {host} {now}")).finish();
        let requeue = requeue.map(str::to_owned);
        Self { executor: executor.to_owned(), token: token.short(), requeue, inherits: false }
    }

    /// That of the job in a file, whichever build has written it; one without a token where that cannot be told. `None` where there is no such file.
    pub(crate) fn of_job(spec: &Path) -> io::Result<Option<Self>> {
        match read_file(spec, LARGEST_TEXT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(Some(Self::in_text(&text?))),
        }
    }

    /// The same of the text of such a file.
    pub(crate) fn in_text(spec: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Placed {
            place: Option<JobPlace>,
        }
        let placed = serde_json::from_slice::<Placed>(spec);
        placed.ok().and_then(|placed| placed.place).unwrap_or_default()
    }
}

impl JobSpec {
    /// What is to be done for a stage of a manifest.
    ///
    /// # Errors
    /// When one of its inputs does not have a result.
    pub(crate) fn of(
        manifest: &Manifest,
        declaration: Stage,
        work: Work,
        cache: &Cache,
        result_of: impl Fn(&StageName) -> Option<KnownResult>,
    ) -> anyhow::Result<Self> {
        let folder = manifest.folder_of(&declaration).to_owned();
        Self::new(&manifest.experiment.name, folder, declaration, work, cache, result_of)
    }

    /// The same for a stage of this experiment, whose file is in this folder.
    ///
    /// # Errors
    /// When one of its inputs does not have a result.
    pub(crate) fn new(
        experiment: &str,
        folder: PathBuf,
        declaration: Stage,
        work: Work,
        cache: &Cache,
        result_of: impl Fn(&StageName) -> Option<KnownResult>,
    ) -> anyhow::Result<Self> {
        let Inputs { inputs, missing } = inputs(&declaration, cache, result_of)?;
        Ok(Self {
            by: Hello::of("pipeline"),
            cache: cache.layout().root().to_owned(),
            experiment: experiment.to_owned(),
            folder,
            declaration,
            work,
            inputs,
            missing,
            gpus: Vec::new(),
            place: None,
            next: Vec::new(),
            submits: None,
        })
    }

    /// What must stay for it.
    pub(crate) fn pins(&self) -> impl Iterator<Item = Pinned> {
        let inputs = self.inputs.iter().map(|(_, _, stored)| Pinned::Artifact(stored.digest));
        inputs.chain([Pinned::Key(self.work.key)])
    }

    /// Reads one from a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = read_file(path, LARGEST_TEXT).with_context(|| format!("cannot read {shown}"))?;
        Self::in_text(&text, path)
    }

    /// The same of its text.
    ///
    /// # Errors
    /// When it is that of another build, or damaged.
    pub(crate) fn in_text(text: &[u8], path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let spec = serde_json::from_slice::<Self>(text);
        let spec = spec.map_err(|_| anyhow!("{shown} is not a job of this build"))?;
        ensure!(spec.by == Hello::of("pipeline"), "{shown} is a job of another build of pipeline");
        let Work { key, parts, .. } = &spec.work;
        ensure!(
            StageKey::of(parts) == *key,
            "{shown} is damaged: its key does not match its parts"
        );
        Ok(spec)
    }

    /// What it ran on, by the numbers of this machine.
    pub(crate) fn on_this_machine(&self, ran_on: Option<RanOn>) -> Option<RanOn> {
        on_this_machine(&self.gpus, ran_on)
    }

    /// What its worker is asked to do.
    pub(crate) fn request(&self, output: &Path, checkpoint: &Path) -> Request {
        let missing = self.missing.clone();
        let inputs = &self.inputs;
        let request = request(&self.declaration, &self.folder, inputs, output, checkpoint);
        Request { missing, ..request }
    }
}

/// What it ran on, by the numbers of this machine, of a stage that was handed these GPUs: its worker counts the GPUs that it sees. A program does not say what it
/// used.
pub(super) fn on_this_machine(gpus: &[Gpu], ran_on: Option<RanOn>) -> Option<RanOn> {
    let Some((first, others)) = gpus.split_first() else { return ran_on };
    if ran_on.as_ref().is_some_and(|ran_on| ran_on.device == Device::Cpu) {
        return ran_on;
    }
    let RanOn { name, uuid, threads, remark, .. } =
        ran_on.unwrap_or_else(|| RanOn::gpu(first.number, None));
    let ran_on = RanOn {
        device: Device::Cuda(first.number),
        name: name.or_else(|| first.model.name.clone()),
        uuid: uuid.or_else(|| first.model.uuid.clone()),
        threads,
        remark,
    };
    let also = others.iter().map(|gpu| {
        let uuid = gpu.model.uuid.as_ref().map(|uuid| format!(" {uuid}"));
        format!("and cuda:{}{}", gpu.number, uuid.unwrap_or_default())
    });
    Some(also.fold(ran_on, |ran_on, also| ran_on.with_remark(also)))
}

/// What a worker is asked to do.
pub(crate) fn request(
    declaration: &Stage,
    folder: &Path,
    inputs: &[(String, Input, Stored)],
    output: &Path,
    checkpoint: &Path,
) -> Request {
    let mut ports: BTreeMap<String, Vec<Input>> = BTreeMap::new();
    for (port, input, _) in inputs {
        ports.entry(port.clone()).or_default().push(input.clone());
    }
    Request {
        protocol: message::PROTOCOL,
        stage: declaration.stage.clone(),
        seed: declaration.seed,
        inputs: ports,
        missing: BTreeMap::new(),
        output: output.to_owned(),
        checkpoint: checkpoint.to_owned(),
        folder: folder.to_owned(),
        execution: declaration.execution.execution.clone(),
    }
}

/// What a stage reads.
pub(crate) struct Inputs {
    /// The artifacts at its ports: the port, the input there, and what is in the store.
    pub(crate) inputs: Vec<(String, Input, Stored)>,
    /// Per port that takes all instances of a stage, the points of those that have no result.
    pub(crate) missing: BTreeMap<String, Vec<Point>>,
}

/// What a stage reads at its ports, with what is in the store.
///
/// # Errors
/// When one of its inputs does not have a result, and it does not run without it.
pub(crate) fn inputs(
    declaration: &Stage,
    cache: &Cache,
    result_of: impl Fn(&StageName) -> Option<KnownResult>,
) -> anyhow::Result<Inputs> {
    let key_of = |from: &StageName| result_of(from).map(|result| result.key);
    let mut found = Inputs { inputs: Vec::new(), missing: BTreeMap::new() };
    for key::KeyInput { at, from, .. } in key::inputs(declaration, key_of) {
        let connection = from[0];
        let points = from.iter().filter(|one| one.among_all).map(|one| one.point());
        let Some(result) = result_of(&connection.from) else {
            let allowed = connection.among_all && declaration.stage.allows_missing();
            ensure!(allowed, "'{}' ran before its input '{}'", declaration.name, connection.from);
            found.missing.entry(at.to_owned()).or_default().extend(points);
            continue;
        };
        let path = cache.artifact(&result.output.digest);
        let input = Input::new(connection.name.clone(), path, result.artifact);
        let input = Input { points: points.collect(), ..input };
        found.inputs.push((at.to_owned(), input, result.output));
    }
    Ok(found)
}
