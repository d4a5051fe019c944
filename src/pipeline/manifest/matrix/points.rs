//! The axes of `[matrix]`, and the points that are left of their product.
//!
//! Does not depend on stages.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pipeline_stages::point::{canonical, shortest};
use toml::de::{DeTable, DeValue};

use super::super::hint::{did_you_mean, listed, nearest};
use super::super::values::{Value, found, not_a_table};
use crate::diagnostic::{Mistake, Sources, Span};
use crate::stage_name::{check_name, check_value};

/// The most points that a matrix has.
const MOST_POINTS: usize = 1_000_000;

/// The most partial points that are visited to find them, where nearly all are excluded.
const MOST_VISITED: usize = 64 * MOST_POINTS;

/// The most axes: a set of them is the bits of a number.
const MOST_AXES: usize = 64;

/// A set of axes: the bit of each, by its place.
pub(super) type AxisSet = u64;

/// The axes of a matrix, by name.
pub(in crate::manifest) struct Axes<'t, 'i> {
    all: Vec<Axis<'t, 'i>>,
    /// Whether they are only those of sweeps: the manifest itself does not have a matrix.
    are_swept: bool,
}

/// Where `${...}` is replaced, and what it can be there besides an axis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Placeholders {
    /// Whether only the values that a sweep has put there are replaced: the manifest itself does not have a matrix.
    pub(crate) only_swept: bool,
    /// For each axis of named points, the fields that can be in a text.
    pub(crate) fields: BTreeMap<String, BTreeSet<String>>,
}

/// An axis.
pub(super) struct Axis<'t, 'i> {
    pub(super) name: &'t str,
    /// Where its name is.
    pub(super) span: Span,
    pub(super) values: Vec<AxisEntry<'t, 'i>>,
    /// Whether it is from the command line: then an exclude may be about values that it does not have now.
    is_set: bool,
    places: HashMap<String, u32>,
}

/// A value of an axis.
pub(super) struct AxisEntry<'t, 'i> {
    /// As it is written in the name of an instance.
    pub(super) text: String,
    /// The value itself; of a named point, its name.
    pub(super) value: DeValue<'i>,
    /// Where it is.
    span: Span,
    /// The fields of a named point.
    pub(super) fields: Option<&'t DeTable<'i>>,
}

/// The points of a matrix: for each, the place of its value on every axis.
pub(super) struct Points {
    axes: usize,
    digits: Vec<u32>,
}

/// The points as far as some axes tell them apart.
pub(super) struct Projection {
    /// The first point of each, in order.
    pub(super) first: Vec<u32>,
    places: HashMap<u64, u32>,
}

