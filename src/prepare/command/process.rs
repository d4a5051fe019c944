//! A program: found, started, watched, and its end described.
//!
//! Does not depend on stages or artifacts.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use pipeline_stages::worker::{Context, Stopped};

use super::descendants::{Descendants, POLL, Reach};
use super::sandbox::Sandbox;

/// How long a program that was asked to stop may take to save its work.
const GRACE: Duration = Duration::from_secs(5);

/// A program that exists, and how to start it.
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    grace: Duration,
    sandbox: Option<Sandbox>,
}

impl Program {
    /// Finds the program that `arguments` starts with.
    pub(super) fn new(
        arguments: Vec<OsString>,
        folder: PathBuf,
        environment: BTreeMap<OsString, OsString>,
    ) -> anyhow::Result<Self> {
        let name = arguments.first().context("there is nothing to run")?;
        let path = find(name, &folder, environment.get(OsStr::new("PATH")))?;
        Ok(Self { path, arguments, folder, environment, grace: GRACE, sandbox: None })
    }

    /// The same, with another time to exit after a request to stop.
    #[cfg(test)]
    pub(super) fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The same, within a sandbox.
    pub(super) fn within(self, sandbox: Option<Sandbox>) -> Self {
        Self { sandbox, ..self }
    }

    /// The sandbox that it runs in.
    pub(super) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// Runs it to its end.
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        context.stop_point()?;
        let reach = Reach::of(context)?;
        if reach == Reach::Everybody {
            prevent_tracing()?;
        }
        let mut descendants = Descendants::of(&self.start(context)?, reach);
        loop {
            if context.stopping() {
                descendants.stop(self.grace)?;
                return Err(Stopped.into());
            }
            if let Some(status) = descendants.program_end()? {
                // A signal to the whole process group reaches the program too: it may have ended with success,
                // with no more than a part of its output, or its children may still be saving theirs.
                if context.stopping() {
                    continue;
                }
                // Processes that it left running could still write to its output.
                descendants.kill()?;
                if let Some(signal) = signal_of(status) {
                    context.ended_by_signal(signal);
                }
                return describe_end(status)
                    .map_or(Ok(()), |end| Err(anyhow!("{} {end}", self.line())));
            }
            descendants.wait_for_program(POLL);
        }
    }

    /// Its standard output goes to the worker's log, like its standard error: the worker's own standard
    /// output is for the protocol.
    fn start(&self, context: &Context) -> anyhow::Result<Child> {
        // Without close-on-exec: all that it starts also holds the lock until it exits.
        let _inherited_lock = match context.checkpoint_lock() {
            Some(lock) => {
                Some(rustix::io::dup(lock).context("cannot share the checkpoint's lock")?)
            }
            None => None,
        };
        let log = std::io::stderr().as_fd().try_clone_to_owned().context("cannot share the log")?;
        let mut command = std::process::Command::new(&self.path);
        if let Some((name, arguments)) = self.arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        command
            .current_dir(&self.folder)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::inherit());
        let child = match &self.sandbox {
            Some(sandbox) => sandbox.spawn(&self.path, &mut command)?,
            None => command.spawn(),
        };
        child.map_err(|error| self.describe_start(&error))
    }

    fn describe_start(&self, error: &std::io::Error) -> anyhow::Error {
        let path = self.path.display();
        if !self.folder.is_dir() {
            return anyhow!(
                "cannot run {path} in {}: the folder does not exist",
                self.folder.display()
            );
        }
        let reason = match error.kind() {
            ErrorKind::NotFound => missing_interpreter(&self.path),
            ErrorKind::PermissionDenied if is_program(&self.path) => {
                "the system does not allow it to be executed: its file system is mounted with noexec, or its \
                 interpreter is not executable"
                    .to_owned()
            }
            ErrorKind::PermissionDenied => {
                "it is not executable; try chmod +x, or start 'run' with its interpreter".to_owned()
            }
            ErrorKind::WouldBlock => {
                "the limit on processes is reached (`ulimit -u`, or that of a container): end other processes, or run fewer \
                 stages at once with --jobs"
                    .to_owned()
            }
            ErrorKind::OutOfMemory => "there is not enough memory to start it".to_owned(),
            ErrorKind::ArgumentListTooLong => {
                "its arguments and environment are longer than the system allows; pass them in a file"
                    .to_owned()
            }
            ErrorKind::ExecutableFileBusy => "another process is writing to it".to_owned(),
            _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
                "it is not a program of this system; a script needs a first line like #!/bin/sh".to_owned()
            }
            _ => error.to_string(),
        };
        anyhow!("cannot run {path}: {reason}")
    }

    /// The command line, for messages.
    fn line(&self) -> String {
        let mut line = String::new();
        for argument in &self.arguments {
            let text = argument.to_string_lossy();
            if line.chars().count() + text.chars().count() > 120 {
                line.push_str(" …");
                break;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&text);
        }
        format!("'{line}'")
    }
}

