//! The loop that runs a plan: what is ready starts when there is enough of the machine for it; what ends makes more ready.
//!
//! All decisions are made on the main thread; a [`job`] has a thread of its own and sends messages.
//! Does not depend on a terminal: what happens goes to a [`Reporter`](crate::progress::Reporter).

mod advance;
mod attempts;
mod beginning;
mod elsewhere;
mod executor;
mod following;
mod forecast;
mod handle;
mod job;
mod links;
mod options;
mod order;
mod pins;
mod places;
mod pools;
mod reads;
mod rerun;
mod run;
mod run_supervisor;
mod scheduled;
mod share;
mod single;
mod spec;
mod states;
mod submission;
mod summary;
mod supervisor;
mod taking_back;
mod threads;
mod unseen;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use pipeline_stages::message::Event;

use crate::cache::{Cache, KnownResult, Links, Record};
use crate::diagnostic::Mistake;
use crate::events::{Outcome, RunEvent};
use crate::facts::CacheFacts;
use crate::graph::Graph;
use crate::key::{self, InputResult, StageKey};
use crate::launcher::{Launcher, Many};
use crate::manifest::{Manifest, Misfit};
use crate::plan::{self, Facts, PlanState};
use crate::progress::Reporter;
use crate::reason::Reason;
use crate::stage_name::StageName;
use attempts::Lack;
use elsewhere::with_remote;
use executor::JobReport;
use job::{JobEnd, JobEvent};
use run::Run;
use states::{StageState, StageStates};
use supervisor::Heard;
use threads::Threads;

pub(crate) use forecast::together;
pub(crate) use job::with_advice;
pub(crate) use options::Options;
pub(crate) use places::Places;
pub(crate) use rerun::{Outputs, Rerun, RerunEnd, as_recorded};
pub(crate) use run_supervisor::RunSupervisor;
pub(crate) use scheduled::{QueuedJob, cancel, cancel_command, slurm_script};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use scheduled::{are_job_files, survives};
pub(crate) use share::{Share, set_threads};
pub(crate) use single::{JobExit, run_job};
pub(crate) use spec::{JobName, JobSpec, Work};
pub(crate) use summary::Summary;

/// Runs these stages, which are closed under inputs and in topological order. Returns how they ended, and the results that
/// there are then.
///
/// # Errors
/// When the run cannot begin. That stages fail is in the [`Summary`].
pub(crate) fn execute(
    manifest: &Manifest,
    graph: &Graph,
    cache: &Arc<Cache>,
    selected: &[StageName],
    options: &Options,
    reporter: &mut dyn Reporter,
    RunSupervisor(supervisor): &mut RunSupervisor,
) -> anyhow::Result<(Summary, Vec<(StageName, KnownResult)>)> {
    let generation = cache.generation();
    // What removes something now has changed the generation before.
    cache.wait_for_cleaning(|_| {});
    let facts =
        CacheFacts::look(cache, manifest, selected).force(options.force.clone()).that_last();
    let facts = facts.shared_in(options.shared.as_deref());
    facts.refuse_blocked(manifest)?;
    let launcher = Arc::new(Many::default());
    let threads = Threads {
        cache: Arc::clone(cache),
        index: Arc::clone(facts.index()),
        launcher: Arc::clone(&launcher) as Arc<dyn Launcher>,
        waker: supervisor.waker(),
        patience: Duration::MAX,
        elsewhere: Some(Arc::new(options.executors.clone())),
    };
    let executor = with_remote(Rc::new(threads), options, cache, supervisor);
    let mut run = Run {
        manifest,
        graph,
        cache,
        facts,
        options,
        reporter,
        states: StageStates::new(selected, graph),
        share: None,
        supervisor,
        launcher,
        executor,
        scheduled: BTreeMap::new(),
        left: None,
        leaves: Arc::default(),
        jobs: cache.job_keys().collect(),
        damaged: BTreeMap::new(),
        limitations: BTreeSet::new(),
        attempts: HashMap::new(),
        begun: HashMap::new(),
        submitting: HashMap::new(),
        failures: HashMap::new(),
        ran_again: HashMap::new(),
        ran: HashMap::new(),
        fit: None,
        failed: false,
        working: false,
        seen: None,
        generation,
        links_before: match &options.links {
            Some(links) => links.clone(),
            None if selected.len() < manifest.stages.len() => {
                cache.links(&manifest.experiment.name)
            }
            None => Links::new(),
        },
        links: options.links.clone(),
    };
    let started = Instant::now();
    run.report(RunEvent::Begin {
        experiment: manifest.experiment.name.clone(),
        stages: selected.len(),
    });
    run.run_to_end()?;
    run.facts.remember();
    if run.working {
        cache.flush()?;
    }
    let summary = run.summary(started);
    run.report(RunEvent::Done {
        seconds: summary.seconds,
        complete: summary.complete(),
        detached: summary.goes_on(),
    });
    // The history has what it used by now.
    cache.unpin();
    Ok((summary, run.states.into_results().collect()))
}

