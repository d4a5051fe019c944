//! What must hold for every kind.

use serde_json::{Value, json};

use super::*;
use crate::kind::Why;
use crate::parameter::{Field, ParameterType, Role};

/// The parameters that a stage of each kind requires.
fn least(kind: &KindInfo) -> Map<String, Value> {
    let least = match kind.name {
        "download" => json!({"url": "https://example.org/a.zip", "md5": "0".repeat(32)}),
        "dataset" => json!({"format": "image-folder"}),
        "corrupt-labels" | "replace-images" => json!({"rate": 0.5}),
        "import-weights" => json!({"architecture": "resnet18", "normalise": "none"}),
        "command" => json!({"run": ["true"]}),
        "summarize" => json!({"metric": "test-accuracy"}),
        _ => json!({}),
    };
    least.as_object().cloned().unwrap()
}

fn stage(kind: &KindInfo, parameters: Map<String, Value>) -> KindConfig {
    let read = KindConfig::read(kind.name, Value::Object(parameters)).expect("a kind of the list");
    read.unwrap_or_else(|error| panic!("{}: {error}", kind.name))
}

/// Every kind with every one of its parameters.
fn fields() -> impl Iterator<Item = (&'static KindInfo, &'static Field)> {
    KINDS.iter().flat_map(|kind| (kind.fields)().iter().map(move |field| (kind, field)))
}

/// The ports that can be connected together: labels of people and of a file are only for their own noise, and features take the place
/// of an encoder.
fn usual_ports(kind: &KindInfo) -> Vec<String> {
    let ports: Vec<String> = (kind.ports)().iter().map(|port| port.name()).collect();
    let has_encoder = ports.iter().any(|name| name == "weights");
    let of_a_noise = if kind.name == "corrupt-labels" { &["human", "source"][..] } else { &[] };
    let is_usual = |name: &str| !(of_a_noise.contains(&name) || has_encoder && name == "features");
    ports.into_iter().filter(|name| is_usual(name)).collect()
}

fn with(kind: &KindInfo, name: &str, value: Value) -> Map<String, Value> {
    let mut parameters = least(kind);
    parameters.insert(name.to_owned(), value);
    parameters
}

#[test]
fn the_required_parameters_are_enough() {
    for kind in KINDS {
        let connected = usual_ports(kind);
        let connected: Vec<&str> = connected.iter().map(String::as_str).collect();
        let stage = stage(kind, least(kind));
        assert_eq!(stage.check(&connected), [], "{}", kind.name);
        assert_eq!(stage.info().name, kind.name);
    }
}

#[test]
fn names_are_kebab_case_documented_and_their_own() {
    for kind in KINDS {
        assert!(!(kind.about)().is_empty(), "{}", kind.name);
        let ports = (kind.ports)().iter().map(|port| (port.name(), port.about));
        let fields = (kind.fields)().iter().map(|field| (field.name.clone(), field.about));
        let mut names = vec!["kind".to_owned()];
        for (name, about) in ports.chain(fields) {
            let word =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(name.bytes().all(word), "{}.{name}", kind.name);
            assert!(about.ends_with(['.', '"']), "{}.{name}: {about}", kind.name);
            assert!(!names.contains(&name), "{}.{name} occurs twice", kind.name);
            names.push(name);
        }
    }
}

#[test]
fn spelling_out_a_default_changes_no_key() {
    for (kind, field) in fields() {
        let Some(default) = &field.default else { continue };
        let spelt_out = stage(kind, with(kind, &field.name, default.clone()));
        let silent = stage(kind, least(kind));
        if !least(kind).contains_key(&field.name) {
            assert_eq!(spelt_out, silent, "{}.{}", kind.name, field.name);
            assert_eq!(spelt_out.key_parameters(), silent.key_parameters());
        }
    }
}

