//! The thread that sends what happens in a run. It tries again while the run goes on, and gives up soon after its end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::{self, Metric};
use super::client::{Failure, FailureKind, REQUEST};
use super::facts::Facts;
use super::queue::{Ended, Message, Queue};
use super::server::{NewRun, OpenRun, Server};
use crate::cache::Cache;
use crate::history::Commit;
use crate::key::StageKey;
use crate::stage_name::StageName;
use crate::tracking::result::{StageResult, is_tracked, parameters_in_words};

/// The first and the longest time between two tries while the run goes on.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a request is tried after the end of the run, and the time between.
const LAST_TRIES: u32 = 3;
const LAST_WAIT: Duration = Duration::from_millis(300);

/// Sends messages.
pub(super) struct Sender {
    queue: Arc<Queue>,
    server: Server,
    facts: Facts,
    cache: Arc<Cache>,
    /// The folder of the manifest.
    folder: PathBuf,
    /// What Git says of it, once somebody asked.
    commit: Option<Option<Commit>>,
    stages: HashMap<StageName, Stage>,
    /// Whether nothing is sent any more.
    has_given_up: bool,
}

/// A stage that runs.
struct Stage {
    start: Start,
    /// Its run on the server, once it has one.
    run: Option<OpenRun>,
    /// What was measured and not sent yet.
    metrics: Vec<Metric>,
    /// Whether something of it was refused.
    is_refused: bool,
}

/// How a stage began.
struct Start {
    key: StageKey,
    kind: &'static str,
    parameters: body::Words,
    at: u64,
}

impl Sender {
    pub(super) fn new(
        queue: Arc<Queue>,
        server: Server,
        facts: Facts,
        cache: Arc<Cache>,
        folder: PathBuf,
    ) -> Self {
        let stages = HashMap::new();
        Self { queue, server, facts, cache, folder, commit: None, stages, has_given_up: false }
    }

    /// Sends until the run has ended.
    pub(super) fn run(mut self) {
        while let Some(messages) = self.queue.take() {
            for message in messages {
                self.handle(message);
            }
            let stages: Vec<StageName> = self.stages.keys().cloned().collect();
            for stage in stages {
                self.send_values(&stage);
            }
            self.queue.collect();
        }
        self.queue.done();
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Start { stage, key, kind, setup, at } => {
                let seed = setup.seed;
                let parameters = parameters_in_words(&stage, seed, setup.parameters.iter());
                let start = Start { key, kind, parameters, at };
                let new = Stage { start, run: None, metrics: Vec::new(), is_refused: false };
                self.stages.insert(stage.clone(), new);
                if is_tracked(setup.output) {
                    self.open(&stage);
                }
            }
            Message::Value { stage, name, step, value, at } => {
                if let Some(open) = self.stages.get_mut(&stage) {
                    open.metrics.push(Metric { name: body::name(&name), step, value, at });
                }
            }
            Message::End { stage, ended, at } => {
                self.send_values(&stage);
                self.end(&stage, ended, at);
                let refused = self.stages.remove(&stage).is_some_and(|stage| stage.is_refused);
                if !refused && !self.has_given_up {
                    self.queue.delivered(&stage);
                }
            }
        }
    }

    /// Begins the run of a stage, or continues an earlier one, if it has none yet.
    fn open(&mut self, stage: &StageName) {
        let is_open = |stage: &Stage| stage.run.is_some() || stage.is_refused;
        if self.has_given_up || self.stages.get(stage).is_none_or(is_open) {
            return;
        }
        let commit = self.commit.get_or_insert_with(|| Commit::of(&self.folder)).clone();
        let Some(Stage { start, .. }) = self.stages.get(stage) else { return };
        let new = NewRun {
            name: stage.as_str(),
            key: start.key.to_string(),
            cache: &self.facts.cache,
            start: start.at,
            parameters: start.parameters.clone(),
            tags: self.facts.tags(stage, start.kind, commit.as_ref()),
        };
        let opened = Self::persist(&self.queue, &mut self.server, |server| server.open(&new));
        match opened {
            Ok(run) => {
                if let Some(open) = self.stages.get_mut(stage) {
                    open.run = Some(run);
                }
            }
            Err(failure) => self.failed(stage, &failure),
        }
    }

    fn send_values(&mut self, stage: &StageName) {
        if self.stages.get(stage).is_none_or(|open| open.metrics.is_empty()) {
            return;
        }
        self.open(stage);
        let Some(open) = self.stages.get_mut(stage) else { return };
        let metrics = std::mem::take(&mut open.metrics);
        let Some(run) = open.run.as_mut().filter(|_| !self.has_given_up && !open.is_refused) else {
            return;
        };
        let sent = Self::persist(&self.queue, &mut self.server, |server| server.add(run, &metrics));
        if let Err(failure) = sent {
            self.failed(stage, &failure);
        }
    }

    fn end(&mut self, stage: &StageName, ended: Ended, at: u64) {
        if self.has_given_up {
            return;
        }
        let Some(open) = self.stages.get_mut(stage).filter(|open| !open.is_refused) else { return };
        let Some(run) = open.run.as_mut() else { return };
        let (queue, server) = (&self.queue, &mut self.server);
        let sent = match ended {
            Ended::Result(key) => {
                let Some(record) = self.cache.usable(&key) else {
                    let reason = "the result is no longer in the cache";
                    return self.failed(stage, &Failure::new(FailureKind::Lasting, reason));
                };
                let folder = self.cache.artifact(&record.output.digest);
                let commit = self.commit.clone().flatten();
                let result = StageResult { stage: stage.clone(), record, folder, commit };
                let tags = self.facts.tags_of(&result);
                Self::persist(queue, server, |server| server.complete(run, &result, &tags))
            }
            Ended::Without { status, tags } => Self::persist(queue, server, |server| {
                server.tag(run, &tags)?;
                server.update(run, status, Some(at))
            }),
        };
        if let Err(failure) = sent {
            self.failed(stage, &failure);
        }
    }

    /// Sends a request again after failures that may pass: as long as the run goes on, and then until the deadline.
    fn persist<T>(
        queue: &Queue,
        server: &mut Server,
        mut send: impl FnMut(&mut Server) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (mut wait, mut last_tries) = (FIRST_WAIT, 0);
        loop {
            let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
            let limit = queue.deadline().map_or(REQUEST, left).min(REQUEST);
            server.set_limit(limit.max(Duration::from_millis(1)));
            let failure = match send(server) {
                Ok(sent) => {
                    queue.set_failure(None);
                    return Ok(sent);
                }
                Err(failure) => failure,
            };
            queue.set_failure(Some(&failure.reason));
            if failure.kind != FailureKind::Passing {
                return Err(failure);
            }
            match queue.deadline() {
                None => {
                    queue.wait_for_end(wait);
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Some(deadline) => {
                    last_tries += 1;
                    if last_tries >= LAST_TRIES || left(deadline) <= LAST_WAIT {
                        return Err(failure);
                    }
                    std::thread::sleep(LAST_WAIT);
                }
            }
        }
    }

    /// Nothing more of this stage is sent, or nothing more at all.
    fn failed(&mut self, stage: &StageName, failure: &Failure) {
        self.queue.set_refusal(&failure.reason);
        match failure.kind {
            FailureKind::Lasting => {
                if let Some(open) = self.stages.get_mut(stage) {
                    open.is_refused = true;
                }
            }
            // One that could pass has not, and the run has ended.
            FailureKind::ForAll | FailureKind::Passing => self.has_given_up = true,
        }
    }
}
