//! What all measurements need: programs that run without a word, and medians.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a program printed.
pub(super) fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{command:?} does not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}): {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Artifacts are read-only folders.
pub(super) fn make_writable(folder: &Path) -> Result<()> {
    run_quietly(Command::new("chmod").args(["-R", "u+w"]).arg(folder)).map(|_| ())
}

pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
