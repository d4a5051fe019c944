//! Values of a manifest, checked against the types that they must have. Mistakes are in plain words.
//!
//! Knows the types of parameters; does not depend on the stages that have them.

use std::ops::Bound;

use pipeline_stages::parameter::{Choice, Field, ParameterType};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::hint::{did_you_mean, listed, nearest};
use crate::diagnostic::{Mistake, Span};

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// The value as a table. Reports if it is not one, and every key that is not in `keys`.
pub(super) fn known_table<'t, 'i>(
    name: &str,
    value: &'t Value<'i>,
    keys: &[&'static str],
    mistakes: &mut Vec<Mistake>,
) -> Option<&'t DeTable<'i>> {
    let DeValue::Table(table) = value.get_ref() else {
        mistakes.push(not_a_table(name, value));
        return None;
    };
    for key in table.keys().filter(|key| !keys.contains(&key.as_ref().as_ref())) {
        let given: &str = key.as_ref();
        let hint = did_you_mean(given, keys.iter().copied());
        let title = format!("unknown key '{given}' in '{name}'");
        mistakes.push(match hint {
            Some(hint) => Mistake::at(key.span(), format!("{title}, {hint}")),
            None => Mistake::at(key.span(), title)
                .help(format!("'{name}' has {}", listed(keys.iter().copied(), "and"))),
        });
    }
    Some(table)
}

/// What a value is, in plain words: the end of the sentence "it must be text, but is ...".
pub(super) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The value as text.
pub(super) fn text<'v>(name: &str, value: &'v Value<'_>) -> Result<&'v str, Mistake> {
    value.get_ref().as_str().ok_or_else(|| not_a(name, &ParameterType::Text, value))
}

/// Where a value is: for a table or a list, where each value in it is.
pub(super) fn leaves(value: &Value<'_>) -> Vec<Span> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().flat_map(leaves).collect(),
        DeValue::Table(table) => table.values().flat_map(leaves).collect(),
        _ => vec![value.span()],
    }
}

/// The first text in the value with a NUL character: it ends every text that is passed to the operating system.
pub(super) fn with_nul<'v, 'i>(value: &'v Value<'i>) -> Option<&'v Value<'i>> {
    match value.get_ref() {
        DeValue::String(text) => text.contains('\0').then_some(value),
        DeValue::Array(items) => items.iter().find_map(with_nul),
        DeValue::Table(table) => table.values().find_map(with_nul),
        _ => None,
    }
}

/// The mistake of a text with a NUL character.
pub(super) fn nul_mistake(name: &str, place: Span) -> Mistake {
    Mistake::at(place, format!("'{name}' has a NUL character"))
        .help("no program, path or URL can have one: remove it, or read the value from a file")
}

/// The value as a whole number within the bounds, both included.
pub(super) fn whole_number(
    name: &str,
    value: &Value<'_>,
    low: u64,
    high: u64,
) -> Result<u64, Mistake> {
    let DeValue::Integer(integer) = value.get_ref() else {
        return Err(not_a(name, &ParameterType::Integer { largest: high }, value));
    };
    match unsigned(integer) {
        Some(number) if (low..=high).contains(&number) => Ok(number),
        Some(number) if number < low => Err(Mistake::at(
            value.span(),
            format!("'{name}' must be at least {low}, but is {number}"),
        )),
        _ => Err(integer_mistake(name, low, high, value, integer)),
    }
}

/// The mistake of a value that is not a table.
pub(super) fn not_a_table(name: &str, value: &Value<'_>) -> Mistake {
    let found = found(value.get_ref());
    Mistake::at(value.span(), format!("'{name}' must be a table, but is {found}"))
}

/// The mistake of a value of the wrong type.
pub(super) fn not_a(name: &str, expected: &ParameterType, value: &Value<'_>) -> Mistake {
    let found = found(value.get_ref());
    let title = format!("'{name}' must be {}, but is {found}", one(expected));
    Mistake::at(value.span(), title)
        .help(rewrite(name, expected, value.get_ref()).unwrap_or_default())
}

/// The mistake of a parameter whose value, or a part of it, does not have the parameter's type.
pub(super) fn type_mistake(field: &Field, value: &Value<'_>) -> Option<Mistake> {
    let (part, expected) = misfit(&field.value_type, value)?;
    let name = &field.name;
    let mistake = match (part.get_ref(), expected) {
        (DeValue::String(given), ParameterType::Choice(choices)) => {
            return Some(choice_mistake(name, choices, given, part.span()));
        }
        (DeValue::Integer(integer), ParameterType::Integer { largest }) => {
            integer_mistake(name, lowest(field), *largest, part, integer)
        }
        (DeValue::Integer(_) | DeValue::Float(_), ParameterType::Number) => {
            Mistake::at(part.span(), format!("'{name}' is outside the range of 64-bit numbers"))
        }
        _ if std::ptr::eq(part, value) => not_a(name, expected, value),
        (other, _) => {
            let found = found(other);
            let title =
                format!("'{name}' must be {}, but this item is {found}", one(&field.value_type));
            Mistake::at(part.span(), title).help(rewrite("", expected, other).unwrap_or_default())
        }
    };
    Some(mistake.help(about(field)))
}

