//! Which log is the newest one of a stage.

use std::path::PathBuf;

use super::{Project, note};
use crate::key::StageKey;
use crate::plan::{Plan, PlanState};
use crate::stage_name::StageName;
use crate::state_words::{ShownState, state_reason};

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
