//! The names of classes.

use std::collections::HashSet;

use anyhow::ensure;
use pipeline_stages::kinds::Dataset;
use pipeline_stages::text::{in_short, shortened};

/// The most classes that a message names.
const NAMED: usize = 10;

/// The names of `count` classes: those of the manifest, otherwise those `implied` by the format.
pub(super) fn class_names(
    stage: &Dataset,
    count: usize,
    implied: impl FnOnce() -> Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let Some(classes) = &stage.classes else { return distinct(implied()) };
    ensure!(
        classes.len() == count,
        "'classes' names {} classes, but the data set has {count}",
        classes.len()
    );
    Ok(classes.clone())
}

/// The same names, of which no two can be taken for one another: those of the manifest are checked with it.
///
/// # Errors
/// When two are the same, or one is empty.
pub(super) fn distinct(names: Vec<String>) -> anyhow::Result<Vec<String>> {
    let mut seen = HashSet::new();
    for name in &names {
        ensure!(!name.is_empty(), "the data set has a class without a name: name all in 'classes'");
        ensure!(
            seen.insert(name),
            "the data set has two classes with the name '{}': name all in 'classes'",
            shortened(name)
        );
    }
    Ok(names)
}

/// The message for a name that is not a class, with the nearest one as a hint.
pub(crate) fn no_such_class(name: &str, classes: &[String]) -> String {
    let distance =
        |class: &&String| strsim::damerau_levenshtein(&class.to_lowercase(), &name.to_lowercase());
    let nearest = classes.iter().min_by_key(distance);
    match nearest.filter(|class| distance(class) <= 1 + name.chars().count() / 3) {
        Some(nearest) => format!("the class '{name}' does not exist; did you mean '{nearest}'?"),
        None => format!(
            "the class '{name}' does not exist; the classes are {}",
            in_short(classes, NAMED)
        ),
    }
}
