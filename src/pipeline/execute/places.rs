//! Where the stages of a run run: here, or as jobs of an executor.

use std::iter;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::elsewhere::with_remote;
use super::executor::{Executor, JobReport};
use super::handle::Handle;
use super::options::Options;
use super::pools::{Depths, Needs, Pool};
use super::run::Run;
use super::scheduled::{JobEnding, QueuedJob, Scheduled, Terms};
use super::share::Share;
use super::spec::JobSpec;
use super::states::StageState;
use crate::cache::{JobFolder, Lock};
use crate::diagnostic::Mistake;
use crate::events::{Outcome, RunEvent, WaitsFor};
use crate::key::StageKey;
use crate::manifest::{ExecutorSettings, Executors, Stage, unknown_executor};
use crate::reason::Reason;
use crate::stage_name::StageName;

impl Options {
    /// The executor of a stage, as the stage says, or else the run for all kinds that learn. `None` where it runs here.
    pub(super) fn executor_of<'s>(&'s self, stage: &'s Stage) -> Option<&'s str> {
        stage.executor_or(self.executor.as_deref())
    }

    /// Where its stages run, with this share of this machine.
    pub(super) fn places<'s>(&'s self, share: &'s Share) -> Places<'s> {
        Places { share, executors: &self.executors, executor: self.executor.as_deref() }
    }
}

/// Where the stages of a run run, each for what it takes there.
pub(crate) struct Places<'a> {
    /// Of this machine.
    pub(crate) share: &'a Share,
    /// What there is beside it.
    pub(crate) executors: &'a Executors,
    /// The executor of the kinds that learn, where their stages do not say another one.
    pub(crate) executor: Option<&'a str>,
}

impl Places<'_> {
    /// What a stage takes while it runs: of this machine, or one job of its executor; and of what the user counts.
    pub(super) fn needs(&self, stage: &Stage) -> Needs {
        let Some(name) = stage.executor_or(self.executor) else { return self.share.needs(stage) };
        let place = self.executors.keys().position(|other| other == name);
        let executor = place.and_then(|place| place.try_into().ok());
        let resources = self.share.resources(stage);
        Needs { executor, resources, ..Needs::default() }
    }

    /// How much there is of everything. `max-jobs` counts for the executors that `is_counted`.
    pub(super) fn depths(&self, is_counted: impl Fn(&ExecutorSettings) -> bool) -> Depths {
        let mut depths = self.share.depths();
        for (number, settings) in (0..).zip(self.executors.values()) {
            let most = settings.max_jobs.filter(|_| is_counted(settings));
            depths.extend(most.map(|most| (Pool::Executor(number), most.into())));
        }
        depths
    }
}

