//! One worker process: start it, check who it is, hand it its work, read its events, see it end.
//!
//! Knows the protocol; no cache and no graph. Runs on a thread of its own and prints nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow, bail};
use pipeline_stages::WorkerProgram;
use pipeline_stages::message::{Event, Hello, LAST_WORDS, Metrics, PROTOCOL, Request, VERSION};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::process_tree;
use crate::visible::without_colours;

/// The hidden subcommand under which `pipeline` is a worker itself.
pub const WORKER_SUBCOMMAND: &str = "__worker";

/// Names the program of the learning kinds, where it is not beside `pipeline`.
pub const LEARN_VARIABLE: &str = "PIPELINE_LEARN";

/// How OpenMP's threads wait for each other: a policy, or turns of a loop before they sleep.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";
/// How the C library of Linux keeps memory.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Memory that a step frees is kept for the next one, and in huge pages: a step frees and takes the same
/// gigabytes again and again, and getting them from the kernel anew took an eighth of the time.
const KEEP_MEMORY: &str = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:\
                           glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1";

const LEARN_PROGRAM: &str = "pipeline-learn";

/// How many lines of its log are shown when a worker dies.
const LOG_LINES: usize = 20;
/// How much of the end of a log is read for them.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// How a worker ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// Its output is complete.
    Finished {
        /// What it measured.
        metrics: Metrics,
        /// The device that it ran on, where it chose one.
        device: Option<String>,
    },
    /// It left early because it was asked to. Its checkpoint is written.
    Stopped,
    /// It failed, in words for people.
    Failed {
        /// Why.
        message: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
}

/// A hold on a running worker, for another thread: signals reach it and what it started.
#[derive(Debug, Clone, Default)]
pub struct Leash(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    group: Option<Pid>,
    stop_wanted: bool,
    timed_out: bool,
    suspended: bool,
}

impl Leash {
    /// Asks the worker to write its checkpoint and leave. What it started is asked by the worker itself:
    /// a program that hears of it before its worker does could leave with success, its work half done.
    pub fn stop(&self) {
        let mut held = self.held();
        held.stop_wanted = true;
        held.ask();
    }

