//! Resources that a user names and counts: licences, a scratch disk, downloads at once from one server.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::values::{not_a_table, whole_number};
use crate::diagnostic::Mistake;
use crate::stage_name::check_name;

/// How much of each, by their names.
pub(crate) type Resources = BTreeMap<String, u32>;

/// What has a key of its own.
pub(super) const NOT_RESOURCES: [&str; 3] = ["cpus", "gpus", "memory"];

/// Reads `resources = { NAME = 1 }`.
pub(super) fn read(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Resources {
    let Some(value) = table.get("resources") else { return Resources::new() };
    let DeValue::Table(resources) = value.get_ref() else {
        mistakes.push(not_a_table("resources", value).help("resources = { licence = 1 }"));
        return Resources::new();
    };
    let read = resources.iter().map(|(key, value)| {
        let name: &str = key.as_ref();
        check(name).map_err(|reason| Mistake::at(key.span(), reason))?;
        let amount = whole_number(name, value, 1, u32::MAX.into())?;
        Ok((name.to_owned(), u32::try_from(amount).unwrap_or(u32::MAX)))
    });
    read.filter_map(|one| one.map_err(|mistake: Mistake| mistakes.push(mistake)).ok()).collect()
}

/// Reads `NAME=NUMBER`, as it is typed.
pub(crate) fn read_resource(text: &str) -> Result<(String, u32), String> {
    let (name, amount) =
        text.split_once('=').ok_or("write a name and a number, as in licence=2,downloads=4")?;
    let (name, amount) = (name.trim(), amount.trim());
    check(name)?;
    let amount = amount.parse().ok().filter(|amount| *amount > 0);
    let amount =
        amount.ok_or_else(|| format!("'{name}' must be a whole number from 1 to {}", u32::MAX))?;
    Ok((name.to_owned(), amount))
}

/// Why this cannot be the name of a resource.
fn check(name: &str) -> Result<(), String> {
    let reason = match NOT_RESOURCES.contains(&name) {
        true => Err(format!("'{name}' is said beside 'resources', not in it")),
        false => check_name(name),
    };
    reason.map_err(|reason| format!("{name:?} cannot be the name of a resource: {reason}"))
}
