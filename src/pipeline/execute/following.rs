//! What becomes ready with the result of a job. The run chooses it before the job is submitted; the job begins it, and needs no manifest
//! for that: one stage in the same allocation, or, where the run was left on purpose, all as jobs of their own.
//!
//! The folder of the next job is made as that of any job, and before the last word of the first one: whoever hears that word and
//! wants the next stage finds a job to follow, and whoever was faster keeps it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Run;
use super::executor::{Executor, Report};
use super::handle::Waker;
use super::job::JobEnd;
use super::scheduled::{Scheduled, Terms, fits_into, keeps_to_most};
use super::share::set_threads;
use super::spec::{Following, JobSpec, Place, Work};
use super::states::StageState;
use crate::cache::{Cache, KnownResult, Lock, Pinned, StatIndex};
use crate::facts::CacheFacts;
use crate::key::{self, InputResult, StageKey};
use crate::manifest::Stage;
use crate::plan::{self, Facts, PlanState};
use crate::stage_name::StageName;

/// How long a job waits for its own receipt, or tries to submit what it made ready: it has an allocation meanwhile.
const SUBMISSION: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

impl Run<'_> {
    /// What the job of a stage goes on with: the only stage of its executor that its result makes ready, where that takes no more
    /// than the job has. Of a run that ends when it has submitted what is ready, all of them: nobody else submits them.
    pub(super) fn following(&self, stage: &Stage) -> Vec<Following> {
        self.after(stage, &[])
    }

    /// The same; the job has made these stages before.
    fn after(&self, stage: &Stage, before: &[&StageName]) -> Vec<Following> {
        let made = [before, &[&stage.name]].concat();
        let executor = self.options.executor_of(stage);
        let is_there = |input: &StageName| made.contains(&input) || self.result(input).is_some();
        let readers = self.graph.consumers(&stage.name).into_iter().filter(|reader| {
            matches!(self.states.get(reader), Some(StageState::Waiting))
                && self.graph.inputs(reader).into_iter().all(is_there)
                && !self.options.force.contains(reader)
        });
        let readers = readers.filter_map(|reader| self.manifest.stage(reader));
        let readers: Vec<&Stage> =
            readers.filter(|reader| self.options.executor_of(reader) == executor).collect();
        // Several are done sooner by jobs of their own.
        let is_one = matches!(&readers[..], [reader] if fits_into(reader, stage));
        if !is_one && !self.options.detach {
            return Vec::new();
        }
        let following = readers.into_iter().filter_map(|reader| {
            let results = self.graph.inputs(&reader.name).into_iter();
            let results =
                results.filter_map(|input| Some((input.clone(), self.result(input)?.key)));
            let mut declaration = reader.clone();
            set_threads(&mut declaration);
            Some(Following {
                declaration,
                folder: self.manifest.folder_of(reader).to_owned(),
                outside: self.facts.outside(&reader.name).ok()?.to_vec(),
                results: results.collect(),
                next: self.after(reader, &made),
            })
        });
        following.collect()
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
    let mut ready = Vec::new();
    for following in &before.next {
        let made = (&before.declaration.name, made);
        ready.extend(work_on(before, following, made, cache, index, say)?);
    }
    if let ([_], [spec]) = (&before.next[..], &ready[..])
        && fits_into(&spec.declaration, &before.declaration)
        && let Some(spec) = take_along(before, spec, cache)?
    {
        return Ok(Some(spec));
    }
    if let (Some(settings), Some(place), false) = (&before.submits, &before.place, ready.is_empty())
    {
        let (name, settings) = (place.executor.clone(), settings.clone());
        submit(ready, Terms { name, settings, detach: true }, cache, say)?;
    }
    Ok(None)
}

