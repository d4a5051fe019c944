//! The thread that sends what happens in a run. It tries again while the run goes on, and gives up soon after its end.
//! Numbers first: files are sent, one by one, when nothing else waits.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::{self, Metric};
use super::client::{REQUEST, RequestFailure, RequestFailureKind};
use super::facts::Facts;
use super::queue::{Ended, Queue, StageUpdate};
use super::server::{Files, NewRun, OpenRun, Server};
use crate::cache::Cache;
use crate::history::Commit;
use crate::key::StageKey;
use crate::stage_name::StageName;
use crate::tracking::result::{StageResult, is_tracked, parameters_in_words};

/// The first and the longest time between two tries while the run goes on.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a request is tried at which the server itself fails.
const MOST_TRIES: u32 = 3;
/// How often a request is tried after the end of the run, and the time between.
const LAST_TRIES: u32 = 3;
const LAST_WAIT: Duration = Duration::from_millis(300);

/// Sends updates.
pub(super) struct Sender {
    queue: Arc<Queue>,
    server: Server,
    facts: Facts,
    cache: Arc<Cache>,
    /// The manifest and the files that it includes.
    files_of_manifest: Vec<PathBuf>,
    /// What Git says of them, once somebody asked.
    commit: Option<Option<Commit>>,
    stages: HashMap<StageName, Stage>,
    /// What is sent when nothing else waits.
    files: VecDeque<StageFiles>,
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
    /// Whether something of it did not arrive.
    is_incomplete: bool,
    /// Whether it did not get a run.
    is_refused: bool,
}

