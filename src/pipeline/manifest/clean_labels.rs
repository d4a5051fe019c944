//! Which stages follow from labels that are known to be right: tables mark their results, as those of methods with and without
//! such labels cannot be compared.

use foldhash::HashMap;
use pipeline_stages::KindConfig;
use pipeline_stages::clean_labels::CleanLabels;
use pipeline_stages::known::{Known, KnownInputs};

use super::declaration::Stage;
use crate::graph::Graph;
use crate::stage_name::StageName;

/// Marks each stage that learns from such labels or reads what does, and says so to those that take all instances of a stage.
pub(super) fn mark(stages: &mut [Stage], graph: &Graph) {
    if !stages.iter().any(|stage| can_use(&stage.stage)) {
        return;
    }
    let names = stages.iter().map(|stage| stage.name.clone());
    let places: HashMap<StageName, usize> =
        names.enumerate().map(|(place, name)| (name, place)).collect();
    let mut found = vec![(Known::default(), CleanLabels::Unused); stages.len()];
    for place in graph.order().filter_map(|name| places.get(name).copied()) {
        let declaration = &mut stages[place];
        let Stage { stage, inputs, uses_clean_labels, .. } = declaration;
        let before = |from: &StageName| {
            places.get(from).map_or_else(Default::default, |&at: &usize| found[at].clone())
        };
        let connections =
            || inputs.iter().flat_map(|(port, all)| all.iter().map(move |one| (port, one)));
        let known =
            connections().map(|(port, connection)| (port.clone(), before(&connection.from).0));
        let known = KnownInputs::new(known);
        let of_inputs =
            connections().map(|(port, connection)| (port.as_str(), before(&connection.from).1));
        let instances = connections().filter(|(_, connection)| connection.among_all);
        let instances = instances.map(|(_, one)| (one.point(), before(&one.from).1));
        stage.mark_clean_labels(&instances.collect::<Vec<_>>());
        let used = stage.clean_labels(&known, of_inputs);
        *uses_clean_labels = used == CleanLabels::Decide;
        found[place] = (declaration.knows(&known), used);
    }
}

/// Whether a stage can use clean labels, whatever its inputs are.
fn can_use(stage: &KindConfig) -> bool {
    matches!(stage, KindConfig::Learn(_))
        || stage.clean_labels(&KnownInputs::default(), []) > CleanLabels::Unused
}
