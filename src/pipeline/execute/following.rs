//! What becomes ready with the result of a job. The run chooses it before the job is submitted; the job begins it, and needs no manifest
//! for that: one stage in the same allocation, or, where the run was left on purpose, all as jobs of their own, also what waits for several
//! jobs.
//!
//! The folder of the next job is made as that of any job, and before the last word of the first one: whoever hears that word and
//! wants the next stage finds a job to follow, and whoever was faster keeps it. So does the last of several jobs whose results another
//! stage reads: each looks after its own result is recorded, and the last one finds all of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::executor::{Executor, JobReport};
use super::handle::Waker;
use super::job::JobEnd;
use super::run::Run;
use super::scheduled::{Scheduled, Terms, fits_into, keeps_to_most};
use super::share::set_threads;
use super::spec::{Following, JobPlace, JobSpec, Left, Work};
use super::states::StageState;
use crate::cache::{Cache, KnownResult, Lock, Pinned, StatIndex};
use crate::digest::Digest;
use crate::events::Outcome;
use crate::facts::CacheFacts;
use crate::key::{self, InputResult, KeyPart, StageKey};
use crate::manifest::Stage;
use crate::plan::{self, Facts, PlanState};
use crate::stage_name::StageName;

/// How long a job waits for its own receipt, or tries to submit what it made ready: it has an allocation meanwhile.
const SUBMISSION: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What is known of the stages that jobs begin.
#[derive(Default)]
pub(super) struct BegunByJobs {
    /// The stages that jobs submit, by the name of what a run has left to them.
    left: HashMap<Digest, HashMap<StageName, Following>>,
    /// Whether a stage of that has the key there that it would have now.
    same: HashMap<(Digest, StageName), bool>,
    /// What the jobs submit, any of which may begin a stage.
    by: HashMap<StageName, HashSet<Digest>>,
    /// How many of an executor each job submits.
    submitted: HashMap<(StageName, String), u32>,
}

