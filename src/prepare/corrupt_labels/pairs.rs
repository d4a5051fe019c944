//! Which class is mistaken for which under asymmetric noise, as labels.
//!
//! CIFAR-10 and CIFAR-100 have built-in pairs and are recognised by their class names; other data sets set theirs.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use pipeline_stages::cifar_classes::{CIFAR100_SUPERCLASSES, are_of_cifar10, are_of_cifar100};
use pipeline_stages::text::no_such_class;

/// CIFAR-10's, from Patrini et al., "Making Deep Neural Networks Robust to Label Noise" (CVPR 2017).
const CIFAR10_PAIRS: [(&str, &str); 5] = [
    ("truck", "automobile"),
    ("bird", "airplane"),
    ("cat", "dog"),
    ("dog", "cat"),
    ("deer", "horse"),
];

/// The pairs of a data set with these classes: the given ones, or the built-in ones.
///
/// # Errors
/// When a given name is not one of the classes, or this data set has no pairs.
pub(super) fn asymmetric_pairs(
    classes: &[String],
    given: &BTreeMap<String, String>,
) -> anyhow::Result<Vec<(usize, usize)>> {
    if !given.is_empty() {
        let names = given.iter().map(|(source, target)| (source.as_str(), target.as_str()));
        return labels_of_pairs(classes, names).context("in 'pairs'");
    }
    if are_of_cifar10(classes) {
        return labels_of_pairs(classes, CIFAR10_PAIRS.into_iter());
    }
    if are_of_cifar100(classes) {
        return labels_of_pairs(classes, cifar100_pairs());
    }
    bail!(
        "noise = \"asymmetric\" has pairs for CIFAR-10 and CIFAR-100 only, recognised by their class names; \
         for this data set, set which class is mistaken for which, such as pairs = {{ \"{}\" = \"{}\" }}",
        classes.first().map_or("cat", String::as_str),
        classes.get(1).map_or("dog", String::as_str),
    )
}

/// Each class is mistaken for the next, the last for the first.
pub(super) fn next_classes(classes: usize) -> Vec<(usize, usize)> {
    (0..classes).map(|class| (class, (class + 1) % classes)).collect()
}

/// Each class is mistaken for the next of its superclass, in alphabetical order, the last for the first.
fn cifar100_pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    CIFAR100_SUPERCLASSES.iter().flat_map(|(_, members)| {
        let next = members.iter().cycle().skip(1);
        members.iter().copied().zip(next.copied())
    })
}

fn labels_of_pairs<'name>(
    classes: &[String],
    pairs: impl Iterator<Item = (&'name str, &'name str)>,
) -> anyhow::Result<Vec<(usize, usize)>> {
    pairs
        .map(|(source, target)| Ok((label_of(classes, source)?, label_of(classes, target)?)))
        .collect()
}

/// The label of a class.
///
/// # Errors
/// When no class has the name, with the nearest one.
pub(super) fn label_of(classes: &[String], name: &str) -> anyhow::Result<usize> {
    classes.iter().position(|class| class == name).with_context(|| no_such_class(name, classes))
}

#[cfg(test)]
mod tests {
    use pipeline_stages::cifar_classes::{CIFAR10_CLASSES, cifar100_classes};

    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn named(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(source, target)| (source.to_owned(), target.to_owned())).collect()
    }

    #[test]
    fn cifar10_has_built_in_pairs() {
        let mut pairs = asymmetric_pairs(&owned(&CIFAR10_CLASSES), &BTreeMap::new()).unwrap();
        pairs.sort_unstable();
        assert_eq!(pairs, [(2, 0), (3, 5), (4, 7), (5, 3), (9, 1)]);
    }

    #[test]
    fn cifar100_rotates_each_superclass() {
        let classes = owned(&cifar100_classes());
        let pairs = asymmetric_pairs(&classes, &BTreeMap::new()).unwrap();
        assert_eq!(pairs.len(), 100);
        let label = |name| classes.iter().position(|class| class == name).unwrap();
        let target = |name| pairs.iter().find(|(source, _)| *source == label(name)).unwrap().1;
        assert_eq!(target("beaver"), label("dolphin"));
        assert_eq!(target("whale"), label("beaver"));
        assert_eq!(target("tractor"), label("lawn_mower"));
        let mut targets: Vec<_> = pairs.iter().map(|pair| pair.1).collect();
        targets.sort_unstable();
        assert_eq!(targets, (0..100).collect::<Vec<_>>(), "each class is the target of one other");
    }

    #[test]
    fn names_are_checked_with_the_nearest_as_a_hint() {
        let classes = owned(&["Trouser", "Sneaker", "Ankle boot"]);
        let pairs = named(&[("Sneaker", "Ankle boot")]);
        assert_eq!(asymmetric_pairs(&classes, &pairs).unwrap(), [(1, 2)]);
        let error = asymmetric_pairs(&classes, &named(&[("Sneaker", "ankle-boot")])).unwrap_err();
        assert!(format!("{error:#}").contains("did you mean 'Ankle boot'?"), "{error:#}");
    }

    #[test]
    fn another_data_set_must_set_its_pairs() {
        let error = asymmetric_pairs(&owned(&["Trouser", "Bag"]), &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("pairs = { \"Trouser\" = \"Bag\" }"), "{error}");
    }
}
