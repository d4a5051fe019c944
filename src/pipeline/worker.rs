//! One worker process: start it, check who it is, hand it its work, read its events, wait for its end.
//!
//! Speaks the protocol; does not depend on the cache or the graph. Runs on a thread of its own and prints nothing.

#![allow(clippy::disallowed_methods, reason = "a log counts for nothing")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use pipeline_stages::message::{
    Event, Hello, LAST_WORDS, Metrics, PROTOCOL, RanOn, Request, VERSION,
};
use pipeline_stages::worker::ends_within_line;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::SIGBUS;

use crate::launcher::{Launch, Started};
use crate::machine;
use crate::manifest::Failing;
use crate::process_tree;
use crate::regular_file::read_end;
use crate::usage::{self, Counted, Usage};
use crate::visible::without_colours;

/// How many lines of its log are shown when a worker dies.
const LOG_LINES: usize = 20;
/// How much of the end of a log is read for them.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// How a worker ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    /// Its output is complete.
    Finished {
        metrics: Metrics,
        /// What it ran on, where that matters.
        ran_on: Option<RanOn>,
        /// What it took.
        usage: Usage,
    },
    /// It left early because it was asked to. Its checkpoint is written.
    Stopped,
    /// It failed, in words for people.
    Failed {
        message: String,
        /// The last lines of its log.
        log: Vec<String>,
        /// How, for whoever may try again.
        failing: Failing,
    },
}

/// A hold on a running worker, for another thread: signals reach it and what it started.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerHandle(Arc<Mutex<Control>>);

#[derive(Debug, Default)]
struct Control {
    group: Option<Pid>,
    stop_wanted: bool,
    killed: bool,
    timed_out: bool,
    suspended: bool,
    /// The most memory of all its processes together that was seen, in bytes.
    memory: Option<u64>,
}

impl WorkerHandle {
    /// Asks the worker to write its checkpoint and leave. What it started is asked by the worker itself:
    /// a program that hears of it before its worker does could leave with success, its work half done.
    pub(crate) fn stop(&self) {
        let mut control = self.control();
        control.stop_wanted = true;
        control.ask();
    }

    /// Ends the worker, and all it started, at once.
    pub(crate) fn kill(&self) {
        let mut control = self.control();
        control.killed = true;
        // Under the lock: the number cannot belong to another process meanwhile.
        control.for_all(process_tree::kill);
    }

    /// Ends the worker because its time is up.
    pub(crate) fn time_out(&self) {
        self.control().timed_out = true;
        self.kill();
    }

    /// Looks how much memory the worker and all it started have together now.
    pub(crate) fn look_at_memory(&self) {
        let mut control = self.control();
        let now = control.group.and_then(process_tree::memory);
        control.memory = control.memory.max(now);
    }

    /// Whether it runs now.
    pub(crate) fn runs(&self) -> bool {
        self.control().group.is_some()
    }

    /// The most that was seen of it, in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.control().memory
    }

    /// Stops the worker, and all it started, until [`WorkerHandle::resume`].
    pub(crate) fn suspend(&self) {
        let mut control = self.control();
        control.suspended = true;
        control.for_all(process_tree::stop);
    }

    /// Continues the worker, and all it started.
    pub(crate) fn resume(&self) {
        let mut control = self.control();
        control.suspended = false;
        control.for_all(process_tree::resume);
    }

    /// Holds a worker from now on. What it was asked for before it started happens here.
    fn hold(&self, group: Pid) {
        let mut control = self.control();
        control.group = Some(group);
        if control.suspended {
            control.for_all(process_tree::stop);
        }
        if control.killed {
            control.for_all(process_tree::kill);
        } else if control.stop_wanted {
            control.ask();
        }
    }

    fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    fn for_all(&self, signal: fn(Pid)) {
        self.group.into_iter().for_each(signal);
    }

    fn ask(&self) {
        if let Some(worker) = self.group {
            let _ = rustix::process::kill_process(worker, Signal::TERM);
        }
    }
}

