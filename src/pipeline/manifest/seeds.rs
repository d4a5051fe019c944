//! Seeds that the draws of a stage cannot begin with.

use toml::de::DeTable;

use super::declaration::Stage;
use crate::diagnostic::Mistake;

/// A seed that is too large for a stage, where it is written: in the stage or in the experiment.
pub(super) fn too_large(stage: &Stage, root: &DeTable<'_>) -> Option<Mistake> {
    let (seed, largest) = (stage.seed, stage.stage.largest_seed());
    if seed <= largest {
        return None;
    }
    let experiment =
        root.get("experiment").and_then(|table| table.get_ref().as_table()?.get("seed"));
    let own = stage.places.find("seed", None);
    let span = experiment.filter(|_| !stage.places.has("seed")).map_or(own, |value| value.span());
    let title = format!(
        "the seed {seed} is too large for '{}': the generator of NumPy that draws there takes seeds up to {largest}",
        stage.name
    );
    Some(Mistake::at(span, title).help("a stage can have a seed of its own: seed = 1"))
}
