//! Which stages of a plan do the same as another one before them: one of them runs, and the others share its result.
//!
//! Pure, as the plan.

use std::collections::{HashMap, HashSet};

use crate::digest::FieldHasher;
use crate::graph::Graph;
use crate::key::{self, InputResult, StageKey};
use crate::manifest::Manifest;
use crate::plan::{Facts, Plan, PlanState, made};
use crate::stage_name::StageName;

/// The stages that would have the same key as one before them, if both ran. Those that only turn out to read the same
/// content are not among them.
pub(crate) fn alike<'p>(
    plan: &'p Plan,
    manifest: &Manifest,
    graph: &Graph,
    facts: &dyn Facts,
) -> HashSet<&'p StageName> {
    let mut to_come: HashMap<&StageName, InputResult> = HashMap::new();
    let (mut keys, mut alike) = (HashSet::new(), HashSet::new());
    for (name, state) in plan.iter().filter(|(_, state)| state.finished().is_none()) {
        let result_of = |input: &StageName| {
            let finished = plan.state(input).and_then(PlanState::finished).map(made);
            finished.or_else(|| to_come.get(input).copied())
        };
        let key = match (state, manifest.stage(name), facts.outside(name)) {
            (PlanState::Dirty { key, .. }, ..) => *key,
            (PlanState::Waiting { .. }, Some(stage), Ok(outside))
                if graph.inputs(name).into_iter().all(|input| result_of(input).is_some()) =>
            {
                let of = |input: &StageName| result_of(input).unwrap_or(InputResult::Unknown);
                StageKey::of(&key::parts(stage, outside, of))
            }
            _ => continue,
        };
        // In place of the content of its result, which nobody knows yet.
        let digest = FieldHasher::new("pipeline 2026-11 to come").text(&key.to_string()).finish();
        to_come.insert(name, InputResult::Made { key, digest });
        if !keys.insert(key) {
            alike.insert(name);
        }
    }
    alike
}
