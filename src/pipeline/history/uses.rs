//! What the runs of the history used, and when: what cleaning goes by.
//!
//! Reads each run once, however often it is asked.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use super::run::{Run, planned};
use crate::cache::{Cache, Need, Uses, Why};
use crate::digest::Digest;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// The runs that were read.
#[derive(Debug, Default)]
pub(crate) struct UsesOfRuns {
    /// By experiment and name, with how long the record was.
    runs: HashMap<(String, String), (u64, UsesOfRun)>,
    plans: HashMap<Digest, Vec<(StageName, StageKey)>>,
}

/// What a run used.
#[derive(Debug, Clone)]
struct UsesOfRun {
    /// The manifest, with its folder.
    manifest: PathBuf,
    is_running: bool,
    /// Whether it was about every stage of the manifest, and all of them have results.
    is_whole: bool,
    /// When it ended, or did something last.
    at: u64,
    /// The stages with the keys that they had.
    keys: Vec<(StageName, StageKey)>,
    documents: [Digest; 2],
}

impl UsesOfRuns {
    /// What the runs of a cache used.
    ///
    /// What the latest run of a manifest used must stay. Where that was about some stages, or not all of them have results, this
    /// goes back to the latest one that was and had: for each stage, to the latest result.
    pub(crate) fn look(&mut self, cache: &Cache) -> Uses {
        let mut uses = Uses::default();
        let mut known = HashMap::new();
        let mut has_result = |key: &StageKey| {
            *known
                .entry(*key)
                .or_insert_with(|| fs::symlink_metadata(cache.layout().record(key)).is_ok())
        };
        let mut with_runs = HashSet::new();
        for experiment in cache.experiments() {
            let mut covered: HashMap<PathBuf, Option<HashSet<StageName>>> = HashMap::new();
            // The newest first.
            for id in cache.runs(&experiment) {
                let Some(run) = self.read(cache, &experiment, &id) else { continue };
                uses.documents.extend(run.documents);
                for (_, key) in &run.keys {
                    let last = uses.last.entry(*key).or_default();
                    *last = run.at.max(*last);
                }
                if run.is_running {
                    let by = format!("the run {id} of {experiment}").into();
                    let need = Need { why: Why::InUse, by };
                    run.keys.iter().for_each(|(_, key)| uses.needs.add_key(*key, &need));
                }
                let covered =
                    covered.entry(run.manifest.clone()).or_insert_with(|| Some(HashSet::new()));
                let Some(stages) = covered else { continue };
                let gone = if run.manifest.exists() { "" } else { ", which does not exist here" };
                let by = format!("{} ({experiment}){gone}", run.manifest.display()).into();
                let need = Need { why: Why::Latest, by };
                let is_latest = |(stage, _): &&(StageName, StageKey)| !stages.contains(stage);
                let latest: Vec<_> = run.keys.iter().filter(is_latest).collect();
                latest.iter().for_each(|(_, key)| uses.needs.add_key(*key, &need));
                let found = latest.into_iter().filter(|(_, key)| has_result(key));
                stages.extend(found.map(|(stage, _)| stage.clone()));
                if run.is_whole {
                    *covered = None;
                }
            }
            if !covered.is_empty() {
                with_runs.insert(experiment);
            }
        }
        // Of an experiment without runs, what its stages had last is what its latest run used.
        for (experiment, key) in cache.head_keys() {
            if !with_runs.contains(&experiment) {
                let by = format!("{experiment}, of which no run is recorded").into();
                uses.needs.add_key(key, &Need { why: Why::Latest, by });
            }
        }
        uses
    }

    /// The experiments whose runs used a key.
    pub(crate) fn experiments(&self) -> HashMap<StageKey, BTreeSet<&str>> {
        let mut experiments: HashMap<StageKey, BTreeSet<&str>> = HashMap::new();
        for ((experiment, _), (_, run)) in &self.runs {
            for (_, key) in &run.keys {
                experiments.entry(*key).or_default().insert(experiment);
            }
        }
        experiments
    }

    fn read(&mut self, cache: &Cache, experiment: &str, id: &str) -> Option<UsesOfRun> {
        let place = (experiment.to_owned(), id.to_owned());
        let length = fs::metadata(cache.layout().run(experiment, id)).ok()?.len();
        if let Some((known, run)) = self.runs.get(&place)
            && *known == length
            && !run.is_running
        {
            return Some(run.clone());
        }
        let run = Run::read(cache, experiment, id)?;
        let plan = run.header.plan;
        let planned = self.plans.entry(plan).or_insert_with(|| {
            let stages = planned(cache, &plan).unwrap_or_default().into_iter();
            stages.filter_map(|stage| Some((stage.stage, stage.key?))).collect()
        });
        let own = run.stages.iter().filter_map(|stage| Some((stage.stage.clone(), stage.key?)));
        let mut keys: Vec<_> = own.chain(planned.iter().cloned()).collect();
        keys.sort_unstable();
        keys.dedup();
        let name = run.header.manifest.file_name().unwrap_or_default();
        let began = run.header.owner.since;
        let started = run.stages.iter().filter_map(|stage| stage.started);
        let used = UsesOfRun {
            manifest: run.header.folder.join(name),
            is_running: run.is_running(),
            is_whole: run.is_complete() && run.header.is_about_all(),
            at: started.chain([began + run.seconds.unwrap_or_default() as u64]).max()?,
            keys,
            documents: [run.header.texts, plan],
        };
        self.runs.insert(place, (length, used.clone()));
        Some(used)
    }
}
