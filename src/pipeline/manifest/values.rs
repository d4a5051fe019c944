//! Values of a manifest: read as what they must be, or what is wrong with them, in plain words.
//!
//! Knows the types of parameters, but not the stages that have them.

use std::ops::Bound;

use pipeline_stages::parameter::Field;
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::hint::{did_you_mean, listed, nearest};
use crate::diagnostic::{Mistake, Span};

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

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
    value.get_ref().as_str().ok_or_else(|| not_a(name, "text", value))
}

/// The value as a whole number within the bounds, both included.
pub(super) fn whole_number(
    name: &str,
    value: &Value<'_>,
    low: u64,
    high: u64,
) -> Result<u64, Mistake> {
    let DeValue::Integer(integer) = value.get_ref() else {
        return Err(not_a(name, "a whole number", value));
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

/// The mistake of a value of the wrong type.
pub(super) fn not_a(name: &str, expected: &str, value: &Value<'_>) -> Mistake {
    let found = found(value.get_ref());
    let title = format!("'{name}' must be {expected}, but is {found}");
    Mistake::at(value.span(), title)
        .help(rewrite(name, expected, value.get_ref()).unwrap_or_default())
}

/// The mistake of a parameter that its type refuses with `error`.
pub(super) fn parameter_mistake(
    field: &Field,
    value: &Value<'_>,
    error: &toml::de::Error,
) -> Mistake {
    // The error says which part of the value is refused.
    let part = error.span().and_then(|place| find(value, &place)).unwrap_or(value);
    let name = &field.name;
    let is_whole = std::ptr::eq(part, value);
    let wanted = if is_whole { &field.type_name } else { element(&field.type_name) };
    let mistake = match (part.get_ref(), wanted) {
        (DeValue::String(given), _) if !field.choices.is_empty() => {
            return choice_mistake(field, given, part.span());
        }
        (DeValue::Integer(integer), "integer") => {
            integer_mistake(name, lowest(field), u64::MAX, part, integer)
        }
        (DeValue::Integer(_) | DeValue::Float(_), "number") => Mistake::at(
            part.span(),
            format!("'{name}' is beyond all numbers that can be computed with"),
        ),
        // The type is right, so the parameter has a rule of its own, with its own words.
        (DeValue::String(_), "text") | (DeValue::Boolean(_), "true or false") => {
            Mistake::at(part.span(), format!("'{name}': {}", error.message()))
        }
        _ if is_whole => not_a(name, &expected(field), value),
        (other, type_of_item) => {
            let found = found(other);
            let title = format!("'{name}' must be {}, but this item is {found}", expected(field));
            Mistake::at(part.span(), title)
                .help(rewrite("", type_of_item, other).unwrap_or_default())
        }
    };
    mistake.help(about(field))
}

/// The mistake of a number out of a parameter's range, if it is.
pub(super) fn range_mistake(field: &Field, value: &Value<'_>) -> Option<Mistake> {
    let range = field.range?;
    let number: f64 = match value.get_ref() {
        DeValue::Integer(integer) => {
            i128::from_str_radix(integer.as_str(), integer.radix()).ok()? as f64
        }
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => return None,
    };
    let title = format!("'{}' must be {range}, but is {number}", field.name);
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

fn choice_mistake(field: &Field, given: &str, place: Span) -> Mistake {
    let names = || field.choices.iter().map(|choice| choice.name);
    let hint = did_you_mean(given, names()).map_or(String::new(), |hint| format!(", {hint}"));
    let title = format!("'{given}' is not a value of '{}'{hint}", field.name);
    let meaning = nearest(given, names())
        .and_then(|name| field.choices.iter().find(|choice| choice.name == name))
        .map_or(String::new(), |choice| format!("{}: {}", choice.name, choice.about));
    Mistake::at(place, title).help(meaning).help(format!(
        "'{}' is one of {}",
        field.name,
        listed(names(), "and")
    ))
}

/// The mistake of a whole number that doesn't fit.
fn integer_mistake(
    name: &str,
    low: u64,
    high: u64,
    value: &Value<'_>,
    integer: &DeInteger<'_>,
) -> Mistake {
    let title = if integer.as_str().starts_with('-') {
        format!("'{name}' must be a whole number from {low}, but is {integer}")
    } else if high == u64::MAX {
        format!("'{name}' is too large: {integer}")
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
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The type of a parameter in plain words.
fn expected(field: &Field) -> String {
    if !field.choices.is_empty() {
        let names = listed(field.choices.iter().map(|choice| choice.name), "and");
        let list = if field.type_name.starts_with("list") { "a list of " } else { "" };
        return format!("{list}one of {names}");
    }
    plain(&field.type_name)
}

/// A type's name, as it stands in the contract, in plain words.
fn plain(type_name: &str) -> String {
    match type_name {
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "list of integer" => "a list of whole numbers".to_owned(),
        "list of number" => "a list of numbers".to_owned(),
        "table of integer" => "a table of whole numbers".to_owned(),
        "table of number" => "a table of numbers".to_owned(),
        "text or list of text" => "text or a list of text".to_owned(),
        name if name.starts_with("list") || name.starts_with("table") => format!("a {name}"),
        name => name.to_owned(),
    }
}

/// The type of what a list or a table holds; any other type itself.
fn element(type_name: &str) -> &str {
    let inner = type_name.strip_prefix("list of ").or_else(|| type_name.strip_prefix("table of "));
    inner.map_or(type_name, element)
}

/// How to write the value so that it has the expected type, where that is easy to say.
fn rewrite(name: &str, expected: &str, value: &DeValue<'_>) -> Option<String> {
    let key = if name.is_empty() { String::new() } else { format!("{name} = ") };
    match value {
        DeValue::String(text) => {
            let text = text.trim();
            let number = text.parse::<f64>().is_ok_and(f64::is_finite);
            let whole = text.parse::<u64>().is_ok();
            let fits = match expected {
                "a whole number" => whole,
                "a number" => number,
                "true or false" => text == "true" || text == "false",
                _ => false,
            };
            match () {
                () if fits => Some(format!("without quotes: {key}{text}")),
                () if expected.starts_with("a list of text") => {
                    Some(format!("in brackets: {key}[{text:?}]"))
                }
                () => None,
            }
        }
        DeValue::Float(float) if expected == "a whole number" => {
            let whole = float.as_str().strip_suffix(".0")?;
            Some(format!("without the fraction: {key}{whole}"))
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_)
            if expected.starts_with("text") =>
        {
            let text = match value {
                DeValue::Integer(integer) => integer.to_string(),
                DeValue::Float(float) => float.to_string(),
                DeValue::Boolean(truth) => truth.to_string(),
                DeValue::Datetime(date) => date.to_string(),
                _ => return None,
            };
            Some(format!("in quotes: {key}\"{text}\""))
        }
        _ => None,
    }
}

/// The part of `value` that lies at `place`.
fn find<'v, 'i>(value: &'v Value<'i>, place: &Span) -> Option<&'v Value<'i>> {
    if value.span() == *place {
        return Some(value);
    }
    match value.get_ref() {
        DeValue::Array(items) => items.iter().find_map(|item| find(item, place)),
        DeValue::Table(table) => table.values().find_map(|item| find(item, place)),
        _ => None,
    }
}
