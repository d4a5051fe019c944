//! Mistakes that may only follow from others: which points a stage takes depends on every stage before it, so a misspelt
//! port there would be reported again here, as an axis that does not exist. So would the name of a stage that does not exist, or is not
//! the one that was meant.

use std::collections::{HashMap, HashSet};

use pipeline_stages::PortShape;

use super::stage::Draft;
use crate::diagnostic::Mistake;

/// The mistakes about points, each with the place of its stage, but for those of stages behind one that is wrong, or that name a wrong one.
pub(super) fn about_points(
    drafts: &mut [Draft<'_>],
    mistakes: &[Mistake],
) -> Vec<(usize, Vec<Mistake>)> {
    if drafts.iter().all(|draft| draft.about_points.is_empty()) {
        return Vec::new();
    }
    let wrong = wrong_stages(drafts, mistakes);
    let mut inputs: HashMap<&str, HashSet<&str>> = HashMap::new();
    for draft in drafts.iter() {
        let named = draft.wires.iter().map(|wire| stage_of(wire.text));
        inputs.entry(draft.template).or_default().extend(named);
    }
    let is_behind_one = |draft: &Draft<'_>| {
        let mut seen = HashSet::from([draft.template]);
        let mut next = vec![draft.template];
        while let Some(stage) = next.pop() {
            let before = inputs.get(stage).into_iter().flatten().copied();
            next.extend(before.filter(|before| seen.insert(before)));
        }
        seen.remove(draft.template);
        seen.iter().any(|stage| wrong.contains(stage))
    };
    let places: HashSet<_> = mistakes.iter().filter_map(Mistake::span).collect();
    let names_wrong = |draft: &Draft<'_>| {
        let mut wires = draft.wires.iter().filter(|wire| wire.port.shape == PortShape::Instances);
        wires.any(|wire| places.contains(&wire.span))
    };
    let is_kept = |draft: &Draft<'_>| {
        !draft.about_points.is_empty() && !names_wrong(draft) && !is_behind_one(draft)
    };
    let kept: Vec<bool> = drafts.iter().map(is_kept).collect();
    let kept = drafts.iter_mut().enumerate().zip(kept).filter(|(_, kept)| *kept);
    kept.map(|((place, draft), _)| (place, std::mem::take(&mut draft.about_points))).collect()
}

/// The stages, as they are written, that have a mistake: the last one that begins before it.
fn wrong_stages<'t>(drafts: &[Draft<'t>], mistakes: &[Mistake]) -> HashSet<&'t str> {
    let mut starts: Vec<_> =
        drafts.iter().map(|draft| (draft.span.start, draft.template)).collect();
    starts.sort_unstable();
    let wrong = mistakes.iter().filter_map(|mistake| {
        let place = mistake.span()?.start;
        let after = starts.partition_point(|(start, _)| *start <= place);
        Some(starts[after.checked_sub(1)?].1)
    });
    wrong.collect()
}

/// The stage that the text at a port names.
fn stage_of(text: &str) -> &str {
    text.split('@').next().unwrap_or(text)
}
