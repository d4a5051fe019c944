//! The names of classes.

use anyhow::ensure;
use pipeline_stages::kinds::Dataset;

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