impl<'t, 'i> Axes<'t, 'i> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Axis<'t, 'i>> {
        self.all.iter()
    }

    pub(super) fn get(&self, place: usize) -> &Axis<'t, 'i> {
        &self.all[place]
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.all.binary_search_by(|axis| axis.name.cmp(name)).ok()
    }

    /// Whether `${...}` is replaced in a value at this place: without a matrix in the manifest, only where a sweep has put it.
    pub(super) fn replace_at(&self, span: &Span) -> bool {
        !self.are_swept || self.all.iter().any(|axis| axis.span == *span)
    }

    pub(super) fn placeholders(&self) -> Placeholders {
        let named = self.all.iter().filter(|axis| axis.is_named());
        let fields = named.map(|axis| {
            let points = axis.values.iter().filter_map(|value| value.fields);
            let mut fields = BTreeSet::new();
            let mut others = HashSet::new();
            for (key, value) in points.flatten() {
                let field: &str = key.as_ref();
                match scalar_text(value.get_ref()) {
                    Some(_) => drop(fields.insert(field.to_owned())),
                    None => drop(others.insert(field)),
                }
            }
            fields.retain(|field| !others.contains(field.as_str()));
            (axis.name.to_owned(), fields)
        });
        Placeholders { only_swept: self.are_swept, fields: fields.collect() }
    }

    /// The mistake of an axis that does not exist.
    pub(super) fn no_axis(&self, name: &str, span: Span) -> Mistake {
        no_axis(name, span, &self.names())
    }

    /// The names of all of them.
    pub(in crate::manifest) fn names(&self) -> Vec<&'t str> {
        self.all.iter().map(|axis| axis.name).collect()
    }

    /// The places in `[matrix]` of the values that a text has at a point, which is as it is in the name of an instance.
    pub(in crate::manifest) fn places_of(&self, text: &str, point: &str) -> Vec<Span> {
        let given = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        let place = |given: &str| {
            let (name, field) = match given.split_once('.') {
                Some((name, field)) => (name, Some(field)),
                None => (given, None),
            };
            let axis = self.get(self.find(name)?);
            let mut pairs = point.split(',').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(axis, _)| *axis == name)?;
            let value = axis.values.get(axis.place(value)? as usize)?;
            match field {
                Some(field) => Some(value.fields?.get(field)?.span()),
                None => Some(value.span.clone()),
            }
        };
        given.filter_map(place).collect()
    }

    /// What identifies a point among those that differ on these axes.
    pub(super) fn rank(&self, set: AxisSet, point: &[u32]) -> u64 {
        let axes = self.all.iter().zip(point).enumerate();
        let used = axes.filter(|(place, _)| set & (1 << place) != 0);
        used.fold(0, |rank, (_, (axis, &digit))| rank * axis.values.len() as u64 + u64::from(digit))
    }

    /// The point on these axes, as it is in a name: `method=ce,rate=0.9`.
    pub(super) fn words(&self, set: AxisSet, point: &[u32]) -> String {
        let axes = self.all.iter().zip(point).enumerate();
        let used = axes.filter(|(place, _)| set & (1 << place) != 0);
        let mut words = String::new();
        for (_, (axis, &digit)) in used {
            if !words.is_empty() {
                words.push(',');
            }
            words.push_str(axis.name);
            words.push('=');
            words.push_str(&axis.values[digit as usize].text);
        }
        words
    }

    pub(super) fn project(&self, points: &Points, set: AxisSet) -> Projection {
        let mut projection = Projection { first: Vec::new(), places: HashMap::new() };
        for number in 0..points.len() {
            let place = projection.first.len() as u32;
            let rank = self.rank(set, points.get(number));
            projection.places.entry(rank).or_insert_with(|| {
                projection.first.push(number as u32);
                place
            });
            if set == 0 {
                break;
            }
        }
        projection
    }
}

/// The mistake of an axis that does not exist, where these do.
pub(in crate::manifest) fn no_axis(name: &str, span: Span, names: &[&str]) -> Mistake {
    let mistake = Mistake::at(span, format!("there is no axis '{name}'"));
    match did_you_mean(name, names.iter().copied()) {
        Some(hint) => mistake.and(&hint),
        None => mistake.help(format!("the axes are {}", listed(names.iter().copied(), "and"))),
    }
}

impl Axis<'_, '_> {
    /// The place of a value, which is compared as a number where it is one.
    pub(super) fn place(&self, value: &str) -> Option<u32> {
        self.places.get(canonical(value).as_ref()).copied()
    }

    /// Whether a point of it has this field.
    pub(super) fn has_field(&self, field: &str) -> bool {
        let mut points = self.values.iter().filter_map(|value| value.fields);
        points.any(|fields| fields.contains_key(field))
    }

    /// Whether its values are named points.
    pub(super) fn is_named(&self) -> bool {
        self.values.iter().any(|value| value.fields.is_some())
    }

    /// The mistake of a value that it does not have.
    pub(super) fn no_value(&self, value: &str, span: Span) -> Mistake {
        let values = || self.values.iter().map(|value| value.text.as_str());
        let title = format!("the axis '{}' does not have the value '{value}'", self.name);
        let mistake = Mistake::at(span, title);
        match did_you_mean(value, values()).filter(|_| self.is_named()) {
            Some(hint) => mistake.and(&hint),
            None => mistake.help(format!("its values are {}", listed(values(), "and"))),
        }
    }
}

