//! The instances of one stage, together: where they are many, a table has one line for all of them.

use foldhash::{HashMap, HashMapExt};

use crate::stage_name::StageName;

/// The most instances of a stage that have a line each in a table.
pub(crate) const MOST_INSTANCES: usize = 5;

/// The most instances of a stage that are named in one line.
pub(crate) const MOST_NAMES: usize = 3;

/// How many instances of a stage have a line each: any number of them if `all` are asked for.
pub(crate) fn most(all: bool) -> usize {
    if all { usize::MAX } else { MOST_INSTANCES }
}

/// What has a line in a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Row<'a, T> {
    /// A stage, or one of its few instances.
    One(&'a StageName, T),
    /// The name of a stage in the manifest, and its many instances.
    Many(&'a str, Vec<(&'a StageName, T)>),
}

/// The lines of these stages, in their order. A stage of more than `most` instances has one line, where its first one is.
pub(crate) fn rows<'a, T>(
    stages: impl IntoIterator<Item = (&'a StageName, T)>,
    most: usize,
) -> Vec<Row<'a, T>> {
    let stages: Vec<_> = stages.into_iter().collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (name, _) in &stages {
        *counts.entry(name.template()).or_default() += 1;
    }
    let mut rows = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (name, what) in stages {
        let template = name.template();
        if counts.get(template).is_none_or(|count| *count <= most) {
            rows.push(Row::One(name, what));
            continue;
        }
        let place = *places.entry(template).or_insert(rows.len());
        match rows.get_mut(place) {
            Some(Row::Many(_, instances)) => instances.push((name, what)),
            _ => rows.push(Row::Many(template, vec![(name, what)])),
        }
    }
    rows
}

/// Names in a line; of a stage with many of them, how many: `data, 140 of train`.
pub(crate) fn names_in_words<'a>(names: impl IntoIterator<Item = &'a StageName>) -> String {
    let rows = rows(names.into_iter().map(|name| (name, ())), MOST_NAMES);
    let texts = rows.into_iter().map(|row| match row {
        Row::One(name, ()) => name.to_string(),
        Row::Many(template, instances) => format!("{} of {template}", instances.len()),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// How many instances of a stage are how, in one line: `140: 3 fresh, 97 to run, 40 waiting`.
pub(crate) fn instances_in_words<const N: usize>(counts: [(usize, &str); N]) -> String {
    let all: usize = counts.iter().map(|(count, _)| count).sum();
    let parts = counts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    format!("{all}: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<StageName> {
        texts.iter().map(|text| text.parse().expect("a name")).collect()
    }

    #[test]
    fn many_instances_have_one_line_where_the_first_one_is() {
        let stages = names(&["a@x=1", "b", "a@x=2", "c@x=1", "a@x=3", "c@x=2"]);
        let numbered = stages.iter().zip(0..);
        let lines = rows(numbered, 2).into_iter().map(|row| match row {
            Row::One(name, number) => format!("{name} {number}"),
            Row::Many(template, instances) => {
                let numbers: Vec<String> =
                    instances.iter().map(|(_, number)| number.to_string()).collect();
                format!("{template}: {}", numbers.join(" "))
            }
        });
        let lines: Vec<String> = lines.collect();
        assert_eq!(lines, ["a: 0 2 4", "b 1", "c@x=1 3", "c@x=2 5"]);
    }

    #[test]
    fn names_of_many_instances_are_counted() {
        let mut stages = names(&["data"]);
        stages.extend((0..6).map(|x| format!("train@x={x}").parse().expect("a name")));
        stages.extend(names(&["evaluate@x=1", "evaluate@x=2"]));
        assert_eq!(names_in_words(&stages), "data, 6 of train, evaluate@x=1, evaluate@x=2");
        assert_eq!(names_in_words(&[]), "");
    }

    #[test]
    fn only_states_that_occur_are_counted() {
        let counts = [(3, "fresh"), (0, "to run"), (2, "waiting")];
        assert_eq!(instances_in_words(counts), "5: 3 fresh, 2 waiting");
    }
}
