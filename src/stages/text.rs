//! Words for messages to people, and fields of tables.

use std::borrow::Cow;
use std::collections::HashSet;

/// A list in short: its first entries, at most `shown` of them, and how many more there are.
pub fn in_short(entries: impl IntoIterator<Item = impl AsRef<str>>, shown: usize) -> String {
    let mut entries = entries.into_iter();
    let first: Vec<_> = entries.by_ref().take(shown).map(|it| it.as_ref().to_owned()).collect();
    let words = first.join(", ");
    match entries.count() {
        0 if first.is_empty() => "nothing".to_owned(),
        0 => words,
        more => format!("{words} and {more} more"),
    }
}

/// The message for a name that is not a class, with the nearest one as a hint.
pub fn no_such_class(name: &str, classes: &[String]) -> String {
    const SHOWN: usize = 10;
    let distance =
        |class: &&String| strsim::damerau_levenshtein(&class.to_lowercase(), &name.to_lowercase());
    let nearest = classes.iter().min_by_key(distance);
    match nearest.filter(|class| distance(class) <= 1 + name.chars().count() / 3) {
        Some(nearest) => format!("the class '{name}' does not exist; did you mean '{nearest}'?"),
        None => format!(
            "the class '{name}' does not exist; the classes are {}",
            in_short(classes, SHOWN)
        ),
    }
}

/// What is wrong with names of classes, of which no two may be taken for one another: one is empty, or two are the same.
pub fn indistinct_classes(classes: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let problem = |class: &String| match class.as_str() {
        "" => Some("a class has no name".to_owned()),
        name if !seen.insert(name.to_owned()) => {
            Some(format!("two classes have the name '{}'", shortened(name)))
        }
        _ => None,
    };
    classes.iter().filter_map(problem).collect()
}

/// The start of a text, its control characters escaped: the content of a damaged file must not fill a message.
pub fn shortened(text: &str) -> String {
    const SHOWN: usize = 100;
    let is_plain = |letter: char| matches!(letter, '"' | '\'' | '\\');
    let escaped = text.split_inclusive(is_plain).flat_map(|part| {
        let start = part.trim_end_matches(is_plain);
        start.escape_debug().chain(part[start.len()..].chars())
    });
    escaped.take(SHOWN).collect()
}

/// A text as a field of a CSV file (RFC 4180): in quotes where it must be.
pub fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{csv_field, in_short, shortened};

    #[test]
    fn a_field_is_quoted_where_it_must_be() {
        for (text, field) in
            [("a b", "a b"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("a\nb", "\"a\nb\"")]
        {
            assert_eq!(csv_field(text), field);
        }
    }

    #[test]
    fn a_list_is_cut_where_it_gets_long() {
        let none: [&str; 0] = [];
        assert_eq!(in_short(none, 2), "nothing");
        assert_eq!(in_short(["a", "b"], 2), "a, b");
        assert_eq!(in_short(["a", "b", "c", "d"], 2), "a, b and 2 more");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(shortened("a\n"), "a\\n");
        assert_eq!(shortened("'a', \"b\": \u{7}\\"), "'a', \"b\": \\u{7}\\");
        assert_eq!(shortened(&"a".repeat(1_000)), "a".repeat(100));
    }
}
