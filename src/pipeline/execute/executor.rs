//! Where the whole body of a job runs: its claim, its worker and its commit.
//!
//! The seam for jobs on other machines. Does not depend on the graph, or on what else runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use pipeline_stages::message::{Event, Hello, Input, Request};
use pipeline_stages::path_text;
use serde::{Deserialize, Serialize};

use super::handle::{Handle, Thread};
use super::job::{self, Job, JobEnd, JobEvent};
use super::supervisor::Waker;
use crate::cache::{Cache, Record, StatIndex, Stored};
use crate::events::RunEvent;
use crate::key::{Part, StageKey};
use crate::launcher::Launcher;
use crate::manifest::{Manifest, StageDeclaration};
use crate::reason::Reason;
use crate::stage_name::StageName;

/// What is to be done for a stage that must run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// Why it must run.
    pub reason: Reason,
    /// Its key.
    pub key: StageKey,
    /// What the key was made of.
    pub parts: Vec<Part>,
}

/// All that the body of a job needs: plain data, so that another process can run it from a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobSpec {
    /// The build that wrote it: another one may know the kind differently.
    pub by: Hello,
    /// The cache.
    #[serde(with = "path_text")]
    pub cache: PathBuf,
    /// The experiment.
    pub experiment: String,
    /// The manifest's folder.
    #[serde(with = "path_text")]
    pub folder: PathBuf,
    /// The stage.
    pub declaration: StageDeclaration,
    /// Why it runs, and under which key.
    #[serde(flatten)]
    pub work: Work,
    /// The artifacts at its ports: the port, the input there, and what is in the store.
    pub inputs: Vec<(String, Input, Stored)>,
}

impl JobSpec {
    /// What is to be done for a stage of a manifest.
    ///
    /// # Errors
    /// When one of its inputs does not have a record.
    pub fn of(
        manifest: &Manifest,
        declaration: StageDeclaration,
        work: Work,
        cache: &Cache,
        record_of: impl Fn(&StageName) -> Option<Record>,
    ) -> anyhow::Result<Self> {
        let inputs = job::inputs(&declaration, cache, record_of)?;
        Ok(Self {
            by: Hello::of("pipeline"),
            cache: cache.layout().root().to_owned(),
            experiment: manifest.experiment.name.clone(),
            folder: manifest.folder.clone(),
            declaration,
            work,
            inputs,
        })
    }

    /// Reads one from a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not of this build.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let spec = serde_json::from_slice::<Self>(&text);
        let spec = spec.with_context(|| format!("{shown} is not a job of this build"))?;
        ensure!(spec.by == Hello::of("pipeline"), "{shown} is a job of another build of pipeline");
        let Work { key, parts, .. } = &spec.work;
        ensure!(StageKey::of(parts) == *key, "{shown} is damaged: its key is another");
        Ok(spec)
    }

    /// What its worker is asked to do.
    pub fn request(&self, output: &Path, checkpoint: &Path) -> Request {
        job::request(&self.declaration, &self.folder, &self.inputs, output, checkpoint)
    }

    /// What happened, for reporters, where it is for them.
    pub fn event(stage: &StageDeclaration, key: StageKey, event: JobEvent) -> Option<RunEvent> {
        let (kind, stage) = (stage.stage.info().name, stage.name.clone());
        Some(match event {
            JobEvent::Waits => RunEvent::Wait { stage },
            JobEvent::Starts { why, resumes } => RunEvent::Start { stage, kind, key, why, resumes },
            JobEvent::Worker(Event::Progress(progress)) => RunEvent::Progress { stage, progress },
            JobEvent::Worker(Event::Measured(measured)) => RunEvent::Measured { stage, measured },
            JobEvent::Worker(Event::Note { text }) => RunEvent::Note { stage, text },
            JobEvent::Worker(_) => return None,
            JobEvent::Damage { withdrawn, .. } if withdrawn.is_empty() => return None,
            JobEvent::Damage { artifact, withdrawn } => {
                let names: Vec<_> = withdrawn.iter().map(|one| one.record.name()).collect();
                let text = format!(
                    "what was made from the damaged artifact {} no longer counts: {}",
                    artifact.short(),
                    names.join(", ")
                );
                RunEvent::Note { stage, text }
            }
        })
    }
}

/// What a job reports.
pub enum Report {
    /// Something on its way.
    Event(JobEvent),
    /// Its end.
    End(JobEnd),
}

/// Runs jobs.
pub trait Executor {
    /// Starts a job.
    ///
    /// # Errors
    /// When it cannot be started.
    fn start(&self, spec: JobSpec) -> anyhow::Result<Box<dyn Handle<Report>>>;
}

/// Runs each job on a thread of this process.
pub struct Threads {
    /// The cache of all of them.
    pub cache: Arc<Cache>,
    /// The memory of files outside it.
    pub index: Arc<StatIndex>,
    /// How their workers are started.
    pub launcher: Arc<dyn Launcher>,
    /// Whom their reports wake.
    pub waker: Waker,
}

impl Executor for Threads {
    fn start(&self, spec: JobSpec) -> anyhow::Result<Box<dyn Handle<Report>>> {
        let (cache, index) = (Arc::clone(&self.cache), Arc::clone(&self.index));
        let launcher = Arc::clone(&self.launcher);
        let name = spec.declaration.name.to_string();
        let handle = Thread::start(
            &name,
            self.waker.clone(),
            move |report, worker, stopping| {
                let (cache, index, launcher) = (&*cache, &*index, &*launcher);
                let job = Job { spec: &spec, cache, index, launcher, worker, stopping };
                Report::End(job.run(&|event| report(Report::Event(event))))
            },
            || Report::End(JobEnd::failed("internal error: its thread panicked")),
        )?;
        Ok(Box::new(handle))
    }
}
