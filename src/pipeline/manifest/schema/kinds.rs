//! Stages and the defaults of kinds, from the declarations of the kinds.

use pipeline_stages::form::Form;
use pipeline_stages::parameter::{Condition, Field, ParameterType, Role};
use pipeline_stages::{ArtifactType, KINDS, KindInfo, Port, PortShape};
use serde_json::{Map, Value, json};

use super::super::execution::most_gpus;
use super::super::stage::COMMON_KEYS;
use super::definitions::{definition, kind_definition};
use super::value::{self, described, object, templated};
use crate::stage_name::NAME_PATTERN;

/// A stage of any kind.
pub(super) fn stage() -> Value {
    let first_line = |kind: &KindInfo| (kind.about)().lines().next().unwrap_or("").trim();
    let kinds = value::choice(KINDS.iter().map(|kind| (kind.name, first_line(kind))));
    let cases = KINDS.iter().map(|kind| {
        let own = json!({ "$ref": definition(&kind_definition(kind.name)) });
        let rules = [own].into_iter().chain(exclusions(kind));
        json!({
            "if": { "properties": { "kind": { "const": kind.name } } },
            "then": { "allOf": rules.collect::<Vec<_>>() },
        })
    });
    let offered =
        KINDS.iter().map(|kind| json!({ "$ref": definition(&kind_definition(kind.name)) }));
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": described(kinds, "What the stage does: one of the kinds that `pipeline kinds` lists."),
        },
        "if": { "required": ["kind"] },
        "then": { "allOf": cases.collect::<Vec<_>>() },
        "anyOf": offered.chain([json!(true)]).collect::<Vec<_>>(),
    })
}

/// A stage of one kind.
pub(super) fn stage_of(kind: &KindInfo) -> Value {
    json!({
        "description": trimmed((kind.about)()),
        "type": "object",
        "properties": properties(kind),
        "additionalProperties": false,
    })
}

/// The values of all stages of one kind.
pub(super) fn defaults_of(kind: &KindInfo) -> Value {
    json!({ "allOf": [{ "$ref": definition(&kind_definition(kind.name)) }], "properties": { "kind": false } })
}

/// What stages need, where neither their file includes others, nor their kind has defaults, nor an axis has their fields.
pub(super) fn required() -> Vec<Value> {
    let rules = KINDS.iter().filter_map(|kind| {
        let ports = (kind.ports)().iter().filter(|port| port.required()).map(Port::name);
        let fields = (kind.fields)().iter().filter(|field| field.default.is_none());
        let keys: Vec<_> = ports.chain(fields.map(|field| field.name.clone())).collect();
        let keys = (!keys.is_empty()).then(|| json!({ "required": keys }));
        let rules: Vec<_> = keys.into_iter().chain(alternatives(kind)).collect();
        (!rules.is_empty()).then(|| {
            json!({
                "if": {
                    "properties": { "defaults": { "not": { "required": [kind.name] } } },
                },
                "then": { "properties": { "stages": { "additionalProperties": {
                    "if": {
                        "properties": { "kind": { "const": kind.name } },
                        "required": ["kind"],
                        "not": { "required": ["with"] },
                    },
                    "then": { "allOf": rules },
                } } } },
            })
        })
    });
    rules.collect()
}

/// A value that a point may leave out.
pub(super) fn may_be_missing() -> Value {
    let template = value::template();
    json!({ "anyOf": [template, { "type": "array", "items": template }] })
}

/// What a stage of the kind cannot have beside other keys.
fn exclusions(kind: &KindInfo) -> impl Iterator<Item = Value> {
    let eithers = (kind.forms)().iter().filter_map(Form::either);
    eithers.flat_map(move |(one, other)| {
        one.iter().map(move |one| {
            let missing = json!({ "$ref": definition("may-be-missing") });
            let other_unset = json!({ "if": value::template(), "else": unset(kind, other) });
            json!({
                "if": { "required": [one], "properties": { *one: { "not": missing } } },
                "then": { "properties": { other: other_unset } },
            })
        })
    })
}

/// Of which keys a stage of the kind needs one. Said as what is wrong, since validators show that.
fn alternatives(kind: &KindInfo) -> impl Iterator<Item = Value> {
    (kind.forms)().iter().filter_map(Form::either).map(move |(one, other)| {
        let keys = one.iter().chain([&other]);
        let properties = keys.map(|key| ((*key).to_owned(), unset(kind, key)));
        json!({ "not": { "properties": Map::from_iter(properties) } })
    })
}

