//! `--set`, or a variable of the environment: a value that replaces one of the manifest, for one run. `--sweep`: several, as
//! an axis of its matrix.
//!
//! Knows the path to a stage, but not its keys.

use std::borrow::Cow;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::envelope::TABLES;
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
    given: Given,
    text: String,
    /// The keys, each with its place in `text`.
    keys: Vec<(String, Span)>,
    /// Where the value starts in `text`.
    value_start: usize,
    /// The axis that a sweep adds.
    axis: Option<String>,
}

/// How somebody gave a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Set,
    /// Several values, each for other instances.
    Sweep,
    Variable,
}

impl Override {
    /// The value of a variable of the environment, for this path of keys.
    pub(crate) fn variable(name: &str, path: &[&str], value: &str) -> Self {
        let keys = path.iter().map(|&key| (key.to_owned(), 0..name.len()));
        Self {
            given: Given::Variable,
            text: format!("{name}={value}"),
            keys: keys.collect(),
            value_start: name.len() + 1,
            axis: None,
        }
    }

    /// Reads `stages.train.learning-rate=0.01,0.02`.
    ///
    /// # Errors
    /// When it is not a path and values.
    pub(crate) fn sweep(text: &str) -> Result<Self, String> {
        let set = Self::read(text, "stages.train.learning-rate=0.01,0.02")?;
        let axis = set.path().last().map(str::to_owned);
        Ok(Self { given: Given::Sweep, axis, ..set })
    }

    /// These sweeps; where several are over values of one name, with the whole path in the names of their axes: `train-epochs`.
    pub(crate) fn with_distinct_axes(sweeps: &[Self]) -> Vec<Self> {
        let distinct = sweeps.iter().map(|sweep| {
            let same = sweeps.iter().filter(|other| other.axis == sweep.axis);
            // Those of the matrix itself are mistakes.
            let is_alone = same.filter(|other| other.path().next() != Some("matrix")).count() <= 1;
            let path: Vec<_> = sweep.path().collect();
            let axis = match path.as_slice() {
                ["stages" | "defaults", place @ ..] if !is_alone => Some(place.join("-")),
                _ => sweep.axis.clone(),
            };
            Self { axis, ..sweep.clone() }
        });
        distinct.collect()
    }

