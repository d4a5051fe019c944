//! What pictures have of a plan: nodes, each for a stage, one of its instances or many of them, and the edges between them.

use std::collections::{HashMap, HashSet};

use crate::instances::{self, Row};
use crate::manifest::Manifest;
use crate::plan::{Plan, PlanState};
use crate::state_words::ShownState;

/// Nodes, and the edges between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawing<'p> {
    /// Each after what it reads, but for instances of one stage that read each other.
    pub(crate) nodes: Vec<Node<'p>>,
    /// From which node to which one, and the port there; each once.
    pub(crate) edges: Vec<(usize, usize, &'p str)>,
}

/// A stage, one of its instances, or all of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'p> {
    pub(crate) name: &'p str,
    pub(crate) kind: &'static str,
    /// How many instances are in which state, where there are many.
    pub(crate) counts: Option<String>,
    /// The state that they have together.
    pub(crate) state: ShownState,
    /// The state of each.
    pub(crate) states: Vec<ShownState>,
}

impl<'p> Drawing<'p> {
    /// The stages of a plan, as `shown` sees them. A stage with more than `most` instances is one node.
    pub(crate) fn of(
        manifest: &'p Manifest,
        plan: &'p Plan,
        most: usize,
        shown: impl Fn(&PlanState) -> ShownState,
    ) -> Self {
        let (mut nodes, mut places) = (Vec::new(), HashMap::new());
        for row in instances::rows(plan.iter(), most) {
            let (name, is_many, instances) = match row {
                Row::One(name, state) => (name.as_str(), false, vec![(name, state)]),
                Row::Many(template, instances) => (template, true, instances),
            };
            let states: Vec<_> = instances.iter().map(|(_, state)| shown(state)).collect();
            let counts = is_many.then(|| ShownState::in_words(states.iter().copied()));
            // Together, they have the state of the one that matters most.
            let Some(&state) = states.iter().max() else { continue };
            let stage = instances.first().and_then(|(name, _)| manifest.stage(name));
            let kind = stage.map_or("", |stage| stage.stage.info().name);
            places.extend(instances.iter().map(|(name, _)| (*name, nodes.len())));
            nodes.push(Node { name, kind, counts, state, states });
        }
        let (mut edges, mut seen) = (Vec::new(), HashSet::new());
        for stage in &manifest.stages {
            for (port, connection) in stage.connections() {
                let (Some(&from), Some(&to)) =
                    (places.get(&connection.from), places.get(&stage.name))
                else {
                    continue;
                };
                let edge = (from, to, connection.name.as_deref().unwrap_or(port));
                if seen.insert(edge) {
                    edges.push(edge);
                }
            }
        }
        Self { nodes, edges }
    }
}
