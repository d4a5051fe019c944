//! Which log is the newest one of a stage, and whose it is.

use std::collections::HashMap;
use std::path::PathBuf;

use super::output::note;
use super::project::Project;
use crate::history::Run;
use crate::key::StageKey;
use crate::plan::{Plan, PlanState};
use crate::stage_name::StageName;
use crate::state_words::{ShownState, state_reason};

/// The newest runs among which the last one of a key is looked for.
const RUNS: usize = 20;

/// Where the newest log of a stage can be, with the key that it is of, and whether that is one of an earlier run. A stage that failed
/// has a log under its current key; one whose key changed, under its last.
pub(super) fn places(
    project: &Project,
    plan: &Plan,
    name: &StageName,
) -> impl Iterator<Item = (PathBuf, StageKey, bool)> {
    let current = plan.state(name).and_then(PlanState::key);
    let last = project.cache.head(&project.manifest.experiment.name, name.as_str());
    let keys = current.into_iter().chain(last);
    keys.map(move |key| (project.cache.layout().log(&key), key, current != Some(key)))
}

/// Says that the log of a stage is not the one of its current key.
pub(super) fn note_earlier(plan: &Plan, name: &StageName) {
    let Some(state) = plan.state(name) else { return };
    let (state, why) = (ShownState::planned(state).name(), state_reason(state));
    note(&format!("this is the log of an earlier run; '{name}' is {state} now: {why}"));
}

/// Which stage ran last with each key, and when it started: seconds since 1970, UTC. The log of a key is that of its last run.
pub(super) struct LastOfKeys(HashMap<StageKey, (StageName, u64)>);

impl LastOfKeys {
    /// As far as the newest runs of the experiment know it.
    pub(super) fn look(project: &Project) -> Self {
        let experiment = &project.manifest.experiment.name;
        let ids: Vec<String> = project.cache.runs(experiment).unwrap_or_default();
        let runs =
            ids.iter().take(RUNS).rev().filter_map(|id| Run::read(&project.cache, experiment, id));
        let stages = runs.flat_map(|run| run.stages);
        Self(stages.filter_map(|one| Some((one.key?, (one.stage, one.started?)))).collect())
    }

    /// Says whose log this is, where another stage than this one ran last with its key.
    pub(super) fn note_other(&self, project: &Project, name: &StageName, key: &StageKey) {
        let known = self.0.get(key);
        // The log of one that was pulled is where it ran.
        let record = project.cache.record(key).filter(|record| record.made_here);
        let newer = record.filter(|record| known.is_none_or(|(_, since)| record.finished > *since));
        let last = match (newer, known) {
            (Some(record), _) if record.experiment != project.manifest.experiment.name => {
                record.name()
            }
            (Some(record), _) => record.stage,
            (None, Some((stage, _))) => stage.to_string(),
            (None, None) => return,
        };
        if last != name.as_str() {
            note(&format!(
                "this is the log of {last}, which does the same as {name} and was the last of them to run"
            ));
        }
    }
}