/// Prevents programs of the same user from reading and controlling this process (through `/proc`, ptrace or
/// `pidfd_getfd`), so that none can report a result in its place. Root still can. After this, the process does
/// not write a core dump; the program itself is not affected.
fn prevent_tracing() -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .context("cannot prevent programs from tracing their worker")?;
    }
    Ok(())
}

/// The signal that ended a program, or one that it started and whose end it reports as a shell does.
fn signal_of(status: ExitStatus) -> Option<i32> {
    let of_shell = status.code().map(|code| code - 128).filter(|signal| {
        (1..32).contains(signal) && signal_hook::low_level::signal_name(*signal).is_some()
    });
    status.signal().or(of_shell)
}

/// How a program ended; `None` for success.
fn describe_end(status: ExitStatus) -> Option<String> {
    if status.success() {
        return None;
    }
    let Some(signal) = status.signal() else {
        let code = status.code().unwrap_or_default();
        let hint = match code {
            126 => " (the shell found a program that it could not start)",
            127 => " (the shell did not find the program)",
            137 => " (a program in it was killed: out of memory?)",
            153 => " (a file grew beyond the limit, see `ulimit -f`)",
            _ => "",
        };
        return Some(format!("ended with exit status {code}{hint}"));
    };
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("?");
    let hint = match signal {
        signal_hook::consts::SIGKILL => ": out of memory?",
        signal_hook::consts::SIGSEGV | signal_hook::consts::SIGBUS => ": a bug in the program",
        signal_hook::consts::SIGXFSZ => ": a file grew beyond the limit, see `ulimit -f`",
        _ => "",
    };
    Some(format!("was killed by signal {signal} ({name}{hint})"))
}

/// Why the system does not find what an existing program needs to run.
fn missing_interpreter(program: &Path) -> String {
    let mut beginning = Vec::new();
    // The system does not read more of it.
    let read = File::open(program).and_then(|file| file.take(256).read_to_end(&mut beginning));
    let line =
        beginning.strip_prefix(b"#!").and_then(|rest| rest.split(|&byte| byte == b'\n').next());
    let Some(line) = line.filter(|_| read.is_ok()) else {
        return "its loader is missing: it was built for another system".to_owned();
    };
    if line.ends_with(b"\r") {
        return "its first line ends as on Windows (\\r\\n); save it with Unix line endings"
            .to_owned();
    }
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_whitespace().next().unwrap_or_default().escape_debug();
    format!("the interpreter that its first line (#!) names is missing: {interpreter}")
}

/// A name with a `/` is a path in `folder`; any other is looked up in `search_path`.
pub(super) fn find(
    name: &OsStr,
    folder: &Path,
    search_path: Option<&OsString>,
) -> anyhow::Result<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        let path = folder.join(name);
        return match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(metadata) if metadata.is_dir() => {
                bail!("cannot run {}: it is a folder", path.display())
            }
            Ok(_) => bail!("cannot run {}: it is not a regular file", path.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("cannot run {}: the file does not exist", path.display())
            }
            Err(error) => bail!("cannot run {}: {error}", path.display()),
        };
    }
    let Some(search_path) = search_path else {
        bail!("cannot find the program {name:?}: PATH is not set");
    };
    let folders: Vec<_> =
        std::env::split_paths(search_path).map(|entry| folder.join(entry)).collect();
    if let Some(path) = folders.iter().map(|entry| entry.join(name)).find(|path| is_program(path)) {
        return Ok(path);
    }
    let searched: Vec<_> = folders.iter().map(|entry| entry.display().to_string()).collect();
    let beside = folder.join(name).is_file();
    let name = name.to_string_lossy();
    let hint = if beside {
        format!("; to run the file next to the manifest, write './{name}'")
    } else {
        String::new()
    };
    bail!("cannot find the program '{name}' in PATH, which is {}{hint}", searched.join(", "))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
