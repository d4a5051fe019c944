//! Words for messages to people.

/// A list in short: its first entries, at most `shown` of them, and how many more there are.
pub fn in_short(entries: &[impl AsRef<str>], shown: usize) -> String {
    if entries.is_empty() {
        return "nothing".to_owned();
    }
    let first: Vec<_> = entries.iter().take(shown).map(AsRef::as_ref).collect();
    let first = first.join(", ");
    match entries.len().saturating_sub(shown) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::in_short;

    #[test]
    fn a_list_is_cut_where_it_gets_long() {
        let none: [&str; 0] = [];
        assert_eq!(in_short(&none, 2), "nothing");
        assert_eq!(in_short(&["a", "b"], 2), "a, b");
        assert_eq!(in_short(&["a", "b", "c", "d"], 2), "a, b and 2 more");
    }
}
