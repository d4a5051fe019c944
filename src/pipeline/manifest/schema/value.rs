//! Values, from the types that the declarations give them.

use std::ops::Bound;

use pipeline_stages::parameter::{ParameterType, Range};
use serde_json::{Map, Value, json};

/// What a text has in it whose value comes from an axis of a matrix.
pub(super) const TEMPLATE: &str = r"\$\{";

/// A value of this type, or a text with `${axis}` in its place.
pub(super) fn value(value_type: &ParameterType, range: Option<Range>) -> Map<String, Value> {
    let schema = match value_type {
        ParameterType::Integer { largest } => integer(0, *largest, range),
        ParameterType::Number => limited(json!({ "type": "number" }), range),
        ParameterType::Bool => object(json!({ "type": "boolean" })),
        ParameterType::Choice(choices) => {
            return choice(choices.iter().map(|choice| (choice.name, choice.about)));
        }
        ParameterType::List(item) => object(json!({ "type": "array", "items": value(item, None) })),
        ParameterType::Table(item) => {
            object(json!({ "type": "object", "additionalProperties": value(item, None) }))
        }
        // Every text is one of these.
        ParameterType::Text => return object(json!({ "type": "string" })),
        ParameterType::AxisValue => {
            return object(json!({ "type": ["number", "boolean", "string"] }));
        }
        ParameterType::OneOrMany(item) => {
            let (one, list) = (value(item, None), ParameterType::List(item.clone()));
            return object(json!({
                "if": { "type": "array" },
                "then": value(&list, None),
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
    object(json!({ "if": { "type": "string", "pattern": TEMPLATE }, "else": schema }))
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
