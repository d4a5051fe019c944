//! What is known of stages beyond the plan: which run now, which were interrupted, and which failed.
//!
//! One look at the cache for all stages, at the cost of what runs, and a stat for each stage that must run.

use std::collections::{HashMap, HashSet};
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::cache::Cache;
use crate::execute::{JobName, QueuedJob};
use crate::format;
use crate::key::StageKey;
use crate::plan::PlanState;
use crate::progress::{Interrupted, Running};
use crate::stage_name::StageName;
use crate::worker;

/// What is known of a stage beyond the plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Activity {
    Running(Box<Running>),
    /// It waits in the queue of a scheduler.
    Queued(QueuedJob),
    /// A run of it was stopped or killed. `None` where nobody knows how far it was.
    Interrupted(Option<Box<Interrupted>>),
    Failed(FailedRun),
}

/// What is done for stages under other keys than their own.
#[derive(Debug, Default)]
pub(crate) struct Others {
    pub(crate) running: Vec<Running>,
    pub(crate) queued: Vec<OtherJob>,
}

/// A job that waits in the queue of a scheduler for a stage with other values or inputs.
#[derive(Debug, Serialize)]
pub(crate) struct OtherJob {
    pub(crate) stage: StageName,
    pub(crate) key: StageKey,
    #[serde(flatten)]
    pub(crate) job: QueuedJob,
    /// Whether whoever looks has submitted it.
    #[serde(skip)]
    pub(crate) is_own: bool,
}

/// How the last run of a stage failed, under the key that it has now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FailedRun {
    pub(crate) message: String,
    /// Seconds since 1970, UTC.
    pub(crate) at: u64,
}

impl Activity {
    /// In one line, after the name of the stage.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Running(running) => running.line(),
            Self::Queued(job) => job.line(),
            Self::Interrupted(Some(interrupted)) => interrupted.line(),
            Self::Interrupted(None) => {
                "was interrupted; the next run continues from its checkpoint".to_owned()
            }
            Self::Failed(FailedRun { message, at }) => {
                let mut lines = message.lines();
                let first = lines.next().unwrap_or_default();
                let more = if lines.next().is_some() { " …" } else { "" };
                format!("failed {}: {first}{more}", format::ago(*at))
            }
        }
    }

    /// What it is like: changes when the stage goes on to its next epoch, and not with every step.
    pub(crate) fn fingerprint(&self) -> String {
        match self {
            Self::Running(running) => {
                let progress = running.progress.as_ref();
                let phase = progress.and_then(|progress| progress.phase.clone());
                format!("running {}", phase.unwrap_or_default())
            }
            Self::Queued(_) => "queued".to_owned(),
            Self::Interrupted(_) => "interrupted".to_owned(),
            Self::Failed(_) => "failed".to_owned(),
        }
    }
}

/// The newest runs among which those in progress are.
const RUNS: usize = 10;

/// What changes when a stage begins or ends: at the cost of a few stats, however many stages there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    running: HashSet<StageKey>,
    /// The runs in progress, each with the length of its record.
    runs: Vec<(String, u64)>,
    newest: Option<String>,
}

impl Fingerprint {
    pub(crate) fn of(cache: &Cache, experiment: &str, activities: &Activities<'_>) -> Self {
        let names = cache.runs(experiment).unwrap_or_default();
        let newest = names.first().cloned();
        let runs = names.into_iter().take(RUNS);
        let runs = runs.filter_map(|id| {
            let length = cache.run_in_progress(experiment, &id)?;
            Some((id, length))
        });
        let running = activities.running.keys().copied().collect();
        Self { running, runs: runs.collect(), newest }
    }

    /// The names of the runs that are in progress.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &str> {
        self.runs.iter().map(|(id, _)| id.as_str())
    }

    /// Whether a run of the experiment is in progress.
    pub(crate) fn has_run(&self) -> bool {
        !self.runs.is_empty()
    }
}

/// One look at the cache.
pub(crate) struct Activities<'a> {
    cache: &'a Cache,
    running: HashMap<StageKey, Running>,
    queued: HashMap<StageKey, QueuedJob>,
    interrupted: HashMap<StageKey, Interrupted>,
    /// The keys that have a folder for checkpoints.
    begun: HashSet<StageKey>,
}