/// Runs one request in a worker process, to its end.
///
/// # Errors
/// When the worker cannot be started, or is not one of ours. That the work itself fails is an [`End`].
pub(crate) fn run(
    launch: Launch,
    request: &Request,
    log: &Path,
    worker: &WorkerHandle,
    mut on_event: impl FnMut(Event),
) -> anyhow::Result<End> {
    let log_file =
        File::create(log).with_context(|| format!("cannot write the log {}", log.display()))?;
    let program = program_name(&launch);
    let killed_before = machine::out_of_memory_kills();
    let Started { pid, socket, is_copy } = launch
        .start(&log_file)
        // In words only: this is not a failure of the cache, regardless of the kind of the error.
        .map_err(|error| anyhow!("cannot start {program}: {error}"))?;
    worker.hold(pid);

    let talk = converse(&socket, request, is_copy, &mut on_event);
    if talk.is_err() {
        worker.kill();
    }
    let (status, counted) = reap(pid, worker)?;
    let counted = if is_copy { counted.of_its_own() } else { counted };
    let tail = || log_tail(log);
    // Whichever process it was: of this stage, or of one that ran beside it.
    let ran_out = || machine::out_of_memory_kills() > killed_before;
    let failed = |message: String, signal: Option<i32>| {
        let log = tail();
        let failing = match worker.control().timed_out {
            true => Failing::Timeout,
            false => how_it_failed(signal, ran_out, &message, &log),
        };
        End::Failed { message, log, failing }
    };
    let died = |message: String| {
        let end = failed(message.clone(), status.signal());
        // Into that file: another process that has the work by now has made another one in its place.
        write_last_words(Path::new(&format!("/proc/self/fd/{}", log_file.as_raw_fd())), &message);
        end
    };
    match talk {
        Ok(Some(Event::Finished { metrics, ran_on, used })) => {
            let usage = Usage::of(&counted, worker.memory(), used);
            Ok(End::Finished { metrics, ran_on, usage })
        }
        Ok(Some(Event::Failed { message, signal })) => {
            let mut end = failed(message, signal);
            if let End::Failed { message, log, .. } = &mut end {
                *log = before_last_words(std::mem::take(log), message);
            }
            Ok(end)
        }
        Ok(Some(Event::Stopped)) => Ok(End::Stopped),
        Ok(_) | Err(HandshakeError::NoHello) if worker.control().stop_wanted => Ok(End::Stopped),
        Ok(_) if worker.control().timed_out => {
            Ok(died("its time was up (timeout-seconds)".to_owned()))
        }
        Ok(_) => Ok(died(how_it_died(&program, status, ran_out()))),
        Err(HandshakeError::Incompatible(message)) => Err(anyhow!(message)),
        Err(HandshakeError::NoHello) => {
            Ok(died(format!("{program} ended before it said hello ({status})")))
        }
    }
}

/// What libraries say when there is not enough memory, of the machine or of a GPU.
const OUT_OF_MEMORY: [&str; 8] = [
    "CUDA out of memory",
    "CUDA error: out of memory",
    "OutOfMemoryError",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "MemoryError",
    "memory allocation of ",
];

/// How a stage failed whose time was not up: by the signal that ended it, if the system ended processes for want of memory
/// meanwhile, and by what it said.
fn how_it_failed(
    signal: Option<i32>,
    ran_out: impl FnOnce() -> bool,
    message: &str,
    log: &[String],
) -> Failing {
    match signal {
        // The system sends no other one.
        Some(9) if ran_out() => Failing::OutOfMemory,
        _ if speaks_of_memory(message, log) => Failing::OutOfMemory,
        Some(_) => Failing::Signal,
        None => Failing::Failure,
    }
}

/// Whether a failure is one for want of memory, by its message or the end of its log.
fn speaks_of_memory(message: &str, log: &[String]) -> bool {
    about_memory(message, log).next().is_some()
}

/// Whether a failure for want of memory is about that of a GPU, by its message or the end of its log.
pub(crate) fn speaks_of_gpu_memory(message: &str, log: &[String]) -> bool {
    about_memory(message, log).any(|text| ["CUDA", "CUBLAS"].iter().any(|word| text.contains(word)))
}

