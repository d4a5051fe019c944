//! MLflow over its REST API: a run for each stage that measures something.
//!
//! [`body`] has what is written, [`client`] sends it, [`server`] knows experiments and runs, [`sender`] is the thread
//! that does this while stages run, and [`queue`] what waits for it.

mod body;
mod client;
mod facts;
mod queue;
mod sender;
mod server;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_stages::url::{WebUrl, blanked};

use super::result::{StageResult, is_tracked};
use super::tracker::{NotSent, Scene, Sent, Tracker};
use crate::cache::Cache;
use crate::events::{Outcome, RunEvent};
use crate::format;
use crate::progress::Reporter;
use crate::signals::StopFlag;
use crate::stage_name::StageName;
use crate::visible::note;
use body::Words;
use client::RequestFailure;
use facts::Facts;
use queue::{Ended, Queue, StageUpdate, Undelivered};
use sender::Sender;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use server::is_answer;
use server::{Files, NewRun, Server};

/// How long the end of a run waits for what is not sent yet, and how long after somebody asked to stop.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// An MLflow server.
pub(super) struct Mlflow {
    address: WebUrl,
    /// The server, or why nothing can be sent to it.
    server: Result<Server, RequestFailure>,
    facts: Facts,
    cache: Arc<Cache>,
    /// The manifest and the files that it includes.
    files: Vec<PathBuf>,
    resend: String,
}

impl Mlflow {
    /// That of the manifest, if it has one.
    pub(super) fn of(scene: &Scene<'_>) -> Option<Box<dyn Tracker>> {
        let address = scene.tracking.mlflow.clone()?;
        Some(Box::new(Self {
            server: Server::new(&address, scene.experiment),
            address,
            facts: Facts::of(scene),
            cache: Arc::clone(scene.cache),
            files: scene.files.clone(),
            resend: scene.resend.clone(),
        }))
    }
}

impl Tracker for Mlflow {
    fn name(&self) -> String {
        format!("MLflow at {}", self.address)
    }

    fn reporter(self: Box<Self>) -> Box<dyn Reporter> {
        let (name, queue) = (self.name(), Arc::new(Queue::default()));
        let Self { server, facts, cache, files, resend, .. } = *self;
        let server = match server {
            Ok(server) => Some(Sender::new(Arc::clone(&queue), server, facts, cache, files)),
            Err(failure) => {
                queue.set_failure(Some(&failure.reason));
                queue.done();
                None
            }
        };
        Box::new(Live { name, queue, idle: server, resend, wanted: HashMap::new(), stopping: None })
    }

    fn send(&mut self, result: &StageResult) -> Result<Sent, NotSent> {
        let Self { server, facts, .. } = self;
        let server = server.as_mut().map_err(|failure| NotSent::from(failure.clone()))?;
        let record = &result.record;
        let start = record.finished as f64 - record.seconds.max(0.0);
        let tags = facts.tags_of(result);
        let opened = server.open(&NewRun {
            name: result.stage.as_str(),
            key: record.key.to_string(),
            artifact: Some(record.output.digest.to_string()),
            cache: &facts.cache,
            start: (start.max(0.0) * 1000.0) as u64,
            parameters: result.parameters(),
            tags: Words::new(),
        })?;
        let Some(mut run) = opened else { return Ok(Sent::Before) };
        server.finish(&mut run, result, tags)?;
        let mut files = Files::new(run, result);
        // The numbers have arrived: others can arrive too.
        let not_sent = |RequestFailure { reason, .. }| NotSent { reason, is_for_all: false };
        while !server.put_next(&mut files).map_err(not_sent)? {}
        Ok(Sent::Now { left_out: files.refused })
    }
}

impl From<RequestFailure> for NotSent {
    fn from(failure: RequestFailure) -> Self {
        Self { is_for_all: !failure.is_of_one_request(), reason: failure.reason }
    }
}

/// Reports a run while it runs.
struct Live {
    name: String,
    queue: Arc<Queue>,
    /// What sends, until something is to be sent.
    idle: Option<Sender>,
    resend: String,
    /// The stages that run, each with whether it has something for the server.
    wanted: HashMap<StageName, bool>,
    /// When somebody asked the run to stop.
    stopping: Option<Instant>,
}

