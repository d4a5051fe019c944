//! `[defaults.KIND]`: values of all stages of a kind that do not have their own.

use std::borrow::Cow;
use std::collections::HashMap;

use pipeline_stages::{KINDS, KindInfo, Port, kind_info};
use toml::Spanned;
use toml::de::DeValue;

use super::super::hint::{did_you_mean, listed};
use super::super::values::{Value, not_a_table};
use super::instance::Instance;
use crate::diagnostic::{Mistake, Span};

/// A key of a table.
pub(super) type Key<'i> = Spanned<Cow<'i, str>>;

/// Per kind, the values of `[defaults.KIND]`.
pub(super) type Defaults<'t, 'i> = HashMap<&'t str, Vec<(&'t Key<'i>, &'t Value<'i>)>>;

pub(super) fn read_defaults<'t, 'i>(
    value: &'t Value<'i>,
    has_matrix: bool,
    mistakes: &mut Vec<Mistake>,
) -> Defaults<'t, 'i> {
    const FORM: &str = "start them with [defaults.KIND] and, below it, KEY = VALUE";
    let DeValue::Table(kinds) = value.get_ref() else {
        mistakes.push(not_a_table("defaults", value).help(FORM));
        return HashMap::new();
    };
    let mut defaults = HashMap::new();
    for (name, value) in kinds {
        let given: &str = name.as_ref();
        let Some(kind) = kind_info(given) else {
            let names = || KINDS.iter().map(|kind| kind.name);
            let mistake = Mistake::at(name.span(), format!("unknown kind '{given}'"));
            mistakes.push(match did_you_mean(given, names()) {
                Some(hint) => mistake.and(&hint).help(FORM),
                None => {
                    mistake.help(FORM).help(format!("the kinds are {}", listed(names(), "and")))
                }
            });
            continue;
        };
        let DeValue::Table(table) = value.get_ref() else {
            mistakes.push(not_a_table(&format!("defaults.{given}"), value).help(FORM));
            continue;
        };
        let known = table.iter().filter(|(key, _)| {
            let mistake = default_mistake(kind, key, has_matrix);
            let is_known = mistake.is_none();
            mistakes.extend(mistake);
            is_known
        });
        defaults.insert(given, known.collect());
    }
    defaults
}

/// What is wrong with the name of a default.
fn default_mistake(kind: &KindInfo, key: &Key<'_>, has_matrix: bool) -> Option<Mistake> {
    let given: &str = key.as_ref();
    let ports: Vec<_> = (kind.ports)().iter().map(Port::name).collect();
    let fields = (kind.fields)().iter().map(|field| field.name.as_str());
    let mut known: Vec<&str> = ports.iter().map(String::as_str).chain(fields).collect();
    known.push("execution");
    known.extend(kind.seeded.then_some("seed"));
    known.extend(has_matrix.then_some("with"));
    if known.contains(&given) {
        return None;
    }
    let title = format!("unknown key '{given}' in 'defaults.{}'", kind.name);
    let mistake = Mistake::at(key.span(), title);
    Some(match did_you_mean(given, known.iter().copied()) {
        Some(hint) => mistake.and(&hint),
        None => mistake.help(format!("`pipeline kinds {}` lists what it takes", kind.name)),
    })
}

/// A stage with the defaults of its kind, where there is no matrix.
pub(super) fn without_matrix<'t, 'i>(
    (name, span, value): (&'t str, Span, &'t Value<'i>),
    defaults: &Defaults<'t, 'i>,
) -> Instance<'t, 'i> {
    let mut instance = Instance {
        name: Cow::Borrowed(name),
        template: name,
        span,
        value: Cow::Borrowed(value),
        defaults: Vec::new(),
        lists: Vec::new(),
    };
    let Some(table) = value.get_ref().as_table() else { return instance };
    let kind = table.get("kind").and_then(|kind| kind.get_ref().as_str());
    let missing = kind.and_then(|kind| defaults.get(kind)).into_iter().flatten();
    let missing: Vec<_> =
        missing.filter(|(key, _)| !table.contains_key(key.get_ref().as_ref())).collect();
    if !missing.is_empty() {
        let mut table = table.clone();
        for (key, value) in missing {
            table.insert((*key).clone(), (*value).clone());
            instance.defaults.push(key.get_ref());
        }
        instance.value = Cow::Owned(Spanned::new(value.span(), DeValue::Table(table)));
    }
    instance
}