    /// Ends the worker, and all it started, at once.
    pub fn kill(&self) {
        // Under the lock: the number can't have passed to another process meanwhile.
        if let Some(group) = self.held().group {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }

    /// Ends the worker because its time is up.
    pub fn time_out(&self) {
        self.held().timed_out = true;
        self.kill();
    }

    /// Stops the worker, and all it started, until [`Leash::resume`].
    pub fn suspend(&self) {
        let mut held = self.held();
        held.suspended = true;
        held.signal_all(Signal::STOP);
    }

    /// Continues the worker, and all it started.
    pub fn resume(&self) {
        let mut held = self.held();
        held.suspended = false;
        held.signal_all(Signal::CONT);
    }

    /// Holds a worker from now on. What it was asked for before it started happens here.
    fn hold(&self, group: Pid) {
        let mut held = self.held();
        held.group = Some(group);
        if held.suspended {
            held.signal_all(Signal::STOP);
        }
        if held.timed_out {
            drop(held);
            self.kill();
        } else if held.stop_wanted {
            held.ask();
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn signal_all(&self, signal: Signal) {
        if let Some(group) = self.group {
            process_tree::signal(group, signal);
        }
    }

    fn ask(&self) {
        if let Some(worker) = self.group {
            let _ = rustix::process::kill_process(worker, Signal::TERM);
        }
    }
}

/// The command that starts a worker.
///
/// # Errors
/// When the program can't be found, with what to do.
pub fn command(program: WorkerProgram) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("can't tell where this program lies")?;
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
    if let Some(path) = std::env::var_os(LEARN_VARIABLE).map(PathBuf::from) {
        if path.components().count() > 1 && !path.is_file() {
            bail!(
                "{LEARN_VARIABLE} names {}, which is not there: build it with `cargo xtask build`, or \
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

/// Runs one request in a worker process, to its end.
///
/// # Errors
/// When the worker can't be started, or is not one of ours. That the work itself fails is an [`End`].
pub fn run(
    mut command: Command,
    request: &Request,
    log: &Path,
    leash: &Leash,
    mut on_event: impl FnMut(Event),
) -> anyhow::Result<End> {
    let log_file =
        File::create(log).with_context(|| format!("can't write the log {}", log.display()))?;
    let program = program_name(&command);
    // A group of its own: Ctrl-C in the terminal reaches the orchestrator alone, which passes it on.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log_file);
    let mut child = command
        .spawn()
        // In words only: this is no failure of the cache, whatever kind of error it is.
        .map_err(|error| anyhow!("can't start {}: {error}", command.get_program().display()))?;
    let pid = Pid::from_child(&child);
    leash.hold(pid);

    let talk = converse(&mut child, request, &mut on_event);
    if talk.is_err() {
        leash.kill();
    }
    let status = reap(child, pid, leash)?;
    let tail = || log_tail(log);
    match talk {
        Ok(Some(Event::Finished { metrics, device })) => Ok(End::Finished { metrics, device }),
        Ok(Some(Event::Failed { message })) => {
            let log = before_last_words(tail(), &message);
            Ok(End::Failed { message, log })
        }
        Ok(Some(Event::Stopped)) => Ok(End::Stopped),
        Ok(_) | Err(Talk::Silent) if leash.held().stop_wanted => Ok(End::Stopped),
        Ok(_) if leash.held().timed_out => {
            Ok(End::Failed { message: "its time was up (timeout-seconds)".to_owned(), log: tail() })
        }
        Ok(_) => Ok(End::Failed { message: died(&program, status), log: tail() }),
        Err(Talk::Stranger(message)) => Err(anyhow!(message)),
        Err(Talk::Silent) => {
            let message = format!("{program} ended before it said hello ({status})");
            Ok(End::Failed { message, log: tail() })
        }
    }
}

/// Why a conversation did not come about.
enum Talk {
    /// Somebody else is there.
    Stranger(String),
    /// Nobody is there.
    Silent,
}

/// Speaks with the worker until it closes its output; the last event that it sent.
fn converse(
    child: &mut Child,
    request: &Request,
    on_event: &mut impl FnMut(Event),
) -> Result<Option<Event>, Talk> {
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Talk::Silent);
    };
    let mut lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
    check_hello(lines.next().as_deref())?;
    // Kept open to the end: when this process dies, the worker sees its input end.
    let _open = send_request(stdin, request);
    let mut last = None;
    for line in lines {
        // What is no event was printed by some library: not for us.
        if let Ok(event) = serde_json::from_slice::<Event>(&line) {
            last = Some(event.clone());
            on_event(event);
        }
    }
    Ok(last)
}

fn check_hello(line: Option<&[u8]>) -> Result<(), Talk> {
    let line = line.ok_or(Talk::Silent)?;
    let Ok(Event::Hello(hello)) = serde_json::from_slice(line) else {
        return Err(Talk::Stranger(format!(
            "the worker does not speak pipeline's protocol; it said: {}",
            String::from_utf8_lossy(line).chars().take(200).collect::<String>()
        )));
    };
    if hello == Hello::of(&hello.program) {
        return Ok(());
    }
    let Hello { program, protocol, version, .. } = hello;
    let both = "build or install both together, with `cargo xtask build`";
    Err(Talk::Stranger(if (protocol, version.as_str()) == (PROTOCOL, VERSION) {
        format!(
            "{program} is another build of {version} than this pipeline, with other kinds: {both}"
        )
    } else {
        format!(
            "{program} is version {version} (protocol {protocol}), this is pipeline {VERSION} \
             (protocol {PROTOCOL}): {both}"
        )
    }))
}

fn send_request(mut stdin: ChildStdin, request: &Request) -> Option<ChildStdin> {
    let mut line = serde_json::to_vec(request).ok()?;
    line.push(b'\n');
    // A worker that died meanwhile is seen by the end of its output.
    stdin.write_all(&line).and_then(|()| stdin.flush()).ok()?;
    Some(stdin)
}

/// Waits for the worker's end, then ends whatever it left behind in its group.
fn reap(mut child: Child, pid: Pid, leash: &Leash) -> anyhow::Result<ExitStatus> {
    // Without reaping it, so that its number still is its own.
    let _ =
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    leash.kill();
    leash.held().group = None;
    child.wait().context("can't wait for a worker")
}

/// What people call the program.
fn program_name(command: &Command) -> String {
    match Path::new(command.get_program()).file_name() {
        Some(name) if name != "exe" => name.to_string_lossy().into_owned(),
        _ => "pipeline".to_owned(),
    }
}

fn died(name: &str, status: ExitStatus) -> String {
    match status.signal() {
        Some(9) => format!("{name} was killed (signal 9): by you, or because memory ran out"),
        Some(signal) => format!("{name} crashed (signal {signal})"),
        None => format!("{name} ended without a result ({status})"),
    }
}

/// What a log says before the message that its worker ended it with, which is told already.
fn before_last_words(mut log: Vec<String>, message: &str) -> Vec<String> {
    let told = without_colours(message.lines().next().unwrap_or_default());
    let told = format!("{LAST_WORDS}{told}");
    if let Some(at) = log.iter().rposition(|line| *line == told) {
        log.truncate(at);
    }
    log
}

/// The last lines of a log, without the sequences that colour them.
pub fn log_tail(log: &Path) -> Vec<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    // Programs that draw bars end their lines with carriage returns.
    let lines: Vec<&str> =
        text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES));
    last.map(|line| without_colours(line)).collect()
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
