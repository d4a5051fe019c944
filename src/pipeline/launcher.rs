//! How the process of a worker is started: which program, with what in its environment.
//!
//! The place for other ways to start a worker. Does not depend on how the worker is talked to.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use pipeline_stages::WorkerProgram;
use pipeline_stages::message::Request;

/// The hidden subcommand under which `pipeline` is a worker itself.
pub(crate) const WORKER_SUBCOMMAND: &str = "__worker";

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
    /// The command that starts a worker of a program for a request.
    ///
    /// # Errors
    /// When the program cannot be found, with what to do.
    fn command(&self, program: WorkerProgram, request: &Request) -> anyhow::Result<Command>;
}

/// As any other process of the user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

impl Launcher for Plain {
    fn command(&self, program: WorkerProgram, request: &Request) -> anyhow::Result<Command> {
        let mut command = command(program)?;
        command.envs(&request.execution.variables);
        Ok(command)
    }
}

/// The same, for a job of a scheduler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InAllocation;

impl Launcher for InAllocation {
    fn command(&self, program: WorkerProgram, request: &Request) -> anyhow::Result<Command> {
        let mut command = Plain.command(program, request)?;
        // Many schedulers send it to all processes of a job, which would end the worker before it is asked for a checkpoint.
        let ignore = || {
            // SAFETY: it takes only numbers.
            let before = unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
            match before {
                libc::SIG_ERR => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        // SAFETY: between fork and exec, `signal` may be called.
        unsafe { command.pre_exec(ignore) };
        Ok(command)
    }
}

fn command(program: WorkerProgram) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("cannot find out where this program is")?;
    match program {
        WorkerProgram::Prepare => {
            // Where there is one, by the link to the running program: a new build or installation may
            // have taken its path meanwhile.
            let running = Path::new("/proc/self/exe");
            let program = if running.exists() { running } else { &own };
            let mut command = Command::new(program);
            command.arg0(&own).arg(WORKER_SUBCOMMAND);
            Ok(command)
        }
        WorkerProgram::Learn => {
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