impl Run<'_> {
    /// What the job of a stage goes on with, one after the other, behind the stage itself; nothing where that is all.
    pub(super) fn following(&self, stage: &Stage) -> Vec<Following> {
        let mut chain = vec![stage];
        while let Some(reader) = self.only_reader(&chain) {
            chain.push(reader);
        }
        if chain.len() == 1 {
            return Vec::new();
        }
        chain.into_iter().filter_map(|stage| self.to_follow(stage)).collect()
    }

    /// The only stage of its executor that the last of these makes ready, where it takes no more than that one.
    fn only_reader(&self, chain: &[&Stage]) -> Option<&Stage> {
        let last = chain.last()?;
        let executor = self.options.executor_of(last);
        let is_there = |input: &StageName| {
            chain.iter().any(|stage| stage.name == *input) || self.result(input).is_some()
        };
        let readers = self.graph.consumers(&last.name).into_iter().filter(|reader| {
            matches!(self.states.get(reader), Some(StageState::Waiting))
                && self.graph.inputs(reader).into_iter().all(is_there)
                && !self.options.force.contains(reader)
        });
        let readers = readers.filter_map(|reader| self.manifest.stage(reader));
        let readers: Vec<&Stage> =
            readers.filter(|reader| self.options.executor_of(reader) == executor).collect();
        match readers[..] {
            [reader] if fits_into(reader, last) => Some(reader),
            // Several are done sooner by jobs of their own.
            _ => None,
        }
    }

    /// The name of what jobs submit themselves, of a run that ends when it has submitted what is ready: nobody else does.
    pub(super) fn submits(&mut self) -> anyhow::Result<Option<Digest>> {
        // Once for all jobs: there may be thousands.
        if self.options.detach && self.left.is_none() {
            let left = Left { executors: self.options.executors.clone(), stages: self.left_over() };
            self.left = Some(self.cache.keep_left(&serde_json::to_vec(&left)?)?);
        }
        Ok(self.left)
    }

    /// The stages that have no result, each after its inputs: those of executors, which jobs begin, and all others, whose results they
    /// may need.
    fn left_over(&self) -> Vec<Following> {
        let is_over = |state: &StageState| match state {
            StageState::Ended { outcome, .. } => !matches!(outcome, Outcome::Left),
            _ => false,
        };
        let open = self.states.iter().filter(|(_, state)| !is_over(state));
        let open = open.filter_map(|(name, _)| self.manifest.stage(name));
        open.filter_map(|stage| self.to_follow(stage)).collect()
    }

    /// Ends a stage that goes on elsewhere, as the job of this key.
    pub(super) fn end_left(&mut self, name: &StageName, key: Option<StageKey>) {
        let job = key.and_then(|key| self.cache.job(&key));
        let submits = job.and_then(|job| JobSpec::read(&job.spec()).ok()?.submits);
        self.submitting.extend(submits.map(|submits| (name.clone(), submits)));
        self.end(name, Outcome::Left, None);
    }

    /// The input whose job begins a stage that has not begun, of a run that leaves its jobs. `None` where no job does so.
    pub(super) fn begun_by_job(
        &self,
        name: &StageName,
        begun: &mut BegunByJobs,
    ) -> Option<StageName> {
        let stage = self.manifest.stage(name)?;
        let executor = self.options.executor_of(stage)?;
        let waits_for_a_run =
            !stage.execution.takes.resources.is_empty() || self.options.force.contains(name);
        if !self.options.detach || self.stopping() || waits_for_a_run {
            return None;
        }
        let mut after = None;
        let mut by = HashSet::new();
        for input in self.graph.inputs(name) {
            let StageState::Ended { outcome, result } = self.states.get(input)? else {
                return None;
            };
            let submitting = match outcome {
                Outcome::Left => HashSet::from([*self.submitting.get(input)?]),
                Outcome::Following { .. } => begun.by.get(input)?.clone(),
                // Where jobs run, nobody brings it.
                Outcome::Remote { .. } => return None,
                _ => {
                    result.as_ref()?;
                    continue;
                }
            };
            by.extend(submitting);
            after = Some(input.clone());
        }
        // The last of them begins it, whichever that is.
        if !by.iter().all(|left| self.is_submitted(stage, left, begun)) {
            return None;
        }
        let (after, settings) = (after?, self.options.executors.get(executor)?);
        if let Some(most) = settings.max_jobs.filter(|_| !keeps_to_most(settings)) {
            let count = begun.submitted.entry((after.clone(), executor.to_owned())).or_default();
            *count += 1;
            if *count > most {
                return None;
            }
        }
        begun.by.insert(name.clone(), by);
        Some(after)
    }

    /// Whether jobs to which a run has left this submit the stage, as it is now.
    fn is_submitted(&self, stage: &Stage, left: &Digest, begun: &mut BegunByJobs) -> bool {
        begun.left.entry(*left).or_insert_with(|| {
            let stages =
                read_left(self.cache, left).map_or_else(|_| Vec::new(), |left| left.stages);
            stages.into_iter().map(|stage| (stage.declaration.name.clone(), stage)).collect()
        });
        let there = begun.left.get(left).and_then(|stages| stages.get(&stage.name));
        let is_begun = there.is_some_and(|there| {
            !there.is_forced
                && there.executor.as_deref() == self.options.executor_of(stage)
                && there.declaration.execution.takes.resources.is_empty()
        });
        is_begun && self.is_the_same(&stage.name, left, begun)
    }

    /// Whether a stage that was left would have the key there that it would have now.
    fn is_the_same(&self, name: &StageName, left: &Digest, begun: &mut BegunByJobs) -> bool {
        let place = (*left, name.clone());
        if let Some(is_the_same) = begun.same.get(&place) {
            return *is_the_same;
        }
        let there = begun.left.get(left).and_then(|stages| stages.get(name));
        let now = self.manifest.stage(name).and_then(|stage| self.to_follow(stage));
        // It depends on the others whether those have one key, too.
        let open = there.zip(now).and_then(|(there, now)| there.open_inputs_of_same(&now));
        let is_the_same =
            open.is_some_and(|open| open.iter().all(|input| self.is_the_same(input, left, begun)));
        begun.same.insert(place, is_the_same);
        is_the_same
    }

    /// What another process must know of a stage to begin it. `None` where a file outside the cache cannot be read.
    fn to_follow(&self, stage: &Stage) -> Option<Following> {
        let results = self.graph.inputs(&stage.name).into_iter();
        let results = results.filter_map(|input| Some((input.clone(), self.result(input)?.key)));
        let mut declaration = stage.clone();
        set_threads(&mut declaration);
        Some(Following {
            declaration,
            folder: self.manifest.folder_of(stage).to_owned(),
            outside: self.facts.outside(&stage.name).ok()?.to_vec(),
            results: results.collect(),
            is_forced: self.options.force.contains(&stage.name),
            executor: self.options.executor_of(stage).map(str::to_owned),
        })
    }
}

