//! `[cache]`: the cache that others share, in a manifest or in the settings of a user. In no key.

use pipeline_stages::KINDS;
use toml::de::DeTable;

use super::hint::{did_you_mean, listed};
use super::values::{Value, known_table, leaves, text};
use crate::diagnostic::{Mistake, Span};
use crate::pattern::Pattern;
use crate::remote_address::Address;
use crate::stage_name::StageName;

/// The keys of the table `[cache]` of a manifest.
pub(super) const CACHE_KEYS: [&str; 2] = ["remote", "push"];

/// The words of `push`.
pub(super) const PUSH_WORDS: [&str; 2] = ["never", "always"];

/// The cache that others share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sharing {
    /// Where it is.
    pub(crate) remote: Option<Address>,
    /// Which results are sent there when they were made, where that is said.
    pub(crate) push: Option<PushPolicy>,
}

/// Which results are sent when they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PushPolicy {
    Never,
    Always,
    /// Those of these kinds, or of the stages of these patterns.
    Some(Vec<String>),
}

impl PushPolicy {
    /// Whether the result of a stage of this kind is sent.
    pub(crate) fn includes(&self, stage: &StageName, kind: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Some(patterns) => {
                patterns.iter().any(|pattern| pattern == kind || Pattern::read(pattern).has(stage))
            }
        }
    }
}

impl Sharing {
    /// That of a manifest; where it does not name a remote, that of the user. What a user pushes everywhere is not pushed to a
    /// remote that a manifest names.
    pub(crate) fn or(self, user: &Self) -> Self {
        match self.remote {
            Some(_) => self,
            None => Self { remote: user.remote.clone(), push: self.push.or(user.push.clone()) },
        }
    }
}

/// Reads the table of a manifest.
pub(super) fn read(value: &Value<'_>, mistakes: &mut Vec<Mistake>) -> Sharing {
    let before = mistakes.len();
    let table = known_table("cache", value, &CACHE_KEYS, mistakes);
    // What was written in the wrong place may be an address with a password.
    let misplaced: Vec<Span> = match table {
        Some(table) => {
            let known = |key: &str| CACHE_KEYS.contains(&key);
            let unknown = table.iter().filter(|(key, _)| !known(key.get_ref().as_ref()));
            unknown.flat_map(|(_, value)| leaves(value)).collect()
        }
        None => leaves(value),
    };
    for mistake in mistakes.get_mut(before..).unwrap_or_default() {
        *mistake = misplaced.iter().cloned().fold(mistake.clone(), Mistake::hiding);
    }
    table.map(|table| read_keys(table, mistakes)).unwrap_or_default()
}

/// Reads the keys of the table, in a manifest or in the settings of a user.
pub(super) fn read_keys(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Sharing {
    Sharing {
        remote: table.get("remote").and_then(|value| checked(remote(value), mistakes)),
        push: table.get("push").and_then(|value| checked(push(value), mistakes)),
    }
}

/// Reports what a manifest pushes that is neither a kind nor one of its stages.
pub(super) fn check_names(root: &DeTable<'_>, stages: &[&str], mistakes: &mut Vec<Mistake>) {
    let push = root.get("cache").and_then(|cache| cache.get_ref().as_table()?.get("push"));
    for item in push.and_then(|push| push.get_ref().as_array()).into_iter().flatten() {
        let Some(given) = item.get_ref().as_str().filter(|given| !given.is_empty()) else {
            continue;
        };
        let kinds = || KINDS.iter().map(|kind| kind.name);
        let pattern = Pattern::read(given);
        if kinds().any(|kind| kind == given)
            || stages.iter().any(|stage| pattern.has_template(stage))
        {
            continue;
        }
        let name = given.split('@').next().unwrap_or_default();
        let title = format!("there is no stage or kind '{name}'");
        let mistake = Mistake::at(item.span(), title);
        let meant = did_you_mean(name, stages.iter().copied().chain(kinds()));
        mistakes.push(match meant {
            Some(hint) => mistake.and(&hint),
            None => {
                mistake.help(format!("the stages are {}", listed(stages.iter().copied(), "and")))
            }
        });
    }
}

fn checked<T>(read: Result<T, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    read.map_err(|mistake| mistakes.push(mistake)).ok()
}

/// The address of a remote. A mistake does not repeat it: a password may be anywhere in it.
fn remote(value: &Value<'_>) -> Result<Address, Mistake> {
    let hiding = |mistake| leaves(value).into_iter().fold(mistake, Mistake::hiding);
    let address = text("remote", value).map_err(hiding)?;
    Address::read(address).map_err(|reason| {
        let title = format!("this is not the address of a remote: {reason}");
        hiding(Mistake::at(value.span(), title)).help(Address::HELP)
    })
}

/// What is pushed: a word, or a list of kinds and patterns.
fn push(value: &Value<'_>) -> Result<PushPolicy, Mistake> {
    let mistake = |span: Span| {
        Mistake::at(span, "'push' is \"never\", \"always\", or a list of kinds and stages")
            .help("write push = \"always\", or push = [\"train\", \"evaluate@rate=0.9\"]")
    };
    match value.get_ref().as_array() {
        Some(items) => {
            let patterns = items.iter().map(|item| match item.get_ref().as_str() {
                Some(pattern) if !pattern.is_empty() => Ok(pattern.to_owned()),
                _ => Err(mistake(item.span())),
            });
            patterns.collect::<Result<_, _>>().map(PushPolicy::Some)
        }
        None => match value.get_ref().as_str() {
            Some("never") => Ok(PushPolicy::Never),
            Some("always") => Ok(PushPolicy::Always),
            _ => Err(mistake(value.span())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_decides_what_is_pushed_to_its_own_remote() {
        let remote = |text: &str| Some(Address::read(text).expect("an address"));
        let user = Sharing { remote: remote("file:///user"), push: Some(PushPolicy::Always) };
        for (remote_of_manifest, push, expected) in [
            (None, None, (remote("file:///user"), Some(PushPolicy::Always))),
            (None, Some(PushPolicy::Never), (remote("file:///user"), Some(PushPolicy::Never))),
            (remote("file:///m"), None, (remote("file:///m"), None)),
        ] {
            let found = Sharing { remote: remote_of_manifest, push }.or(&user);
            assert_eq!((found.remote, found.push), expected);
        }
    }

    #[test]
    fn patterns_name_kinds_and_stages() {
        let stage: StageName = "fit@rate=0.9,seed=1".parse().expect("a name");
        let of = |patterns: &[&str]| {
            PushPolicy::Some(patterns.iter().map(|&pattern| pattern.to_owned()).collect())
        };
        for (patterns, is_included) in [
            (&["train"][..], true),
            (&["fit"], true),
            (&["other", "f*@seed=1"], true),
            (&["fit@seed=2"], false),
            (&["evaluate"], false),
            (&[], false),
        ] {
            assert_eq!(of(patterns).includes(&stage, "train"), is_included, "{patterns:?}");
        }
        assert!(PushPolicy::Always.includes(&stage, "train"));
        assert!(!PushPolicy::Never.includes(&stage, "train"));
    }
}