impl Run<'_> {
    /// What is wrong with where a stage is to run, or with how much it takes there.
    pub(super) fn place_mistake(&self, share: &Share, stage: &Stage) -> Option<Mistake> {
        match self.options.executor_of(stage) {
            None => share.mistake(stage),
            Some(name) => {
                self.executor_mistake(stage, name).or_else(|| share.resource_mistake(stage))
            }
        }
    }

    /// Why a stage cannot start that had a result when the machine was shared out, so that nobody looked at what it takes.
    pub(super) fn refusal(&self, stage: &Stage) -> Option<String> {
        let mistake = self.place_mistake(self.share.as_ref()?, stage)?;
        let words = iter::once(self.in_words(&mistake)).chain(mistake.helps().iter().cloned());
        Some(words.collect::<Vec<_>>().join("\n"))
    }

    /// What is wrong with a stage that this executor is to run.
    fn executor_mistake(&self, stage: &Stage, name: &str) -> Option<Mistake> {
        if self.options.executors.contains_key(name) {
            return None;
        }
        let (title, help) = unknown_executor(name, &self.options.executors);
        Some(Mistake::at(stage.places.find("execution.executor", None), title).help(help))
    }

    /// An executor, which begins to work if this is its first stage.
    pub(super) fn scheduled(&mut self, name: &str) -> anyhow::Result<Rc<dyn Executor>> {
        if let Some(executor) = self.scheduled.get(name) {
            return Ok(Rc::clone(executor));
        }
        if let Some(mount) = self.cache.locks_stay_here() {
            bail!(
                "the cache is on {mount}: two machines could work on the same key at once; mount it so that locks reach all of them, \
                 or use another cache (--cache)"
            );
        }
        let settings = self.options.executors.get(name).context("a known executor")?.clone();
        let leaves = Arc::clone(&self.leaves);
        let terms = Terms { name: name.to_owned(), settings, leaves, only_new: false };
        let jobs = Scheduled::start(terms, Arc::clone(self.cache), self.supervisor.waker())?;
        let executor = with_remote(Rc::new(jobs), self.options, self.cache, self.supervisor);
        self.scheduled.insert(name.to_owned(), Rc::clone(&executor));
        Ok(executor)
    }

    /// Starts a job of an executor.
    pub(super) fn start_elsewhere(
        &mut self,
        executor: &str,
        mut spec: JobSpec,
    ) -> anyhow::Result<Box<dyn Handle<JobReport>>> {
        let jobs = self.scheduled(executor)?;
        spec.submits = self.submits()?;
        if spec.submits.is_none() {
            spec.next = self.following(&spec.declaration);
        }
        jobs.start(spec)
    }

    /// How many stages have a job that a scheduler has taken.
    pub(super) fn jobs_elsewhere(&self) -> usize {
        let is_elsewhere = |state: &StageState, stage: Option<&Stage>| {
            let StageState::Running { key, .. } = state else { return false };
            stage.is_some_and(|stage| self.options.executor_of(stage).is_some())
                && self.cache.job(key).is_some_and(|job| job.was_submitted())
        };
        let states = self.states.iter();
        states.filter(|(name, state)| is_elsewhere(state, self.manifest.stage(name))).count()
    }

    /// The stages that are ready, and did not start as jobs that go on have what they take, with how they end.
    pub(super) fn without_place(&self) -> Vec<(StageName, Outcome)> {
        if !self.starts_more() {
            return Vec::new();
        }
        let pools = self.states.wait_for();
        let states = self.states.iter().filter_map(|(name, state)| {
            let (of, work) = match state {
                StageState::Ready(work) => (name, work),
                StageState::Parked { behind } => match self.states.get(behind) {
                    Some(StageState::Ready(work)) => (behind, work),
                    _ => return None,
                },
                _ => return None,
            };
            let stage = self.manifest.stage(of)?;
            let executor = self.options.executor_of(stage);
            // That of an earlier run, or of another stage with the same key.
            if executor.is_some()
                && self.cache.job(&work.key).is_some_and(|job| job.was_submitted())
            {
                return Some((name.clone(), Outcome::Left));
            }
            let what = match *pools.get(of)? {
                Pool::Resource(number) => {
                    let share = self.share.as_ref()?;
                    let (resource, there_is) = share.resource(number)?;
                    let takes = *stage.execution.takes.resources.get(resource)?;
                    WaitsFor::Resource { resource: resource.to_owned(), takes, there_is }
                }
                _ => {
                    let executor = executor?;
                    let max_jobs = self.options.executors.get(executor)?.max_jobs?;
                    WaitsFor::Place { executor: executor.to_owned(), max_jobs }
                }
            };
            Some((name.clone(), Outcome::Waiting(what)))
        });
        states.collect()
    }

    /// Whether a job has made the result of a stage since the run began, and nobody has heard its end: one that went on with it. It is
    /// followed as if it were still running, so that what happened does not depend on who was faster.
    pub(super) fn has_job_to_hear(&self, stage: &Stage, key: &StageKey) -> bool {
        self.starts_more()
            && self.options.executor_of(stage).is_some()
            && !self.jobs.contains(key)
            && self.cache.job(key).is_some()
    }

    /// Whether a key with a result had a job whose end nobody has seen. Now somebody has.
    pub(super) fn has_seen_job(&mut self, stage: &StageName, key: &StageKey) -> bool {
        let had_job = self.jobs.remove(key);
        let Some(folder) = self.cache.job(key).filter(|_| had_job) else { return false };
        let queued = QueuedJob::of(&folder);
        let has_ended = self.has_ended(key, &folder);
        if let Some(QueuedJob { executor, job, .. }) = queued.filter(|_| has_ended) {
            let text = format!(
                "its job {job} of {executor} may still be in the queue, and there is a result: cancel it"
            );
            self.report(RunEvent::Note { stage: stage.clone(), text });
        }
        has_ended
    }

    /// Whether a job of a key with a result has nothing more to do. Then its folder is removed.
    fn has_ended(&self, key: &StageKey, job: &JobFolder) -> bool {
        // Whoever has this submits it, or removes it.
        let Ok(Some(_lock)) = self.cache.lock_job(key) else { return false };
        // One that is to make another result may wait or work, whatever there is already.
        let is_done = JobEnding::last(job).is_some_and(|ending| ending.is_final())
            || JobSpec::read(&job.spec()).is_ok_and(|spec| spec.work.reason != Reason::Forced)
                && !Lock::is_taken(&self.cache.layout().lock(&key.to_string()));
        is_done && job.remove().is_ok()
    }
}
