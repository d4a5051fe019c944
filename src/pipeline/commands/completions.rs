//! `pipeline completions`: a completion script for a shell.

use std::process::ExitCode;

use clap::CommandFactory;

use super::print;
use crate::cli::{Arguments, CompletionsArguments};

pub(crate) fn run(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "pipeline", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
