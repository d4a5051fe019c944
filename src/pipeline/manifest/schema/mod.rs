//! What a manifest can hold, as a JSON Schema (2020-12) for editors and validators.
//!
//! Made from the declarations of the kinds and from the lists of keys with which manifests are read: a key that is read is
//! in the schema. It is only for the text of one file, so it accepts more than the reader: what depends on other
//! stages, on other files and on several parameters is left to `pipeline plan`.
//!
//! Validators that do not know 2020-12 read it as an older draft (taplo: draft 7), so it uses what these have in common.
//! Completion in taplo looks into `properties`, `additionalProperties` and `anyOf`, not behind `if`: what is
//! required by `then` is offered by an `anyOf` too, whose last alternative is always right.

mod definitions;
mod kinds;
mod tables;
mod value;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod validator;

#[cfg(test)]
pub(super) use tests::refused;

use pipeline_stages::KINDS;
use serde_json::{Map, Value, json};

use super::document::INCLUDED_TABLES;
use super::envelope::TABLES;
use crate::stage_name::NAME_PATTERN;
use definitions::{definition, kind_definition};

/// The schema.
pub(crate) fn json_schema() -> Value {
    let mut definitions = Map::new();
    definitions.insert("stage".into(), kinds::stage());
    for kind in KINDS {
        definitions.insert(kind_definition(kind.name), kinds::stage_of(kind));
    }
    definitions.insert("execution".into(), tables::execution(true));
    definitions.insert("with".into(), tables::with());
    definitions.insert("point".into(), tables::point());
    definitions.insert("field".into(), tables::field());
    definitions.insert("may-be-missing".into(), kinds::may_be_missing());
    let tables = TABLES.map(|name| (name.to_owned(), table(name)));
    let own: Vec<&str> =
        TABLES.into_iter().filter(|name| !INCLUDED_TABLES.contains(name)).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A manifest of pipeline",
        "description": "An experiment and its stages, or, without [experiment], a part of one that other manifests include.",
        "type": "object",
        "properties": Map::from_iter(tables),
        "additionalProperties": false,
        "if": { "required": ["experiment"] },
        // What another file has is not known here.
        "then": {
            "if": { "required": ["include"] },
            "else": { "required": ["stages"], "allOf": kinds::required() },
        },
        "else": {
            "if": { "propertyNames": { "not": { "enum": own } } },
            "else": { "required": ["experiment"] },
        },
        "$defs": definitions,
    })
}

/// The schema of a table of the manifest.
fn table(name: &str) -> Value {
    match name {
        "stages" => json!({
            "description": "The stages, each under its name: [stages.NAME].",
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "pattern": NAME_PATTERN },
            "additionalProperties": { "$ref": definition("stage") },
        }),
        "defaults" => {
            let kinds = KINDS.iter().map(|kind| (kind.name.to_owned(), kinds::defaults_of(kind)));
            json!({
                "description": "Values of all stages of a kind that do not set them: [defaults.KIND].",
                "type": "object",
                "properties": Map::from_iter(kinds),
                "additionalProperties": false,
            })
        }
        name => tables::table(name),
    }
}