/// The first part of the value that does not have its type, and that type.
fn misfit<'v, 'i, 't>(
    expected: &'t ParameterType,
    value: &'v Value<'i>,
) -> Option<(&'v Value<'i>, &'t ParameterType)> {
    let fits = match (expected, value.get_ref()) {
        (ParameterType::Integer { largest }, DeValue::Integer(integer)) => {
            unsigned(integer).is_some_and(|number| number <= *largest)
        }
        (ParameterType::Number, DeValue::Integer(integer)) => {
            let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
            whole(integer).is_some_and(|number| range.contains(&number))
        }
        (ParameterType::Number, DeValue::Float(float)) => {
            let is_infinite = |number: f64| number.is_infinite() && !float.as_str().contains("inf");
            float.as_str().parse().is_ok_and(|number| !is_infinite(number))
        }
        (ParameterType::Bool, DeValue::Boolean(_)) => true,
        (ParameterType::Text | ParameterType::AxisValue, DeValue::String(_)) => true,
        (ParameterType::AxisValue, DeValue::Boolean(_)) => true,
        (ParameterType::AxisValue, DeValue::Integer(integer)) => {
            let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
            whole(integer).is_some_and(|number| range.contains(&number))
        }
        (ParameterType::AxisValue, DeValue::Float(float)) => {
            float.as_str().parse().is_ok_and(f64::is_finite)
        }
        (ParameterType::Choice(choices), DeValue::String(given)) => {
            choices.iter().any(|choice| choice.name == given)
        }
        (ParameterType::List(item) | ParameterType::OneOrMany(item), DeValue::Array(items)) => {
            return items.iter().find_map(|value| misfit(item, value));
        }
        (ParameterType::OneOrMany(item), _) => misfit(item, value).is_none(),
        (ParameterType::Table(item), DeValue::Table(table)) => {
            return table.values().find_map(|value| misfit(item, value));
        }
        _ => false,
    };
    (!fits).then_some((value, expected))
}

/// The mistake of a number out of a parameter's range, if it is.
pub(super) fn range_mistake(field: &Field, value: &Value<'_>) -> Option<Mistake> {
    let range = field.range?;
    let number: f64 = match value.get_ref() {
        DeValue::Integer(integer) => whole(integer)? as f64,
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => return None,
    };
    let finite = if number.is_finite() { "" } else { "a finite number " };
    let title = format!("'{}' must be {finite}{range}, but is {number}", field.name);
    (!range.contains(number)).then(|| Mistake::at(value.span(), title).help(about(field)))
}

/// What a parameter is for, as the last line of a mistake.
pub(super) fn about(field: &Field) -> String {
    let first = field.about.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = first.split_whitespace().collect();
    let default = match &field.default {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) if text.is_empty() => String::new(),
        Some(serde_json::Value::Array(list)) if list.is_empty() => String::new(),
        Some(serde_json::Value::Object(table)) if table.is_empty() => String::new(),
        Some(default) => format!("By default {default}."),
    };
    format!("{}: {} {default}", field.name, words.join(" ")).trim_end().to_owned()
}

fn choice_mistake(name: &str, choices: &[Choice], given: &str, place: Span) -> Mistake {
    let names = || choices.iter().map(|choice| choice.name);
    let hint = did_you_mean(given, names()).map_or(String::new(), |hint| format!(", {hint}"));
    let title = format!("'{given}' is not a value of '{name}'{hint}");
    let meaning = nearest(given, names())
        .and_then(|name| choices.iter().find(|choice| choice.name == name))
        .map_or(String::new(), |choice| format!("{}: {}", choice.name, choice.about));
    Mistake::at(place, title)
        .help(meaning)
        .help(format!("'{name}' is one of {}", listed(names(), "and")))
}

/// The mistake of a whole number that is out of range.
fn integer_mistake(
    name: &str,
    low: u64,
    high: u64,
    value: &Value<'_>,
    integer: &DeInteger<'_>,
) -> Mistake {
    let title = if integer.as_str().starts_with('-') {
        format!("'{name}' must be a whole number from {low}, but is {integer}")
    } else {
        format!("'{name}' must be at most {high}, but is {integer}")
    };
    Mistake::at(value.span(), title)
}

/// The lowest whole number that a parameter takes.
fn lowest(field: &Field) -> u64 {
    match field.range.map(|range| range.low) {
        Some(Bound::Included(low)) if low > 0.0 => low.ceil() as u64,
        Some(Bound::Excluded(low)) if low >= 0.0 => low.floor() as u64 + 1,
        _ => 0,
    }
}

