//! The names of classes.

use anyhow::ensure;
use pipeline_stages::kinds::Dataset;
use pipeline_stages::text::in_short;

/// The most classes that a message names.
const NAMED: usize = 10;

/// The names of `count` classes: those of the manifest, otherwise those `implied` by the format.
pub(super) fn class_names(
    stage: &Dataset,
    count: usize,
    implied: impl FnOnce() -> Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let Some(classes) = &stage.classes else { return Ok(implied()) };
    ensure!(
        classes.len() == count,
        "'classes' names {} classes, but the data set has {count}",
        classes.len()
    );
    Ok(classes.clone())
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