/// What a failure says about memory.
fn about_memory<'l>(message: &'l str, log: &'l [String]) -> impl Iterator<Item = &'l str> {
    // Further above, a program may have dealt with it.
    const LAST: usize = 3;
    let last = log.iter().rev().take(LAST).map(String::as_str);
    let says = |text: &&str| OUT_OF_MEMORY.iter().any(|words| text.contains(words));
    last.chain([message]).filter(says)
}

/// Why a conversation did not begin.
enum HandshakeError {
    /// It is another program, or another build.
    Incompatible(String),
    /// It ended before its hello.
    NoHello,
}

/// Speaks with the worker until it closes its output; the last event that it sent. A copy is of the same build, so that its request is
/// sent before its hello is read.
fn converse(
    socket: &UnixStream,
    request: &Request,
    is_copy: bool,
    on_event: &mut impl FnMut(Event),
) -> Result<Option<Event>, HandshakeError> {
    // A worker that died meanwhile is seen by the end of its output. The socket stays open: when this process dies,
    // the worker sees its input end.
    let send = || drop(send_request(socket, request));
    if is_copy {
        send();
    }
    let mut lines = BufReader::new(socket).split(b'\n').map_while(Result::ok);
    check_hello(lines.next().as_deref())?;
    if !is_copy {
        send();
    }
    let mut last = None;
    for line in lines {
        // A line that its end cuts off is not an event.
        if let Ok(event) = serde_json::from_slice::<Event>(&line) {
            last = Some(event.clone());
            on_event(event);
        }
    }
    Ok(last)
}

/// Whether a worker that begins with this line is one of this build. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_hello(line: &[u8]) -> bool {
    match check_hello(Some(line)) {
        Ok(()) => true,
        Err(HandshakeError::NoHello) => false,
        Err(HandshakeError::Incompatible(why)) => {
            assert!(!why.is_empty());
            false
        }
    }
}

fn check_hello(line: Option<&[u8]>) -> Result<(), HandshakeError> {
    let line = line.ok_or(HandshakeError::NoHello)?;
    let Ok(Event::Hello(hello)) = serde_json::from_slice(line) else {
        return Err(HandshakeError::Incompatible(format!(
            "the worker does not speak pipeline's protocol; it sent: {}",
            String::from_utf8_lossy(line).chars().take(200).collect::<String>()
        )));
    };
    if hello == Hello::of(&hello.program) {
        return Ok(());
    }
    let Hello { program, protocol, version, .. } = hello;
    let both = "build or install both together, with `cargo xtask build`";
    Err(HandshakeError::Incompatible(if (protocol, version.as_str()) == (PROTOCOL, VERSION) {
        format!("{program} is another build of {version} than this pipeline: {both}")
    } else {
        format!(
            "{program} is version {version} (protocol {protocol}), this is pipeline {VERSION} \
             (protocol {PROTOCOL}): {both}"
        )
    }))
}

fn send_request(mut socket: &UnixStream, request: &Request) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    socket.write_all(&line)
}

/// Waits for the worker's end, then ends everything that it left behind in its group.
fn reap(pid: Pid, worker: &WorkerHandle) -> anyhow::Result<(ExitStatus, Counted)> {
    // Without reaping it, so that its number still is its own.
    let _ =
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    process_tree::kill_group(pid);
    worker.control().group = None;
    usage::wait(pid).context("cannot wait for a worker")
}

/// The name of the program, for messages.
fn program_name(launch: &Launch) -> String {
    match Path::new(launch.program()).file_name() {
        Some(name) if name != "exe" => name.to_string_lossy().into_owned(),
        _ => "pipeline".to_owned(),
    }
}

fn how_it_died(name: &str, status: ExitStatus, ran_out: bool) -> String {
    match status.signal() {
        Some(9) if ran_out => format!("{name} was killed (signal 9): memory ran out"),
        Some(9) => format!("{name} was killed (signal 9): by you, or because memory ran out"),
        // What is behind a page of memory cannot be read any more: on NFS, also the program.
        Some(SIGBUS) => format!(
            "{name} crashed (signal {SIGBUS}): its program, or a file that it reads, was changed while it ran, or cannot be read, or there is no room left where it is (also `/dev/shm`)"
        ),
        Some(signal) => format!("{name} crashed (signal {signal})"),
        None => format!("{name} ended without a result ({status})"),
    }
}

