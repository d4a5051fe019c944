//! One stage, on a thread of its own: lock its key, look again, run its worker, commit.
//!
//! The order is the point: the record is written last, and only for a complete artifact. Prints nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use pipeline_stages::message::{self, Event, Input, Request};
use pipeline_stages::worker::{io_error_kind, with_disk_advice};

use crate::cache::{Cache, Lock, Record, StatIndex, Stored, durable, store};
use crate::facts;
use crate::key::{Part, StageKey};
use crate::manifest::StageDeclaration;
use crate::reason::Reason;
use crate::worker::{self, WorkerHandle};

/// How often a process that waits for another one looks whether it is done.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Everything that one stage needs to run.
pub struct Job {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The experiment.
    pub experiment: String,
    /// The manifest's folder.
    pub folder: PathBuf,
    /// The stage.
    pub declaration: StageDeclaration,
    /// Its key.
    pub key: StageKey,
    /// What the key was made of.
    pub parts: Vec<Part>,
    /// Why it runs.
    pub reason: Reason,
    /// The artifacts at its ports: the port, the input there, and what is in the store.
    pub inputs: Vec<(String, Input, Stored)>,
    /// A hold on its worker.
    pub leash: WorkerHandle,
    /// Set when the run was asked to stop.
    pub stopping: Arc<AtomicBool>,
}

/// What a job tells on its way.
pub enum JobEvent {
    /// Another process has the lock of its key.
    Waits,
    /// Its worker starts.
    Starts {
        /// Why.
        why: Reason,
        /// Whether there is a checkpoint of an interrupted run.
        resumes: bool,
    },
    /// Its worker says something.
    Worker(Event),
}

/// How a job ended.
pub enum JobEnd {
    /// Another process ran the same key meanwhile.
    Reused(Box<Record>),
    /// It ran.
    Ran(Box<Record>),
    /// It was asked to stop.
    Stopped,
    /// It failed.
    Failed {
        /// Why.
        message: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// An input is damaged. It is out of the way now: the stage that made it must run again.
    DamagedInput(Stored),
}

impl Job {
    /// Runs the stage, to its end.
    pub fn run(self, tell: impl Fn(JobEvent)) -> JobEnd {
        self.attempt(&tell).unwrap_or_else(|error| JobEnd::Failed {
            message: format!("{:#}", with_advice(error)),
            log: Vec::new(),
        })
    }

    fn attempt(&self, tell: &impl Fn(JobEvent)) -> anyhow::Result<JobEnd> {
        let Some(_lock) = self.lock(tell)? else { return Ok(JobEnd::Stopped) };
        if let Some(record) = self.cache.usable(&self.key) {
            return Ok(JobEnd::Reused(Box::new(record)));
        }
        for (_, _, stored) in &self.inputs {
            if store::quarantine_if_damaged(self.cache.layout(), stored)? {
                return Ok(JobEnd::DamagedInput(*stored));
            }
        }
        let started = Instant::now();
        let work = self.cache.layout().tmp().join(self.key.to_string());
        let request = self.prepare_folders(&work)?;
        let resumes =
            std::fs::read_dir(&request.checkpoint).is_ok_and(|mut list| list.next().is_some());
        let command = worker::command(self.declaration.stage.info().worker)?;
        tell(JobEvent::Starts { why: self.reason.clone(), resumes });
        let log = self.cache.layout().log(&self.key);
        let end = worker::run(command, &request, &log, &self.leash, |event| {
            tell(JobEvent::Worker(event))
        });
        let end = match end {
            Ok(worker::End::Finished { metrics, device }) => {
                self.commit(&work, &request.output, started, metrics, device)
            }
            Ok(worker::End::Stopped) => Ok(JobEnd::Stopped),
            Ok(worker::End::Failed { message, log }) => Ok(JobEnd::Failed { message, log }),
            Err(error) => Err(error),
        };
        durable::remove_tree(&work)?;
        end
    }

