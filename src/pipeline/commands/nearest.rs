//! The recorded result of a stage that is most like what it would make now: what `why` compares with.

use std::collections::{BTreeMap, HashMap};

use super::project::Project;
use crate::cache::Record;
use crate::format;
use crate::history;
use crate::key::change::{Change, changes};
use crate::key::{KeyPart, StageKey};
use crate::stage_name::StageName;

/// The most results that one stage is compared with, the newest ones.
const MOST_COMPARED: usize = 64;

/// The most runs that are read.
const MOST_RUNS: usize = 50;

/// Finds the nearest results.
pub(super) struct Nearest<'p> {
    project: &'p Project,
    /// By stage in the manifest, the names and keys of its results, from the newest run to the oldest. Read when it is needed.
    known: Option<HashMap<String, Vec<(StageName, StageKey)>>>,
    records: BTreeMap<StageKey, Option<Record>>,
}

/// The result that is nearest to what a stage would make now.
pub(super) struct Near {
    /// How it differs.
    pub(super) changes: Vec<Change>,
    /// Which one it is, in words.
    pub(super) what: String,
    /// Whether it is the one that the stage had last.
    pub(super) is_last: bool,
}

impl<'p> Nearest<'p> {
    pub(super) fn new(project: &'p Project) -> Self {
        Self { project, known: None, records: BTreeMap::new() }
    }

    /// The nearest result of a stage whose key is made of these parts: the one with the fewest changes, and of these
    /// the one that the stage had last, or else the newest.
    pub(super) fn of(
        &mut self,
        name: &StageName,
        key: &StageKey,
        parts: &[KeyPart],
    ) -> Option<Near> {
        let project = self.project;
        let experiment = &project.manifest.experiment.name;
        let known = self.known.get_or_insert_with(|| {
            let mut known: HashMap<String, Vec<_>> = HashMap::new();
            let names = history::names_and_keys(&project.cache, experiment, MOST_RUNS, |_| true);
            for (name, key) in names.unwrap_or_default() {
                known.entry(name.template().to_owned()).or_default().push((name, key));
            }
            known
        });
        let last = project.cache.head(experiment, name.as_str());
        let of_stage = known.get(name.template()).map_or(&[][..], Vec::as_slice);
        let own = of_stage.iter().filter(|(other, _)| other == name);
        let others = of_stage.iter().filter(|(other, _)| other != name);
        let first = last.map(|key| (name.clone(), key));
        let candidates = first.into_iter().chain(own.chain(others).cloned());
        let mut nearest: Option<(usize, StageName, &Record)> = None;
        let candidates: Vec<_> =
            candidates.filter(|(_, other)| other != key).take(MOST_COMPARED).collect();
        for (_, other) in &candidates {
            let cache = &project.cache;
            self.records.entry(*other).or_insert_with(|| cache.record(other));
        }
        for (other, key) in candidates {
            let Some(Some(record)) = self.records.get(&key) else { continue };
            let changes = changes(&record.parts, parts).len();
            if nearest.as_ref().is_none_or(|(fewest, ..)| changes < *fewest) {
                nearest = Some((changes, other, record));
            }
        }
        let (_, other, record) = nearest?;
        let (made, short) = (format::ago(record.finished), record.key.short());
        Some(Near {
            changes: changes(&record.parts, parts),
            what: format!("{other}, made {made}, key {short}"),
            is_last: Some(record.key) == last,
        })
    }
}