    /// The keys that lead to the value: `stages`, `train`, `epochs`.
    pub(crate) fn path(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key.as_str())
    }

    /// The axis that a sweep adds.
    pub(super) fn swept_axis(&self) -> Option<&str> {
        self.axis.as_deref()
    }

    /// Adds the text as a user would type it, and returns the position at which it starts.
    pub(super) fn add_to(&self, sources: &mut Sources) -> usize {
        let option = match self.given {
            Given::Set => "--set ",
            Given::Sweep => "--sweep ",
            Given::Variable => "",
        };
        let text = format!("{option}{self}");
        let hidden = secrets::hidden(&text);
        let start = sources.add(Origin::CommandLine, text);
        sources.hide(hidden);
        start + option.len()
    }

    /// The value, with spans that count from `start`, where `text` starts.
    fn value(&self, start: usize) -> Value<'_> {
        let raw = self.text.get(self.value_start..).unwrap_or_default().trim_end();
        let start = start + self.value_start;
        parsed(raw, start)
    }

    /// The values of a sweep: what is between commas, or a list.
    fn values(&self, start: usize) -> Value<'_> {
        let raw = self.text.get(self.value_start..).unwrap_or_default().trim_end();
        let start = start + self.value_start;
        let whole = parsed(raw, start);
        if whole.get_ref().is_array() {
            return whole;
        }
        let mut place = start;
        let items = raw.split(',').map(|item| {
            let space = item.len() - item.trim_start().len();
            let value = parsed(item.trim(), place + space);
            place += item.len() + 1;
            value
        });
        Spanned::new(start..start + raw.len(), DeValue::Array(items.collect()))
    }

    /// Adds the axis to the matrix, and returns the value that takes it.
    fn add_axis<'i>(
        &'i self,
        root: &mut DeTable<'i>,
        start: usize,
        before: &[Self],
    ) -> Result<Value<'i>, Mistake> {
        let (Some((_, span)), Some(name)) = (self.keys.last(), &self.axis) else {
            return Ok(self.value(start));
        };
        let place = start + span.start..start + span.end;
        let path: Vec<_> = self.path().collect();
        if !matches!(
            path.as_slice(),
            ["stages", ..] | ["defaults", _, _, ..] | ["experiment", "seed"]
        ) {
            let title =
                "a sweep is over a value of a stage, of [defaults.KIND] or over experiment.seed";
            let help = match path.as_slice() {
                ["matrix", ..] => format!("write --set 'matrix.{name}=[...]'"),
                _ => String::new(),
            };
            return Err(Mistake::at(place, title).help(help));
        }
        let is_same = |other: &Self| other.given == Given::Sweep && other.path().eq(self.path());
        if before.iter().any(is_same) {
            let title = "another sweep is over the same value";
            return Err(Mistake::at(place, title).help("write all values in one --sweep"));
        }
        let key = |text| Spanned::new(place.clone(), Cow::Borrowed(text));
        let empty = Spanned::new(place.clone(), DeValue::Table(DeTable::new()));
        let matrix = root.entry(key("matrix")).or_insert(empty);
        if let DeValue::Table(matrix) = matrix.get_mut() {
            if matrix.contains_key(name.as_str()) {
                let title = format!("the matrix has an axis '{name}' already");
                let help = format!("write --set 'matrix.{name}=[...]' for other values");
                return Err(Mistake::at(place, title).help(help));
            }
            matrix.insert(key(name.as_str()), self.values(start));
        }
        Ok(Spanned::new(place, DeValue::String(Cow::Owned(format!("${{{name}}}")))))
    }

    /// Puts the value into the tree, in which those of `before` are already. `start` is the position of the text. `is_shown` is
    /// whether a mistake would be shown, so that it is worth a hint. Returns the values that it replaces: the one that was there, or the
    /// defaults that a stage without one may have had.
    pub(super) fn apply<'i>(
        &'i self,
        root: &mut DeTable<'i>,
        start: usize,
        before: &[Self],
        is_shown: bool,
    ) -> Result<Vec<Value<'i>>, Mistake> {
        self.check_place(root, start, is_shown)?;
        let Some(((last, last_span), path)) = self.keys.split_last() else { return Ok(Vec::new()) };
        let hidden = self.defaults(root);
        let value = match self.given {
            Given::Sweep => self.add_axis(root, start, before)?,
            Given::Set | Given::Variable => self.value(start),
        };
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
        let old = table.remove(last.as_str());
        let points = old.as_ref().filter(|_| self.is_axis());
        let some = points.and_then(|points| some_points(points.clone(), &value));
        table.insert(key(last, last_span), some.unwrap_or(value));
        Ok(old.map_or(hidden, |old| vec![old]))
    }

    /// The defaults for a value of a stage.
    fn defaults<'i>(&self, root: &DeTable<'i>) -> Vec<Value<'i>> {
        let path: Vec<_> = self.path().collect();
        let ["stages", _, key, ..] = path.as_slice() else { return Vec::new() };
        let kinds = root.get("defaults").and_then(|kinds| kinds.get_ref().as_table());
        let kinds = kinds.into_iter().flat_map(DeTable::values);
        let tables = kinds.filter_map(|kind| kind.get_ref().as_table());
        tables.filter_map(|table| table.get(*key).cloned()).collect()
    }

    /// Whether it is about the values of an axis.
    fn is_axis(&self) -> bool {
        matches!(self.path().collect::<Vec<_>>().as_slice(), ["matrix", axis] if *axis != "exclude")
    }

    /// Whether the path leads to one value: within a stage that exists, or within another table.
    fn check_place(&self, root: &DeTable<'_>, start: usize, is_shown: bool) -> Result<(), Mistake> {
        let (option, forms) = match self.given {
            Given::Sweep => (
                "--sweep",
                "sweep over stages.NAME.KEY=VALUES, defaults.KIND.KEY=VALUES or experiment.seed=VALUES",
            ),
            Given::Set | Given::Variable => (
                "--set",
                "set stages.NAME.KEY=VALUE, defaults.KIND.KEY=VALUE, matrix.AXIS=[VALUES], experiment.KEY=VALUE, execution.KEY=VALUE, tracking.KEY=VALUE or lint.allow=[NAMES]",
            ),
        };
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
                let whole = format!("{option} changes one value, not the whole stage '{stage}'");
                if rest.is_empty() { Err(wrong(1, &whole).help(forms)) } else { Ok(()) }
            }
            _ => match self.whole_path(root).filter(|_| is_shown) {
                Some(path) => Err(wrong(0, &format!("{option} needs the whole path to a value"))
                    .and(&format!("did you mean '{path}'?"))),
                None if keys.len() < 2 => {
                    Err(wrong(0, &format!("{option} needs the path to one value")).help(forms))
                }
                None => Ok(()),
            },
        }
    }

    /// What was probably meant by a path that begins with the name of a stage, or is a key alone.
    fn whole_path(&self, root: &DeTable<'_>) -> Option<String> {
        let stages = root.get("stages")?.get_ref().as_table()?;
        let has = |table: &Value<'_>, key: &str| {
            table.get_ref().as_table().is_some_and(|table| table.contains_key(key))
        };
        match self.path().collect::<Vec<_>>().as_slice() {
            path @ [stage, _, ..]
                if !TABLES.contains(stage)
                    && !root.contains_key(*stage)
                    && stages.contains_key(*stage) =>
            {
                Some(format!("stages.{}", path.join(".")))
            }
            [key] if root.get("experiment").is_some_and(|table| has(table, key)) => {
                Some(format!("experiment.{key}"))
            }
            [key] => {
                let (name, _) = stages.iter().find(|(_, stage)| has(stage, key))?;
                Some(format!("stages.{}.{key}", name.get_ref()))
            }
            _ => None,
        }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, "stages.train.epochs=3")
    }
}