/// The files of a stage that has ended.
struct StageFiles {
    stage: StageName,
    files: Files,
    /// Whether something else of the stage did not arrive.
    is_incomplete: bool,
    /// How often the next file was tried in vain.
    tries: u32,
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
        files_of_manifest: Vec<PathBuf>,
    ) -> Self {
        Self {
            queue,
            server,
            facts,
            cache,
            files_of_manifest,
            commit: None,
            stages: HashMap::new(),
            files: VecDeque::new(),
            has_given_up: false,
        }
    }

    /// Sends until the run has ended.
    pub(super) fn run(mut self) {
        loop {
            let updates = match self.files.is_empty() {
                true => match self.queue.take() {
                    Some(updates) => updates,
                    None => break,
                },
                false => self.queue.take_now(),
            };
            for update in updates {
                self.handle(update);
            }
            let stages: Vec<StageName> = self.stages.keys().cloned().collect();
            for stage in stages {
                self.send_values(&stage);
            }
            if !self.send_file() {
                self.queue.collect();
            }
        }
        self.queue.done();
    }

    fn handle(&mut self, update: StageUpdate) {
        match update {
            StageUpdate::Start { stage, key, kind, setup, at } => {
                let seed = setup.seed;
                let parameters = parameters_in_words(&stage, seed, setup.parameters.iter());
                let start = Start { key, kind, parameters, at };
                let new = Stage {
                    start,
                    run: None,
                    metrics: Vec::new(),
                    is_incomplete: false,
                    is_refused: false,
                };
                self.stages.insert(stage.clone(), new);
                if is_tracked(setup.output) {
                    self.open(&stage);
                }
            }
            StageUpdate::Value { stage, name, step, value, at } => {
                if let Some(open) = self.stages.get_mut(&stage) {
                    open.metrics.push(Metric { name: body::name(&name), step, value, at });
                }
            }
            StageUpdate::End { stage, ended, at } => {
                self.send_values(&stage);
                // The server may have recovered.
                if let Some(open) = self.stages.get_mut(&stage)
                    && std::mem::take(&mut open.is_refused)
                {
                    self.open(&stage);
                }
                let result = self.end(&stage, ended, at);
                let Some(Stage { run, is_incomplete, .. }) = self.stages.remove(&stage) else {
                    return;
                };
                match (result, run) {
                    _ if self.has_given_up => {}
                    (Some(result), Some(run)) => {
                        let files = Files::new(run, &result);
                        self.files.push_back(StageFiles { stage, files, is_incomplete, tries: 0 });
                    }
                    _ if is_incomplete => {}
                    _ => self.queue.delivered(&stage),
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
        let commit = self.commit.get_or_insert_with(|| Commit::of(&self.files_of_manifest)).clone();
        let Some(Stage { start, .. }) = self.stages.get(stage) else { return };
        let new = NewRun {
            name: stage.as_str(),
            key: start.key.to_string(),
            cache: &self.facts.cache,
            artifact: None,
            start: start.at,
            parameters: start.parameters.clone(),
            tags: self.facts.tags(stage, start.kind, commit.as_ref()),
        };
        let opened = Self::persist(&self.queue, &mut self.server, |server| server.open(&new));
        match opened {
            Ok(run) => {
                if let Some(open) = self.stages.get_mut(stage) {
                    open.run = run;
                }
            }
            Err(failure) => {
                if let Some(open) = self.stages.get_mut(stage) {
                    open.is_refused = true;
                }
                self.failed(stage, &failure);
            }
        }
    }

    fn send_values(&mut self, stage: &StageName) {
        if self.stages.get(stage).is_none_or(|open| open.metrics.is_empty()) {
            return;
        }
        self.open(stage);
        let Some(open) = self.stages.get_mut(stage) else { return };
        let metrics = std::mem::take(&mut open.metrics);
        let Some(run) = open.run.as_mut().filter(|_| !self.has_given_up) else { return };
        let sent = Self::persist(&self.queue, &mut self.server, |server| server.add(run, &metrics));
        if let Err(failure) = sent {
            self.failed(stage, &failure);
        }
    }

    /// Sends how a stage ended. Returns its result if all but its files has arrived.
    fn end(&mut self, stage: &StageName, ended: Ended, at: u64) -> Option<StageResult> {
        let run = self.stages.get_mut(stage)?.run.as_mut().filter(|_| !self.has_given_up)?;
        let (queue, server) = (&self.queue, &mut self.server);
        let sent = match ended {
            Ended::Result(key) => match self.cache.usable(&key) {
                Some(record) => {
                    let folder = self.cache.artifact(&record.output.digest);
                    let commit = self.commit.clone().flatten();
                    let result = StageResult { stage: stage.clone(), record, folder, commit };
                    let tags = self.facts.tags_of(&result);
                    let finish = |server: &mut Server| server.finish(run, &result, tags.clone());
                    Self::persist(queue, server, finish).map(|()| Some(result))
                }
                None => {
                    let reason = "the result is no longer in the cache";
                    Err(RequestFailure::new(RequestFailureKind::Lasting, reason))
                }
            },
            Ended::Without { status, tags } => {
                let end = |server: &mut Server| server.end(run, &tags, status, at);
                Self::persist(queue, server, end).map(|()| None)
            }
        };
        sent.unwrap_or_else(|failure| {
            self.failed(stage, &failure);
            None
        })
    }

    /// Sends one file of a stage that has ended. Returns whether something else should be sent at once. One that does not
    /// arrive is tried again after those of other stages.
    fn send_file(&mut self) -> bool {
        if self.has_given_up {
            self.files.clear();
        }
        let Some(mut next) = self.files.pop_front() else { return false };
        let deadline = self.queue.deadline();
        self.server.set_limit(limit(deadline));
        let failure = match self.server.put_next(&mut next.files) {
            Ok(is_complete) => {
                let refused = std::mem::take(&mut next.files.refused);
                self.queue
                    .leave_out(refused.into_iter().map(|it| format!("{it} ({})", next.stage)));
                self.queue.set_failure(None);
                if !is_complete {
                    next.tries = 0;
                    self.files.push_front(next);
                } else if !next.is_incomplete {
                    self.queue.delivered(&next.stage);
                }
                return true;
            }
            Err(failure) => failure,
        };
        self.queue.set_failure(Some(&failure.reason));
        let counts = match failure.kind {
            RequestFailureKind::Unreachable | RequestFailureKind::Busy => deadline.is_some(),
            RequestFailureKind::Faulty => true,
            RequestFailureKind::Content
            | RequestFailureKind::Lasting
            | RequestFailureKind::ForAll => {
                next.tries = MOST_TRIES;
                true
            }
        };
        next.tries += u32::from(counts);
        if next.tries < MOST_TRIES {
            self.files.push_back(next);
        } else {
            self.queue.set_refusal(&failure.reason);
        }
        if deadline.is_some() {
            std::thread::sleep(LAST_WAIT);
        }
        false
    }

    /// Sends a request again after failures that may pass: as long as the run goes on, and then until the deadline. Where the
    /// server itself fails, a few times only: it may always fail at this request.
    fn persist<T>(
        queue: &Queue,
        server: &mut Server,
        mut send: impl FnMut(&mut Server) -> Result<T, RequestFailure>,
    ) -> Result<T, RequestFailure> {
        let (mut wait, mut tries, mut last_tries) = (FIRST_WAIT, 0, 0);
        loop {
            server.set_limit(limit(queue.deadline()));
            let failure = match send(server) {
                Ok(sent) => {
                    queue.set_failure(None);
                    return Ok(sent);
                }
                Err(failure) => failure,
            };
            queue.set_failure(Some(&failure.reason));
            match failure.kind {
                RequestFailureKind::Unreachable | RequestFailureKind::Busy => {}
                RequestFailureKind::Faulty if tries + 1 < MOST_TRIES => tries += 1,
                RequestFailureKind::Faulty
                | RequestFailureKind::Content
                | RequestFailureKind::Lasting
                | RequestFailureKind::ForAll => return Err(failure),
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

    /// Something of this stage did not arrive, or nothing more will.
    fn failed(&mut self, stage: &StageName, failure: &RequestFailure) {
        self.queue.set_refusal(&failure.reason);
        // One of no answer that could pass has not, and the run has ended.
        if !failure.is_of_one_request() {
            self.has_given_up = true;
        }
        if let Some(open) = self.stages.get_mut(stage) {
            open.is_incomplete = true;
        }
    }
}

/// How long a request may take.
fn limit(deadline: Option<Instant>) -> Duration {
    let limit = deadline.map_or(REQUEST, left).min(REQUEST);
    limit.max(Duration::from_millis(1))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