impl Run<'_> {
    fn run_to_end(&mut self) -> anyhow::Result<()> {
        loop {
            self.start_what_is_ready()?;
            self.say_news_of_the_remote();
            // What ends here may make ready what waits for a job that has ended before.
            let leaves = self.options.detach && !self.works_here();
            self.leaves.store(leaves, Ordering::Relaxed);
            if self.states.running() == 0 {
                match self.without_some() {
                    Some(stage) => self.states.let_start(&stage),
                    None => return Ok(()),
                }
                continue;
            }
            match self.supervisor.next(self.reporter) {
                Heard::Report(stage, JobReport::Event(event)) => self.report_event(&stage, event),
                Heard::Report(stage, JobReport::End(end)) => self.job_ended(&stage, end),
                Heard::StopWanted => self.report_stopping(),
                Heard::Nothing => {}
            }
        }
    }

    /// Somebody has asked for the first time that the run stops.
    fn report_stopping(&mut self) {
        let (jobs, submission) = (self.jobs_elsewhere(), self.submission());
        self.report(RunEvent::Stopping { jobs, submission });
    }

    /// Ends what is fresh and starts what must run, until nothing more can be said or started now.
    fn start_what_is_ready(&mut self) -> anyhow::Result<()> {
        loop {
            while let Some(name) = self.states.first_unseen().cloned() {
                self.look_at(&name);
            }
            let Some(name) = self.next_to_start() else { return Ok(()) };
            if self.fit.is_none() {
                self.check_fit();
                self.share_out()?;
                continue;
            }
            self.begin_work(&name)?;
            // An input may have been cleaned away since it was looked at, and a run before this one been asked to stop.
            if !self.starts_more() {
                return Ok(());
            }
            if !matches!(self.states.get(&name), Some(StageState::Ready(_))) {
                continue;
            }
            // It may have waited for hours, and the files that it reads may be others now.
            if !self.has_just_been_seen(&name) {
                self.look_at(&name);
            }
            if let Some(StageState::Ready(work)) = self.states.get(&name) {
                let work = (**work).clone();
                self.start(&name, work)?;
            }
        }
    }

    /// Whether a stage runs here.
    fn works_here(&self) -> bool {
        self.states.iter().any(|(name, state)| {
            let is_here = |stage| self.options.executor_of(stage).is_none();
            matches!(state, StageState::Running { .. })
                && self.manifest.stage(name).is_some_and(is_here)
        })
    }

    /// A stage that takes all instances of another one and runs without those that have failed, now that nothing else
    /// can run.
    fn without_some(&self) -> Option<StageName> {
        let can_start = |(name, state): &(&StageName, &StageState)| {
            matches!(state, StageState::Waiting)
                && self.manifest.stage(name).is_some_and(|stage| stage.stage.allows_missing())
                && self.graph.inputs(name).into_iter().any(|input| self.result(input).is_some())
        };
        // What is left to jobs, and what waits for their places, has not ended.
        let is_open = |state: &StageState| {
            matches!(state, StageState::Ready(_) | StageState::Ended { outcome: Outcome::Left, .. })
        };
        // After a failure it does not start, but it may be fresh.
        if self.stopping() || self.states.iter().any(|(_, state)| is_open(state)) {
            return None;
        }
        self.states.iter().find(can_start).map(|(name, _)| name.clone())
    }

    /// Ends stages that have not begun and do not fit to their inputs.
    fn refuse(&mut self, misfits: Vec<Misfit>) {
        for Misfit { stage, mistake } in misfits {
            use StageState::{Parked, Ready, Unseen, Waiting};
            if let Some(Waiting | Unseen | Ready(_) | Parked { .. }) = self.states.get(&stage) {
                self.end_unreadable(&stage, self.in_words(&mistake));
            }
        }
    }

    /// A mistake in one line, with its place.
    fn in_words(&self, mistake: &Mistake) -> String {
        let place = mistake.span().map(|span| self.manifest.sources.place(span));
        format!("{}: {}", place.unwrap_or_default(), mistake.title())
    }

    /// Whether this is the last stage that was looked at, a moment ago, with its key pinned.
    fn has_just_been_seen(&self, name: &StageName) -> bool {
        const MOMENT: Duration = Duration::from_millis(10);
        self.seen.as_ref().is_some_and(|(seen, at)| seen == name && at.elapsed() < MOMENT)
    }

    /// Decides whether a stage must run, all of whose inputs have results.
    fn look_at(&mut self, name: &StageName) {
        self.seen = self.working.then(|| (name.clone(), Instant::now()));
        let Some(declaration) = self.manifest.stage(name) else {
            return self.end(name, Outcome::Skipped { because: None }, None);
        };
        // Before anything has run, its files have only just been looked at.
        let is_long_ago =
            self.working || matches!(self.states.get(name), Some(StageState::Ready(_)));
        if is_long_ago
            && let Err(error) =
                self.facts.recheck(declaration, self.manifest.folder_of(declaration))
        {
            return self.end_unreadable(name, format!("{error:#}"));
        }
        let result_of = |input: &StageName| match self.result(input) {
            Some(result) => InputResult::Made { key: result.key, digest: result.output.digest },
            None if declaration.stage.allows_missing() => InputResult::Missing,
            None => InputResult::Unknown,
        };
        let parts = match self.facts.outside(name) {
            Ok(outside) => key::parts(declaration, outside, result_of),
            Err(blocked) => {
                let message = blocked.message.clone();
                return self.end_unreadable(name, message);
            }
        };
        match self.pin_key(name, &parts) {
            Ok(true) => {}
            Ok(false) => return self.end(name, Outcome::Skipped { because: None }, None),
            Err(error) => {
                return self.end_unreadable(name, format!("{:#}", job::with_advice(error)));
            }
        }
        match plan::decide(name, parts, &self.facts) {
            PlanState::Fresh(record) if self.has_job_to_hear(declaration, &record.key) => {
                let Record { reason, key, parts, .. } = *record;
                self.must_run(name, Work { reason, key, parts });
            }
            PlanState::Fresh(record) => self.end_fresh(name, (*record).into()),
            PlanState::Remote(record) => {
                let (digest, metrics) = (record.output.digest, record.metrics.clone());
                self.end(name, Outcome::Remote { digest, metrics }, Some((*record).into()));
            }
            PlanState::Dirty { reason, key, parts } => {
                self.must_run(name, Work { reason, key, parts });
            }
            // All its inputs have records, and what it reads outside the cache could be read.
            PlanState::Waiting { .. } | PlanState::Blocked(_) => {
                self.end_unreadable(name, "internal error: its key is not known".to_owned());
            }
        }
    }

    /// A stage must run; or it shares what becomes of another one with the same key, which must run too. A failure only where
    /// it would run in the same way.
    fn must_run(&mut self, name: &StageName, work: Work) {
        let is_alike = |(other, _): &&(StageName, String)| self.manifest.run_alike(name, other);
        let mut failures = self.failures.get(&work.key).into_iter().flatten();
        if let Some((other, message)) = failures.find(is_alike) {
            // The rest is said there, and what it says is kept may be gone.
            let why = message.lines().next().unwrap_or_default();
            let message = format!("it does the same as {other}, which failed: {why}");
            self.failures.entry(work.key).or_default().push((name.clone(), message.clone()));
            self.end(name, Outcome::Failed { message, log: Vec::new(), seconds: 0.0 }, None);
        } else if let Some(other) =
            self.states.holder(&work.key, name).filter(|_| self.starts_more()).cloned()
        {
            self.report(RunEvent::Same { stage: name.clone(), same_as: other.clone() });
            self.states.set(name, StageState::Parked { behind: other });
        } else {
            self.states.set(name, StageState::Ready(Box::new(work)));
        }
    }

    fn end_unreadable(&mut self, name: &StageName, message: String) {
        self.failed = true;
        self.end(name, Outcome::Failed { message, log: Vec::new(), seconds: 0.0 }, None);
    }

    fn end_fresh(&mut self, name: &StageName, result: KnownResult) {
        let outcome = Outcome::Fresh {
            digest: result.output.digest,
            metrics: result.metrics.clone(),
            same_as: self.ran.get(&result.key).filter(|other| *other != name).cloned(),
        };
        self.end(name, outcome, Some(result));
    }

    /// The first stage that is ready and has its slots.
    fn next_to_start(&self) -> Option<StageName> {
        self.starts_more().then(|| self.states.first_to_start().cloned()).flatten()
    }

    fn start(&mut self, name: &StageName, work: Work) -> anyhow::Result<()> {
        let declaration = self.manifest.stage(name).context("a stage of the manifest")?.clone();
        if let Some(message) = self.refusal(&declaration) {
            self.end_unreadable(name, message);
            return Ok(());
        }
        let timeout = declaration.execution.timeout_seconds.map(Duration::from_secs);
        let result_of = |input: &StageName| self.result(input).cloned();
        let mut spec = JobSpec::of(self.manifest, declaration, work, self.cache, result_of)?;
        let (key, forced) = (spec.work.key, spec.work.reason == Reason::Forced);
        // Not at its end: another run of the same manifest may have moved the head by then.
        let before = match forced {
            true => self.cache.usable(&key).or_else(|| self.facts.remote(&key)),
            // A job that is only heard has remembered its own result.
            false => {
                let is_own = |last: &Record| last.key == key && self.cache.usable(&key).is_some();
                self.facts.last(name).filter(|last| !is_own(last))
            }
        };
        let before = before.map(|before| before.output.digest);
        match self.pin_inputs(&spec) {
            Ok(true) => {}
            // It does not start any more.
            Ok(false) => return Ok(()),
            Err(error) => {
                self.end_unreadable(name, format!("{:#}", job::with_advice(error)));
                return Ok(());
            }
        }
        let running = StageState::Running { key, since: Instant::now(), before, forced };
        self.states.set(name, running);
        self.say_what_goes(name, key);
        let elsewhere = self.options.executor_of(&spec.declaration).map(str::to_owned);
        let is_here = elsewhere.is_none();
        let started = match elsewhere {
            None => {
                if let (Some(share), Some(taken)) = (&self.share, self.states.taken(name)) {
                    spec.gpus = share.hand_out(&mut spec.declaration, taken);
                }
                self.executor.start(spec)
            }
            Some(executor) => {
                set_threads(&mut spec.declaration);
                self.start_elsewhere(&executor, spec)
            }
        };
        match started {
            // A job keeps to its time itself: the time in a queue does not count.
            Ok(handle) => self.supervisor.watch(name, handle, timeout.filter(|_| is_here)),
            Err(error) => self.job_ended(name, JobEnd::failed(format!("{error:#}"))),
        }
        Ok(())
    }

    /// Where a key runs again that has failed: the log and the output of a key are those of its last run.
    fn say_what_goes(&mut self, name: &StageName, key: StageKey) {
        let Some((first, _)) = self.failures.get(&key).and_then(|all| all.first()) else { return };
        let first = first.clone();
        let last = self.ran_again.insert(key, name.clone()).unwrap_or(first);
        if last != *name {
            let text = format!("its log and output take the place of those of {last}");
            self.report(RunEvent::Note { stage: name.clone(), text });
        }
    }

    fn report_event(&mut self, stage: &StageName, event: JobEvent) {
        if let JobEvent::Worker(Event::Limitation { text }) = &event
            && !self.limitations.insert(text.clone())
        {
            return;
        }
        if let JobEvent::Damage { artifact, withdrawn } = &event {
            self.damaged.entry(stage.clone()).or_default().push((*artifact, withdrawn.clone()));
        }
        // With one job, a stage begins when the one before it has ended.
        if let JobEvent::GivesBack = event
            && self.share.as_ref().is_some_and(Share::runs_several)
        {
            self.states.release(stage);
        }
        let Some(StageState::Running { key, .. }) = self.states.get(stage) else { return };
        let Some(declaration) = self.manifest.stage(stage) else { return };
        let event = event.for_reporters(declaration, *key);
        match &event {
            Some(RunEvent::Start { owner, .. }) => {
                self.supervisor.starts(stage);
                let began = owner.as_ref().map(|owner| (stage.clone(), owner.began()));
                self.begun.extend(began);
            }
            Some(RunEvent::Queued { .. }) => drop(self.begun.remove(stage)),
            _ => {}
        }
        event.into_iter().for_each(|event| self.report(event));
    }

    fn job_ended(&mut self, name: &StageName, end: JobEnd) {
        let mut lack = Lack::Nothing;
        let end = match end {
            JobEnd::Failed { message, log, failing } => {
                lack = self.lack(name, failing, &message, &log);
                let more = self.about_failure(name, failing, lack, &log);
                JobEnd::Failed { message: message + &more, log, failing }
            }
            end => end,
        };
        self.supervisor.forget(name);
        let began = self.begun.remove(name);
        let is_elsewhere = self.states.needs(name).executor.is_some();
        let (seconds, before, key, forced) = match self.states.get(name) {
            Some(StageState::Running { since, before, key, forced }) => {
                let began = began.or_else(|| (!is_elsewhere).then_some(*since));
                let seconds = began.map_or(0.0, |began| began.elapsed().as_secs_f64());
                (seconds, *before, Some(*key), *forced)
            }
            _ => (0.0, None, None, false),
        };
        match end {
            JobEnd::Reused(result) | JobEnd::Ran { result, .. }
                if !self.is_current(name, &result) =>
            {
                let text =
                    "an input was damaged or made again while it ran: it runs again".to_owned();
                self.report(RunEvent::Note { stage: name.clone(), text });
                self.states.set(name, StageState::Waiting);
            }
            JobEnd::Reused(result) => self.end_fresh(name, *result),
            JobEnd::Ran { result, seconds, part } => {
                self.facts.has_run(result.key);
                self.ran.insert(result.key, name.clone());
                if forced {
                    self.give_to_same_key(name, &result);
                }
                let outcome = Outcome::Ran {
                    digest: result.output.digest,
                    unchanged: before == Some(result.output.digest),
                    forced,
                    seconds,
                    part,
                    metrics: result.metrics.clone(),
                };
                self.end(name, outcome, Some(*result))
            }
            JobEnd::Stopped | JobEnd::Held => self.end(name, Outcome::Stopped, None),
            JobEnd::Left => self.end_left(name, key),
            JobEnd::LookAgain => self.states.set(name, StageState::Waiting),
            JobEnd::Failed { message, log, failing } if self.tries_again(name, failing, lack) => {
                self.try_again(name, lack, message, log);
            }
            JobEnd::Failed { message, log, .. } => {
                self.failed = true;
                if let Some(key) = key {
                    self.failures.entry(key).or_default().push((name.clone(), message.clone()));
                }
                self.end(name, Outcome::Failed { message, log, seconds }, None)
            }
            JobEnd::LostInput { artifact, was_damaged } => {
                let what = match was_damaged {
                    true => "is damaged; it was moved to quarantine/ and its stage runs again",
                    false => "is gone from the cache; its stage runs again",
                };
                let text = format!("the artifact {} {what}", artifact.short());
                self.report(RunEvent::Note { stage: name.clone(), text });
                self.states.set(name, StageState::Waiting);
            }
        }
        for (artifact, withdrawn) in self.damaged.remove(name).unwrap_or_default() {
            self.take_back(&artifact, &withdrawn);
        }
    }

    fn end(&mut self, name: &StageName, outcome: Outcome, result: Option<KnownResult>) {
        let experiment = &self.manifest.experiment.name;
        let key = result.as_ref().map(|result| result.key);
        self.attempts.remove(name);
        let set = key.map(|key| self.cache.set_head(experiment, name.as_str(), &key));
        let is_news = match set.transpose() {
            // The job has remembered it itself.
            Ok(set) => set.unwrap_or(false) | key.is_some_and(|key| self.has_seen_job(name, &key)),
            Err(error) => {
                let text = format!("what it had last was not remembered: {error:#}");
                self.report(RunEvent::Note { stage: name.clone(), text });
                true
            }
        };
        if let Some(result) = &result {
            self.link(name, &result.output.digest);
        }
        let ran_on = match outcome {
            Outcome::Ran { .. } => result.as_ref().and_then(|result| result.ran_on.clone()),
            _ => None,
        };
        let (stage, outcome_again) = (name.clone(), outcome.clone());
        self.report(RunEvent::End { stage, key, is_news, ran_on, outcome: outcome_again });
        let known = self.fit.as_ref().and_then(|_| self.known(result.as_ref()?));
        self.states.set(name, StageState::Ended { outcome, result: result.map(Box::new) });
        self.take_back_readers(name);
        if let (Some(known), Some(fit)) = (known, &mut self.fit) {
            let misfits = fit.learn(name, known);
            self.refuse(misfits);
        }
    }

    fn say_news_of_the_remote(&mut self) {
        let news = self.options.shared.as_ref().map(|shared| shared.take_news());
        news.into_iter().flatten().for_each(|text| self.report(RunEvent::Remark { text }));
    }
}