/// The lines of a log before the message that its worker ended it with, which is shown anyway.
fn before_last_words(mut log: Vec<String>, message: &str) -> Vec<String> {
    let last_words = without_colours(message.lines().next().unwrap_or_default());
    let last_words = format!("{LAST_WORDS}{last_words}");
    if let Some(at) = log.iter().rposition(|line| *line == last_words) {
        log.truncate(at);
    }
    log
}

/// Appends a failure to a log, unless the worker wrote it.
pub(crate) fn write_last_words(log: &Path, message: &str) {
    let file = File::options().append(true).create(true).open(log);
    let begin = if ends_within_line(log) { "\n" } else { "" };
    // If the log cannot be written, the message is still shown.
    let _ = file.and_then(|mut file| writeln!(file, "{begin}{LAST_WORDS}{message}"));
}

/// The failure that a log ends with. `None` where it does not end with one.
pub(crate) fn last_words(log: &Path) -> Option<String> {
    let text = read_tail(log).ok()?;
    let at = match text.rfind(&format!("\n{LAST_WORDS}")) {
        Some(before) => before + 1,
        None => text.starts_with(LAST_WORDS).then_some(0)?,
    };
    let message = without_colours(text.get(at + LAST_WORDS.len()..)?.trim_end());
    (!message.is_empty()).then_some(message)
}

/// The last lines of a log, without the sequences that colour them.
pub(crate) fn log_tail(log: &Path) -> Vec<String> {
    let text = read_tail(log).unwrap_or_default();
    // Programs that draw bars end their lines with carriage returns.
    let lines: Vec<&str> =
        text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES));
    last.map(|line| without_colours(line)).collect()
}

/// The end of a log.
fn read_tail(log: &Path) -> std::io::Result<String> {
    let (bytes, _) = read_end(log, LOG_TAIL_BYTES)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signal_9_can_be_that_the_system_had_no_memory() {
        use Failing::{Failure, OutOfMemory, Signal};
        for (signal, ran_out, log, expected) in [
            (Some(9), true, "", OutOfMemory),
            (Some(9), false, "", Signal),
            (Some(11), true, "", Signal),
            (Some(15), true, "", Signal),
            (Some(6), true, "std::bad_alloc", OutOfMemory),
            (None, true, "", Failure),
            (None, false, "MemoryError", OutOfMemory),
        ] {
            let found = how_it_failed(signal, || ran_out, "it failed", &[log.to_owned()]);
            assert_eq!(found, expected, "{signal:?} {ran_out} {log}");
        }
    }

    #[test]
    fn whose_memory_ran_out_is_in_the_message_or_the_log() {
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        for (message, log, expected) in [
            ("CUDA out of memory. Tried to allocate 2 GiB", "", true),
            ("x failed", "Traceback\ntorch.OutOfMemoryError: CUDA out of memory", true),
            ("x failed", "RuntimeError: CUBLAS_STATUS_ALLOC_FAILED", true),
            ("x failed", "using CUDA device 0\nMemoryError", false),
            ("x was killed by signal 9", "CUDA is here", false),
        ] {
            assert_eq!(speaks_of_gpu_memory(message, &lines(log)), expected, "{message}: {log}");
        }
    }

    #[test]
    fn what_libraries_say_when_memory_runs_out_is_known() {
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        for (message, log, expected) in [
            ("CUDA out of memory. Tried to allocate 2 GiB", "", true),
            ("x ended with exit status 1", "Traceback\nMemoryError\n", true),
            ("x crashed (signal 6)", "what():  std::bad_alloc\n", true),
            ("x crashed (signal 6)", "memory allocation of 99 bytes failed\n", true),
            (
                "x ended with exit status 1",
                "torch.OutOfMemoryError: CUDA out of memory\na\nb",
                true,
            ),
            // It went on.
            ("x ended with exit status 1", "MemoryError: smaller\na\nb\nwrong label", false),
            ("x ended with exit status 1", "wrong label", false),
            ("", "", false),
        ] {
            assert_eq!(speaks_of_memory(message, &lines(log)), expected, "{message}: {log}");
        }
    }
}
