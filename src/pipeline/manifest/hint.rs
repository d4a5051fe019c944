//! The name that somebody may have meant.

/// The candidate that is nearest to `given`, if one is near: a few letters apart (hyphens and
/// underscores count as one), or made of the same initials (`lr` for `learning-rate`).
pub(super) fn nearest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = normal(given);
    let length = given.chars().count();
    let distances = candidates.into_iter().map(|candidate| {
        let normal = normal(candidate);
        let distance = strsim::osa_distance(&given, &normal);
        let initials: String = normal.split('-').filter_map(|word| word.chars().next()).collect();
        let near = distance <= (length.max(normal.chars().count()) / 3).max(1) && distance < length;
        let rank = match () {
            () if near => Some(distance),
            () if length > 1 && (initials == given || extends(&normal, &given)) => Some(length),
            () => None,
        };
        (rank, candidate)
    });
    let near = distances.filter_map(|(rank, candidate)| Some((rank?, candidate)));
    let likeness = |candidate: &str| strsim::jaro_winkler(given.as_str(), &normal(candidate));
    let nearer = |(rank, one): &(usize, &str), (other_rank, other): &(usize, &str)| {
        rank.cmp(other_rank).then_with(|| likeness(other).total_cmp(&likeness(one)))
    };
    near.min_by(nearer).map(|(_, candidate)| candidate)
}

/// `did you mean 'epochs'?`, if there is a near name.
pub fn did_you_mean<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(given, candidates).map(|name| format!("did you mean '{name}'?"))
}

fn normal(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// Whether one is the other with more at its end or start: `batch` and `batch-size`, `simclr` and `pretrain-simclr`.
fn extends(one: &str, other: &str) -> bool {
    let extends = |long: &str, short: &str| {
        short.len() >= 3 && (long.starts_with(short) || long.ends_with(short))
    };
    extends(one, other) || extends(other, one)
}

/// `a, b and c`.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let names: Vec<_> = names.into_iter().collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [all @ .., end] => format!("{} {last} {end}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        let keys =
            ["epochs", "batch-size", "learning-rate", "weight-decay", "kind", "data", "q", "init"];
        let table = [
            ("epoch", Some("epochs")),
            ("EPOCHS", Some("epochs")),
            ("epcohs", Some("epochs")),
            ("batch_size", Some("batch-size")),
            ("batch", Some("batch-size")),
            ("bs", Some("batch-size")),
            ("lr", Some("learning-rate")),
            ("rate", Some("learning-rate")),
            ("wd", Some("weight-decay")),
            ("date", Some("data")),
            ("xyzzy", None),
            ("x", None),
            ("", None),
            ("größe", None),
        ];
        for (given, expected) in table {
            assert_eq!(nearest(given, keys), expected, "{given:?}");
        }
        assert_eq!(nearest("epoch", []), None);
    }

    #[test]
    fn lists_in_words() {
        assert_eq!(listed([], "or"), "");
        assert_eq!(listed(["a"], "or"), "a");
        assert_eq!(listed(["a", "b", "c"], "or"), "a, b or c");
    }
}