impl Override {
    fn read(text: &str, example: &str) -> Result<Self, String> {
        let form = format!("write it as {example}");
        let Some((path, value)) = text.split_once('=') else {
            return Err(format!("'{text}' has no '='; {form}"));
        };
        let wrong = |()| format!("'{}' is not a path of keys; {form}", path.trim());
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
        Ok(Self {
            given: Given::Set,
            text: text.to_owned(),
            keys,
            value_start: path.len() + 1 + space,
            axis: None,
        })
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The named points whose names are in a list; `None` if they are no named points, or it has others.
fn some_points<'i>(mut points: Value<'i>, names: &Value<'_>) -> Option<Value<'i>> {
    let names = names.get_ref().as_array().filter(|names| !names.is_empty())?;
    let names: Option<Vec<&str>> = names.iter().map(|name| name.get_ref().as_str()).collect();
    let names = names?;
    let DeValue::Table(table) = points.get_mut() else { return None };
    let is_known = names.iter().all(|name| table.contains_key(*name));
    let kept = std::mem::take(table).into_iter();
    *table = kept.filter(|(key, _)| names.contains(&key.get_ref().as_ref())).collect();
    is_known.then_some(points)
}

/// A value from the command line, at this position: what is not TOML is text.
fn parsed(raw: &str, start: usize) -> Value<'_> {
    match DeValue::parse(raw) {
        Ok(value) => shifted(value, start),
        Err(_) => Spanned::new(start..start + raw.len(), DeValue::String(Cow::Borrowed(raw))),
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
