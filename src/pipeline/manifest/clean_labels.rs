//! Which stages follow from labels that are known to be right: tables mark their results, as those of methods with and without
//! such labels cannot be compared.

use std::collections::HashMap;

use super::{Connection, Stage};
use crate::graph::Graph;
use crate::stage_name::StageName;

/// Marks each stage that learns from such labels or reads what does, and says so to those that take all instances of a stage.
pub(super) fn mark(stages: &mut [Stage], graph: &Graph) {
    if !stages.iter().any(|stage| stage.stage.uses_clean_labels()) {
        return;
    }
    let names = stages.iter().map(|stage| stage.name.clone());
    let places: HashMap<StageName, usize> =
        names.enumerate().map(|(place, name)| (name, place)).collect();
    for place in graph.order().filter_map(|name| places.get(name).copied()) {
        let stage = &stages[place];
        let is_marked =
            |from: &StageName| places.get(from).is_some_and(|&from| stages[from].uses_clean_labels);
        let connections = stage.connections().map(|(_, connection)| connection);
        let (marked, others): (Vec<_>, Vec<_>) =
            connections.partition(|connection| is_marked(&connection.from));
        let uses = stage.stage.uses_clean_labels() || !marked.is_empty();
        let points = |connections: &[&Connection]| -> Vec<_> {
            let among_all = connections.iter().filter(|connection| connection.among_all);
            among_all.map(|connection| connection.point()).collect()
        };
        let (marked, others) = (points(&marked), points(&others));
        stages[place].uses_clean_labels = uses;
        stages[place].stage.mark_clean_labels(&marked, &others);
    }
}
