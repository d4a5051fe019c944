//! The table `[lint]`: which warnings are silenced.

use std::collections::BTreeSet;

use pipeline_stages::parameter::ParameterType;
use toml::de::DeValue;

use super::hint::{did_you_mean, listed};
use super::values::{Value, known_table, not_a, text};
use crate::diagnostic::Mistake;

/// The keys of the table `[lint]`.
pub(super) const LINT_KEYS: [&str; 1] = ["allow"];

/// Something that runs, but is probably unintended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lint {
    /// A `command` names a file of the project in `run`, and not in `files`.
    UndeclaredFile,
    /// No stage uses an axis of the matrix.
    UnusedAxis,
    /// A `command` has the name of an axis in `shell`, where it is a variable that nobody sets.
    AxisInShell,
}

impl Lint {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::UndeclaredFile, Self::UnusedAxis, Self::AxisInShell];

    /// Its name in a manifest.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UndeclaredFile => "undeclared-file",
            Self::UnusedAxis => "unused-axis",
            Self::AxisInShell => "axis-in-shell",
        }
    }

    /// What it warns of.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::UndeclaredFile => {
                "a command names a file of the project in 'run', and not in 'files'"
            }
            Self::UnusedAxis => "no stage uses an axis of the matrix",
            Self::AxisInShell => {
                "a command has the name of an axis in 'shell', where it is a variable that nobody sets"
            }
        }
    }
}

/// Reads `allow = [...]`.
pub(super) fn read(value: &Value<'_>, mistakes: &mut Vec<Mistake>) -> BTreeSet<Lint> {
    let Some(allow) =
        known_table("lint", value, &LINT_KEYS, mistakes).and_then(|table| table.get("allow"))
    else {
        return BTreeSet::new();
    };
    let DeValue::Array(items) = allow.get_ref() else {
        mistakes.push(not_a("allow", &ParameterType::List(Box::new(ParameterType::Text)), allow));
        return BTreeSet::new();
    };
    let known = items.iter().map(lint);
    known.filter_map(|lint| lint.map_err(|mistake| mistakes.push(mistake)).ok()).collect()
}

fn lint(value: &Value<'_>) -> Result<Lint, Mistake> {
    let name = text("allow", value)?;
    let names = || Lint::ALL.iter().map(|lint| lint.name());
    Lint::ALL.into_iter().find(|lint| lint.name() == name).ok_or_else(|| {
        let mistake = Mistake::at(value.span(), format!("there is no warning '{name}'"));
        match did_you_mean(name, names()) {
            Some(hint) => mistake.and(&hint),
            None => mistake.help(format!("the warnings are {}", listed(names(), "and"))),
        }
    })
}
