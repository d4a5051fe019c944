//! Values, from the types that the declarations give them.

use std::ops::Bound;

use pipeline_stages::form::Form;
use pipeline_stages::parameter::{ParameterType, Range};
use serde_json::{Map, Value, json};

/// What a text has in it whose value comes from an axis of a matrix.
const TEMPLATE: &str = r"\$\{";

/// A value of this type and of these forms, or a text with `${axis}` in its place.
pub(super) fn value(
    value_type: &ParameterType,
    range: Option<Range>,
    forms: &[&Form],
) -> Map<String, Value> {
    let schema = match value_type {
        ParameterType::Integer { largest } => integer(0, *largest, range),
        ParameterType::Number => limited(json!({ "type": "number" }), range),
        ParameterType::Bool => object(json!({ "type": "boolean" })),
        ParameterType::Choice(choices) => {
            return choice(choices.iter().map(|choice| (choice.name, choice.about)));
        }
        ParameterType::List(item) => {
            let items = value(item, None, forms);
            let mut list = object(json!({ "type": "array", "items": items }));
            if forms.iter().any(|form| matches!(form, Form::NotEmpty(_))) {
                list.insert("minItems".into(), 1.into());
            }
            list
        }
        ParameterType::Table(item) => {
            let items = value(item, None, forms);
            let mut table = object(json!({ "type": "object", "additionalProperties": items }));
            let names = patterns(forms.iter().filter_map(|form| match **form {
                Form::Name(_, pattern) => Some((true, pattern)),
                Form::NotName(_, pattern) => Some((false, pattern)),
                _ => None,
            }));
            if !names.is_empty() {
                table.insert("propertyNames".into(), names.into());
            }
            table
        }
        // Every text is one of these.
        ParameterType::Text => {
            let texts = patterns(forms.iter().filter_map(|form| match **form {
                Form::Text(_, pattern) => Some((true, pattern)),
                Form::NotText(_, pattern) => Some((false, pattern)),
                _ => None,
            }));
            return match texts.is_empty() {
                true => object(json!({ "type": "string" })),
                false => templated_text(texts),
            };
        }
        ParameterType::AxisValue => {
            return object(json!({ "type": ["number", "boolean", "string"] }));
        }
        ParameterType::OneOrMany(item) => {
            let list = value(&ParameterType::List(item.clone()), None, forms);
            let one = value(item, None, forms);
            return object(json!({
                "if": { "type": "array" },
                "then": list,
                "else": one,
            }));
        }
    };
    templated(schema)
}

/// A whole number between these, and within the range.
pub(super) fn integer(lowest: u64, largest: u64, range: Option<Range>) -> Map<String, Value> {
    let mut schema = json!({ "type": "integer", "minimum": lowest });
    // Nobody comes near the largest number of 64 bits, and not every validator can hold it.
    if largest < u64::MAX {
        schema["maximum"] = largest.into();
    }
    limited(schema, range)
}

/// One of these names, or a text with `${axis}` in its place. Each name has a meaning.
pub(super) fn choice(
    choices: impl Iterator<Item = (&'static str, &'static str)>,
) -> Map<String, Value> {
    let (names, meanings): (Vec<_>, Vec<_>) = choices.unzip();
    let mut schema = templated(object(json!({ "enum": names })));
    let offered = json!({ "enum": names, "x-taplo": { "docs": { "enumValues": meanings } } });
    schema.insert("anyOf".into(), json!([offered, true]));
    schema
}

/// The value, or a text with `${axis}` in its place.
pub(super) fn templated(schema: Map<String, Value>) -> Map<String, Value> {
    object(json!({ "if": template(), "else": schema }))
}

/// A text with `${axis}` in it.
pub(super) fn template() -> Value {
    json!({ "type": "string", "pattern": TEMPLATE })
}

/// The rules, and no text with `${axis}`.
pub(super) fn without_template(mut rules: Map<String, Value>) -> Map<String, Value> {
    rules.insert("not".into(), template());
    rules
}

/// A text with these rules, or one with `${axis}` in it.
pub(super) fn templated_text(rules: Map<String, Value>) -> Map<String, Value> {
    object(json!({ "type": "string", "if": { "pattern": TEMPLATE }, "else": rules }))
}

/// The rules of a text that has some patterns, and does not have others.
fn patterns<'p>(asked: impl Iterator<Item = (bool, &'p str)>) -> Map<String, Value> {
    let rules = asked.map(|(has_it, pattern)| match has_it {
        true => ("pattern".to_owned(), pattern.into()),
        false => ("not".to_owned(), json!({ "pattern": pattern })),
    });
    rules.collect()
}

/// The same with a description.
pub(super) fn described(mut schema: Map<String, Value>, about: impl Into<String>) -> Value {
    schema.insert("description".into(), Value::String(about.into()));
    schema.into()
}

pub(super) fn object(schema: Value) -> Map<String, Value> {
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn limited(schema: Value, range: Option<Range>) -> Map<String, Value> {
    let mut schema = object(schema);
    let Some(range) = range else { return schema };
    let mut set = |name: &str, number: f64| {
        if number.is_finite() {
            schema.insert(name.to_owned(), number_value(number));
        }
    };
    match range.low {
        Bound::Included(low) => set("minimum", low),
        Bound::Excluded(low) => set("exclusiveMinimum", low),
        Bound::Unbounded => {}
    }
    match range.high {
        Bound::Included(high) => set("maximum", high),
        Bound::Excluded(high) => set("exclusiveMaximum", high),
        Bound::Unbounded => {}
    }
    schema
}

/// Whole numbers as such: `minimum: 1`, not `1.0`.
fn number_value(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        (number as i64).into()
    } else {
        number.into()
    }
}
