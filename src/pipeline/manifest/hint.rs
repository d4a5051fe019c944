//! The name that the user may have meant.

/// The longest text, in bytes, for which a near name is looked for.
const LONGEST_GIVEN: usize = 200;

/// How many names a list has at most; the rest is counted.
const LONGEST_LIST: usize = 40;

/// The candidate that is nearest to `given`, if one is near: a few letters apart (hyphens and
/// underscores count as one), or made of the same initials (`lr` for `learning-rate`).
pub(crate) fn nearest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Nothing is near to a text that is longer than any name.
    if given.len() > LONGEST_GIVEN {
        return None;
    }
    let given = normal(given);
    let length = given.chars().count();
    let distances = candidates.into_iter().map(|candidate| {
        let normal = normal(candidate);
        let other_length = normal.chars().count();
        let farthest = (length.max(other_length) / 3).max(1);
        // The names differ by at least this, and it costs less to know.
        let distance = match length.abs_diff(other_length) {
            least if least > farthest => least,
            _ => strsim::osa_distance(&given, &normal),
        };
        let initials: String = normal.split('-').filter_map(|word| word.chars().next()).collect();
        let near = distance <= farthest && distance < length;
        let rank = match () {
            // The beginning of a name is as near as two letters.
            () if normal.starts_with(&given) && length > 2 => Some(distance.min(2)),
            () if near => Some(distance),
            () if length > 1 && (initials == given || extends(&normal, &given)) => Some(length),
            () => None,
        };
        (rank, candidate)
    });
    let near = distances.filter_map(|(rank, candidate)| Some((rank?, candidate)));
    let similarity = |candidate: &str| strsim::jaro_winkler(given.as_str(), &normal(candidate));
    let nearer = |(rank, one): &(usize, &str), (other_rank, other): &(usize, &str)| {
        rank.cmp(other_rank).then_with(|| similarity(other).total_cmp(&similarity(one)))
    };
    near.min_by(nearer).map(|(_, candidate)| candidate)
}

/// `did you mean 'epochs'?`, if there is a near name.
pub(crate) fn did_you_mean<'a>(
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

/// `a, b and c`. Of a long list, the first names and how many there are beside them.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let names: Vec<_> = names.into_iter().collect();
    if let Some((shown, rest)) =
        names.split_at_checked(LONGEST_LIST).filter(|(_, rest)| rest.len() > 1)
    {
        return format!("{} {last} {} others", shown.join(", "), rest.len());
    }
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
        assert_eq!(nearest("test-acc", ["test-ece", "test-accuracy"]), Some("test-accuracy"));
        assert_eq!(nearest("epoch", []), None);
        assert_eq!(nearest(&"e".repeat(1 << 20), keys), None);
    }

    #[test]
    fn lists_in_words() {
        assert_eq!(listed([], "or"), "");
        assert_eq!(listed(["a"], "or"), "a");
        assert_eq!(listed(["a", "b", "c"], "or"), "a, b or c");
        assert!(listed(["a"; 41], "and").ends_with("a, a and a"));
        assert!(listed(["a"; 42], "and").ends_with("a, a and 2 others"));
    }
}