#[test]
fn execution_parameters_stay_out_of_the_key() {
    for (kind, field) in fields().filter(|(_, field)| field.role == Role::Execution) {
        let changed = match &field.default {
            Some(Value::Number(number)) => json!(number.as_u64().unwrap() + 1),
            Some(Value::Array(_)) => json!(["OTHER"]),
            Some(Value::Null) => json!("other"),
            Some(Value::Bool(flag)) => json!(!flag),
            Some(Value::String(default)) if !field.value_type.choices().is_empty() => {
                let mut choices = field.value_type.choices().iter();
                json!(choices.find(|choice| choice.name != default).expect("another one").name)
            }
            other => panic!("{}.{}: no other value than {other:?} known", kind.name, field.name),
        };
        let changed = stage(kind, with(kind, &field.name, changed));
        let silent = stage(kind, least(kind));
        assert_ne!(changed, silent, "{}.{}", kind.name, field.name);
        assert_eq!(
            changed.key_parameters(),
            silent.key_parameters(),
            "{}.{}",
            kind.name,
            field.name
        );
    }
}

/// Values of a type, some of which are valid for any parameter of it.
fn candidates(value_type: &ParameterType) -> Vec<Value> {
    match value_type {
        ParameterType::Integer { .. } => vec![json!(7), json!(8)],
        ParameterType::Number => vec![json!(0.25), json!(0.75)],
        ParameterType::Bool => vec![json!(false), json!(true)],
        ParameterType::Text | ParameterType::AxisValue => {
            let digits = [32, 64].map(|length| json!("1".repeat(length)));
            let texts = ["other", "other=1", "https://example.org/b.zip"].map(|text| json!(text));
            [texts.to_vec(), digits.to_vec()].concat()
        }
        ParameterType::Choice(choices) => choices.iter().map(|one| json!(one.name)).collect(),
        ParameterType::List(item) => {
            let items = candidates(item);
            let pairs = items.iter().zip(items.iter().skip(1)).map(|(a, b)| json!([a, b]));
            items.iter().map(|item| json!([item])).chain(pairs).collect()
        }
        ParameterType::Table(item) => {
            candidates(item).into_iter().map(|item| json!({"other": item})).collect()
        }
        ParameterType::OneOrMany(item) => candidates(item),
    }
}

/// A valid stage, and one that differs from it in this parameter only, which is valid too. Either all ports are connected, or none is;
/// one other parameter may be set, or left out, as far as that is needed.
fn with_another(kind: &KindInfo, field: &Field) -> [KindConfig; 2] {
    let ports = usual_ports(kind);
    let connected: Vec<&str> = ports.iter().map(String::as_str).collect();
    let least = least(kind);
    let fewer = least.keys().map(|gone| {
        let rest = least.iter().filter(|(name, _)| *name != gone);
        rest.map(|(name, value)| (name.clone(), value.clone())).collect()
    });
    let more = (kind.fields)().iter().filter(|other| other.name != field.name);
    let more = more.flat_map(|other| {
        candidates(&other.value_type).into_iter().map(|value| with(kind, &other.name, value))
    });
    let bases: Vec<Map<String, Value>> =
        [least.clone()].into_iter().chain(fewer).chain(more).collect();
    let read =
        |parameters| KindConfig::read(kind.name, Value::Object(parameters)).expect("a kind").ok();
    for base in bases {
        for connected in [&connected[..], &[]] {
            let valid = candidates(&field.value_type).into_iter().filter_map(|value| {
                let mut parameters = base.clone();
                parameters.insert(field.name.clone(), value);
                read(parameters).filter(|stage| stage.check(connected).is_empty())
            });
            // A stage without the parameter need not be valid: of two, one must be there.
            let mut all = read(base.clone()).into_iter().chain(valid);
            let Some(first) = all.next() else { continue };
            if let Some(other) = all.find(|other| *other != first) {
                return [first, other];
            }
        }
    }
    panic!("{}.{}: no other valid value is known", kind.name, field.name)
}

/// Parameters that only say where something is, whose content is in the key.
const PLACES: [(&str, &str); 5] = [
    ("dataset", "path"),
    ("import-weights", "path"),
    ("corrupt-labels", "matrix"),
    ("corrupt-labels", "path"),
    ("train", "matrix"),
];

fn is_place(kind: &KindInfo, field: &Field) -> bool {
    PLACES.contains(&(kind.name, field.name.as_str()))
}

