//! Values with `${axis}` in them, and what they are at a point.
//!
//! Does not know what a stage is.

use std::borrow::Cow;
use std::collections::HashSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::hint::{did_you_mean, listed};
use super::super::values::{Value, found};
use super::points::{Axes, AxisSet, scalar_text};
use crate::diagnostic::{Mistake, Span};

/// A value as it is written.
pub(super) enum Node<'t, 'i> {
    /// Nothing in it is replaced.
    Plain(&'t Value<'i>),
    Text {
        span: Span,
        pieces: Vec<Piece<'t>>,
        /// Whether it is text regardless of the type of its only value.
        is_text: bool,
    },
    List {
        span: Span,
        items: Vec<Self>,
    },
    Table {
        span: Span,
        entries: Vec<(&'t Spanned<Cow<'i, str>>, Self)>,
    },
}

/// A part of a text.
pub(super) enum Piece<'t> {
    Text(Cow<'t, str>),
    /// The value on an axis, or a field of the point there.
    Value {
        axis: usize,
        field: Option<&'t str>,
    },
}

/// What was read so far of all templates.
#[derive(Default)]
pub(super) struct Used<'t> {
    /// The fields of points that something uses.
    pub(super) fields: HashSet<(usize, &'t str)>,
    /// Texts that are wrong: what follows from them is not reported.
    pub(super) wrong: Vec<Span>,
}

impl<'t> Used<'t> {
    /// Adds what a value would use: the fields in its texts, and all of an axis that it names, as `with` does.
    pub(super) fn add(&mut self, value: &'t Value<'_>, axes: &'t Axes<'_, '_>) {
        each_text(value, &mut |text, _| {
            if let Some(place) = axes.find(text) {
                let fields =
                    axes.get(place).values.iter().filter_map(|value| value.fields).flatten();
                self.fields.extend(fields.map(|(key, _)| (place, key.get_ref().as_ref())));
            }
            // One that is wrong may be what was replaced.
            let given = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
            for (name, field) in given.filter_map(|(given, _)| given.split_once('.')) {
                self.fields.extend(axes.find(name).map(|axis| (axis, field)));
            }
        });
    }
}

impl<'t, 'i> Node<'t, 'i> {
    /// Reads a value; one that `is_text` has only texts. Reports every text in it that is wrong.
    pub(super) fn read(
        value: &'t Value<'i>,
        is_text: bool,
        axes: &Axes<'_, '_>,
        used: &mut Used<'t>,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let is_plain = |node: &Self| matches!(node, Self::Plain(_));
        let span = value.span();
        match value.get_ref() {
            DeValue::String(text) if text.contains("${") && axes.replace_at(&span) => {
                match pieces(text, &span, axes) {
                    Ok(pieces) => {
                        for piece in &pieces {
                            if let Piece::Value { axis, field } = piece {
                                used.fields.extend(field.map(|field| (*axis, field)));
                            }
                        }
                        Self::Text { span, pieces, is_text }
                    }
                    Err(mistake) => {
                        mistakes.push(mistake);
                        used.wrong.push(span);
                        Self::Plain(value)
                    }
                }
            }
            DeValue::Array(items) => {
                let items =
                    items.iter().map(|item| Self::read(item, is_text, axes, used, mistakes));
                let items: Vec<_> = items.collect();
                if items.iter().all(is_plain) {
                    Self::Plain(value)
                } else {
                    Self::List { span, items }
                }
            }
            DeValue::Table(table) => {
                let keys = table.keys().filter(|key| key.get_ref().contains("${"));
                for key in keys.filter(|key| axes.replace_at(&key.span())) {
                    let title = "'${' in a key is not replaced, only in a value";
                    mistakes.push(Mistake::at(key.span(), title));
                }
                let entries = table.iter();
                let entries = entries
                    .map(|(key, value)| (key, Self::read(value, is_text, axes, used, mistakes)));
                let entries: Vec<_> = entries.collect();
                match entries.iter().all(|(_, node)| is_plain(node)) {
                    true => Self::Plain(value),
                    false => Self::Table { span, entries },
                }
            }
            _ => Self::Plain(value),
        }
    }