impl<'a> Activities<'a> {
    pub(crate) fn look(cache: &'a Cache) -> Self {
        let (mut running, mut interrupted) = (HashMap::new(), HashMap::new());
        for key in cache.running_keys() {
            match Running::look(cache.layout(), &key) {
                Some(Ok(found)) => drop(running.insert(key, found)),
                Some(Err(found)) => drop(interrupted.insert(key, found)),
                None => {}
            }
        }
        let queued = cache.job_keys().filter(|key| !running.contains_key(key));
        let queued = queued.filter_map(|key| Some((key, QueuedJob::of(&cache.job(&key)?)?)));
        let queued = queued.collect();
        Self { cache, running, queued, interrupted, begun: cache.begun_keys().collect() }
    }

    /// The job for a key that waits in the queue of a scheduler.
    pub(crate) fn queued(&self, key: &StageKey) -> Option<&QueuedJob> {
        self.queued.get(key)
    }

    /// Whether something runs for a key.
    pub(crate) fn runs(&self, key: &StageKey) -> bool {
        self.running.contains_key(key)
    }

    /// What runs for a key as a job of an executor.
    pub(crate) fn running_job(&self, key: &StageKey) -> Option<&Running> {
        self.running.get(key).filter(|_| self.cache.job(key).is_some())
    }

    /// What is done for stages of an experiment that are `meant` under keys that are not their own: for a run with other values or
    /// inputs.
    pub(crate) fn others(
        &self,
        experiment: &str,
        own: &HashSet<StageKey>,
        is_meant: impl Fn(&StageName) -> bool,
    ) -> Others {
        let is_other = |of: &str, stage: &StageName| of == experiment && is_meant(stage);
        let running = self.running.iter().filter(|(key, _)| !own.contains(key));
        let running = running.filter(|(_, one)| is_other(&one.experiment, &one.stage));
        let mut running: Vec<Running> = running.map(|(_, running)| running.clone()).collect();
        running.sort_by(|one, other| one.stage.cmp(&other.stage));
        let queued = self.queued.iter().filter(|(key, _)| !own.contains(key));
        let queued = queued.filter_map(|(key, job)| {
            let folder = self.cache.job(key)?;
            let JobName { experiment, stage } = JobName::of_job(&folder.spec())?;
            let job = OtherJob { stage, key: *key, job: job.clone(), is_own: folder.is_own() };
            is_other(&experiment, &job.stage).then_some(job)
        });
        let mut queued: Vec<OtherJob> = queued.collect();
        queued.sort_by(|one, other| (&one.stage, one.key).cmp(&(&other.stage, other.key)));
        Others { running, queued }
    }

    /// What is known of a stage.
    pub(crate) fn of(&self, state: &PlanState) -> Option<Activity> {
        let running = |key| self.running.get(key).cloned().map(Box::new).map(Activity::Running);
        match state {
            // It has a result, and runs again because somebody asked for it.
            PlanState::Fresh(record) | PlanState::Remote(record) => running(&record.key),
            PlanState::Dirty { key, .. } => {
                let queued = || self.queued.get(key).cloned().map(Activity::Queued);
                running(key).or_else(queued).or_else(|| self.ended(key))
            }
            PlanState::Waiting { .. } | PlanState::Blocked(_) => None,
        }
    }

    /// That the next run of a key continues from a checkpoint, and how far the last one was, where that is so: `continues from its
    /// checkpoint, interrupted at epoch 7/25, 26 %`.
    pub(crate) fn checkpoint_in_words(&self, key: &StageKey) -> Option<String> {
        if self.runs(key) || !self.begun.contains(key) || !self.cache.holds_checkpoint(key) {
            return None;
        }
        let reached = self.interrupted.get(key).map(Interrupted::reached).unwrap_or_default();
        let at = if reached.is_empty() { "" } else { ", interrupted at " };
        Some(format!("continues from its checkpoint{at}{reached}"))
    }

    fn ended(&self, key: &StageKey) -> Option<Activity> {
        let has_checkpoint = self.begun.contains(key) && self.cache.holds_checkpoint(key);
        if let Some(interrupted) = self.interrupted.get(key) {
            let interrupted = Interrupted { has_checkpoint, ..interrupted.clone() };
            return Some(Activity::Interrupted(Some(Box::new(interrupted))));
        }
        self.failure(key)
            .map(Activity::Failed)
            .or_else(|| has_checkpoint.then_some(Activity::Interrupted(None)))
    }

    /// What the log of a key ends with, if that is a failure.
    fn failure(&self, key: &StageKey) -> Option<FailedRun> {
        let log = self.cache.layout().log(key);
        let written = std::fs::metadata(&log).ok()?.modified().ok()?;
        let at = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Some(FailedRun { message: worker::last_words(&log)?, at })
    }
}
