//! How two keys differ, and in which words: by the parts that are hashed, and in no other way.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path};

use pipeline_stages::KindConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::KeyPart;
use crate::difference::Differences;
use crate::digest::Digest;
use crate::stage_name::StageName;

/// How one part differs between two keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub(crate) enum Change {
    /// The key's encoding changed with the program.
    Schema,
    /// The stage has another kind.
    Kind { old: String, new: String },
    /// The kind produces other results than it did.
    KindVersion { kind: String, old: u32, new: u32 },
    /// Another seed. `None` where the kind drew nothing.
    Seed { old: Option<u64>, new: Option<u64> },
    /// Another value of a parameter. `None` where the kind did not have it.
    Parameter { name: String, old: Option<Value>, new: Option<Value> },
    /// Other content at a port. `None` where nothing was connected.
    Input {
        port: String,
        /// The stage that it comes from.
        from: StageName,
        old: Option<Digest>,
        new: Option<Digest>,
    },
    /// An instance failed, or did not fail any more, of a stage of which all are read.
    Missing {
        port: String,
        /// Whether it failed now.
        now: bool,
    },
    /// Other content of a file outside the cache. `None` where it was not read.
    Outside {
        /// The path in the manifest.
        path: String,
        /// The path that was in its place, if that was another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<String>,
        old: Option<Digest>,
        new: Option<Digest>,
        /// What of it changed, where that is known: a plan asks [`Facts`](crate::plan::Facts) for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        differences: Option<Differences>,
    },
}

/// How the parts of a key differ from older ones, in the order of the walk.
pub(crate) fn changes(old: &[KeyPart], new: &[KeyPart]) -> Vec<Change> {
    let (was, is) = (by_identity(old), by_identity(new));
    let differing = new.iter().map(|part| (was.get(&Identity::of(part)).copied(), Some(part)));
    let gone = old.iter().filter(|part| !is.contains_key(&Identity::of(part)));
    let gone = gone.map(|part| (Some(part), None));
    let all = differing.chain(gone).filter_map(|(old, new)| change(old, new));
    // An input that had failed, or fails now, is not new or removed as well.
    let missing = |port: &str| {
        let part = Identity::Missing(port);
        was.contains_key(&part) || is.contains_key(&part)
    };
    let all: Vec<_> = all.collect();
    let is_other_kind = all.iter().any(|change| matches!(change, Change::Kind { .. }));
    let is_given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let all = all.into_iter();
    all.filter(|change| match change {
        // One that follows from the parameters: this program does not differ.
        Change::KindVersion { old: version, .. } => version_here(old) != Some(*version),
        // The same files in another order.
        Change::Outside { path, was: Some(_), new: Some(digest), .. } => !old.iter().any(|part| {
            matches!(part, KeyPart::Outside { path: old, digest: was, .. } if old == path && was == digest)
        }),
        // What another kind does not have, and this one does not set.
        Change::Parameter { old, new, .. } if is_other_kind => is_given(old) || is_given(new),
        Change::Input { port, old: None, .. } | Change::Input { port, new: None, .. } => {
            !missing(port)
        }
        _ => true,
    })
    .collect()
}

/// The version of the results that this program makes of the kind and the parameters in these parts, where it can read them.
fn version_here(parts: &[KeyPart]) -> Option<u32> {
    let kind = parts.iter().find_map(|part| match part {
        KeyPart::Kind { name, .. } => Some(name),
        _ => None,
    })?;
    let parameters = parts.iter().filter_map(|part| match part {
        KeyPart::Parameter { name, value } => Some((name.clone(), value.clone())),
        _ => None,
    });
    let stage = KindConfig::read(kind, Value::Object(parameters.collect()))?;
    Some(stage.ok()?.version())
}

fn by_identity(parts: &[KeyPart]) -> HashMap<Identity<'_>, &KeyPart> {
    // Backwards: the first one counts, if a record has two.
    parts.iter().rev().map(|part| (Identity::of(part), part)).collect()
}