impl Following {
    /// The inputs without results here, on which it depends whether this has the key of the same stage as it is now. `None` where they
    /// differ in more than those.
    fn open_inputs_of_same(&self, now: &Self) -> Option<Vec<StageName>> {
        let own = |stage| StageKey::of(&parts(stage, &HashMap::new()));
        if own(self) != own(now) || self.declaration.inputs != now.declaration.inputs {
            return None;
        }
        let made = |input: &StageName| self.results.iter().find(|(name, _)| name == input);
        let are_there = self.results.iter().all(|result| now.results.contains(result));
        let open = self.inputs().filter(|input| made(input).is_none()).cloned();
        are_there.then(|| open.collect())
    }
}

/// Begins what becomes ready with the result of a job: submits it where nobody else does, or makes the job of the same allocation that
/// its process goes on with. `say` is told what cannot be done, and what it waits for.
pub(super) fn begin(
    before: &JobSpec,
    made: &KnownResult,
    cache: &Arc<Cache>,
    index: &Arc<StatIndex>,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<Option<JobSpec>> {
    let left = before.submits.map(|name| read_left(cache, &name)).transpose()?;
    let stages = left.as_ref().map_or(&before.next, |left| &left.stages);
    let mut ready = Ready::after(before, made, stages, cache).begin(index, say)?;
    let mut next = None;
    // Several are done sooner by jobs of their own.
    if let Some(place) = &before.place
        && let Some([spec]) = ready.get(&place.executor).map(Vec::as_slice)
        && fits_into(&spec.declaration, &before.declaration)
    {
        match take_along(before, spec, cache)? {
            Along::Next(spec) => {
                next = Some(*spec);
                ready.remove(&place.executor);
            }
            Along::Begun => drop(ready.remove(&place.executor)),
            Along::Cannot => {}
        }
    }
    for (name, specs) in ready.into_iter().filter(|_| left.is_some()) {
        let settings = left.as_ref().and_then(|left| left.executors.get(&name));
        let settings = settings.context("a known executor")?.clone();
        let leaves = Arc::new(true.into());
        let terms = Terms { name, settings, leaves, only_new: true };
        // Others are submitted all the same, and what its process goes on with is begun.
        if let Err(error) = submit(specs, terms, cache, say) {
            say(self::left(&format!("{error:#}")));
        }
    }
    Ok(next)
}

/// What a run has left to its jobs.
fn read_left(cache: &Cache, name: &Digest) -> anyhow::Result<Left> {
    Ok(serde_json::from_slice(&cache.left(name)?)?)
}

/// What of some stages is ready with the result of a job.
struct Ready<'a> {
    before: &'a JobSpec,
    made: &'a KnownResult,
    /// Each after its inputs.
    stages: &'a [Following],
    places: HashMap<&'a StageName, &'a Following>,
    cache: &'a Cache,
    /// The key that the stage of the result would have if it read nothing.
    without_inputs: StageKey,
    /// The results of those that were looked for.
    known: HashMap<&'a StageName, Option<KnownResult>>,
}