/// The values of a parameter or port that count as not set.
fn unset(kind: &KindInfo, name: &str) -> Value {
    let field = (kind.fields)().iter().find(|field| field.name == name);
    match field.map(|field| &field.value_type) {
        Some(ParameterType::Bool) => json!({ "const": false }),
        _ => json!(false),
    }
}

/// What a stage of the kind can have.
fn properties(kind: &KindInfo) -> Map<String, Value> {
    let ports = (kind.ports)().iter().map(|port| (port.name(), self::port(port)));
    let fields = (kind.fields)().iter();
    let fields = fields.map(|field| (field.name.clone(), self::field(kind, field)));
    let common = COMMON_KEYS.into_iter().filter_map(|key| match key {
        "seed" if !kind.seeded => None,
        _ => Some((key.to_owned(), common(kind, key))),
    });
    ports
        .chain(fields)
        .chain(common)
        .chain([("with".to_owned(), json!({ "$ref": definition("with") }))])
        .collect()
}

fn common(kind: &KindInfo, key: &str) -> Value {
    match key {
        "seed" => described(
            templated(value::integer(0, u64::MAX, None)),
            "The seed of its random draws. By default that of the experiment.",
        ),
        "kind" => json!(true),
        "execution" => {
            let gpus = json!({ "maximum": most_gpus(kind) });
            json!({ "allOf": [{ "$ref": definition("execution") }], "properties": { "gpus": gpus } })
        }
        // A test finds what has no description.
        _ => json!({}),
    }
}

fn port(port: &Port) -> Value {
    let stage = || json!({ "type": "string" });
    let list = json!({ "type": ["string", "array"], "items": stage() });
    let (schema, shape) = match port.shape {
        PortShape::One => (object(stage()), "A stage"),
        PortShape::Optional => (object(stage()), "A stage, or none,"),
        PortShape::Many => {
            let mut list = object(list);
            list.insert("minItems".into(), 1.into());
            (list, "One or several stages")
        }
        PortShape::OptionalMany => (object(list), "None, one or several stages"),
        PortShape::Named => {
            let table = json!({
                "type": "object",
                "propertyNames": { "pattern": NAME_PATTERN },
                "additionalProperties": stage(),
            });
            (templated(object(table)), "A table of names to stages")
        }
        PortShape::Instances => (object(stage()), "All instances of a stage"),
    };
    let accepts = match port.accepts {
        [] => "anything".to_owned(),
        types => types.iter().map(ArtifactType::to_string).collect::<Vec<_>>().join(" or "),
    };
    described(schema, format!("{}\n\n{shape} that produces {accepts}.", trimmed(port.about)))
}

fn field(kind: &KindInfo, field: &Field) -> Value {
    let mut about = trimmed(field.about);
    let choices = field.value_type.choices();
    if !choices.is_empty() {
        about.push('\n');
    }
    for choice in choices {
        about.push_str(&format!("\n- `{}`: {}", choice.name, choice.about));
    }
    let mut notes = Vec::new();
    notes.extend(field.range.map(|range| format!("It is {range}.")));
    match &field.default {
        None => notes.push("It must be given.".to_owned()),
        Some(default) if has_content(default) => notes.push(format!("By default {default}.")),
        Some(_) => {}
    }
    if !field.only_if.is_empty() {
        notes.push(format!("Only with {}.", Condition::all_in_words(&field.only_if)));
    }
    if field.role == Role::Execution {
        notes.push("It cannot change the result.".to_owned());
    }
    if !notes.is_empty() {
        about.push_str(&format!("\n\n{}", notes.join(" ")));
    }
    let forms = (kind.forms)().iter();
    let forms: Vec<_> = forms.filter(|form| form.parameter() == Some(&field.name)).collect();
    let mut schema = value::value(&field.value_type, field.range, &forms);
    let default = field.default.as_ref().filter(|default| !default.is_null());
    schema.extend(default.map(|default| ("default".to_owned(), default.clone())));
    described(schema, about)
}

/// Whether a default is worth a sentence.
fn has_content(default: &Value) -> bool {
    match default {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// A doc comment without the space before its lines.
fn trimmed(about: &str) -> String {
    about.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}