    /// The lock of the key; `None` when the run was stopped while another process had it.
    fn lock(&self, tell: &impl Fn(JobEvent)) -> anyhow::Result<Option<Lock>> {
        let mut told = false;
        loop {
            if let Some(lock) = self.cache.try_lock(&self.key)? {
                return Ok(Some(lock));
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if !std::mem::replace(&mut told, true) {
                tell(JobEvent::Waits);
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    fn prepare_folders(&self, work: &Path) -> anyhow::Result<Request> {
        let layout = self.cache.layout();
        durable::remove_tree(work)?;
        // Under a name of its own: what an earlier program left behind by a crash still writes to goes
        // nowhere, not into this output.
        durable::create_folder(work)?;
        let own = tempfile::tempdir_in(work).context("can't make a folder to work in")?.keep();
        let output = own.join("output");
        let checkpoint = layout.partial(&self.key).join("checkpoint");
        durable::create_folder(&output)?;
        durable::create_folder(&checkpoint)?;
        if let Some(folder) = layout.log(&self.key).parent() {
            durable::create_folder(folder)?;
        }
        Ok(request(&self.declaration, &self.folder, &self.inputs, &output, &checkpoint))
    }

    fn commit(
        &self,
        work: &Path,
        output: &Path,
        started: Instant,
        metrics: message::Metrics,
        device: Option<String>,
    ) -> anyhow::Result<JobEnd> {
        let layout = self.cache.layout();
        let changed = changed_outside(&self.cache, &self.declaration, &self.folder, &self.parts);
        let stored = store::commit(layout, output)?;
        if let Some(path) = changed {
            let message = format!(
                "{path} changed while the stage read it, so the result is not recorded; \
                 it is kept to look at in {}",
                layout.artifact(&stored.digest).display()
            );
            return Ok(JobEnd::Failed { message, log: Vec::new() });
        }
        let record = Record {
            key: self.key,
            parts: self.parts.clone(),
            stage: self.declaration.name.to_string(),
            experiment: self.experiment.clone(),
            reason: self.reason.clone(),
            artifact: self.declaration.stage.output(),
            output: stored,
            metrics,
            seconds: started.elapsed().as_secs_f64(),
            finished: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            device,
            version: message::VERSION.to_owned(),
        };
        // Before the record: nobody looks for what is left of a stage that is fresh.
        durable::remove_tree(work)?;
        record.write(&layout.record(&self.key))?;
        // The commit stands; a checkpoint that stays behind is only litter.
        let _ = durable::remove_tree(&layout.partial(&self.key));
        Ok(JobEnd::Ran(Box::new(record)))
    }
}

/// What a worker is asked to do.
pub fn request(
    declaration: &StageDeclaration,
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
        output: output.to_owned(),
        checkpoint: checkpoint.to_owned(),
        folder: folder.to_owned(),
        execution: declaration.execution.execution.clone(),
    }
}

/// The first file outside the cache that is not what it was when the key was made of `parts`.
pub fn changed_outside(
    cache: &Cache,
    declaration: &StageDeclaration,
    folder: &Path,
    parts: &[Part],
) -> Option<String> {
    let mut index = StatIndex::read(&cache.layout().stat_index());
    let now = facts::outside_digests(declaration, folder, &mut index);
    parts.iter().find_map(|part| {
        let Part::Outside { index, path, digest } = part else { return None };
        let same =
            now.as_ref().is_ok_and(|now| now.get(*index).is_some_and(|now| now.digest == *digest));
        (!same).then(|| path.clone())
    })
}

/// An error, with what to do about those that every cache meets.
pub fn with_advice(error: anyhow::Error) -> anyhow::Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match io_error_kind(&error) {
        Some(PermissionDenied | ReadOnlyFilesystem) => anyhow::anyhow!(
            "{error:#}\nthe cache can't be written: mend its permissions, or use another cache with --cache"
        ),
        _ => with_disk_advice(error),
    }
}

/// What a stage reads at its ports, with what is in the store.
pub fn inputs(
    declaration: &StageDeclaration,
    cache: &Cache,
    record_of: impl Fn(&crate::stage_name::StageName) -> Option<Record>,
) -> anyhow::Result<Vec<(String, Input, Stored)>> {
    let mut inputs = Vec::new();
    for (port, connections) in &declaration.inputs {
        for connection in connections {
            let record = record_of(&connection.from).with_context(|| {
                format!("'{}' ran before its input '{}'", declaration.name, connection.from)
            })?;
            let input = Input {
                name: connection.name.clone(),
                path: cache.artifact(&record.output.digest),
                artifact: record.artifact,
            };
            inputs.push((port.clone(), input, record.output));
        }
    }
    Ok(inputs)
}