/// What is to be done for a stage that becomes ready with the result of another one: its own job, or those of what comes after it where
/// it has a result already. Nothing where something that it reads is gone.
fn work_on(
    before: &JobSpec,
    following: &Following,
    (maker, made): (&StageName, &KnownResult),
    cache: &Cache,
    index: &Arc<StatIndex>,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<Vec<JobSpec>> {
    let Some(mut known) = read_beside(following, cache, say)? else { return Ok(Vec::new()) };
    known.insert(maker, made.clone());
    let Following { declaration, folder, outside, next, .. } = following;
    let result_of = |input: &StageName| match known.get(input) {
        Some(result) => InputResult::Made { key: result.key, digest: result.output.digest },
        None => InputResult::Unknown,
    };
    let parts = key::parts(declaration, outside, result_of);
    cache.pin([Pinned::Key(StageKey::of(&parts))], |text| say(text.to_owned()))?;
    let facts = CacheFacts::of_results(cache, &before.experiment, Arc::clone(index)).that_last();
    let mut next = next.clone();
    next.iter_mut().for_each(|next| next.adds(maker, made.key));
    let (reason, key, parts) = match plan::decide(&declaration.name, parts, &facts) {
        PlanState::Dirty { reason, key, parts } => (reason, key, parts),
        PlanState::Fresh(record) => {
            let made = (*record).into();
            let mut ready = Vec::new();
            for following in &next {
                let made = (&declaration.name, &made);
                ready.extend(work_on(before, following, made, cache, index, say)?);
            }
            return Ok(ready);
        }
        _ => return Ok(Vec::new()),
    };
    let spec = JobSpec::new(
        &before.experiment,
        folder.clone(),
        declaration.clone(),
        Work { reason, key, parts },
        cache,
        |input| known.get(input).cloned(),
    )?;
    Ok(vec![JobSpec { next, submits: before.submits.clone(), ..spec }])
}

/// What a stage reads beside the result of the one before it, which stays from now on. `None` where some of it is gone.
fn read_beside<'f>(
    following: &'f Following,
    cache: &Cache,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<Option<HashMap<&'f StageName, KnownResult>>> {
    let results = &following.results;
    cache.pin(results.iter().map(|(_, key)| Pinned::Key(*key)), |text| say(text.to_owned()))?;
    let known = results.iter().map(|(stage, key)| Some((stage, cache.usable(key)?.into())));
    Ok(known.collect())
}

/// Makes this the job that goes on in the same allocation. `None` where somebody else does it, or nobody knows which job that is.
fn take_along(before: &JobSpec, spec: &JobSpec, cache: &Cache) -> anyhow::Result<Option<JobSpec>> {
    let Some(place) = &before.place else { return Ok(None) };
    // Whoever follows it asks the scheduler for the same job.
    let Some(receipt) = receipt(cache, &before.work.key) else { return Ok(None) };
    let place = Place { inherits: true, ..Place::new(&place.executor, None) };
    let spec = JobSpec { place: Some(place), ..spec.clone() };
    let key = spec.work.key;
    let Some(_lock) = cache.lock_job(&key)? else { return Ok(None) };
    if Lock::is_taken(&cache.layout().lock(&key.to_string())) {
        return Ok(None);
    }
    let Some(folder) = cache.begin_job(&key, &serde_json::to_vec(&spec)?, spec.pins())? else {
        return Ok(None);
    };
    folder.set_submitted(&receipt)?;
    Ok(Some(spec))
}

/// What is remembered of the submission of a job. Whoever submits it right now writes that in a moment.
fn receipt(cache: &Cache, key: &StageKey) -> Option<Vec<u8>> {
    let began = Instant::now();
    loop {
        // Before it is looked for: nobody lets go of the job without having written it.
        let is_submitted_now = cache.is_job_locked(key) && began.elapsed() < SUBMISSION;
        let receipt = cache.job(key)?.submitted();
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
                    Some(Report::Event(_)) => {}
                    Some(Report::End(JobEnd::Failed { message, .. })) => {
                        say(left(&message));
                        return false;
                    }
                    Some(Report::End(JobEnd::Stopped)) => {
                        say(left("it could not be submitted within a minute"));
                        return false;
                    }
                    Some(Report::End(_)) => return false,
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
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_comes_next_says_that_it_waits_for_whoever_cleans() {
        let folder = tempfile::tempdir().expect("a folder");
        let (manifest, place) = (folder.path().join("x.toml"), folder.path().join("cache"));
        let text = "[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\nrun = [\"a\"]\n";
        std::fs::write(&manifest, text).expect("ours");
        let cache = Cache::open(&place).expect("a cache");
        cache.prepare().expect("writable");
        let spec = crate::testing::job(&manifest, &place, "a").expect("a job");
        let spec: JobSpec = serde_json::from_value(spec).expect("a job");
        let results = vec![(spec.declaration.name.clone(), spec.work.key)];
        let (declaration, folder) = (spec.declaration, spec.folder);
        let following =
            Following { declaration, folder, outside: Vec::new(), results, next: Vec::new() };
        let cleans = Lock::take(&cache.layout().lock("pins")).expect("nobody has it");
        let ((sender, said), following, cache) = (channel(), &following, &cache);
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || {
                read_beside(following, cache, &mut |text| sender.send(text).expect("it is heard"))
                    .map(|known| known.is_some())
            });
            let said = said.recv_timeout(Duration::from_secs(30)).expect("it says so");
            assert_eq!(said, "waits for another process, which cleans this cache");
            drop(cleans);
            let is_there = waits.join().expect("no panic").expect("readable");
            assert!(!is_there, "it has no result");
        });
    }
}
