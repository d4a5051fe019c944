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
    near.min_by_key(|(rank, _)| *rank).map(|(_, candidate)| candidate)
}

/// `did you mean 'epochs'?`, if there is a near name.
pub(super) fn did_you_mean<'a>(
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
