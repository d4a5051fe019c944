//! The names of classes, and those that nothing can learn.

use std::collections::HashSet;

use anyhow::{bail, ensure};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::text::{in_short, indistinct_classes};

/// The most classes that a note names.
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
    match indistinct_classes(&names).first() {
        Some(problem) => bail!("of the data set, {problem}: name all in 'classes'"),
        None => Ok(names),
    }
}

/// What to note where no training sample is of some class, given the labels of both parts.
pub(super) fn untrained_in_words(
    classes: &[String],
    train: &[i64],
    test: &[i64],
) -> Option<String> {
    let [train, test] = [train, test].map(|labels| labels.iter().collect::<HashSet<_>>());
    let untrained = (0..).zip(classes).filter(|(label, _)| !train.contains(label));
    let (labels, names): (Vec<i64>, Vec<String>) =
        untrained.map(|(label, name)| (label, format!("'{name}'"))).unzip();
    if names.is_empty() {
        return None;
    }
    let tested = labels.iter().zip(&names).filter(|(label, _)| test.contains(label));
    let tested: Vec<_> = tested.map(|(_, name)| name).collect();
    let tests = match tested.as_slice() {
        [] => String::new(),
        tested => format!("; the test part has samples of {}", in_short(tested, NAMED)),
    };
    Some(format!(
        "no training samples of {} of the {} classes: {}; noise over all classes draws them, too{tests}",
        names.len(),
        classes.len(),
        in_short(&names, NAMED)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_without_training_samples_are_named() {
        let classes = ["a", "b", "c"].map(str::to_owned);
        let noted = |train: &[i64], test: &[i64]| untrained_in_words(&classes, train, test);
        assert_eq!(noted(&[2, 0, 1, 1], &[0]), None);
        let start = "no training samples of 2 of the 3 classes: 'a', 'c'; noise over all classes draws them, too";
        assert_eq!(noted(&[1, 1], &[1]).as_deref(), Some(start));
        let tested = format!("{start}; the test part has samples of 'c'");
        assert_eq!(noted(&[1, 1], &[1, 2]), Some(tested));
    }
}