/// What makes two parts the same thing with another value.
#[derive(PartialEq, Eq, Hash)]
enum Identity<'p> {
    Schema,
    Kind,
    Seed,
    Parameter(&'p str),
    Input(&'p str),
    Missing(&'p str),
    Outside(usize),
}

impl<'p> Identity<'p> {
    fn of(part: &'p KeyPart) -> Self {
        match part {
            KeyPart::Schema { .. } => Self::Schema,
            KeyPart::Kind { .. } => Self::Kind,
            KeyPart::Seed { .. } => Self::Seed,
            KeyPart::Parameter { name, .. } => Self::Parameter(name),
            KeyPart::Input { port, .. } => Self::Input(port),
            KeyPart::Missing { port } => Self::Missing(port),
            KeyPart::Outside { index, .. } => Self::Outside(*index),
        }
    }
}

fn change(old: Option<&KeyPart>, new: Option<&KeyPart>) -> Option<Change> {
    let either = new.or(old)?;
    match either {
        KeyPart::Schema { .. } => (old != new).then_some(Change::Schema),
        KeyPart::Kind { .. } => {
            let (
                KeyPart::Kind { name: old, version: was },
                KeyPart::Kind { name: new, version: is },
            ) = (old?, new?)
            else {
                return None;
            };
            if old != new {
                Some(Change::Kind { old: old.clone(), new: new.clone() })
            } else if was != is {
                Some(Change::KindVersion { kind: new.clone(), old: *was, new: *is })
            } else {
                None
            }
        }
        KeyPart::Seed { .. } => {
            let seed = |part: Option<&KeyPart>| match part {
                Some(KeyPart::Seed { seed }) => Some(*seed),
                _ => None,
            };
            differing(seed(old), seed(new)).map(|(old, new)| Change::Seed { old, new })
        }
        KeyPart::Parameter { name, .. } => {
            let value = |part: Option<&KeyPart>| match part {
                Some(KeyPart::Parameter { value, .. }) => Some(value.clone()),
                _ => None,
            };
            differing(value(old), value(new)).map(|(old, new)| Change::Parameter {
                name: name.clone(),
                old,
                new,
            })
        }
        KeyPart::Input { port, from, .. } => {
            let digest = |part: Option<&KeyPart>| match part {
                Some(KeyPart::Input { digest, .. }) => Some(*digest),
                _ => None,
            };
            differing(digest(old), digest(new)).map(|(old, new)| Change::Input {
                port: port.clone(),
                from: from.clone(),
                old,
                new,
            })
        }
        KeyPart::Missing { port } => {
            (old != new).then(|| Change::Missing { port: port.clone(), now: new.is_some() })
        }
        KeyPart::Outside { path, .. } => {
            let digest = |part: Option<&KeyPart>| match part {
                Some(KeyPart::Outside { digest, .. }) => Some(*digest),
                _ => None,
            };
            let was = match old {
                Some(KeyPart::Outside { path: was, .. }) if is_other_path(was, path) => {
                    Some(was.clone())
                }
                _ => None,
            };
            differing(digest(old), digest(new)).map(|(old, new)| Change::Outside {
                path: path.clone(),
                was,
                old,
                new,
                differences: None,
            })
        }
    }
}

/// Whether two paths are not the same one, as far as their text shows it.
fn is_other_path(one: &str, other: &str) -> bool {
    let names = |path| Path::new(path).components().filter(|name| *name != Component::CurDir);
    !names(one).eq(names(other))
}

fn differing<T: PartialEq>(old: T, new: T) -> Option<(T, T)> {
    (old != new).then_some((old, new))
}

impl Change {
    /// The port, and what happened to an instance among all of a stage there, if it was added or removed.
    pub(crate) fn among_instances(&self) -> Option<(&str, &'static str)> {
        let Self::Input { port, old, new, .. } = self else { return None };
        let (port, _) = port.split_once('@')?;
        match (old, new) {
            (Some(_), Some(_)) => None,
            (None, _) => Some((port, "are new")),
            (Some(_), None) => Some((port, "were removed")),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema => f.write_str("this version of pipeline encodes keys differently"),
            Self::Kind { old, new } => write!(f, "kind: {old} -> {new}"),
            Self::KindVersion { kind, old, new } => {
                write!(f, "'{kind}' produces other results in this version ({old} -> {new})")
            }
            Self::Seed { old, new } => write!(f, "seed: {} -> {}", or_none(old), or_none(new)),
            Self::Parameter { name, old, new } => {
                let text = |value: &Option<Value>| match value {
                    None | Some(Value::Null) => "not given".to_owned(),
                    Some(value) => value.to_string(),
                };
                write!(f, "{name}: {} -> {}", text(old), text(new))
            }
            Self::Input { port, from, old: Some(_), new: Some(_) } => {
                write!(f, "the content of input '{port}' changed, through stage '{from}'")
            }
            Self::Input { port, old: None, .. } if port.contains('@') => {
                write!(f, "input '{port}' is new")
            }
            Self::Input { port, new: None, .. } if port.contains('@') => {
                write!(f, "input '{port}' was removed")
            }
            Self::Input { port, from, old: None, .. } => {
                write!(f, "input '{port}' is new: stage '{from}'")
            }
            Self::Input { port, from, .. } => {
                write!(f, "input '{port}' was removed: stage '{from}'")
            }
            Self::Missing { port, now: true } => write!(f, "input '{port}' has failed"),
            Self::Missing { port, now: false } => write!(f, "input '{port}' had failed before"),
            Self::Outside { path, was: Some(was), .. } => {
                write!(f, "{path} is read in place of {was}")
            }
            Self::Outside { path, old: Some(_), new: Some(_), differences: None, .. } => {
                write!(f, "the content of {path} changed")
            }
            Self::Outside { path, differences: Some(differences), .. } => {
                write!(f, "{path} changed: {differences}")
            }
            Self::Outside { path, old: None, .. } => write!(f, "{path} is read now"),
            Self::Outside { path, .. } => write!(f, "{path} is no longer read"),
        }
    }
}

fn or_none<T: fmt::Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), T::to_string)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{BASE, digest, parts_of, value};
    use super::*;

    #[test]
    fn a_version_that_follows_from_parameters_is_no_reason_of_its_own() {
        let with =
            |format: &str| BASE.replace("format = \"idx\"", &format!("format = \"{format}\""));
        let reasons = |old: &str, new: &str, stage: &str| {
            let changes = changes(&parts_of(old, stage), &parts_of(new, stage));
            changes.iter().map(Change::to_string).collect::<Vec<_>>()
        };
        let folder = with("image-folder");
        let expected = ["format: \"idx\" -> \"image-folder\"", "size: not given -> 32"];
        assert_eq!(reasons(BASE, &folder, "data"), expected);
        assert_ne!(
            parts_of(BASE, "data").iter().find(|part| matches!(part, KeyPart::Kind { .. })),
            parts_of(&folder, "data").iter().find(|part| matches!(part, KeyPart::Kind { .. })),
        );

        // An older program made something else of the same parameters.
        let mut older = parts_of(BASE, "data");
        for part in &mut older {
            if let KeyPart::Kind { version, .. } = part {
                *version = 1;
            }
        }
        let changes = changes(&older, &parts_of(&folder, "data"));
        assert!(matches!(changes[0], Change::KindVersion { old: 1, new: 4, .. }), "{changes:?}");
    }

    #[test]
    fn another_path_is_said_and_another_order_is_not() {
        let outside = |index, path: &str, content: &str| KeyPart::Outside {
            index,
            path: path.to_owned(),
            digest: digest(content),
        };
        let reasons = |old: &[KeyPart], new: &[KeyPart]| {
            changes(old, new).iter().map(Change::to_string).collect::<Vec<_>>()
        };
        let [a, b] = ["a", "b"].map(|path| outside(0, path, path));
        assert_eq!(
            reasons(std::slice::from_ref(&a), std::slice::from_ref(&b)),
            ["b is read in place of a"]
        );
        let same = [outside(0, "./a", "other")];
        assert_eq!(reasons(std::slice::from_ref(&a), &same), ["the content of ./a changed"]);
        let swapped = [b, outside(1, "a", "a")];
        assert_eq!(reasons(&[a, outside(1, "b", "b")], &swapped), [""; 0]);
    }

    #[test]
    fn many_inputs_are_compared_in_linear_time() {
        let count = 200_000;
        let inputs = |content: &dyn Fn(usize) -> &'static str| -> Vec<KeyPart> {
            let input = |number: usize| KeyPart::Input {
                port: format!("inputs.a{number}"),
                from: "a".parse().expect("a name"),
                digest: digest(content(number)),
            };
            (0..count).map(input).collect()
        };
        let old = inputs(&|_| "x");
        let mut new = inputs(&|number| if number == 7 { "y" } else { "x" });
        let last = new.pop();
        let found = changes(&old, &new);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], change(Some(&old[7]), Some(&new[7])).expect("other content"));
        assert_eq!(found[1], change(last.as_ref(), None).expect("one input less"));
    }

    proptest! {
        #[test]
        fn a_change_is_reported_exactly_when_keys_differ(a in value(), b in value()) {
            let part = |value: &Value| vec![KeyPart::Parameter { name: "x".into(), value: value.clone() }];
            prop_assert_eq!(changes(&part(&a), &part(&b)).is_empty(), a == b);
            prop_assert_eq!(changes(&part(&a), &[]).is_empty(), false);
            prop_assert!(changes(&part(&a), &part(&a)).is_empty());
        }
    }
}