impl Live {
    fn add(&mut self, update: StageUpdate, is_wanted: bool) {
        self.queue.add(update, is_wanted);
        let Some(sender) = self.idle.take() else { return };
        let thread = std::thread::Builder::new().name("mlflow".to_owned());
        if let Err(error) = thread.spawn(move || sender.run()) {
            self.queue.set_failure(Some(&format!("cannot start a thread: {error}")));
            self.queue.done();
        }
    }

    fn end(&mut self, stage: &StageName, ended: Ended) {
        if let Some(is_wanted) = self.wanted.remove(stage) {
            self.add(StageUpdate::End { stage: stage.clone(), ended, at: now() }, is_wanted);
        }
    }

    /// The run has ended.
    fn done(&mut self) {
        let stages: Vec<StageName> = self.wanted.keys().cloned().collect();
        for stage in stages {
            self.end(&stage, Ended::Without { status: "KILLED", tags: Words::new() });
        }
        if self.idle.is_some() {
            // Nothing was to be sent.
            return;
        }
        let patience = if self.stopping.is_some() { SHORT_PATIENCE } else { PATIENCE };
        // Without it, the end is only not shortened.
        let stop = StopFlag::listen().ok();
        let is_asked = || stop.as_ref().is_some_and(StopFlag::is_asked);
        let undelivered = self.queue.finish(patience, is_asked);
        for what in self.queue.left_out() {
            note(&format!("warning: {} did not take {what}", self.name));
        }
        if let Some(Undelivered { stages, values, reason }) = undelivered {
            let (name, resend) = (&self.name, &self.resend);
            let count = |count: usize, one: &str| match count {
                1 => format!("1 {one}"),
                count => format!("{} {one}s", format::count(count as u64)),
            };
            let what = match (stages, values) {
                (stages, 0) => count(stages, "stage"),
                (0, values) => count(values, "value"),
                (stages, values) => {
                    format!("{} and {}", count(stages, "stage"), count(values, "value"))
                }
            };
            let text = format!(
                "warning: {name} did not get everything of {what}: {reason}\nwarning: `{resend}` sends the results that it does not have"
            );
            note(&text);
        }
    }
}

impl Reporter for Live {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Start { stage, key, kind, setup, .. } => {
                let is_wanted = is_tracked(setup.output);
                self.wanted.insert(stage.clone(), is_wanted);
                let setup = Box::new(setup.clone());
                let start =
                    StageUpdate::Start { stage: stage.clone(), key: *key, kind, setup, at: now() };
                self.add(start, is_wanted);
            }
            RunEvent::Measured { stage, measured } => {
                if let Some(is_wanted) = self.wanted.get_mut(stage) {
                    *is_wanted = true;
                    let (name, step, value) =
                        (measured.name.clone(), measured.step, measured.value);
                    self.add(
                        StageUpdate::Value { stage: stage.clone(), name, step, value, at: now() },
                        true,
                    );
                }
            }
            RunEvent::End { stage, key, outcome, .. } => {
                let without = |status, tags| Ended::Without { status, tags };
                let ended = match (outcome, key) {
                    (Outcome::Ran { .. } | Outcome::Fresh { .. }, Some(key)) => Ended::Result(*key),
                    (Outcome::Failed { message, .. }, _) => {
                        let error = ("pipeline.error".to_owned(), blanked(message).into_owned());
                        without("FAILED", Words::from([error]))
                    }
                    _ => without("KILLED", Words::new()),
                };
                self.end(stage, ended);
            }
            // What it measured arrives; the next attempt continues its run.
            RunEvent::Attempt { stage, why, .. } => {
                let error = ("pipeline.error".to_owned(), blanked(why).into_owned());
                let tags = Words::from([error]);
                self.end(stage, Ended::Without { status: "KILLED", tags });
            }
            RunEvent::Stopping { .. } => self.stopping = Some(Instant::now()),
            RunEvent::Done { .. } => self.done(),
            _ => {}
        }
    }
}

/// Milliseconds since 1970, UTC.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
