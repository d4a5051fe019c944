//! The matrix: stages with `${axis}` in them, into instances with names of their own.
//!
//! One pass between the document and the stages, which puts `[defaults.KIND]` into them too. Nothing after it
//! knows axes, except as part of a stage's name. Takes time in proportion to the points and the instances.

mod defaults;
mod expansion;
mod instance;
mod once;
mod placeholder;
mod points;
mod reference;
mod templates;

use std::collections::HashMap;

use toml::de::DeTable;

use super::settings::Settings;
use super::values::Value;
use crate::diagnostic::{Mistake, Sources, Span};

pub(super) use expansion::Expanded;
pub(super) use instance::Instance;
pub(super) use once::{Once, at_points};
pub(crate) use points::Placeholders;
pub(super) use points::{Axes, no_axis};

use defaults::{Key, read_defaults, without_matrix};
use expansion::Expansion;
use placeholder::Used;
use templates::{Reader, unused_mistakes};

/// Whether the seed of the experiment depends on the matrix. Then it is one of its stages, and no number here.
pub(super) fn has_seed_template(root: &DeTable<'_>) -> bool {
    seed_template(root).is_some()
}

fn seed_template<'t, 'i>(root: &'t DeTable<'i>) -> Option<(&'t Key<'i>, &'t Value<'i>)> {
    root.get("matrix")?;
    let experiment = root.get("experiment")?.get_ref().as_table()?;
    let (key, value) = experiment.get_key_value("seed")?;
    value.get_ref().as_str().filter(|text| text.contains("${")).map(|_| (key, value))
}

/// The instances of these stages. `None` if a mistake leaves open what they are.
pub(super) fn expand<'t, 'i>(
    root: &'t DeTable<'i>,
    stages: Vec<(&'t str, Span, &'t Value<'i>)>,
    settings: Settings<'_>,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<Expanded<'t, 'i>> {
    let has_matrix = root.contains_key("matrix");
    let defaults = match root.get("defaults") {
        Some(value) => read_defaults(value, has_matrix, mistakes),
        None => HashMap::new(),
    };
    let Some(matrix) = root.get("matrix") else {
        let instances = stages.into_iter().map(|stage| without_matrix(stage, &defaults));
        return Some(Expanded {
            instances: instances.collect(),
            once: Once::default(),
            unused: Vec::new(),
            placeholders: Placeholders::default(),
            axes: None,
        });
    };
    let (axes, points) = points::read(matrix, sources, mistakes)?;
    let mut reader = Reader {
        axes: &axes,
        points: &points,
        defaults: &defaults,
        seed: seed_template(root),
        used: Used::default(),
        mistakes,
    };
    let templates = stages.into_iter();
    let templates: Vec<_> =
        templates.map(|(name, span, value)| reader.template(name, span, value)).collect();
    let mut used = reader.used;
    // What the command line replaces may have been the only use.
    settings.replaced.iter().for_each(|value| used.add(value, &axes));
    // What a text that is wrong was meant to use is not known.
    if used.wrong.is_empty() && settings.part.is_none() {
        unused_mistakes(&axes, &templates, &used, mistakes);
    }
    let mut once = Once::default();
    used.wrong.iter().for_each(|span| once.close(span));
    let expansion = Expansion::new(axes, points, templates);
    let sets = expansion.resolve().map_err(|cycle| mistakes.push(cycle)).ok()?;
    expansion.build(&sets, once, mistakes)
}
