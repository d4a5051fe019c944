//! Tests of `pipeline kinds KIND VALUE`, with every value of every kind.

use std::collections::BTreeSet;

use pipeline_stages::parameter::ParameterType;
use pipeline_stages::{KindConfig, Problem};
use serde_json::Map;

use super::*;

type Parameters = Map<String, Value>;

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every parameter that is chosen from a list, with each value.
fn values(kind: &KindInfo) -> Vec<(&'static Field, &'static Choice)> {
    let choices = |field: &'static Field| field.value_type.choices().iter();
    let fields = (kind.fields)().iter();
    fields.flat_map(|field| choices(field).map(move |choice| (field, choice))).collect()
}

#[test]
fn every_value_is_explained_alone() {
    for kind in KINDS {
        let whole = explain(kind, WIDTH);
        assert!(!whole.contains("\n\n\n"), "{whole}");
        assert!(!to_json(kind).to_string().contains(OUTPUT_TITLE.trim()), "{}", kind.name);
        for (field, choice) in values(kind) {
            let text = explain_value(kind, field, choice.name, WIDTH);
            // Also where a parameter or an input has its name.
            assert!(explain_one(kind, choice.name, WIDTH).is_ok_and(|all| all.contains(&text)));
            assert!(!text.contains("\n\n\n"), "{text}");
            assert!(text.starts_with(&group_title(field)), "{text}");
            assert!(one_line(&text).contains(&one_line(field.about)), "{text}");
            let own = format!("{} {}", choice.name, one_line(choice.about));
            assert!(one_line(&text).contains(&own), "{text}");
            let belonging = text.find("\n\nparameters with").unwrap_or(text.len());
            for other in field.value_type.choices().iter().filter(|one| one.name != choice.name) {
                let line = format!("\n        {} ", other.name);
                assert!(!text[..belonging].contains(&line), "{text}");
            }
        }
    }
}

/// What the rules say of a stage, with no, one and all of the inputs that need not be connected.
fn problems(kind: &KindInfo, parameters: Parameters) -> Vec<Problem> {
    let ports = (kind.ports)();
    let names = |required| ports.iter().filter(move |port| port.required() == required);
    let names = |required| names(required).map(Port::name).collect::<Vec<_>>();
    let (required, optional) = (names(true), names(false));
    let stage = KindConfig::read(kind.name, Value::Object(parameters)).and_then(Result::ok);
    let stage = stage.expect("the values are those of the parameters");
    let each = optional.iter().map(std::slice::from_ref);
    let problems = each.chain([&[][..], &optional]).flat_map(|optional| {
        let connected = required.iter().chain(optional).map(String::as_str);
        stage.check(&connected.collect::<Vec<_>>())
    });
    problems.collect()
}

/// Adds a parameter, and what it has an effect with; `None` where that is another value than the one it has.
fn with(mut all: Parameters, field: &Field, value: Value) -> Option<Parameters> {
    for condition in &field.only_if {
        let first = || condition.values[0].clone();
        let set = all.entry(&condition.parameter).or_insert_with(first);
        if !condition.values.contains(set) {
            return None;
        }
    }
    let before = all.insert(field.name.clone(), value.clone());
    before.is_none_or(|before| before == value).then_some(all)
}

/// Values of a parameter that can be a mistake with those of others.
fn tried(field: &Field) -> Vec<Value> {
    match field.value_type {
        ParameterType::Choice(all) => all.iter().map(|choice| choice.name.into()).collect(),
        ParameterType::Bool => vec![true.into(), false.into()],
        ParameterType::Integer { .. } if field.default == Some(Value::Null) => vec![32.into()],
        _ => Vec::new(),
    }
}

/// Whether it names an input, a parameter or a value.
fn names(text: &str, name: &str) -> bool {
    let forms = [format!("`{name}`"), format!("`{name} = "), format!(" {name} = ")];
    let in_lists = text.contains(&format!("  {name} "));
    in_lists || forms.iter().any(|form| one_line(text).contains(form))
}

/// What a mistake is about that a value makes, alone or with one of another parameter, and that not every value of its parameter
/// makes: the explanation of the value names it.
#[test]
fn what_a_value_needs_and_does_not_go_with_is_in_its_explanation() {
    let (mut missing, mut mistakes) = (BTreeSet::new(), 0);
    for kind in KINDS {
        let fields = (kind.fields)().iter().filter(|field| field.role == Role::Result);
        let ports = (kind.ports)().iter().map(Port::name);
        let values = values(kind).into_iter().map(|(_, choice)| choice.name.to_owned());
        let parameters = fields.clone().map(|field| field.name.clone());
        let known: BTreeSet<String> = ports.chain(parameters).chain(values).collect();
        let given = fields.clone().filter(|field| field.default.is_none());
        let given = given.map(|field| {
            let value = tried(field).into_iter().next();
            (field.name.clone(), value.unwrap_or_else(|| "https://host/file".into()))
        });
        let given: Parameters = given.collect();
        let settings = fields
            .clone()
            .flat_map(|field| tried(field).into_iter().map(move |value| Some((field, value))));
        let settings: Vec<Option<(&Field, Value)>> = settings.chain([None]).collect();
        let pairs = fields.flat_map(|field| settings.iter().map(move |setting| (field, setting)));
        for (field, setting) in pairs {
            let of = |choice: &'static Choice| {
                let mut all = given.clone();
                all.remove(&field.name);
                let mut all = with(all, field, choice.name.into())?;
                if let Some((other, value)) = setting {
                    if other.name != field.name {
                        all.remove(&other.name);
                    }
                    all = with(all, other, value.clone())?;
                }
                Some((choice, problems(kind, all)))
            };
            let found: Vec<_> = field.value_type.choices().iter().filter_map(of).collect();
            for (choice, problems) in &found {
                let text = explain_value(kind, field, choice.name, WIDTH);
                let own = problems.iter().filter(|problem| {
                    found.iter().any(|(_, of_other)| !of_other.contains(problem))
                });
                for problem in own {
                    mistakes += 1;
                    let quoted = problem.message.split('\'').skip(1).step_by(2);
                    let about = quoted.chain([problem.field.as_str()]);
                    let about = about.filter(|name| known.contains(*name) && *name != choice.name);
                    missing.extend(about.filter(|name| !names(&text, name)).map(|name| {
                        let value = format!("{} {} = {:?}", kind.name, field.name, choice.name);
                        format!("{value} does not name {name}: {}", problem.message)
                    }));
                }
            }
        }
    }
    assert!(missing.is_empty() && mistakes > 0, "{missing:#?}");
}