#[test]
fn every_parameter_of_a_result_is_in_the_key() {
    let is_of_result = |field: &Field| field.role == Role::Result && field.only_if.is_empty();
    for (kind, field) in fields().filter(|(_, field)| is_of_result(field)) {
        let [one, other] = with_another(kind, field);
        let is_same = one.key_parameters() == other.key_parameters();
        let is_place = is_place(kind, field);
        assert_eq!(is_same, is_place, "{}.{}: {one:?}\n{other:?}", kind.name, field.name);
    }
}

/// A stage with one parameter of a group, and what the group depends on: with the values that it needs, or
/// with another value of the first parameter.
fn in_group(kind: &KindInfo, field: &Field, holds: bool, value: Option<Value>) -> KindConfig {
    let fields = (kind.fields)();
    let mut parameters = least(kind);
    for (place, condition) in field.only_if.iter().enumerate() {
        let other = fields.iter().find(|other| other.name == condition.parameter);
        let other = other.unwrap_or_else(|| panic!("{}.{}", kind.name, condition.parameter));
        let all: Vec<Value> = match other.value_type.choices() {
            [] => vec![json!(false), json!(true)],
            choices => choices.iter().map(|choice| json!(choice.name)).collect(),
        };
        let wanted = holds || place > 0;
        let chosen = all.iter().find(|value| condition.values.contains(value) == wanted);
        let chosen = chosen.unwrap_or_else(|| panic!("{}.{condition}", kind.name));
        parameters.insert(condition.parameter.clone(), chosen.clone());
    }
    parameters.remove(&field.name);
    parameters.extend(value.map(|value| (field.name.clone(), value)));
    stage(kind, parameters)
}

#[test]
fn a_parameter_of_a_group_counts_only_if_its_condition_holds() {
    for (kind, field) in fields().filter(|(_, field)| !field.only_if.is_empty()) {
        let name = format!("{}.{}", kind.name, field.name);
        let other = match (&field.default, field.value_type.choices()) {
            (default, choices @ [_, ..]) => {
                let names = choices.iter().map(|choice| json!(choice.name));
                names.into_iter().find(|name| Some(name) != default.as_ref()).expect("another one")
            }
            (Some(Value::Bool(flag)), _) => json!(!flag),
            (Some(Value::Object(_)), _) => json!({"a": "b"}),
            _ => match field.value_type {
                ParameterType::Integer { .. } => json!(7),
                ParameterType::Text => json!("other"),
                ParameterType::List(_) => json!(["other"]),
                _ => json!(0.25),
            },
        };
        let key = |holds, value| in_group(kind, field, holds, value).key_parameters();
        assert_eq!(key(false, Some(other.clone())), key(false, None), "{name}");
        let is_same = key(true, Some(other.clone())) == key(true, None);
        assert_eq!(is_same, is_place(kind, field), "{name}");

        let without = |holds| {
            let stage = in_group(kind, field, holds, Some(other.clone()));
            stage.without_effect(&|name| name == field.name)
        };
        assert_eq!(without(true), [], "{name}");
        let [found] = without(false).try_into().unwrap_or_else(|found| panic!("{name}: {found:?}"));
        let Why::Conditions { now, needed } = found.why else { panic!("{name}") };
        assert_eq!(needed, field.only_if[..1], "{name}");
        assert_eq!(now[0].parameter, field.only_if[0].parameter, "{name}");
    }
}

#[test]
fn defaults_are_in_range_and_other_values_are_reported() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    for (kind, field) in fields() {
        let Some(range) = field.range else { continue };
        let name = format!("{}.{}", kind.name, field.name);
        if let Some(default) = field.default.as_ref().and_then(Value::as_f64) {
            assert!(range.contains(default), "{name}");
        }
        let whole = matches!(field.value_type, ParameterType::Integer { .. });
        let below = match range.low {
            Included(low) => Some(low - 1.0),
            Excluded(low) => Some(low),
            Unbounded => None,
        };
        let above = match range.high {
            Included(high) => Some(high + 1.0),
            Excluded(high) if high.is_finite() => Some(high),
            _ => None,
        };
        for number in below.into_iter().chain(above).filter(|number| !whole || *number >= 0.0) {
            let value = if whole { json!(number as u64) } else { json!(number) };
            let problems = stage(kind, with(kind, &field.name, value)).check(&[]);
            let found = problems
                .iter()
                .any(|problem| problem.field == field.name && problem.message.contains("must be "));
            assert!(found, "{name} = {number}: {problems:?}");
        }
    }
}