impl Points {
    pub(super) fn len(&self) -> usize {
        self.digits.len() / self.axes.max(1)
    }

    pub(super) fn get(&self, number: usize) -> &[u32] {
        &self.digits[number * self.axes..(number + 1) * self.axes]
    }
}

impl Projection {
    /// The place of the point that has this rank on its axes.
    pub(super) fn place(&self, rank: u64) -> Option<usize> {
        self.places.get(&rank).map(|&place| place as usize)
    }
}

/// The axes and the points of the table `[matrix]`; `None` if anything is wrong with it.
pub(super) fn read<'t, 'i>(
    value: &'t Value<'i>,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Axes<'t, 'i>, Points)> {
    let DeValue::Table(table) = value.get_ref() else {
        mistakes.push(not_a_table("matrix", value).help("an axis is a line: rate = [0.5, 0.9]"));
        return None;
    };
    let before = mistakes.len();
    let mut axes = Vec::new();
    for (key, value) in table.iter().filter(|(key, _)| key.get_ref() != "exclude") {
        let name: &str = key.as_ref();
        if let Err(reason) = check_name(name) {
            let title = format!("{name:?} cannot be the name of an axis: {reason}");
            mistakes.push(Mistake::at(key.span(), title));
        }
        if is_list_of_tables(value) && nearest(name, ["exclude"]).is_some() {
            let title = format!("'{name}' is a list of tables, did you mean 'exclude'?");
            mistakes.push(Mistake::at(key.span(), title));
            continue;
        }
        let values = read_values(name, value, mistakes);
        let place = |(place, value): (usize, &AxisEntry<'_, '_>)| {
            (canonical(&value.text).into_owned(), place as u32)
        };
        let places = values.iter().enumerate().map(place).collect();
        axes.push(Axis {
            name,
            span: key.span(),
            values,
            is_set: !sources.is_in_file(&key.span()),
            places,
        });
    }
    axes.sort_by_key(|axis| axis.name);
    if axes.is_empty() {
        let mistake = Mistake::at(value.span(), "the matrix does not have axes");
        mistakes.push(mistake.help("an axis is a line: rate = [0.5, 0.9]"));
    } else if axes.len() > MOST_AXES {
        let title = format!("the matrix has more than {MOST_AXES} axes");
        mistakes.push(Mistake::at(value.span(), title));
    }
    // The first sweep adds a matrix at its own place.
    let are_swept = axes.iter().any(|axis| axis.span == value.span());
    let axes = Axes { all: axes, are_swept };
    let excludes = match table.get("exclude") {
        Some(value) if mistakes.len() == before => read_excludes(&axes, value, mistakes),
        _ => Vec::new(),
    };
    if mistakes.len() > before {
        return None;
    }
    let points = match Enumeration::of(&axes, excludes) {
        Some(points) if points.len() > 0 => points,
        found => {
            let (title, help) = match found {
                Some(_) => ("all points of the matrix are excluded".to_owned(), ""),
                None => (
                    "the matrix has more than 1,000,000 points".to_owned(),
                    "take values away, or exclude points",
                ),
            };
            mistakes.push(Mistake::at(value.span(), title).help(help));
            return None;
        }
    };
    Some((axes, points))
}

/// Whether it is what `exclude` is, and no axis: `[[matrix.NAME]]`.
fn is_list_of_tables(value: &Value<'_>) -> bool {
    let items = value.get_ref().as_array();
    items.is_some_and(|items| {
        !items.is_empty() && items.iter().all(|item| item.get_ref().is_table())
    })
}

