//! Mistakes of the instances of a matrix: once for each place in the text, with the first point that has it.
//!
//! Does not know what the mistakes are about.

use std::collections::HashMap;

use super::instance::Instance;
use crate::diagnostic::{Mistake, Span};

/// Which mistakes were reported, and how many others they stand for.
#[derive(Default)]
pub(in crate::manifest) struct Once {
    places: HashMap<(usize, usize), Place>,
}

struct Place {
    /// The instance whose mistakes are shown; `None` if they are reported elsewhere.
    owner: Option<usize>,
    /// Whether nothing more is reported.
    is_closed: bool,
    /// Where they are in the list of mistakes.
    shown: Vec<usize>,
    /// The last of the others that have a mistake here.
    last: Option<usize>,
    /// How many others have one.
    others: usize,
    /// Whether all of them have the same as the owner.
    is_same: bool,
}

impl Place {
    fn of(owner: Option<usize>) -> Self {
        Self { owner, is_closed: false, shown: Vec::new(), last: None, others: 0, is_same: true }
    }
}

impl Once {
    /// Reports nothing more about this place: it is known to be wrong.
    pub(in crate::manifest) fn close(&mut self, span: &Span) {
        let place = self.places.entry((span.start, span.end));
        place.or_insert_with(|| Place::of(None)).is_closed = true;
    }

    /// Adds the mistakes of an instance, except where another one has reported the place.
    pub(in crate::manifest) fn add(
        &mut self,
        instance: usize,
        found: impl IntoIterator<Item = Mistake>,
        mistakes: &mut Vec<Mistake>,
    ) {
        for mistake in found {
            let Some(span) = mistake.span() else {
                mistakes.push(mistake);
                continue;
            };
            let place = self.places.entry((span.start, span.end));
            let place = place.or_insert_with(|| Place::of(Some(instance)));
            if place.is_closed {
                continue;
            }
            if place.owner == Some(instance) {
                place.shown.push(mistakes.len());
                mistakes.push(mistake);
            } else {
                place.others += usize::from(place.last != Some(instance));
                place.last = Some(instance);
                place.is_same &=
                    place.shown.iter().any(|&shown| mistakes[shown].title() == mistake.title());
            }
        }
    }

    /// Names the points of the mistakes that depend on one.
    pub(in crate::manifest) fn finish(
        self,
        instances: &[Instance<'_, '_>],
        mistakes: &mut [Mistake],
    ) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for instance in instances {
            *counts.entry(instance.template).or_default() += 1;
        }
        for place in self.places.into_values() {
            let Some(&first) = place.shown.first() else { continue };
            let Some(instance) = place.owner.and_then(|owner| instances.get(owner)) else {
                continue;
            };
            let Some((_, point)) = instance.name.split_once('@') else { continue };
            let count = counts.get(instance.template).copied().unwrap_or_default();
            if place.is_same && place.others > 0 && place.others + 1 >= count {
                continue;
            }
            let mistake = std::mem::replace(&mut mistakes[first], Mistake::general(""));
            mistakes[first] = mistake.help(at_points(point, place.others));
        }
    }
}

/// `at rate=0.5, and at 2 other points`.
pub(in crate::manifest) fn at_points(first: &str, others: usize) -> String {
    match others {
        0 => format!("at {first}"),
        1 => format!("at {first}, and at 1 other point"),
        others => format!("at {first}, and at {others} other points"),
    }
}
