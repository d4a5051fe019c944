//! The plan of commands that look again and again: made again when something began or ended.

use std::time::{Duration, Instant};

use super::project::Project;
use crate::activity::{Activities, Fingerprint};
use crate::facts::CacheFacts;
use crate::history::Run;
use crate::plan::Plan;
use crate::stage_name::StageName;

/// A plan may take this part of the time, so that thousands of stages that end fast cost little.
const PART: u32 = 10;

/// A plan, and what was known when it was made. The files outside the cache are read once.
pub(super) struct Planner<'a> {
    project: &'a Project,
    needed: Vec<StageName>,
    facts: CacheFacts<'a>,
    pub(super) plan: Plan,
    /// What it was made for.
    seen: Fingerprint,
    /// What there was at the last look.
    last: Fingerprint,
    made: Instant,
    cost: Duration,
}

impl<'a> Planner<'a> {
    pub(super) fn new(project: &'a Project, chosen: &[&StageName]) -> Self {
        let needed = project.with_inputs(chosen);
        let facts = project.facts(&needed);
        let seen = fingerprint(project, &Activities::look(&project.cache));
        let began = Instant::now();
        let plan = Plan::of(&project.manifest, &project.graph, &needed, &facts);
        let made = Instant::now();
        Self { project, needed, facts, plan, last: seen.clone(), seen, made, cost: made - began }
    }

    /// Makes the plan again, if something began or ended since it was made; not too often, unless it `must` be up to date.
    /// Returns whether it did.
    pub(super) fn renew(&mut self, activities: &Activities<'_>, must: bool) -> bool {
        self.last = fingerprint(self.project, activities);
        if self.last == self.seen || !(must || self.made.elapsed() > self.cost * PART) {
            return false;
        }
        let began = Instant::now();
        let Project { manifest, graph, .. } = self.project;
        self.plan = Plan::of(manifest, graph, &self.needed, &self.facts);
        (self.made, self.seen) = (Instant::now(), self.last.clone());
        self.cost = self.made - began;
        true
    }

    /// Whether a run of the experiment was in progress when it was looked at last.
    pub(super) fn has_run(&self) -> bool {
        self.last.has_run()
    }

    /// When the first of these runs began: seconds since 1970, UTC.
    pub(super) fn runs_since(&self) -> Option<u64> {
        let Project { cache, manifest, .. } = self.project;
        let runs =
            self.last.runs().filter_map(|id| Run::read(cache, &manifest.experiment.name, id));
        runs.map(|run| run.header.owner.since).min()
    }
}

fn fingerprint(project: &Project, activities: &Activities<'_>) -> Fingerprint {
    Fingerprint::of(&project.cache, &project.manifest.experiment.name, activities)
}