fn read_values<'t, 'i>(
    name: &str,
    value: &'t Value<'i>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<AxisEntry<'t, 'i>> {
    let mut values: Vec<AxisEntry<'t, 'i>> = Vec::new();
    match value.get_ref() {
        DeValue::Array(items) => {
            for item in items {
                if let DeValue::Datetime(_) = item.get_ref() {
                    let title = format!("this cannot be a value of '{name}': it is a date or time");
                    mistakes.push(Mistake::at(item.span(), title).help("write it in quotes"));
                    continue;
                }
                if let DeValue::Float(float) = item.get_ref()
                    && !float.as_str().parse().is_ok_and(f64::is_finite)
                {
                    let title = format!("this cannot be a value of '{name}': it is not finite");
                    mistakes.push(Mistake::at(item.span(), title).help("write it in quotes"));
                    continue;
                }
                match scalar_text(item.get_ref()).ok_or_else(String::new).and_then(checked) {
                    Ok(text) => {
                        let (value, span) = (item.get_ref().clone(), item.span());
                        values.push(AxisEntry { text, value, span, fields: None });
                    }
                    Err(reason) => {
                        let title = match reason.as_str() {
                            "" => format!(
                                "a value of '{name}' is a number, true, false or text, but this is {}",
                                found(item.get_ref())
                            ),
                            reason => format!("this cannot be a value of '{name}': {reason}"),
                        };
                        let help = format!(
                            "give it a name: [matrix.{name}] and, below it, NAME = {{ ... }}"
                        );
                        mistakes.push(Mistake::at(item.span(), title).help(help));
                    }
                }
            }
        }
        DeValue::Table(points) => {
            for (key, fields) in points {
                let text = key.get_ref().to_string();
                if let Err(reason) = check_value(&text) {
                    let title = format!("{text:?} cannot be the name of a point: {reason}");
                    mistakes.push(Mistake::at(key.span(), title));
                }
                let value = DeValue::String(key.get_ref().clone());
                match fields.get_ref().as_table() {
                    Some(fields) => {
                        let texts = fields.iter().filter(|(key, _)| key.get_ref() != "shell");
                        texts.for_each(|(_, value)| refuse_templates(value, mistakes));
                        // No parameter has such a name.
                        let digits = |key: &str| key.bytes().all(|byte| byte.is_ascii_digit());
                        for (rest, _) in fields.iter().filter(|(key, value)| {
                            digits(key.get_ref()) && value.get_ref().is_table()
                        }) {
                            let title = format!(
                                "the dot makes this a field of the point '{text}'; in quotes, it is a part of the name"
                            );
                            let help = format!("write \"{text}.{}\"", rest.get_ref());
                            mistakes.push(Mistake::at(rest.span(), title).help(help));
                        }
                        let span = key.span();
                        values.push(AxisEntry { text, value, span, fields: Some(fields) });
                    }
                    None => {
                        let title = format!(
                            "a named point is a table, but '{text}' is {}",
                            self::found(fields.get_ref())
                        );
                        let help = format!("write {text} = {{ KEY = VALUE }}, or {text} = {{}}");
                        mistakes.push(Mistake::at(fields.span(), title).help(help));
                    }
                }
            }
            values.sort_by_key(|value| value.span.start);
        }
        other => {
            let title =
                format!("the axis '{name}' is a list of values, but this is {}", found(other));
            let list = || list_of(other).filter(|list| is_axis(list));
            let help = range_help(other).or_else(|| list().map(|list| format!("write {list}")));
            mistakes.push(Mistake::at(value.span(), title).help(help.unwrap_or_default()));
            return Vec::new();
        }
    }
    let mut seen = HashSet::new();
    for value in &values {
        if !seen.insert(canonical(&value.text).into_owned()) {
            let title = format!("'{}' is listed twice", value.text);
            mistakes.push(Mistake::at(value.span.clone(), title).help("drop one of them"));
        }
    }
    let is_empty = match value.get_ref() {
        DeValue::Array(items) => items.is_empty(),
        DeValue::Table(points) => points.is_empty(),
        _ => false,
    };
    if is_empty {
        let title = format!("the axis '{name}' needs at least one value");
        mistakes.push(Mistake::at(value.span(), title));
    }
    values
}

/// The list that somebody may have meant by one value: `[1, 2]` for the text `1,2`.
fn list_of(value: &DeValue<'_>) -> Option<String> {
    let DeValue::String(text) = value else {
        return scalar_text(value).map(|text| format!("[{text}]"));
    };
    let is_bare = |item: &str| {
        let is_number = item.parse().is_ok_and(f64::is_finite);
        (is_number || item == "true" || item == "false") && DeValue::parse(item).is_ok()
    };
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items = items.map(|item| match is_bare(item) {
        true => item.to_owned(),
        false => format!("{item:?}"),
    });
    Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")))
}

/// How to write what somebody may have meant by a range: `[1, 2, 3]` for the text `1-3`.
fn range_help(value: &DeValue<'_>) -> Option<String> {
    const LONGEST: u32 = 20;
    let text = value.as_str()?;
    let ends = ["..=", "..", "-", ":", " to "].iter().find_map(|sign| text.split_once(sign));
    let (first, last) = ends.map(|(first, last)| (first.trim(), last.trim()))?;
    let is_number = |end: &str| end.parse().is_ok_and(f64::is_finite);
    if !is_number(first) || !is_number(last) {
        return None;
    }
    let numbers = first.parse::<u32>().ok().zip(last.parse::<u32>().ok());
    match numbers.filter(|(first, last)| first < last && last - first < LONGEST) {
        Some((first, last)) => {
            let numbers: Vec<String> = (first..=last).map(|number| number.to_string()).collect();
            Some(format!("write [{}]", numbers.join(", ")))
        }
        None => Some(format!("an axis lists each of its numbers: [{first}, …, {last}]")),
    }
}

/// Whether an axis can have this list of values.
fn is_axis(list: &str) -> bool {
    let mut mistakes = Vec::new();
    DeValue::parse(list).is_ok_and(|list| {
        read_values("", &list, &mut mistakes);
        mistakes.is_empty()
    })
}

/// Refuses `${...}` in the field of a point, where it would stay as it is.
fn refuse_templates(field: &Value<'_>, mistakes: &mut Vec<Mistake>) {
    match field.get_ref() {
        DeValue::String(text) if text.contains("${") => {
            let title = "'${' in a field of a point is not replaced";
            let help = "put the axis into the value of the stage: \"${AXIS} and ${OTHER.FIELD}\"";
            mistakes.push(Mistake::at(field.span(), title).help(help));
        }
        DeValue::Array(items) => items.iter().for_each(|item| refuse_templates(item, mistakes)),
        DeValue::Table(items) => {
            for (key, item) in items {
                if key.get_ref().contains("${") {
                    mistakes.push(Mistake::at(key.span(), "'${' in a key is not replaced"));
                }
                refuse_templates(item, mistakes);
            }
        }
        _ => {}
    }
}

fn checked(text: String) -> Result<String, String> {
    check_value(&text).map(|()| text)
}

/// A number, a truth value, a date or text as it is within a longer text: numbers in their shortest form.
pub(super) fn scalar_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(integer) => {
            let whole = i128::from_str_radix(integer.as_str(), integer.radix());
            Some(whole.map_or_else(|_| integer.to_string(), |whole| whole.to_string()))
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse::<f64>().ok()?;
            Some(if number.is_finite() { shortest(number) } else { number.to_string() })
        }
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(date) => Some(date.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// An exclude: the axes that it names, and the values on each.
type Exclude = Vec<(usize, HashSet<u32>)>;

fn read_excludes(
    axes: &Axes<'_, '_>,
    value: &Value<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Exclude> {
    const FORM: &str = "start it with [[matrix.exclude]] and, below it, AXIS = VALUE";
    let DeValue::Array(tables) = value.get_ref() else {
        let title =
            format!("'exclude' is a list of tables, but this is {}", found(value.get_ref()));
        mistakes.push(Mistake::at(value.span(), title).help(FORM));
        return Vec::new();
    };
    let mut excludes = Vec::new();
    for value in tables {
        let Some(table) = value.get_ref().as_table().filter(|table| !table.is_empty()) else {
            let title = match value.get_ref() {
                DeValue::Table(_) => "this excludes every point".to_owned(),
                other => format!("an exclude is a table, but this is {}", found(other)),
            };
            mistakes.push(Mistake::at(value.span(), title).help(FORM));
            continue;
        };
        let mut exclude = Vec::new();
        for (key, value) in table {
            let Some(place) = axes.find(key.as_ref()) else {
                mistakes.push(axes.no_axis(key.as_ref(), key.span()));
                continue;
            };
            let axis = axes.get(place);
            let items = value.get_ref().as_array();
            let items: Vec<_> = items.map_or_else(|| vec![value], |items| items.iter().collect());
            if items.is_empty() {
                let title = "this list is empty, so the exclude leaves nothing out";
                let help = format!("write a value of '{}', or a list of them", axis.name);
                mistakes.push(Mistake::at(value.span(), title).help(help));
            }
            let mut places = HashSet::new();
            for item in items {
                let text = scalar_text(item.get_ref());
                match text.as_deref().map(|text| (axis.place(text), text)) {
                    Some((Some(place), _)) => {
                        places.insert(place);
                    }
                    Some((None, _)) if axis.is_set => {}
                    Some((None, text)) => mistakes.push(axis.no_value(text, item.span())),
                    None => {
                        let found = found(item.get_ref());
                        let title = format!(
                            "'{}' takes a value or a list of them, but this is {found}",
                            axis.name
                        );
                        mistakes.push(Mistake::at(item.span(), title));
                    }
                }
            }
            exclude.push((place, places));
        }
        excludes.push(exclude);
    }
    excludes
}

/// The points in order, the last axis fastest.
struct Enumeration<'a, 't, 'i> {
    axes: &'a Axes<'t, 'i>,
    /// Per axis, the excludes that are known to hold once it has a value.
    excludes: Vec<Vec<Exclude>>,
    current: Vec<u32>,
    digits: Vec<u32>,
    visited: usize,
}

impl<'a, 't, 'i> Enumeration<'a, 't, 'i> {
    /// `None` if there are too many.
    fn of(axes: &'a Axes<'t, 'i>, all: Vec<Exclude>) -> Option<Points> {
        // The rank of a point is a number of 64 bits.
        let mut sizes = axes.iter().map(|axis| axis.values.len() as u64);
        sizes.try_fold(1_u64, u64::checked_mul)?;
        let mut excludes: Vec<Vec<Exclude>> = axes.iter().map(|_| Vec::new()).collect();
        for exclude in all {
            let last = exclude.iter().map(|(axis, _)| *axis).max().unwrap_or(0);
            excludes[last].push(exclude);
        }
        let (current, digits) = (Vec::new(), Vec::new());
        let mut enumeration = Self { axes, excludes, current, digits, visited: 0 };
        enumeration.extend()?;
        Some(Points { axes: axes.all.len(), digits: enumeration.digits })
    }

    /// Adds all points that begin with the current values.
    fn extend(&mut self) -> Option<()> {
        let level = self.current.len();
        if level == self.axes.all.len() {
            self.digits.extend_from_slice(&self.current);
            return (self.digits.len() / level.max(1) <= MOST_POINTS).then_some(());
        }
        for digit in 0..self.axes.get(level).values.len() as u32 {
            self.visited += 1;
            if self.visited > MOST_VISITED {
                return None;
            }
            self.current.push(digit);
            let holds = |exclude: &Exclude| {
                exclude.iter().all(|(axis, places)| places.contains(&self.current[*axis]))
            };
            if !self.excludes[level].iter().any(holds) {
                self.extend()?;
            }
            self.current.pop();
        }
        Some(())
    }
}