#[test]
fn unknown_parameters_are_refused() {
    for kind in KINDS {
        let parameters = Value::Object(with(kind, "no-such-thing", json!(1)));
        let error = KindConfig::read(kind.name, parameters).unwrap().unwrap_err().to_string();
        assert!(error.contains("unknown field `no-such-thing`"), "{}: {error}", kind.name);
    }
    assert!(KindConfig::read("no-such-kind", json!({})).is_none());
}

/// Whether a value is one of a type.
fn fits(value_type: &ParameterType, value: &Value) -> bool {
    match (value_type, value) {
        (ParameterType::Integer { largest }, value) => {
            value.as_u64().is_some_and(|number| number <= *largest)
        }
        (ParameterType::Number, value) => value.is_number(),
        (ParameterType::Bool, value) => value.is_boolean(),
        (ParameterType::Text, value) => value.is_string(),
        (ParameterType::AxisValue, value) => {
            value.is_number() || value.is_boolean() || value.is_string()
        }
        (ParameterType::Choice(choices), value) => {
            choices.iter().any(|choice| value.as_str() == Some(choice.name))
        }
        (ParameterType::List(item), Value::Array(items)) => {
            items.iter().all(|value| fits(item, value))
        }
        (ParameterType::Table(item), Value::Object(table)) => {
            table.values().all(|value| fits(item, value))
        }
        (ParameterType::OneOrMany(item), Value::Array(items)) => {
            items.iter().all(|value| fits(item, value))
        }
        (ParameterType::OneOrMany(item), value) => fits(item, value),
        (ParameterType::List(_) | ParameterType::Table(_), _) => false,
    }
}

#[test]
fn a_parameter_takes_the_values_of_its_type_and_no_others() {
    let values = [
        json!(0),
        json!(7),
        json!(u32::MAX),
        json!(u64::from(u32::MAX) + 1),
        json!(u64::MAX),
        json!(-1),
        json!(0.25),
        json!(true),
        json!("text"),
        json!([]),
        json!(["text"]),
        json!([7]),
        json!({}),
        json!({"a": "text"}),
        json!({"a": 7}),
        json!({"a": {"b": 1}}),
    ];
    for (kind, field) in fields() {
        let choices = field.value_type.choices().iter().map(|choice| json!(choice.name));
        for value in values.iter().cloned().chain(choices) {
            let parameters = Value::Object(with(kind, &field.name, value.clone()));
            let read = KindConfig::read(kind.name, parameters).unwrap();
            let name = format!("{}.{} = {value}", kind.name, field.name);
            assert_eq!(read.is_ok(), fits(&field.value_type, &value), "{name}: {read:?}");
        }
    }
}

#[test]
fn every_choice_reads_back() {
    for (kind, field) in fields() {
        for choice in field.value_type.choices() {
            assert!(!choice.about.is_empty(), "{}.{} = {}", kind.name, field.name, choice.name);
            let value = if matches!(field.value_type, ParameterType::List(_)) {
                json!([choice.name])
            } else {
                json!(choice.name)
            };
            let written =
                serde_json::to_value(stage(kind, with(kind, &field.name, value.clone()))).unwrap();
            assert_eq!(written["parameters"][&field.name], value, "{}", kind.name);
        }
    }
    let error = serde_json::from_value::<Noise>(json!("symetric")).unwrap_err().to_string();
    assert_eq!(
        error,
        "'symetric' is not one of symmetric, flip, flip2, pairflip, asymmetric, matrix, instance, human, file"
    );
}

#[test]
fn a_stage_survives_the_transfer_to_its_worker() {
    for kind in KINDS {
        let stage = stage(kind, least(kind));
        let text = serde_json::to_string(&stage).unwrap();
        assert_eq!(serde_json::from_str::<KindConfig>(&text).unwrap(), stage, "{text}");
    }
}
