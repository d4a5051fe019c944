//! `pipeline completions`: a script with which a shell asks this program what to offer.

use std::process::ExitCode;

use anyhow::Context;
use clap_complete::env::Shells;

use super::output::print;
use crate::cli::CompletionsArguments;

/// The environment variable with which a shell asks.
pub(crate) const VARIABLE: &str = "PIPELINE_COMPLETE";

pub(crate) fn run(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let name = arguments.shell.to_string();
    let shells = Shells::builtins();
    let shell = shells.completer(&name).with_context(|| format!("no completions for {name}"))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "pipeline", "pipeline", "pipeline", &mut script)?;
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
