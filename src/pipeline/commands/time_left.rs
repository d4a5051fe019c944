//! How long what a plan would run may take, and how much memory, from the records that the plan reads anyway.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::project::Project;
use crate::cache::Record;
use crate::difference::Differences;
use crate::digest::Digest;
use crate::execute::{Places, together};
use crate::expected::Runs;
use crate::facts::CacheFacts;
use crate::format;
use crate::key::{OutsideDigest, StageKey};
use crate::plan::{Blocked, Facts, NoResult, Plan, PlanState};
use crate::plan_alike::alike;
use crate::reason::Reason;
use crate::stage_name::StageName;

/// The most records of a stage in the manifest that are read for the time alone.
const MOST_EXTRA: usize = 32;

/// Where more stages than this may run, a plan does not look for those that share a result, which would take a fifth of its time.
const MOST_ALIKE: usize = 10_000;

/// With less than this, in seconds, nothing is said.
const SHORTEST: f64 = 10.0;

/// With less memory than this, in bytes, nothing is said.
const LEAST_MEMORY: u64 = 1_000_000_000;

/// The stages that may run, each with the seconds that it may take, where runs like it are known.
pub(super) struct TimeLeft {
    stages: HashMap<StageName, Option<f64>>,
    /// Those of them that share the result of another one of them, and take no time.
    pub(super) sharing: HashSet<StageName>,
    /// The seconds that those which are known take together, as they share the places where they run.
    pub(super) together: f64,
    /// The most memory of one of them, in bytes, and which one that is: of the machine, and of a GPU.
    pub(super) largest: [Option<(u64, StageName)>; 2],
}

impl TimeLeft {
    /// Whether a stage may run.
    pub(super) fn has(&self, name: &StageName) -> bool {
        self.stages.contains_key(name)
    }

    /// The seconds that a stage may take; `None` for one that does not run, or of which nothing is known.
    pub(super) fn of(&self, name: &StageName) -> Option<f64> {
        self.stages.get(name).copied().flatten()
    }

    /// How long these stages may take, one after the other: `at most 41 h`, after a separator. Empty where nothing is
    /// known, or where it is too short to matter.
    pub(super) fn in_words<'a>(
        &self,
        names: impl Iterator<Item = &'a StageName>,
        separator: &str,
    ) -> String {
        self.words(names, separator, None)
    }

    /// The same of all of them, with how long that takes here: `at most 41 h of work, in 11 h`.
    pub(super) fn all_in_words(&self, separator: &str) -> String {
        self.words(self.stages.keys(), separator, Some(self.together))
    }

    /// The most memory: `at most 2.6 GB of memory (train), 11 GB of a GPU (simclr)`, after a separator. Empty where nothing is
    /// known, or where it is too little to matter.
    pub(super) fn memory_in_words(&self, separator: &str) -> String {
        let words =
            self.largest.iter().zip(["of memory", "of a GPU"]).filter_map(|(most, what)| {
                let (bytes, name) = most.as_ref().filter(|(bytes, _)| *bytes >= LEAST_MEMORY)?;
                Some(format!("{} {what} ({})", format::bytes(*bytes), name.template()))
            });
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            String::new()
        } else {
            format!("{separator}at most {}", words.join(", "))
        }
    }

    fn words<'a>(
        &self,
        names: impl Iterator<Item = &'a StageName>,
        separator: &str,
        together: Option<f64>,
    ) -> String {
        let (mut known, mut all, mut sum) = (0_usize, 0_usize, 0.0);
        let runs = names.filter(|name| !self.sharing.contains(*name));
        for seconds in runs.filter_map(|name| self.stages.get(name)) {
            all += 1;
            if let Some(seconds) = seconds {
                known += 1;
                sum += seconds;
            }
        }
        let mut time = format::rough_seconds(sum);
        let together = together.map(format::rough_seconds).filter(|together| *together != time);
        if let Some(together) = together {
            time.push_str(&format!(" of work, in {together}"));
        }
        match all - known {
            _ if sum < SHORTEST => String::new(),
            0 => format!("{separator}at most {time}"),
            _ => format!("{separator}at most {time} for {known} of {all}"),
        }
    }
}

