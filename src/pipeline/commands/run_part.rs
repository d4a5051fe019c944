//! A run of which an index knows that most stages are fresh: only the others are read, planned and run.

use std::collections::{HashMap, HashSet};

use super::project::{Located, Project};
use crate::cache::{Cache, KnownResult};
use crate::events::RunEvent;
use crate::execute::Summary;
use crate::plan_index::{AffectedStages, IndexedStage, PlanIndex};
use crate::progress::Reporter;
use crate::stage_name::StageName;

/// The stages that an index vouches for, and the part that it does not.
pub(super) struct PartialRun {
    pub(super) index: PlanIndex,
    pub(super) part: AffectedStages,
}

/// The part of a manifest that may have to run. `None` where it cannot be read alone.
pub(super) fn read_part(
    located: &Located<'_>,
    index: &PlanIndex,
    part: &AffectedStages,
) -> Option<Project> {
    let selected: Vec<&StageName> = index.part_of(part, true).map(|stage| &stage.name).collect();
    let templates = selected.iter().map(|name| name.template()).collect();
    let project = located.read_part(&templates)?;
    let has: HashSet<&StageName> = selected.iter().copied().collect();
    let is_whole = |name: &&StageName| {
        project.manifest.stage(name).is_some()
            && project.graph.inputs(name).iter().all(|input| has.contains(input))
    };
    // It may have been changed since the index was compared with it.
    let is_read = selected.iter().all(is_whole) && index.is_of(&project.manifest);
    is_read.then_some(project)
}

impl PartialRun {
    /// The stages of the part, each after its inputs.
    pub(super) fn selected(&self) -> Vec<StageName> {
        self.stages(true).map(|stage| stage.name.clone()).collect()
    }

    fn stages(&self, in_part: bool) -> impl Iterator<Item = &IndexedStage> {
        self.index.part_of(&self.part, in_part)
    }

    /// The end of the run as one of all stages.
    pub(super) fn whole(&self, part: Summary) -> Summary {
        let mut ended: HashMap<_, _> = part.stages.into_iter().collect();
        let stages = self.index.stages.iter().map(|stage| {
            let outcome = ended.remove(&stage.name).unwrap_or_else(|| stage.fresh());
            (stage.name.clone(), outcome)
        });
        Summary { stages: stages.collect(), ..part }
    }

    /// Whether one of the other stages read what has another content now, or does not have its result any more: an artifact was
    /// damaged, and made again.
    pub(super) fn is_outdated(&self, cache: &Cache, results: &[(StageName, KnownResult)]) -> bool {
        let now: HashMap<_, _> =
            results.iter().map(|(name, result)| (name, result.output.digest)).collect();
        let is_other = |input: &usize| {
            let input = &self.index.stages[*input];
            now.get(&input.name).is_some_and(|digest| *digest != input.digest)
        };
        let others = (0..self.index.stages.len()).filter(|&place| !self.part.has(place));
        self.stages(false).any(|stage| stage.inputs.iter().any(is_other))
            || self.index.lacks(cache, others)
    }
}

/// Reports the ends of stages that an index vouches for.
pub(super) fn report_fresh<'s>(
    stages: impl Iterator<Item = &'s IndexedStage>,
    reporter: &mut dyn Reporter,
) {
    for stage in stages {
        reporter.event(&RunEvent::End {
            stage: stage.name.clone(),
            key: Some(stage.key),
            is_news: false,
            ran_on: None,
            outcome: stage.fresh(),
        });
    }
}

/// Shows the run of a part as one of all stages.
pub(super) struct Whole<'r> {
    pub(super) run: Option<&'r PartialRun>,
    pub(super) reporter: &'r mut dyn Reporter,
}

impl Reporter for Whole<'_> {
    fn event(&mut self, event: &RunEvent) {
        match (event, self.run) {
            (RunEvent::Begin { experiment, .. }, Some(run)) => {
                let (experiment, stages) = (experiment.clone(), run.index.stages.len());
                self.reporter.event(&RunEvent::Begin { experiment, stages });
                report_fresh(run.stages(false), self.reporter);
            }
            _ => self.reporter.event(event),
        }
    }

    fn tick(&mut self) {
        self.reporter.tick();
    }
}
