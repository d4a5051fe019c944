//! `--set`: a value that replaces one of the manifest, for one run.
//!
//! Knows the path to a stage, but not its keys.

use std::borrow::Cow;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::hint::{did_you_mean, listed};
use super::secrets;
use super::values::{Value, found};
use crate::diagnostic::{Mistake, Origin, Sources, Span};

/// A value that replaces one of the manifest, for one run: `stages.train.epochs=3`.
///
/// What follows the `=` is TOML; what is not TOML is text, so that `stages.train.loss=mae` needs no quotes. Text
/// that looks like a number keeps its quotes: `stages.a.name="10"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    text: String,
    /// The keys, each with its place in `text`.
    keys: Vec<(String, Span)>,
    /// Where the value starts in `text`.
    value_start: usize,
}

impl Override {
    /// The keys that lead to the value: `stages`, `train`, `epochs`.
    pub(crate) fn path(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key.as_str())
    }

    /// Adds the text as a user would type it, and returns the position at which it starts.
    pub(super) fn add_to(&self, sources: &mut Sources) -> usize {
        const OPTION: &str = "--set ";
        let text = format!("{OPTION}{self}");
        let hidden = secrets::hidden(&text);
        let start = sources.add(Origin::CommandLine, text);
        sources.hide(hidden);
        start + OPTION.len()
    }

    /// The value, with spans that count from `start`, where `text` starts.
    fn value(&self, start: usize) -> Value<'_> {
        let raw = self.text.get(self.value_start..).unwrap_or_default().trim_end();
        let start = start + self.value_start;
        match DeValue::parse(raw) {
            Ok(value) => shifted(value, start),
            Err(_) => Spanned::new(start..start + raw.len(), DeValue::String(Cow::Borrowed(raw))),
        }
    }

    /// Puts the value into the tree. `start` is the position of the text. `is_shown` is whether a mistake
    /// would be shown, so that it is worth a hint.
    pub(super) fn apply<'i>(
        &'i self,
        root: &mut DeTable<'i>,
        start: usize,
        is_shown: bool,
    ) -> Result<(), Mistake> {
        self.check_place(root, start, is_shown)?;
        let Some(((last, last_span), path)) = self.keys.split_last() else { return Ok(()) };
        let key = |name: &'i str, span: &Span| {
            Spanned::new(start + span.start..start + span.end, Cow::Borrowed(name))
        };
        let mut table = root;
        for (name, span) in path {
            let key = key(name, span);
            let place = key.span();
            let empty = Spanned::new(place.clone(), DeValue::Table(DeTable::new()));
            table = match table.entry(key).or_insert(empty).get_mut() {
                DeValue::Table(inner) => inner,
                other => {
                    let title =
                        format!("'{name}' is {}, so nothing can be set in it", found(other));
                    return Err(Mistake::at(place, title).help("set the whole value"));
                }
            };
        }
        // Not `insert` alone: it would keep the old key, and with it the old place.
        table.remove(last.as_str());
        table.insert(key(last, last_span), self.value(start));
        Ok(())
    }

    /// Whether the path leads to one value: within a stage that exists, or within another table.
    fn check_place(&self, root: &DeTable<'_>, start: usize, is_shown: bool) -> Result<(), Mistake> {
        const FORMS: &str =
            "set stages.NAME.KEY=VALUE, experiment.KEY=VALUE or execution.KEY=VALUE";
        let wrong = |index: usize, title: &str| {
            let place = self.keys.get(index).map_or(0..0, |(_, span)| span.clone());
            Mistake::at(start + place.start..start + place.end, title)
        };
        let keys: Vec<_> = self.path().collect();
        match keys.as_slice() {
            ["stages", stage, rest @ ..] => {
                let stages = root.get("stages").and_then(|stages| stages.get_ref().as_table());
                let keys = || stages.into_iter().flat_map(DeTable::keys);
                let names = || keys().map(|key| key.get_ref().as_ref());
                if !stages.is_some_and(|stages| stages.contains_key(*stage)) {
                    let mistake = wrong(1, &format!("there is no stage '{stage}'"));
                    return Err(match is_shown.then(|| did_you_mean(stage, names())).flatten() {
                        Some(hint) => mistake.and(&hint),
                        None if names().next().is_none() || !is_shown => mistake,
                        None => mistake.help(format!("the stages are {}", listed(names(), "and"))),
                    });
                }
                let whole = format!("--set changes one value, not the whole stage '{stage}'");
                if rest.is_empty() { Err(wrong(1, &whole).help(FORMS)) } else { Ok(()) }
            }
            [] | [_] => Err(wrong(0, "--set needs the path to one value").help(FORMS)),
            _ => Ok(()),
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
        let wrong = |()| format!("'{}' is not a path of keys; {FORM}", path.trim());
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

/// The same value, `by` bytes further on.
pub(super) fn shifted(value: Value<'_>, by: usize) -> Value<'_> {
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