/// The plan of these stages, which are closed under inputs, and how long it may take where it runs.
pub(super) fn plan_with_time(
    project: &Project,
    selected: &[StageName],
    forced: BTreeSet<StageName>,
    run_on: &Places<'_>,
) -> (Plan, TimeLeft) {
    let Project { manifest, graph, .. } = project;
    let facts = project.facts(selected).force(forced);
    let has_heads = project.cache.has_heads(&manifest.experiment.name);
    let noting = Noting { facts: &facts, has_heads, runs: RefCell::default() };
    let plan = Plan::of(manifest, graph, selected, &noting);
    let mut runs = noting.runs.into_inner();
    for (name, state) in plan.iter() {
        match state {
            // The plan has asked for the last run of these, to say what changed.
            PlanState::Dirty { reason: Reason::NeverRan | Reason::Changed { .. }, .. } => {}
            PlanState::Dirty { key, .. } => {
                let same = project.cache.record(key).or_else(|| facts.remote(key));
                if let Some(record) = same.or_else(|| facts.last(name)) {
                    runs.add(name, &record);
                }
            }
            _ => state.finished().into_iter().for_each(|record| runs.add(name, record)),
        }
    }
    let held_up = plan.held_up();
    let would_run = plan.iter().filter(|(name, state)| match state {
        PlanState::Dirty { .. } => true,
        PlanState::Waiting { .. } => !held_up.contains(name),
        PlanState::Fresh(_) | PlanState::Remote(_) | PlanState::Blocked(_) => false,
    });
    let would_run: Vec<&StageName> = would_run.map(|(name, _)| name).collect();
    add_others(project, &plan, &would_run, &facts, &mut runs);
    let expected = runs.expected();
    let seconds = would_run.iter().map(|&name| {
        let seconds = manifest.stage(name).and_then(|stage| expected.of(stage));
        (name.clone(), seconds)
    });
    let stages: HashMap<StageName, Option<f64>> = seconds.collect();
    let mut largest: [Option<(u64, &StageName)>; 2] = [None; 2];
    for stage in would_run.iter().filter_map(|name| manifest.stage(name)) {
        for (most, memory) in largest.iter_mut().zip(expected.memory(stage)) {
            *most = memory.map(|bytes| (bytes, &stage.name)).max(*most);
        }
    }
    let sharing = match would_run.len() <= MOST_ALIKE {
        true => alike(&plan, manifest, graph, &facts),
        false => HashSet::new(),
    };
    let runs = would_run.into_iter().filter(|name| !sharing.contains(name));
    let known = runs.filter_map(|name| {
        let seconds = stages.get(name).copied().flatten()?;
        Some((manifest.stage(name)?, seconds))
    });
    let together = together(run_on, graph, &known.collect::<Vec<_>>());
    let largest = largest.map(|most| most.map(|(bytes, name)| (bytes, name.clone())));
    let sharing = sharing.into_iter().cloned().collect();
    (plan, TimeLeft { stages, sharing, together, largest })
}

/// Where no instance of a stage is known, a few that the plan leaves out.
fn add_others(
    project: &Project,
    plan: &Plan,
    would_run: &[&StageName],
    facts: &CacheFacts<'_>,
    runs: &mut Runs,
) {
    let templates = would_run.iter().map(|name| name.template());
    let unknown: HashSet<&str> = templates.filter(|template| !runs.has(template)).collect();
    let mut others: BTreeMap<&str, Vec<&StageName>> = BTreeMap::new();
    for stage in &project.manifest.stages {
        let template = stage.name.template();
        if unknown.contains(template) && plan.state(&stage.name).is_none() {
            others.entry(template).or_default().push(&stage.name);
        }
    }
    for names in others.into_values() {
        // From all over the matrix: neighbours are alike.
        let step = names.len().div_ceil(MOST_EXTRA).max(1);
        for name in names.into_iter().step_by(step) {
            if let Some(record) = facts.last(name) {
                runs.add(name, &record);
            }
        }
    }
}

/// Facts that note the last runs of stages which are asked for.
struct Noting<'a> {
    facts: &'a CacheFacts<'a>,
    /// Whether a stage of this experiment ever ran.
    has_heads: bool,
    runs: RefCell<Runs>,
}

impl Facts for Noting<'_> {
    fn result(&self, key: &StageKey) -> Result<Record, NoResult> {
        self.facts.result(key)
    }

    fn remote(&self, key: &StageKey) -> Option<Record> {
        self.facts.remote(key)
    }

    fn last(&self, stage: &StageName) -> Option<Record> {
        let last = self.has_heads.then(|| self.facts.last(stage)).flatten();
        if let Some(record) = &last {
            self.runs.borrow_mut().add(stage, record);
        }
        last
    }

    fn is_forced(&self, stage: &StageName, key: &StageKey) -> bool {
        self.facts.is_forced(stage, key)
    }

    fn outside(&self, stage: &StageName) -> Result<&[OutsideDigest], &Blocked> {
        self.facts.outside(stage)
    }

    fn differences(&self, old: &Digest, new: &Digest) -> Option<Differences> {
        self.facts.differences(old, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_said_where_it_matters() {
        let words = |memory: Option<u64>, gpu: Option<u64>| {
            let of = |bytes: Option<u64>, name: &str| Some((bytes?, name.parse().expect("a name")));
            let largest = [of(memory, "train@rate=1"), of(gpu, "simclr")];
            let (stages, sharing) = (HashMap::new(), HashSet::new());
            TimeLeft { stages, sharing, together: 0.0, largest }.memory_in_words("; ")
        };
        assert_eq!(
            words(Some(2_600_000_000), Some(11_000_000_000)),
            "; at most 2.6 GB of memory (train), 11 GB of a GPU (simclr)"
        );
        assert_eq!(
            words(Some(5_000_000), Some(11_000_000_000)),
            "; at most 11 GB of a GPU (simclr)"
        );
        assert_eq!(words(Some(5_000_000), None), "");
    }
}