fn unsigned(integer: &DeInteger<'_>) -> Option<u64> {
    whole(integer)?.try_into().ok()
}

fn whole(integer: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A value of this type, in plain words: `a whole number`.
fn one(expected: &ParameterType) -> String {
    match expected {
        ParameterType::Integer { .. } => "a whole number".to_owned(),
        ParameterType::Number => "a number".to_owned(),
        ParameterType::Bool => "true or false".to_owned(),
        ParameterType::Text => "text".to_owned(),
        ParameterType::AxisValue => "a number, a text, true or false".to_owned(),
        ParameterType::Choice(choices) => {
            format!("one of {}", listed(choices.iter().map(|choice| choice.name), "and"))
        }
        ParameterType::List(item) => format!("a list of {}", several(item)),
        ParameterType::Table(item) => format!("a table of {}", several(item)),
        ParameterType::OneOrMany(item) => format!("{} or a list of {}", one(item), several(item)),
    }
}

/// Values of this type, in plain words: `whole numbers`.
fn several(expected: &ParameterType) -> String {
    match expected {
        ParameterType::Integer { .. } => "whole numbers".to_owned(),
        ParameterType::Number => "numbers".to_owned(),
        ParameterType::AxisValue => "numbers, texts, true or false".to_owned(),
        other => one(other),
    }
}

/// What to do about a `${axis}` that is still in a text.
pub(super) const NO_MATRIX: &str = "values of a matrix are put in where the manifest has [matrix], into stages, [defaults.KIND] and the seed of the experiment; a file that it includes is not run by itself";

/// How the help begins that shows a text as a number.
pub(super) const WITHOUT_QUOTES: &str = "without quotes: ";

/// Whether a text has a value of a matrix in it.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("${")
}

/// The name in a text that others write for a value of a matrix: `$rate`, `{rate}`, `{{ rate }}`.
fn nearly_template(text: &str) -> Option<&str> {
    let name = text.trim_matches(['$', '{', '}', '%', ' ']);
    let is_name = |name: &str| {
        let mut letters = name.chars();
        letters.next().is_some_and(char::is_alphabetic)
            && letters.all(|letter| letter.is_alphanumeric() || "_-.".contains(letter))
    };
    (text.starts_with(['$', '{']) && is_name(name)).then_some(name)
}

/// How the names begin that have a value of a matrix in them, which is a mistake of its own: a stage that does not exist may be
/// one of theirs.
pub(super) fn beginnings<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    names.filter_map(|name| Some(name.split_once("${")?.0)).collect()
}

/// How to write the value so that it has the expected type, where that is easy.
fn rewrite(name: &str, expected: &ParameterType, value: &DeValue<'_>) -> Option<String> {
    let key = if name.is_empty() { String::new() } else { format!("{name} = ") };
    match (value, expected) {
        (DeValue::String(text), ParameterType::List(item)) if **item == ParameterType::Text => {
            Some(format!("in brackets: {key}[{:?}]", text.trim()))
        }
        (DeValue::String(text), _) if is_template(text) => Some(NO_MATRIX.to_owned()),
        (DeValue::String(text), _) => {
            let text = text.trim();
            let fits = match expected {
                ParameterType::Integer { .. } => text.parse::<u64>().is_ok(),
                ParameterType::Number => text.parse::<f64>().is_ok_and(f64::is_finite),
                ParameterType::Bool => text == "true" || text == "false",
                _ => false,
            };
            let plain = || fits.then(|| format!("{WITHOUT_QUOTES}{key}{text}"));
            let of_matrix = |name| format!("a value of the matrix is written \"${{{name}}}\"");
            plain().or_else(|| nearly_template(text).map(of_matrix))
        }
        (DeValue::Float(float), ParameterType::Integer { .. }) => {
            let whole = float.as_str().strip_suffix(".0")?;
            Some(format!("without the fraction: {key}{whole}"))
        }
        (DeValue::Array(items), ParameterType::Table(_)) => {
            let pair = |item: &Value<'_>| match item.get_ref().as_array()?.iter().as_slice() {
                [from, to] => {
                    Some(format!("{:?} = {:?}", from.get_ref().as_str()?, to.get_ref().as_str()?))
                }
                _ => None,
            };
            let pairs: Option<Vec<_>> = items.iter().map(pair).collect();
            let pairs = pairs.filter(|pairs| !pairs.is_empty()).map(|pairs| pairs.join(", "));
            Some(format!("in braces: {key}{{ {} }}", pairs.as_deref().unwrap_or("NAME = VALUE")))
        }
        (_, ParameterType::Text | ParameterType::OneOrMany(_)) => {
            let text = match value {
                DeValue::Integer(integer) => integer.to_string(),
                DeValue::Float(float) => float.to_string(),
                DeValue::Boolean(truth) => truth.to_string(),
                DeValue::Datetime(date) => date.to_string(),
                DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
            };
            Some(format!("in quotes: {key}\"{text}\""))
        }
        _ => None,
    }
}
