//! How the process of a worker is started: which program, with what in its environment.
//!
//! The place for other ways to start a worker. Does not depend on how the worker is talked to.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod copies;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "launcher/no_copies.rs"]
mod copies;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use pipeline_stages::WorkerProgram;
use pipeline_stages::message::Request;
use rustix::process::Pid;

use copies::Copies;
pub(crate) use copies::serve as serve_copies;

/// The hidden subcommand under which `pipeline` is a worker itself.
pub(crate) const WORKER_SUBCOMMAND: &str = "__worker";

/// The hidden subcommand under which workers are copies of `pipeline`.
pub(crate) const COPIES_SUBCOMMAND: &str = "__workers";

/// The hidden subcommand that runs one job from a file.
pub(crate) const JOB_SUBCOMMAND: &str = "__job";

/// The environment variable with the path of `pipeline-learn`, if it is not beside `pipeline`.
const LEARN_VARIABLE: &str = "PIPELINE_LEARN";

/// How OpenMP's threads wait for each other: a policy, or turns of a loop before they sleep.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";
/// How the C library of Linux keeps memory.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Memory that a step frees is kept for the next one, and in huge pages: a step frees and takes the same
/// gigabytes again and again, and getting them from the kernel each time took an eighth of the time.
const KEEP_MEMORY: &str = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:\
                           glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1";

const LEARN_PROGRAM: &str = "pipeline-learn";

/// How the process of a worker is started.
pub(crate) trait Launcher: Send + Sync {
    /// What starts a worker of a program for a request.
    ///
    /// # Errors
    /// When the program cannot be found, with what to do.
    fn launch(&self, program: WorkerProgram, request: &Request) -> anyhow::Result<Launch>;
}

/// A worker that is to be started.
pub(crate) struct Launch {
    command: Command,
    copies: Option<Arc<Copies>>,
}

#[cfg(test)]
impl Launch {
    /// By this command, whatever it is.
    pub(crate) fn of(command: Command) -> Self {
        Self { command, copies: None }
    }
}

/// A worker that was started.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// The other end of its standard input and output.
    pub(crate) socket: UnixStream,
    /// Whether it is a copy of another process of this program: of the same build, and not forked from this process.
    pub(crate) is_copy: bool,
}

impl Launch {
    /// The program.
    pub(crate) fn program(&self) -> &OsStr {
        self.command.get_program()
    }

    /// Starts it, with one end of a socket as its standard input and output. It leads a process group: Ctrl-C in the terminal reaches
    /// the orchestrator alone, which passes it on.
    ///
    /// A pipe could be opened by any process of the same user, through `/proc/PID/fd/1`: by the very program that the worker runs.
    /// A socket cannot.
    pub(crate) fn start(mut self, log: &File) -> io::Result<Started> {
        if let Some(copies) = self.copies {
            let (socket, theirs) = UnixStream::pair()?;
            if let Some(pid) = copies.start(original, &theirs, log) {
                return Ok(Started { pid, socket, is_copy: true });
            }
        }
        let (socket, theirs) = UnixStream::pair()?;
        self.command.process_group(0).stderr(log.try_clone()?);
        self.command.stdin(OwnedFd::from(theirs.try_clone()?)).stdout(OwnedFd::from(theirs));
        // The command keeps the worker's end, without which nobody would see the worker's death, and is dropped here.
        Ok(Started { pid: Pid::from_child(&self.command.spawn()?), socket, is_copy: false })
    }
}

/// As any other process of the user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

impl Launcher for Plain {
    fn launch(&self, program: WorkerProgram, request: &Request) -> anyhow::Result<Launch> {
        let mut command = command(program)?;
        command.envs(&request.execution.variables);
        Ok(Launch { command, copies: None })
    }
}

/// The same, where many are started: those of this program as copies of one.
#[derive(Debug, Default)]
pub(crate) struct Many(Arc<Copies>);

impl Many {
    /// Starts what workers of a program are copies of, beside what is done until the first one starts.
    pub(crate) fn begin(&self, program: WorkerProgram) {
        if program == WorkerProgram::Prepare {
            let copies = Arc::clone(&self.0);
            // Where the system has no thread for it, the first worker starts it.
            let _ = std::thread::Builder::new().spawn(move || drop(copies.begin(original)));
        }
    }
}

impl Launcher for Many {
    fn launch(&self, program: WorkerProgram, request: &Request) -> anyhow::Result<Launch> {
        // Some variables count only where a program is loaded.
        let can_be_copy =
            program == WorkerProgram::Prepare && request.execution.variables.is_empty();
        let copies = can_be_copy.then(|| Arc::clone(&self.0));
        Ok(Launch { copies, ..Plain.launch(program, request)? })
    }
}