    /// The axes that it depends on.
    pub(super) fn axes(&self) -> AxisSet {
        match self {
            Self::Plain(_) => 0,
            Self::Text { pieces, .. } => pieces.iter().fold(0, |set, piece| match piece {
                Piece::Value { axis, .. } => set | 1 << axis,
                Piece::Text(_) => set,
            }),
            Self::List { items, .. } => items.iter().fold(0, |set, item| set | item.axes()),
            Self::Table { entries, .. } => {
                entries.iter().fold(0, |set, (_, node)| set | node.axes())
            }
        }
    }

    /// The value at a point; `None` where the point does not have it.
    pub(super) fn at(
        &self,
        axes: &Axes<'_, 'i>,
        point: &[u32],
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Value<'i>> {
        let (span, value) = match self {
            Self::Plain(value) => return Some((*value).clone()),
            Self::Text { span, pieces, is_text } => {
                match text_at(pieces, span, axes, point, mistakes)? {
                    value if !is_text => (span, value),
                    value => match scalar_text(&value) {
                        Some(text) => (span, DeValue::String(Cow::Owned(text))),
                        None => (span, value),
                    },
                }
            }
            Self::List { span, items } => {
                let items = items.iter().filter_map(|item| item.at(axes, point, mistakes));
                (span, DeValue::Array(items.collect()))
            }
            Self::Table { span, entries } => {
                let mut table = DeTable::new();
                for (key, node) in entries {
                    if let Some(value) = node.at(axes, point, mistakes) {
                        table.insert((*key).clone(), value);
                    }
                }
                (span, DeValue::Table(table))
            }
        };
        Some(Spanned::new(span.clone(), value))
    }

    /// Calls `each` with every text in it.
    pub(super) fn each_text(&self, each: &mut impl FnMut(&Text<'_, 't>)) {
        match self {
            Self::Plain(value) => {
                each_text(value, &mut |text, span| each(&Text::Plain(text, span)));
            }
            Self::Text { span, pieces, .. } => each(&Text::Pieces(span.clone(), pieces)),
            Self::List { items, .. } => items.iter().for_each(|item| item.each_text(each)),
            Self::Table { entries, .. } => {
                entries.iter().for_each(|(_, node)| node.each_text(each));
            }
        }
    }
}

/// A text in a value.
pub(super) enum Text<'n, 't> {
    Plain(&'n str, Span),
    Pieces(Span, &'n [Piece<'t>]),
}

impl Text<'_, '_> {
    pub(super) fn span(&self) -> &Span {
        match self {
            Self::Plain(_, span) | Self::Pieces(span, _) => span,
        }
    }

    /// The axes that it depends on.
    pub(super) fn axes(&self) -> AxisSet {
        let Self::Pieces(_, pieces) = self else { return 0 };
        pieces.iter().fold(0, |set, piece| match piece {
            Piece::Value { axis, .. } => set | 1 << axis,
            Piece::Text(_) => set,
        })
    }

    /// The text at a point; `None` where it is not a text there.
    pub(super) fn at(&self, axes: &Axes<'_, '_>, point: &[u32]) -> Option<String> {
        match self {
            Self::Plain(text, _) => Some((*text).to_owned()),
            Self::Pieces(span, pieces) => {
                match text_at(pieces, span, axes, point, &mut Vec::new())? {
                    DeValue::String(text) => Some(text.into_owned()),
                    _ => None,
                }
            }
        }
    }
}

/// Calls `each` with every text in a value and its place.
pub(super) fn each_text<'v>(value: &'v Value<'_>, each: &mut impl FnMut(&'v str, Span)) {
    match value.get_ref() {
        DeValue::String(text) => each(text, value.span()),
        DeValue::Array(items) => items.iter().for_each(|item| each_text(item, each)),
        DeValue::Table(table) => table.values().for_each(|item| each_text(item, each)),
        _ => {}
    }
}

