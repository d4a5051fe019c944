//! Runs cargo in the checkout, with the libtorch and the compiler that were found.

use crate::checkout::Checkout;
use crate::libtorch::Libtorch;
use crate::needs::Compiler;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How a line begins in which a test says what it has skipped.
const SKIPPED: &str = "SKIPPED: ";

/// How long what tests said is read after their end: a process that one left behind may hold the pipe open.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cargo, ready to be called.
pub struct Cargo {
    program: OsString,
    checkout: Checkout,
    libtorch: Libtorch,
    compiler: Compiler,
}

/// The two programs of a release build.
#[derive(Debug, PartialEq, Eq)]
pub struct Programs {
    /// The orchestrator.
    pub pipeline: PathBuf,
    /// The worker that loads libtorch.
    pub learn: PathBuf,
}

impl Cargo {
    /// Looks for the C++ compiler that torch-sys will need.
    ///
    /// # Errors
    /// If none is found.
    pub fn new(checkout: &Checkout, libtorch: Libtorch) -> Result<Self> {
        Ok(Self {
            program: program(),
            checkout: checkout.clone(),
            libtorch,
            compiler: Compiler::find()?,
        })
    }

    /// The libtorch that is built with.
    pub fn libtorch(&self) -> &Libtorch {
        &self.libtorch
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.checkout.root());
        self.libtorch.tell(&mut command);
        if !self.compiler.found_by_cargo {
            command.env("CXX", self.compiler.name());
        }
        command
    }

    /// Shows and runs `cargo ARGUMENTS`.
    ///
    /// # Errors
    /// If it fails. Its own message is on the screen already.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        eprintln!("$ cargo {}", arguments.join(" "));
        let status = self.command(arguments).status().context("cargo does not start")?;
        if !status.success() {
            bail!("`cargo {}` failed ({status})", arguments.join(" "));
        }
        Ok(())
    }

    /// Runs all tests of the workspace, and says at the end what they have skipped.
    ///
    /// # Errors
    /// If one fails. Its own message is on the screen already.
    pub fn test(&self) -> Result<()> {
        // By itself, with the terminal that shows how far it is.
        self.run(&["test", "--workspace", "--no-run"])?;
        eprintln!("$ cargo test --workspace");
        let mut command = self.command(&["test", "--workspace"]);
        let mut child = command.stderr(Stdio::piped()).spawn().context("cargo does not start")?;
        let said = child.stderr.take().ok_or_else(|| anyhow!("cargo says nothing"))?;
        let said = pass_on(BufReader::new(said), std::io::stderr());
        let status = child.wait()?;
        let skipped = skipped(&said, PATIENCE);
        if !skipped.is_empty() {
            eprintln!("\nSKIPPED, so nobody knows whether it works here:");
            skipped.iter().for_each(|what| eprintln!("- {what}"));
        }
        if !status.success() {
            bail!("`cargo test --workspace` failed ({status})");
        }
        Ok(())
    }

    /// Builds both programs in release mode.
    ///
    /// # Errors
    /// If that fails.
    pub fn build_release(&self) -> Result<Programs> {
        let executables =
            built(self.command(&["build", "--release", "-p", "pipeline", "-p", "pipeline-learn"]))?;
        let named = |name: &str| {
            let found =
                executables.iter().find(|(found, _)| found == name).map(|(_, path)| path.clone());
            found.ok_or_else(|| anyhow!("cargo built no program called {name}"))
        };
        Ok(Programs { pipeline: named("pipeline")?, learn: named("pipeline-learn")? })
    }
}

/// The cargo that runs us; else the one on the PATH.
pub fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Shows and runs a build, and returns the names and the paths of the programs that it makes, tests included.
///
/// # Errors
/// If it fails.
pub fn built(mut build: Command) -> Result<Vec<(String, PathBuf)>> {
    let words: Vec<_> = build.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let shown = format!("cargo {}", words.join(" "));
    eprintln!("$ {shown}");
    // Cargo reports where the programs are: a target folder may be configured in many ways.
    let mut child = build
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo does not start")?;
    let output = child.stdout.take().ok_or_else(|| anyhow!("cargo has no output"))?;
    let mut executables = Vec::new();
    for line in BufReader::new(output).lines() {
        executables.extend(executable(&line?));
    }
    let status = child.wait()?;
    if !status.success() {
        // A cargo that was killed does not report anything itself.
        bail!("`{shown}` failed ({status})");
    }
    Ok(executables)
}

/// Passes on what tests say, on a thread of its own, and sends what they say that they have skipped.
fn pass_on(
    mut said: impl BufRead + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = Vec::new();
        while said.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            // What was skipped counts also where nobody reads along.
            let _ = to.write_all(&line);
            if let Some(what) = String::from_utf8_lossy(&line).strip_prefix(SKIPPED)
                && sender.send(what.trim_end().to_owned()).is_err()
            {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// What tests that have ended said that they have skipped, each once.
fn skipped(said: &Receiver<String>, patience: Duration) -> BTreeSet<String> {
    let end = Instant::now() + patience;
    let rest = || said.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
    std::iter::from_fn(rest).collect()
}

/// The name and the path of a program, if a line of cargo's JSON is about one.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let target = message.get("target")?;
    let kinds = target.get("kind")?.as_array()?;
    // A library is a program as its tests.
    let is_program = kinds.iter().any(|kind| kind == "bin" || kind == "test" || kind == "lib");
    let path = message.get("executable")?.as_str()?;
    is_program.then(|| {
        (target.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(), path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Cursor, Read};

    #[test]
    fn what_tests_skip_is_passed_on_and_listed_once() {
        let said = "     Running tests/cli/main.rs\nSKIPPED: no taplo\nnot SKIPPED: b\nSKIPPED: no sshd\nSKIPPED: no taplo";
        let (mut passed_on, to) = io::pipe().unwrap();
        let found = skipped(&pass_on(said.as_bytes(), to), Duration::from_secs(600));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["no sshd", "no taplo"]);
        let mut text = String::new();
        passed_on.read_to_string(&mut text).unwrap();
        assert_eq!(text, said);
    }

    #[test]
    fn nobody_waits_for_what_tests_leave_behind() {
        let (said, mut left_behind) = io::pipe().unwrap();
        left_behind.write_all(b"no line is passed on\nSKIPPED: no sshd\n").unwrap();
        // Nor does it matter that nothing can be written.
        let found = pass_on(BufReader::new(said), Cursor::new([0; 0]));
        assert_eq!(found.recv().unwrap(), "no sshd");
        assert!(skipped(&found, Duration::ZERO).is_empty());
        drop(left_behind);
    }

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let program = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"pipeline"},"executable":"/t/release/pipeline"}"#;
        assert_eq!(executable(program), Some(("pipeline".into(), "/t/release/pipeline".into())));
        let script = r#"{"reason":"compiler-artifact","target":{"kind":["custom-build"],"name":"build-script-build"},"executable":null}"#;
        let library = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"pipeline"},"executable":null}"#;
        for other in
            [script, library, r#"{"reason":"build-finished","success":true}"#, "no json", ""]
        {
            assert_eq!(executable(other), None, "{other}");
        }
    }
}