impl<'a> Ready<'a> {
    fn after(
        before: &'a JobSpec,
        made: &'a KnownResult,
        stages: &'a [Following],
        cache: &'a Cache,
    ) -> Self {
        let places = stages.iter().map(|stage| (&stage.declaration.name, stage)).collect();
        let is_own =
            |part: &&KeyPart| !matches!(part, KeyPart::Input { .. } | KeyPart::Missing { .. });
        let own: Vec<KeyPart> = before.work.parts.iter().filter(is_own).cloned().collect();
        let without_inputs = StageKey::of(&own);
        Self { before, made, stages, places, cache, without_inputs, known: HashMap::new() }
    }

    /// What is to be done, by executor, for those that read the result, also by others that have theirs already, and all else that they
    /// read is there. Not what a scheduler has already.
    fn begin(
        mut self,
        index: &Arc<StatIndex>,
        say: &mut dyn FnMut(String),
    ) -> anyhow::Result<BTreeMap<String, Vec<JobSpec>>> {
        let mut readers = HashSet::from([&self.before.declaration.name]);
        let mut ready: BTreeMap<String, Vec<JobSpec>> = BTreeMap::new();
        let mut keys = HashSet::new();
        for following in self.stages {
            let declaration = &following.declaration;
            if self.is_the_same(following) {
                readers.insert(&declaration.name);
                continue;
            }
            if !following.inputs().any(|input| readers.contains(input)) {
                continue;
            }
            readers.insert(&declaration.name);
            let Some(executor) = following.executor.as_ref().filter(|_| !following.is_forced)
            else {
                continue;
            };
            let Some(inputs) = self.inputs(following) else { continue };
            let spec = self.work_on(following, &inputs, index, say).unwrap_or_else(|error| {
                say(left(&format!("'{}': {error:#}", declaration.name)));
                None
            });
            // Not of one that has its result, or a job.
            if spec.is_some() && !declaration.execution.takes.resources.is_empty() {
                let why = "it takes 'resources', which a run counts";
                say(left(&format!("'{}': {why}", declaration.name)));
                continue;
            }
            if let Some(spec) = spec.filter(|spec| keys.insert(spec.work.key)) {
                ready.entry(executor.clone()).or_default().push(spec);
            }
        }
        Ok(ready)
    }

    /// Whether the result is also that of this stage: one with the same key.
    fn is_the_same(&mut self, stage: &'a Following) -> bool {
        // Most differ in more than what they read, which must be looked for.
        StageKey::of(&parts(stage, &HashMap::new())) == self.without_inputs
            && self
                .inputs(stage)
                .is_some_and(|inputs| StageKey::of(&parts(stage, &inputs)) == self.before.work.key)
    }