/// The value of a text at a point. The whole text being one placeholder keeps its type.
fn text_at<'i>(
    pieces: &[Piece<'_>],
    span: &Span,
    axes: &Axes<'_, 'i>,
    point: &[u32],
    mistakes: &mut Vec<Mistake>,
) -> Option<DeValue<'i>> {
    let value = |axis: usize, field: Option<&str>| {
        let value = &axes.get(axis).values[point[axis] as usize];
        match field {
            None => Some(&value.value),
            Some(field) => value.fields?.get(field).map(Spanned::get_ref),
        }
    };
    if let [Piece::Value { axis, field }] = pieces {
        return value(*axis, *field).cloned();
    }
    let mut text = String::new();
    for piece in pieces {
        let (axis, field) = match piece {
            Piece::Text(piece) => {
                text.push_str(piece);
                continue;
            }
            Piece::Value { axis, field } => (*axis, *field),
        };
        let given = || {
            let name = axes.get(axis).name;
            field.map_or_else(|| name.to_owned(), |field| format!("{name}.{field}"))
        };
        match value(axis, field) {
            None => {
                let place = axes.words(1 << axis, point);
                let title = format!("there is no '{}' at {place}", given());
                let help = "give this point the field too: only a value that is nothing but ${AXIS.FIELD} is left out";
                mistakes.push(Mistake::at(span.clone(), title).help(help));
            }
            Some(value) => match scalar_text(value) {
                Some(value) => text.push_str(&value),
                None => {
                    let found = found(value);
                    let title = format!("'{}' is {found}, which cannot be within a text", given());
                    mistakes.push(Mistake::at(span.clone(), title));
                }
            },
        }
    }
    Some(DeValue::String(Cow::Owned(text)))
}

/// The parts of a text with `${`.
fn pieces<'t>(text: &'t str, span: &Span, axes: &Axes<'_, '_>) -> Result<Vec<Piece<'t>>, Mistake> {
    const PLAIN: &str =
        "a '${' that is meant as it is, is written '$${' (in 'run', '$${{' and '}}')";
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            pieces.push(Piece::Text(Cow::Owned(format!("{before}${{"))));
            rest = after;
            continue;
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(Cow::Borrowed(before)));
        }
        let Some((given, after)) = after.split_once('}') else {
            return Err(Mistake::at(span.clone(), "a '${' is not closed")
                .help("write ${AXIS} or ${AXIS.FIELD}")
                .help(PLAIN));
        };
        let (name, field) = match given.split_once('.') {
            Some((name, field)) => (name, Some(field)),
            None => (given, None),
        };
        let Some(place) = axes.find(name) else {
            return Err(axes.no_axis(name, span.clone()).help(PLAIN));
        };
        if let Some(field) = field {
            check_field(axes, place, field, span)?;
        }
        pieces.push(Piece::Value { axis: place, field });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(Cow::Borrowed(rest)));
    }
    Ok(pieces)
}

fn check_field(axes: &Axes<'_, '_>, axis: usize, field: &str, span: &Span) -> Result<(), Mistake> {
    let axis = axes.get(axis);
    let name = axis.name;
    if !axis.is_named() {
        let title = format!("'{name}' is a list of values, which do not have fields");
        return Err(Mistake::at(span.clone(), title).help(format!("write ${{{name}}}")));
    }
    let tables = || axis.values.iter().filter_map(|value| value.fields);
    if tables().any(|fields| fields.contains_key(field)) {
        return Ok(());
    }
    let mut fields: Vec<&str> =
        tables().flat_map(DeTable::keys).map(|key| key.get_ref().as_ref()).collect();
    fields.sort_unstable();
    fields.dedup();
    let mistake =
        Mistake::at(span.clone(), format!("no point of '{name}' has the field '{field}'"));
    Err(match did_you_mean(field, fields.iter().copied()) {
        Some(hint) => mistake.and(&hint),
        None if fields.is_empty() => mistake,
        None => mistake.help(format!("their fields are {}", listed(fields, "and"))),
    })
}
