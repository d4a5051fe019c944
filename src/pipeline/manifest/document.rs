//! The text of a manifest, and what `--set` says, as one tree with spans.
//!
//! Knows TOML, but not what a manifest has to have.

use toml::de::DeTable;

use super::overrides::Override;
use crate::diagnostic::{Mistake, Sources, Span};

/// A manifest as a tree.
pub(super) struct Document<'i> {
    /// The tree, with the overrides in it.
    pub(super) root: DeTable<'i>,
    /// Where a value is no TOML: what stands there in the tree is a guess.
    broken: Vec<Span>,
}

impl Document<'_> {
    /// Whether the mistake is about something that the tree only guesses.
    pub(super) fn is_guess(&self, mistake: &Mistake) -> bool {
        let Some(span) = mistake.span() else { return false };
        self.broken.iter().any(|broken| span.start <= broken.end && broken.start <= span.end)
    }
}

/// The tree of `text` with `overrides` put into it. `None` if too much of the text is no TOML.
pub(super) fn parse<'i>(
    text: &'i str,
    overrides: &'i [Override],
    sources: &mut Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<Document<'i>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut root = root.into_inner();
    // After any other error parts of the tree are missing, and what is said about the rest would be wrong.
    let whole = errors.iter().all(|error| is_duplicate(error) || is_of_one_value(error));
    let broken = broken_places(&errors, text);
    mistakes.extend(errors.iter().filter_map(|error| syntax_mistake(error, text, &broken)));
    for given in overrides {
        let start = given.add_to(sources);
        if whole {
            mistakes.extend(given.apply(&mut root, start).err());
        }
    }
    whole.then_some(Document { root, broken })
}

/// Where the tree only guesses: values that are no TOML, and tables that are there twice, as the second
/// one's keys are then put into the first.
fn broken_places(errors: &[toml::de::Error], text: &str) -> Vec<Span> {
    let place = |error: &toml::de::Error| {
        let span = error.span()?;
        if is_of_one_value(error) {
            return Some(span);
        }
        let line = text.get(..span.start)?.rfind('\n').map_or(0, |end| end + 1);
        let is_header = is_duplicate(error) && text.get(line..)?.trim_start().starts_with('[');
        let length = || text.get(span.end..).and_then(|rest| rest.find("\n["));
        is_header.then(|| span.end..length().map_or(text.len(), |length| span.end + length))
    };
    errors.iter().filter_map(place).collect()
}

/// Whether the error is a key that is there twice. It leaves the tree whole.
fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

/// Whether the error is within one value, so that the rest of the tree is whole.
fn is_of_one_value(error: &toml::de::Error) -> bool {
    let starts =
        ["string values must be quoted", "invalid boolean", "invalid float", "invalid integer"];
    starts.iter().any(|start| error.message().starts_with(start))
}

/// The mistake in plain words. `None` if it only follows from a table that is there twice.
fn syntax_mistake(error: &toml::de::Error, text: &str, broken: &[Span]) -> Option<Mistake> {
    let span = error.span().unwrap_or(text.len()..text.len());
    let there = text.get(span.clone()).unwrap_or_default();
    if is_duplicate(error) {
        let follows = broken.iter().any(|table| table.start < span.start && span.end <= table.end);
        let mistake = Mistake::at(span, format!("'{there}' is there twice"));
        return (!follows).then(|| mistake.help("drop one of them, or give one another name"));
    }
    let (title, help) = plain_syntax(error.message(), there);
    Some(Mistake::at(span, title).help(help))
}

/// The parser's message and what to do about it, in plain words for the most frequent ones. `there` is
/// the text that it is about.
fn plain_syntax(message: &str, there: &str) -> (String, String) {
    const STRING: (&str, &str) = (
        "this text does not end, or has a letter that it can't have",
        "text on one line is in one pair of quotes: \"text\"",
    );
    const VALUE: (&str, &str) =
        ("this key has no value", "write key = 3, key = \"text\" or key = true");
    const NUMBER: (&str, &str) =
        ("this is no number, and text must be in quotes", "numbers look like 3, 0.1 or 1e-4");
    let quoted =
        if there.contains(['"', '\\']) { format!("'{there}'") } else { format!("{there:?}") };
    let quotes = format!("write {quoted}");
    let known = [
        ("string values must be quoted", ("text must be in quotes", quotes.as_str())),
        ("invalid boolean", ("text must be in quotes", &quotes)),
        ("invalid float", NUMBER),
        ("invalid integer", NUMBER),
        ("missing value", VALUE),
        ("key with no value", VALUE),
        ("invalid basic string", STRING),
        ("invalid literal string", STRING),
        (
            "missing escaped value",
            (
                "a '\\' in text starts a special letter",
                "write '\\\\', or put the text in single quotes",
            ),
        ),
        ("unclosed table", ("the table's header does not end", "it ends with ']': [stages.train]")),
        ("unclosed array", ("the list does not end", "it ends with ']': [\"a\", \"b\"]")),
        ("unclosed inline table", ("the table does not end", "it ends with '}': { a = 1 }")),
    ];
    let empty = there.is_empty() && message.starts_with("string values");
    let found = known.iter().find(|(start, _)| message.starts_with(start)).map(|(_, words)| *words);
    match if empty { Some(VALUE) } else { found } {
        Some((title, help)) => (title.to_owned(), help.to_owned()),
        None => (format!("this is no TOML: {message}"), String::new()),
    }
}
