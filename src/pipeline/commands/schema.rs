//! `pipeline schema`: what a manifest can hold, as a JSON Schema.

use std::process::ExitCode;

use super::output::print_json;
use crate::manifest::json_schema;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    print_json(&json_schema())?;
    Ok(ExitCode::SUCCESS)
}