/// As any other process, for a job of a scheduler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InAllocation;

impl Launcher for InAllocation {
    fn launch(&self, program: WorkerProgram, request: &Request) -> anyhow::Result<Launch> {
        let mut launch = Plain.launch(program, request)?;
        // Many schedulers send it to all processes of a job, which would end the worker before it is asked for a checkpoint.
        let ignore = || {
            // SAFETY: it takes only numbers.
            let before = unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
            match before {
                libc::SIG_ERR => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        // SAFETY: between fork and exec, `signal` may be called.
        unsafe { launch.command.pre_exec(ignore) };
        Ok(launch)
    }
}

/// What workers are copies of.
fn original() -> io::Result<Command> {
    let mut command = own_program()?;
    command.arg(COPIES_SUBCOMMAND);
    Ok(command)
}

/// This program, without a word.
fn own_program() -> io::Result<Command> {
    let own = std::env::current_exe()?;
    // Where there is one, by the link to the running program: a new build or installation may
    // have taken its path meanwhile.
    let running = Path::new("/proc/self/exe");
    let mut command = Command::new(if running.exists() { running } else { &own });
    command.arg0(&own);
    Ok(command)
}

fn command(program: WorkerProgram) -> anyhow::Result<Command> {
    const UNKNOWN: &str = "cannot find out where this program is";
    match program {
        WorkerProgram::Prepare => {
            let mut command = own_program().context(UNKNOWN)?;
            command.arg(WORKER_SUBCOMMAND);
            Ok(command)
        }
        WorkerProgram::Learn => {
            let own = std::env::current_exe().context(UNKNOWN)?;
            let mut command = Command::new(learn_program(&own)?);
            let given = |name: &str| std::env::var_os(name).is_some();
            command.envs(for_libtorch(given));
            Ok(command)
        }
    }
}

/// What libtorch must find in its environment before it is loaded, where the user has given nothing else.
fn for_libtorch(given: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    let mut variables = Vec::new();
    // libtorch's threads spin while they wait for each other. By their own choice it is so long that a
    // training beside any other work takes several times as long; not at all, and a training alone
    // takes half as long again.
    if !given(SPIN_COUNT) && !given(WAIT_POLICY) {
        variables.push((SPIN_COUNT, "10000"));
    }
    if !given(TUNABLES) {
        variables.push((TUNABLES, KEEP_MEMORY));
    }
    variables
}

/// Why no worker that learns could start now. `None` where one could.
pub(crate) fn missing_learn_program() -> Option<String> {
    let own = std::env::current_exe().ok()?;
    learn_program(&own).err().map(|error| error.to_string())
}

fn learn_program(own: &Path) -> anyhow::Result<PathBuf> {
    let named = std::env::var_os(LEARN_VARIABLE).filter(|path| !path.is_empty());
    if let Some(path) = named.map(PathBuf::from) {
        if path.components().count() > 1 && !path.is_file() {
            bail!(
                "{LEARN_VARIABLE} names {}, which is missing: build it with `cargo xtask build`, or \
                 unset {LEARN_VARIABLE} to use the one beside pipeline",
                path.display()
            );
        }
        return Ok(path);
    }
    let real = own.canonicalize().unwrap_or_else(|_| own.to_owned());
    let beside = [own, &real].map(|program| program.with_file_name(LEARN_PROGRAM));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join(LEARN_PROGRAM));
    beside.into_iter().chain(on_path).find(|path| path.is_file()).ok_or_else(|| {
        anyhow!(
            "there is no {LEARN_PROGRAM} beside {} or on the PATH: build it with `cargo xtask build`, \
             or name it in {LEARN_VARIABLE}",
            own.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_has_set_is_left_alone() {
        let names = |set: &[&str]| -> Vec<&str> {
            for_libtorch(|name| set.contains(&name)).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[]), [SPIN_COUNT, TUNABLES]);
        assert_eq!(names(&[WAIT_POLICY]), [TUNABLES]);
        assert_eq!(names(&[SPIN_COUNT, TUNABLES]), [""; 0]);
    }

    /// glibc drops the whole variable where a part of it has another form.
    #[test]
    fn the_tunables_are_names_with_numbers() {
        for tunable in KEEP_MEMORY.split(':') {
            let (name, value) = tunable.split_once('=').unwrap();
            assert!(name.starts_with("glibc.malloc."), "{tunable}");
            assert!(value.parse::<u64>().is_ok(), "{tunable}");
        }
    }
}
