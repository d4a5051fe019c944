//! In place of `sandbox` where the system is not one that it was made for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};

use anyhow::bail;
use pipeline_stages::kinds::{Command, SandboxMode};
use pipeline_stages::worker::Context;

/// A sandbox, of which there is none.
pub(super) struct Sandbox(Infallible);

impl Sandbox {
    /// `None`, where the stage does not insist on one.
    pub(super) fn of(
        command: &Command,
        context: &Context,
        _inputs: Vec<PathBuf>,
        _environment: &mut BTreeMap<OsString, OsString>,
    ) -> anyhow::Result<Option<Self>> {
        match command.sandbox {
            SandboxMode::Off => {}
            SandboxMode::Warn => {
                context.limitation("sandbox = \"warn\" does not see anything here: it needs Linux");
            }
            SandboxMode::On => bail!(
                "sandbox = \"on\" needs Landlock, which only Linux has: with sandbox = \"warn\" or \"off\" the stage runs"
            ),
        }
        Ok(None)
    }

    pub(super) fn spawn(
        &self,
        _path: &Path,
        _program: &mut Process,
    ) -> anyhow::Result<std::io::Result<Child>> {
        match self.0 {}
    }

    pub(super) fn explain<T>(
        &self,
        _result: anyhow::Result<T>,
        _context: &Context,
    ) -> anyhow::Result<T> {
        match self.0 {}
    }
}
