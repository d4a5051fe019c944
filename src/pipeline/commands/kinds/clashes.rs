//! What a value of a parameter needs, and what does not go with it: the kind's own rules are asked, pair by pair.

use std::ops::Bound;

use pipeline_stages::parameter::{Condition, Field, ParameterType, Role};
use pipeline_stages::{KindConfig, KindInfo, Port, Problem};
use serde_json::{Map, Value};

/// Values of another parameter with which a value does not go.
#[derive(Debug, PartialEq)]
pub(super) struct Clash {
    /// The other parameter, with these values.
    pub(super) with: String,
    /// What the rules say of both.
    pub(super) message: String,
}

/// A parameter with a value.
type Set<'a> = (&'a str, &'a Value);

/// What is wrong with a stage that has only this value and only the inputs that it must have.
pub(super) fn needs(kind: &KindInfo, chosen: Set<'_>) -> Vec<Problem> {
    let required = connected(kind, Port::required);
    let usual = problems(kind, &[], &required);
    let mut problems = problems(kind, &[chosen], &required);
    problems.retain(|problem| !usual.contains(problem));
    problems
}

/// With what values of other parameters it does not go, where each of the two alone is right.
pub(super) fn clashes(kind: &KindInfo, chosen: Set<'_>) -> Vec<Clash> {
    let connected = connected(kind, |_| true);
    let apart = problems(kind, &[chosen], &connected);
    let mut clashes = Vec::new();
    for other in (kind.fields)().iter().filter(|field| field.name != chosen.0) {
        let mut found: Vec<(Problem, Vec<Value>)> = Vec::new();
        for value in tried(other) {
            let set = (other.name.as_str(), &value);
            let alone = problems(kind, &[set], &connected);
            let both = problems(kind, &[chosen, set], &connected);
            let of_both = |one: &Problem| !apart.contains(one) && !alone.contains(one);
            for problem in both.into_iter().filter(of_both) {
                match found.iter_mut().find(|(known, _)| *known == problem) {
                    Some((_, values)) => values.push(value.clone()),
                    None => found.push((problem, vec![value.clone()])),
                }
            }
        }
        clashes.extend(found.into_iter().map(|(problem, values)| Clash {
            with: in_words(other, values),
            message: problem.message,
        }));
    }
    clashes
}

fn connected(kind: &KindInfo, counts: impl Fn(&Port) -> bool) -> Vec<String> {
    (kind.ports)().iter().filter(|port| counts(port)).map(Port::name).collect()
}

/// None where a stage needs other parameters, too.
fn problems(kind: &KindInfo, parameters: &[Set<'_>], connected: &[String]) -> Vec<Problem> {
    let parameters: Map<String, Value> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
    let stage = KindConfig::read(kind.name, Value::Object(parameters)).and_then(Result::ok);
    let connected: Vec<&str> = connected.iter().map(String::as_str).collect();
    stage.map(|stage| stage.check(&connected)).unwrap_or_default()
}

/// Values that can clash by themselves: each of a fixed set, and one of a number that need not be given.
fn tried(field: &Field) -> Vec<Value> {
    if field.role == Role::Execution {
        return Vec::new();
    }
    match field.value_type {
        ParameterType::Choice(choices) => {
            choices.iter().map(|choice| Value::from(choice.name)).collect()
        }
        ParameterType::Bool => vec![true.into(), false.into()],
        ParameterType::Integer { .. } | ParameterType::Number
            if field.default == Some(Value::Null) =>
        {
            let low = match field.range.map(|range| range.low) {
                Some(Bound::Included(low)) => low,
                _ => 1.0,
            };
            match field.value_type {
                ParameterType::Integer { .. } => vec![(low as u64).into()],
                _ => vec![low.into()],
            }
        }
        _ => Vec::new(),
    }
}

/// `sampling = "class-balanced"`; of a number, and of a fixed set of which one value is left, shorter.
fn in_words(other: &Field, values: Vec<Value>) -> String {
    let choices = other.value_type.choices();
    let mut left = choices.iter().filter(|choice| !values.contains(&Value::from(choice.name)));
    match (left.next(), left.next()) {
        _ if values.iter().all(Value::is_number) => other.name.clone(),
        (Some(one), None) if choices.len() > 2 => {
            format!("{}, unless it is {:?}", other.name, one.name)
        }
        _ => Condition { parameter: other.name.clone(), values }.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pipeline_stages::kind_info;

    use super::*;

    #[test]
    fn rules_are_asked_in_pairs() {
        let train = kind_info("train").expect("a kind");
        let of = |name: &str, value: &str| {
            let clashes = clashes(train, (name, &value.into())).into_iter();
            clashes.map(|clash| clash.with).collect::<Vec<_>>()
        };
        let without_loss = r#"loss, unless it is "cross-entropy""#;
        assert_eq!(
            of("method", "dividemix"),
            [without_loss, r#"sampling = "class-balanced""#, "samples-per-epoch"]
        );
        assert_eq!(of("sampling", "class-balanced"), [r#"method = "dividemix""#]);
        assert_eq!(of("augmentation", "crop-flip"), ["image-size"]);
        assert!(of("method", "elr").is_empty());

        let needs = |name: &str, value: &str| {
            let problems = needs(train, (name, &value.into())).into_iter();
            problems.map(|problem| problem.field).collect::<Vec<_>>()
        };
        assert_eq!(needs("method", "truncated-loss"), ["loss"]);
        assert_eq!(needs("method", "meta-weight-net"), ["method"]);
        assert!(needs("method", "elr").is_empty());
    }
}
