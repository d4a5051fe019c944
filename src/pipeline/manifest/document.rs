//! The text of a manifest, and what `--set` says, as one tree with spans.
//!
//! Knows TOML, but not what a manifest has to have.

use std::borrow::Cow;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::hint::did_you_mean;
use super::values::found;
use crate::diagnostic::{Mistake, Origin, Sources, Span};

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

const OPTION: &str = "--set ";

/// A value that replaces one of the manifest, for one run: `stages.train.epochs=3`.
///
/// What follows the `=` is TOML; what is no TOML is text, so that `stages.train.loss=mae` needs no quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    text: String,
    /// The keys, each with its place in `text`.
    keys: Vec<(String, Span)>,
    /// Where the value starts in `text`.
    value_start: usize,
}

impl Override {
    /// The keys that lead to the value: `stages`, `train`, `epochs`.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key.as_str())
    }

    /// The value, with spans that count from `start`, where `text` starts.
    fn value(&self, start: usize) -> Value<'_> {
        let raw = &self.text[self.value_start..];
        let span = self.value_start..self.text.trim_end().len().max(self.value_start);
        match DeValue::parse(raw) {
            Ok(value) => shifted(value, start + self.value_start),
            Err(_) => Spanned::new(
                start + span.start..start + span.end,
                DeValue::String(Cow::Borrowed(raw.trim_end())),
            ),
        }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as stages.train.epochs=3";
        let Some((path, value)) = text.split_once('=') else {
            return Err(format!("'{text}' has no '='; {FORM}"));
        };
        let wrong = |()| format!("'{}' is no path of keys; {FORM}", path.trim());
        let document = format!("{path}=0");
        let mut table = DeTable::parse(&document).map_err(|_| wrong(()))?.into_inner();
        let mut keys = Vec::new();
        while let Some((key, value)) = table.into_iter().next() {
            let span = key.span();
            keys.push((key.into_inner().into_owned(), span));
            table = match value.into_inner() {
                DeValue::Table(table) => table,
                _ => break,
            };
        }
        if keys.is_empty() {
            return Err(wrong(()));
        }
        let space = value.len() - value.trim_start().len();
        Ok(Self { text: text.to_owned(), keys, value_start: path.len() + 1 + space })
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

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
        let start = sources.add(Origin::CommandLine, format!("{OPTION}{given}")) + OPTION.len();
        if whole {
            mistakes.extend(apply(&mut root, given, start).err());
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

/// Puts the value of `given` into the tree. `start` is the position of its text.
fn apply<'i>(root: &mut DeTable<'i>, given: &'i Override, start: usize) -> Result<(), Mistake> {
    let span = |index: usize| {
        let place = given.keys.get(index).map_or(0..0, |(_, span)| span.clone());
        start + place.start..start + place.end
    };
    check_place(root, given, &span)?;
    let Some(((last, _), path)) = given.keys.split_last() else { return Ok(()) };
    let mut table = root;
    for (index, (key, _)) in path.iter().enumerate() {
        if !table.contains_key(key.as_str()) {
            let empty = Spanned::new(span(index), DeValue::Table(DeTable::new()));
            table.insert(Spanned::new(span(index), Cow::Borrowed(key.as_str())), empty);
        }
        let Some(value) = table.get_mut(key.as_str()) else { return Ok(()) };
        table = match value.get_mut() {
            DeValue::Table(inner) => inner,
            other => {
                let title = format!(
                    "'{key}' is {} in the manifest, so nothing can be set inside it",
                    found(other)
                );
                return Err(Mistake::at(span(index), title)
                    .help("set the whole value, or change the manifest"));
            }
        };
    }
    // Not `insert` alone: it would keep the old key, and with it the old place.
    table.remove(last.as_str());
    let key = Spanned::new(span(path.len()), Cow::Borrowed(last.as_str()));
    table.insert(key, given.value(start));
    Ok(())
}

/// Whether the path leads to one value: within a stage that is there, or within another table.
fn check_place(
    root: &DeTable<'_>,
    given: &Override,
    span: &dyn Fn(usize) -> Span,
) -> Result<(), Mistake> {
    const FORMS: &str = "set stages.NAME.KEY=VALUE, experiment.KEY=VALUE or execution.KEY=VALUE";
    let keys: Vec<_> = given.path().collect();
    match keys.as_slice() {
        ["stages", stage, rest @ ..] => {
            let stages = root.get("stages").and_then(|stages| stages.get_ref().as_table());
            let names = || {
                stages.into_iter().flat_map(|table| table.keys().map(|key| key.as_ref().as_ref()))
            };
            if !names().any(|name| name == *stage) {
                let hint = did_you_mean(stage, names());
                let title = format!("there is no stage '{stage}' to set something in");
                let mistake = Mistake::at(span(1), title);
                return Err(match hint {
                    Some(hint) => mistake.label(hint),
                    None => mistake
                        .help(format!("the stages are {}", super::hint::listed(names(), "and"))),
                });
            }
            if rest.is_empty() {
                let title = format!("--set changes one value, not the whole stage '{stage}'");
                return Err(Mistake::at(span(1), title).help(FORMS));
            }
            Ok(())
        }
        [] | [_] => Err(Mistake::at(span(0), "--set needs the path to one value").help(FORMS)),
        _ => Ok(()),
    }
}

/// The same value, `by` bytes further on.
fn shifted(value: Value<'_>, by: usize) -> Value<'_> {
    let moved = |span: Span| span.start + by..span.end + by;
    let span = moved(value.span());
    let inner = match value.into_inner() {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| shifted(item, by)).collect())
        }
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(key, value)| {
                    (Spanned::new(moved(key.span()), key.into_inner()), shifted(value, by))
                })
                .collect(),
        ),
        scalar => scalar,
    };
    Spanned::new(span, inner)
}