    /// The results that a stage reads. `None` where one is missing.
    fn inputs(&mut self, stage: &'a Following) -> Option<HashMap<&'a StageName, KnownResult>> {
        let mut found = HashMap::new();
        for input in stage.inputs() {
            let known = stage.results.iter().find(|(name, _)| name == input);
            let result = match known {
                Some((_, key)) => self.cache.usable(key)?.into(),
                None => self.result(input)?,
            };
            found.insert(input, result);
        }
        Some(found)
    }

    /// The result of a stage that had none when these were chosen.
    fn result(&mut self, name: &'a StageName) -> Option<KnownResult> {
        if *name == self.before.declaration.name {
            return Some(self.made.clone());
        }
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let result = self.look_for(name);
        self.known.insert(name, result.clone());
        result
    }

    fn look_for(&mut self, name: &StageName) -> Option<KnownResult> {
        // One that is to be made again has a result, which is not that one.
        let stage = self.places.get(name).copied().filter(|stage| !stage.is_forced)?;
        let inputs = self.inputs(stage)?;
        Some(self.cache.usable(&StageKey::of(&parts(stage, &inputs)))?.into())
    }

    /// The job of a stage that must run.
    fn work_on(
        &self,
        following: &Following,
        inputs: &HashMap<&StageName, KnownResult>,
        index: &Arc<StatIndex>,
        say: &mut dyn FnMut(String),
    ) -> anyhow::Result<Option<JobSpec>> {
        let Following { declaration, folder, .. } = following;
        let (before, cache) = (self.before, self.cache);
        let parts = parts(following, inputs);
        let key = StageKey::of(&parts);
        let keys = inputs.values().map(|input| input.key);
        let is_submitted = || cache.job(&key).is_some_and(|job| job.was_submitted());
        if !stay(keys, cache, say)? || is_submitted() {
            return Ok(None);
        }
        cache.pin([Pinned::Key(key)], |text| say(text.to_owned()))?;
        let facts = CacheFacts::of_results(cache, &before.experiment, Arc::clone(index));
        let PlanState::Dirty { reason, key, parts } =
            plan::decide(&declaration.name, parts, &facts.that_last())
        else {
            return Ok(None);
        };
        let spec = JobSpec::new(
            &before.experiment,
            folder.clone(),
            declaration.clone(),
            Work { reason, key, parts },
            cache,
            |input| inputs.get(input).cloned(),
        )?;
        let next = before.next.clone();
        Ok(Some(JobSpec { next, submits: before.submits, ..spec }))
    }
}

/// What the key of a stage is made of that reads these results.
fn parts(stage: &Following, inputs: &HashMap<&StageName, KnownResult>) -> Vec<KeyPart> {
    key::parts(&stage.declaration, &stage.outside, |input| match inputs.get(input) {
        Some(result) => InputResult::Made { key: result.key, digest: result.output.digest },
        None => InputResult::Unknown,
    })
}

/// Lets the results of these keys stay from now on. Returns whether all of them are there.
fn stay(
    keys: impl Iterator<Item = StageKey> + Clone,
    cache: &Cache,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<bool> {
    cache.pin(keys.clone().map(Pinned::Key), |text| say(text.to_owned()))?;
    Ok(keys.into_iter().all(|key| cache.usable(&key).is_some()))
}

/// What becomes of a job that could go on in the allocation of another one.
enum Along {
    /// It does.
    Next(Box<JobSpec>),
    /// Somebody else has submitted it.
    Begun,
    /// Nobody knows which job that allocation is of, or somebody has its key just now, or is about to submit it, which may fail.
    Cannot,
}

/// Makes this the job that goes on in the same allocation.
fn take_along(before: &JobSpec, spec: &JobSpec, cache: &Cache) -> anyhow::Result<Along> {
    let Some(place) = &before.place else { return Ok(Along::Cannot) };
    // Whoever follows it asks the scheduler for the same job.
    let Some(receipt) = receipt(cache, &before.work.key) else { return Ok(Along::Cannot) };
    let place = JobPlace { inherits: true, ..JobPlace::new(&place.executor, None) };
    let spec = JobSpec { place: Some(place), ..spec.clone() };
    let key = spec.work.key;
    let Some(_lock) = cache.lock_job(&key)? else { return Ok(Along::Cannot) };
    if let Some(job) = cache.job(&key) {
        return Ok(if job.was_submitted() { Along::Begun } else { Along::Cannot });
    }
    if Lock::is_taken(&cache.layout().lock(&key.to_string())) {
        return Ok(Along::Cannot);
    }
    let Some(folder) = cache.begin_job(&key, &serde_json::to_vec(&spec)?, spec.pins())? else {
        return Ok(Along::Begun);
    };
    folder.set_submitted(&receipt)?;
    Ok(Along::Next(Box::new(spec)))
}

/// What is remembered of the submission of a job. Whoever submits it right now writes that in a moment.
fn receipt(cache: &Cache, key: &StageKey) -> Option<Vec<u8>> {
    let began = Instant::now();
    loop {
        // Before it is looked for: nobody lets go of the job without having written it.
        let is_submitted_now = cache.is_job_locked(key) && began.elapsed() < SUBMISSION;
        let receipt = cache.job(key)?.submitted().ok().flatten();
        if receipt.is_some() || !is_submitted_now {
            return receipt;
        }
        std::thread::sleep(POLL);
    }
}

/// Why what becomes ready is left for the next run, in words.
pub(super) fn left(why: &str) -> String {
    format!("what becomes ready with it is left to the next run: {why}")
}

/// Submits these, as a run does that does not wait for them. What cannot be submitted from here, the next run submits.
fn submit(
    mut specs: Vec<JobSpec>,
    terms: Terms,
    cache: &Arc<Cache>,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<()> {
    let most = terms.settings.max_jobs.filter(|_| !keeps_to_most(&terms.settings));
    let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    if specs.len() > most {
        let rest = specs.split_off(most).len();
        say(left(&format!("no more than {most} jobs at once (max-jobs), and {rest} would wait")));
    }
    let executor = Scheduled::start(terms, Arc::clone(cache), Waker::new(|| {}))?;
    let mut handles = Vec::new();
    for spec in specs {
        handles.push(executor.start(spec)?);
    }
    let began = Instant::now();
    while !handles.is_empty() {
        handles.retain_mut(|handle| {
            loop {
                match handle.poll() {
                    Some(JobReport::Event(_)) => {}
                    Some(JobReport::End(JobEnd::Failed { message, .. })) => {
                        say(left(&message));
                        return false;
                    }
                    Some(JobReport::End(JobEnd::Stopped)) => {
                        say(left("it could not be submitted within a minute"));
                        return false;
                    }
                    Some(JobReport::End(_)) => return false,
                    None => return true,
                }
            }
        });
        if began.elapsed() >= SUBMISSION {
            handles.iter().for_each(|handle| handle.stop());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;

    use super::*;

    /// A cache, and the jobs of two stages.
    fn two_jobs(folder: &Path) -> (Cache, [JobSpec; 2]) {
        let (manifest, place) = (folder.join("x.toml"), folder.join("cache"));
        let stage = |name| format!("[stages.{name}]\nkind = \"command\"\nrun = [\"{name}\"]\n");
        let text = format!("[experiment]\nname = \"x\"\n{}{}", stage("a"), stage("b"));
        std::fs::write(&manifest, text).expect("ours");
        let cache = Cache::open(&place).expect("a cache");
        cache.prepare().expect("writable");
        let jobs = ["a", "b"].map(|name| {
            let spec = crate::testing::job(&manifest, &place, name).expect("a job");
            serde_json::from_value(spec).expect("a job")
        });
        (cache, jobs)
    }

    #[test]
    fn a_job_goes_on_with_what_nobody_else_has_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, [mut before, spec]) = two_jobs(folder.path());
        let along = || take_along(&before, &spec, &cache).expect("writable");
        assert!(matches!(along(), Along::Cannot), "it is not a job");
        before.place = Some(JobPlace::new("e", None));
        let along = || take_along(&before, &spec, &cache).expect("writable");
        let own = cache.begin_job(&before.work.key, b"{}", std::iter::empty());
        let own = own.expect("writable").expect("the first");
        assert!(matches!(along(), Along::Cannot), "its receipt is gone");
        own.set_submitted(b"{}").expect("writable");
        let makes = cache.lock_job(&spec.work.key).expect("writable").expect("nobody has it");
        assert!(matches!(along(), Along::Cannot), "somebody makes it right now, and may fail");
        drop(makes);
        let works = Lock::take(&cache.layout().lock(&spec.work.key.to_string())).expect("free");
        assert!(matches!(along(), Along::Cannot), "somebody works on it, or looks");
        drop(works);
        assert!(matches!(along(), Along::Next(_)));
        assert!(matches!(along(), Along::Begun), "it is made");
    }

    #[test]
    fn what_comes_next_says_that_it_waits_for_whoever_cleans() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, [spec, _]) = two_jobs(folder.path());
        let key = spec.work.key;
        let cleans = Lock::take(&cache.layout().lock("pins")).expect("nobody has it");
        let ((sender, said), cache) = (channel(), &cache);
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || {
                stay([key].into_iter(), cache, &mut |text| sender.send(text).expect("it is heard"))
            });
            let said = said.recv_timeout(Duration::from_secs(30)).expect("it says so");
            assert_eq!(said, "waits for another process, which cleans this cache");
            drop(cleans);
            let is_there = waits.join().expect("no panic").expect("readable");
            assert!(!is_there, "it has no result");
        });
    }
}
