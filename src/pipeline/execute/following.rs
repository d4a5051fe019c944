//! What a job goes on with, in the same allocation: the one stage that its result makes ready. The run chooses it before the job is
//! submitted; the job begins it, and needs no manifest for that.
//!
//! The folder of the next job is made as that of any job, and before the last word of the first one: whoever hears that word and
//! wants the next stage finds a job to follow, and whoever was faster keeps it.

use std::collections::HashMap;
use std::sync::Arc;

use super::Run;
use super::scheduled::fits_into;
use super::share::set_threads;
use super::spec::{Following, JobSpec, Place, Work};
use super::states::StageState;
use crate::cache::{Cache, KnownResult, Lock, Pinned, StatIndex};
use crate::facts::CacheFacts;
use crate::key::{self, InputResult, StageKey};
use crate::manifest::Stage;
use crate::plan::{self, Facts, PlanState};
use crate::stage_name::StageName;

impl Run<'_> {
    /// What the job of a stage goes on with: the only stage of its executor that its result makes ready, where that takes no more
    /// than the job has.
    pub(super) fn following(&self, stage: &Stage) -> Option<Box<Following>> {
        self.next_of(stage, &mut Vec::new())
    }

    /// The same; `made` are the stages that the job makes before.
    fn next_of(&self, stage: &Stage, made: &mut Vec<StageName>) -> Option<Box<Following>> {
        made.push(stage.name.clone());
        let executor = self.options.executor_of(stage)?;
        let is_there = |input: &StageName| made.contains(input) || self.result(input).is_some();
        let readers = self.graph.consumers(&stage.name).into_iter().filter(|reader| {
            matches!(self.states.get(reader), Some(StageState::Waiting))
                && self.graph.inputs(reader).into_iter().all(is_there)
        });
        let readers = readers.filter_map(|reader| self.manifest.stage(reader));
        let mut readers =
            readers.filter(|reader| self.options.executor_of(reader) == Some(executor));
        // Several are done sooner by jobs of their own.
        let (Some(reader), None) = (readers.next(), readers.next()) else { return None };
        if !fits_into(reader, stage) || self.options.force.contains(&reader.name) {
            return None;
        }
        let results = self.graph.inputs(&reader.name).into_iter();
        let results = results.filter_map(|input| Some((input.clone(), self.result(input)?.key)));
        let mut declaration = reader.clone();
        set_threads(&mut declaration);
        Some(Box::new(Following {
            declaration,
            folder: self.manifest.folder_of(reader).to_owned(),
            outside: self.facts.outside(&reader.name).ok()?.to_vec(),
            results: results.collect(),
            next: self.next_of(reader, made),
        }))
    }
}

/// Makes the job that goes on with the result of another one, as a job of the same allocation. `None` where there is nothing to
/// do for it, somebody else does it, or something that it reads is gone.
pub(super) fn begin(
    before: &JobSpec,
    made: &KnownResult,
    cache: &Cache,
    index: &Arc<StatIndex>,
) -> anyhow::Result<Option<JobSpec>> {
    let (Some(following), Some(place)) = (before.next.as_deref(), &before.place) else {
        return Ok(None);
    };
    // Whoever follows it asks the scheduler for the same job.
    let Some(receipt) = cache.job(&before.work.key).and_then(|folder| folder.submitted()) else {
        return Ok(None);
    };
    let Following { declaration, folder, outside, results, next } = following;
    cache.pin(results.iter().map(|(_, key)| Pinned::Key(*key)), |_| {})?;
    let mut known = HashMap::from([(&before.declaration.name, made.clone())]);
    for (stage, key) in results {
        let Some(record) = cache.usable(key) else { return Ok(None) };
        known.insert(stage, record.into());
    }
    let result_of = |input: &StageName| match known.get(input) {
        Some(result) => InputResult::Made { key: result.key, digest: result.output.digest },
        None => InputResult::Unknown,
    };
    let parts = key::parts(declaration, outside, result_of);
    let key = StageKey::of(&parts);
    cache.pin([Pinned::Key(key)], |_| {})?;
    let facts = CacheFacts::of_results(cache, &before.experiment, Arc::clone(index)).that_last();
    let PlanState::Dirty { reason, key, parts } = plan::decide(&declaration.name, parts, &facts)
    else {
        return Ok(None);
    };
    let next = next.clone().map(|mut next| {
        next.adds(&before.declaration.name, made.key);
        next
    });
    let spec = JobSpec::new(
        &before.experiment,
        folder.clone(),
        declaration.clone(),
        Work { reason, key, parts },
        cache,
        |input| known.get(input).cloned(),
    )?;
    let place = Some(Place { inherits: true, ..Place::new(&place.executor, None) });
    let spec = JobSpec { place, next, ..spec };
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
