//! As much of a validator of JSON Schema as the schema needs, so that its tests need no other program. One that it would not
//! understand is a panic. `tests/cli/schema.rs` holds real ones against the same files.

use std::cell::RefCell;
use std::collections::HashMap;

use regex_automata::meta::Regex;
use serde_json::Value;

/// What is wrong with a value, if anything.
pub(super) fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(rules) = schema else {
        return match schema {
            Value::Bool(true) => Ok(()),
            _ => Err(format!("{value} is not allowed")),
        };
    };
    let holds = |schema: &Value| check(root, schema, value).is_ok();
    if let Some(condition) = rules.get("if") {
        let branch = if holds(condition) { "then" } else { "else" };
        rules.get(branch).map_or(Ok(()), |branch| check(root, branch, value))?;
    }
    for (rule, operand) in rules {
        let right = match rule.as_str() {
            "$ref" => {
                let path =
                    operand.as_str().and_then(|path| path.strip_prefix('#')).expect("a path");
                check(root, root.pointer(path).expect("a definition"), value)?;
                true
            }
            "type" => types(operand).iter().any(|one| has_type(value, one)),
            "enum" => array(operand).contains(value),
            "const" => operand == value,
            "not" => !holds(operand),
            "anyOf" => several(operand).iter().any(holds),
            "allOf" => {
                several(operand).iter().try_for_each(|schema| check(root, schema, value))?;
                true
            }
            "pattern" => {
                let pattern = operand.as_str().expect("a pattern");
                value.as_str().is_none_or(|text| matches(pattern, text))
            }
            "minLength" => {
                value.as_str().is_none_or(|text| text.len() as u64 >= number(operand) as u64)
            }
            "maxLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as f64 <= number(operand))
            }
            "minItems" => {
                value.as_array().is_none_or(|items| items.len() as f64 >= number(operand))
            }
            "uniqueItems" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let occurs =
                    |place: usize| items[..place].iter().any(|item| same(item, &items[place]));
                !(1..items.len()).any(occurs)
            }
            "minProperties" => {
                value.as_object().is_none_or(|items| items.len() as f64 >= number(operand))
            }
            "minimum" => value.as_f64().is_none_or(|value| value >= number(operand)),
            "maximum" => value.as_f64().is_none_or(|value| value <= number(operand)),
            "exclusiveMinimum" => value.as_f64().is_none_or(|value| value > number(operand)),
            "exclusiveMaximum" => value.as_f64().is_none_or(|value| value < number(operand)),
            "required" => {
                let has = |key: &Value| value.get(key.as_str().expect("a key")).is_some();
                !value.is_object() || array(operand).iter().all(has)
            }
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                items.try_for_each(|item| check(root, operand, item))?;
                true
            }
            "properties" | "patternProperties" | "additionalProperties" | "propertyNames" => true,
            "if" | "then" | "else" => true,
            "$schema" | "$defs" | "title" | "description" | "default" | "x-taplo" => true,
            other => panic!("the validator does not know '{other}'"),
        };
        if !right {
            return Err(format!("{value} is not {rule} {operand}"));
        }
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        if let Some(names) = rules.get("propertyNames") {
            check(root, names, &Value::from(key.as_str()))?;
        }
        let named = rules.get("properties").and_then(|properties| properties.get(key));
        let patterns = rules.get("patternProperties").and_then(Value::as_object);
        let patterns = patterns.into_iter().flatten().filter(|(name, _)| matches(name, key));
        let mut own: Vec<_> = named.into_iter().chain(patterns.map(|(_, schema)| schema)).collect();
        if own.is_empty() {
            own.extend(rules.get("additionalProperties"));
        }
        for schema in own {
            check(root, schema, item).map_err(|error| format!("{key}: {error}"))?;
        }
    }
    Ok(())
}

/// Whether two values are one: `1` and `1.0` are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) if one.is_f64() != other.is_f64() => {
            one.as_f64() == other.as_f64()
        }
        _ => one == other,
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    thread_local! {
        static KNOWN: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let new = || Regex::new(pattern).expect("a pattern");
        known.entry(pattern.to_owned()).or_insert_with(new).is_match(text)
    })
}

fn types(operand: &Value) -> Vec<&str> {
    match operand {
        Value::String(one) => vec![one],
        several => array(several).iter().filter_map(Value::as_str).collect(),
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the validator does not know the type '{other}'"),
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).expect("a list")
}

/// Schemas, of which a list has at least one.
fn several(value: &Value) -> &[Value] {
    let schemas = array(value);
    assert!(!schemas.is_empty(), "a list of schemas is not empty");
    schemas
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}
