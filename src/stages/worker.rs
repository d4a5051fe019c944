//! The worker's side of the protocol: [`serve`] speaks it, a body does the work.
//!
//! Does not depend on a stage body.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use crate::checkpoint::{self, Checkpoint, Patience};
use crate::kinds::KindConfig;
use crate::message::{
    Event, Execution, Hello, Input, LAST_WORDS, Measured, Metrics, PROTOCOL, Progress, RanOn,
    Request, Used,
};
use crate::point::Point;

/// The work was asked to stop. Its checkpoint is written.
#[derive(Debug, Clone, Copy)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

/// What a body gets.
pub struct Context {
    /// Per connected port, the artifacts behind it.
    inputs: BTreeMap<String, Vec<Input>>,
    /// Per port that takes all instances of a stage, the points of those without an artifact.
    missing: BTreeMap<String, Vec<Point>>,
    /// The folder to write the artifact to: it exists and is empty.
    pub output: PathBuf,
    /// The folder for checkpoints, with those of an interrupted run of the same key.
    pub checkpoint: PathBuf,
    /// The manifest's folder.
    pub folder: PathBuf,
    /// The seed of every random draw.
    pub seed: u64,
    /// How to run. Not in the key.
    pub execution: Execution,
    events: Events,
    stop: StopRequest,
    ran_on: Mutex<Option<RanOn>>,
    gpu_memory: Mutex<Option<u64>>,
    signal: Mutex<Option<i32>>,
    checkpoint_lock: Option<File>,
}

/// Whether a body is asked to stop.
#[derive(Default)]
struct StopRequest {
    /// Set by signals.
    flag: Arc<AtomicBool>,
    /// The connection from the orchestrator, of which nothing comes any more but its end.
    input: Option<File>,
}

impl StopRequest {
    fn is_wanted(&self) -> bool {
        if self.input.as_ref().is_some_and(has_ended) {
            self.flag.store(true, Ordering::Relaxed);
        }
        self.flag.load(Ordering::Relaxed)
    }
}

/// Whether nothing more can come from a connection, without waiting for it.
fn has_ended(mut input: &File) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_ready = poll(&mut [PollFd::new(input, PollFlags::IN)], Some(&at_once));
    is_ready == Ok(1) && !matches!(input.read(&mut [0; 64]), Ok(1..))
}

/// Where a body's events go.
enum Events {
    /// To the orchestrator.
    Sent { to: Sender, last_progress: Mutex<Option<Instant>> },
    /// For tests: kept. The body is asked to stop after this many reports of progress.
    Kept { events: Mutex<Vec<Event>>, log: Mutex<Vec<String>>, stop_at: Option<usize> },
}

/// Progress that is reported more often is dropped: nobody can read it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

impl Context {
    /// A context outside a worker process, for tests of a body. Its events are kept.
    pub fn for_test(request: Request) -> Self {
        Self::for_test_until(request, None)
    }

    /// As [`Context::for_test`]; the body is asked to stop when it has reported its progress this many times.
    pub fn for_test_that_stops(request: Request, reports: usize) -> Self {
        Self::for_test_until(request, Some(reports))
    }

    fn for_test_until(request: Request, stop_at: Option<usize>) -> Self {
        let events = Events::Kept { events: Mutex::default(), log: Mutex::default(), stop_at };
        Self::new(request, events, StopRequest::default())
    }

    fn new(request: Request, events: Events, stop: StopRequest) -> Self {
        Self {
            inputs: request.inputs,
            missing: request.missing,
            output: request.output,
            checkpoint: request.checkpoint,
            folder: request.folder,
            seed: request.seed,
            execution: request.execution,
            events,
            stop,
            ran_on: Mutex::default(),
            gpu_memory: Mutex::default(),
            signal: Mutex::default(),
            checkpoint_lock: None,
        }
    }

    /// The same, in a process that holds a lock on its checkpoint folder.
    #[must_use]
    pub fn with_checkpoint_lock(self, lock: File) -> Self {
        Self { checkpoint_lock: Some(lock), ..self }
    }

    /// The lock on the checkpoint folder, in a worker process: the next worker of the same key waits until
    /// nobody holds it. A program that a body starts and that uses the folder should inherit the descriptor,
    /// as it can outlive a killed worker. `None` outside a worker process.
    pub fn checkpoint_lock(&self) -> Option<&File> {
        self.checkpoint_lock.as_ref()
    }

    /// All artifacts at a port; empty when it is not connected.
    pub fn inputs(&self, port: &str) -> &[Input] {
        self.inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// The points of those instances at a port that have failed; only for a stage that runs without them.
    pub fn missing(&self, port: &str) -> &[Point] {
        self.missing.get(port).map_or(&[], Vec::as_slice)
    }

    /// The artifact at a port that takes one or none.
    pub fn optional_input(&self, port: &str) -> Option<&Input> {
        self.inputs(port).first()
    }

    /// The folder of the artifact at a port that must be connected.
    ///
    /// # Errors
    /// When it is not connected: the orchestrator and the kind disagree.
    pub fn input(&self, port: &str) -> anyhow::Result<&Path> {
        self.optional_input(port)
            .map(|input| input.path.as_path())
            .with_context(|| format!("the request has no artifact at port '{port}'"))
    }

    /// Reports the progress. Cheap: calls in quick succession are dropped.
    pub fn progress(&self, progress: Progress) {
        if let Events::Sent { last_progress, .. } = &self.events {
            let mut last = lock(last_progress);
            let finished = progress.total == Some(progress.done);
            if !finished && last.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
                return;
            }
            *last = Some(Instant::now());
        }
        self.send(Event::Progress(progress));
    }

    /// Reports numbers that were measured after this many steps. None is dropped.
    pub fn measured<'a>(&self, step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) {
        for (name, value) in values {
            self.send(Event::Measured(Measured { step, name: name.to_owned(), value }));
        }
    }

    /// A line worth showing while the stage runs.
    pub fn note(&self, text: impl Into<String>) {
        self.send(Event::Note { text: text.into() });
    }

    /// A line about what this machine cannot do, which is shown once in a run. The log of the stage has it, too.
    pub fn limitation(&self, text: impl Into<String>) {
        let text = text.into();
        self.log(&text);
        self.send(Event::Limitation { text });
    }

    /// Writes a line to the log of the stage.
    pub fn log(&self, line: &str) {
        match &self.events {
            Events::Sent { .. } => write_log(line),
            Events::Kept { log, .. } => lock(log).push(line.to_owned()),
        }
    }

    /// Reports what the work runs on, for the record and the log.
    pub fn ran_on(&self, ran_on: RanOn) {
        let mut known = lock(&self.ran_on);
        if known.as_ref() != Some(&ran_on) {
            self.log(&format!("runs on {ran_on}"));
        }
        *known = Some(ran_on);
    }

    /// Reports how much memory of a GPU the work has, or has had, at once, in bytes: the most of all reports is for the record.
    pub fn gpu_memory(&self, bytes: u64) {
        let mut most = lock(&self.gpu_memory);
        *most = (*most).max(Some(bytes));
    }

    /// The most of the reports so far; `None` without one.
    pub fn peak_gpu_memory(&self) -> Option<u64> {
        *lock(&self.gpu_memory)
    }

    /// Reports that this signal ended a program that the body ran: if the body fails, another attempt may succeed.
    pub fn ended_by_signal(&self, signal: i32) {
        *lock(&self.signal) = Some(signal);
    }

    /// Whether the work should checkpoint and return [`Stopped`].
    pub fn stopping(&self) -> bool {
        self.stop.is_wanted()
    }

    /// What a signal sets that asks the body to stop: for tests, which set it themselves.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop.flag)
    }

    /// Returns early from a body that was asked to stop. Call it where nothing needs saving.
    pub fn stop_point(&self) -> Result<(), Stopped> {
        if self.stopping() { Err(Stopped) } else { Ok(()) }
    }

    /// The events so far, in a context for tests.
    pub fn kept_events(&self) -> Vec<Event> {
        match &self.events {
            Events::Kept { events, .. } => lock(events).clone(),
            Events::Sent { .. } => Vec::new(),
        }
    }

    /// The lines of the log so far, in a context for tests.
    pub fn kept_log(&self) -> Vec<String> {
        match &self.events {
            Events::Kept { log, .. } => lock(log).clone(),
            Events::Sent { .. } => Vec::new(),
        }
    }

    fn send(&self, event: Event) {
        match &self.events {
            // The orchestrator is gone.
            Events::Sent { to, .. } if to.send(&event).is_err() => {
                self.stop.flag.store(true, Ordering::Relaxed);
            }
            Events::Sent { .. } => {}
            Events::Kept { events, stop_at, .. } => {
                let mut events = lock(events);
                events.push(event);
                let reports = events.iter().filter(|event| matches!(event, Event::Progress(_)));
                if stop_at.is_some_and(|stop_at| reports.count() >= stop_at) {
                    self.stop.flag.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The writing end of the connection to the orchestrator.
#[derive(Clone)]
struct Sender(Arc<Mutex<File>>);

impl Sender {
    fn send(&self, event: &Event) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        lock(&self.0).write_all(&line)
    }
}

/// Takes the protocol off the standard streams. Output of libraries then goes to the log, and a started program
/// does not inherit the connection of its worker.
fn take_standard_streams() -> std::io::Result<(BufReader<File>, Sender)> {
    const FIRST: i32 = 3;
    let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), FIRST)?;
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), FIRST)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok((BufReader::new(input.into()), Sender(Arc::new(Mutex::new(output.into())))))
}

/// Runs a worker process: sends its hello, reads one request, runs it, reports how it ended.
///
/// SIGINT, SIGTERM, SIGHUP and the end of standard input ask the body to stop. (The system sends SIGHUP if the
/// orchestrator dies while its workers are stopped.)
pub fn serve(
    program: &str,
    run: impl FnOnce(&KindConfig, &Context) -> anyhow::Result<Metrics>,
) -> ExitCode {
    match serve_request(program, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            write_log(&format!("{program}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve_request(
    program: &str,
    run: impl FnOnce(&KindConfig, &Context) -> anyhow::Result<Metrics>,
) -> anyhow::Result<()> {
    name_process();
    let mut stop = StopRequest::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop.flag))
            .context("cannot listen for signals")?;
    }
    file_size_limit_is_an_error().context("cannot listen for signals")?;
    let (mut input, sender) = take_standard_streams().context("cannot use the standard streams")?;
    sender
        .send(&Event::Hello(Hello::of(program)))
        .context("nobody reads this worker's standard output")?;
    let mut request = read_request(&mut input)?;
    stop.input = Some(input.into_inner());

    let has_waited = Cell::new(false);
    let note = |text| {
        has_waited.set(true);
        Ok(sender.send(&Event::Note { text })?)
    };
    let taken =
        checkpoint::take(&request.checkpoint, Patience::default(), || stop.is_wanted(), note)?;
    let Some(Checkpoint { folder, lock: checkpoint_lock }) = taken else {
        return sender.send(&Event::Stopped).context("cannot report the end of the stage");
    };
    request.checkpoint = folder;
    if has_waited.get() {
        sender.send(&Event::Begins).context("cannot report the start of the stage")?;
    }
    let stage = request.stage.clone();
    let events = Events::Sent { to: sender.clone(), last_progress: Mutex::default() };
    let mut context = Context::new(request, events, stop).with_checkpoint_lock(checkpoint_lock);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&stage, &context)))
        .unwrap_or_else(|panic| Err(anyhow!("internal error: {}", panic_message(&*panic))));
    drop(context.checkpoint_lock.take());
    let event = match result {
        Ok(metrics) => {
            let used = Used { memory: peak_memory(), gpu_memory: context.peak_gpu_memory() };
            Event::Finished { metrics, ran_on: lock(&context.ran_on).take(), used }
        }
        Err(error) if error.is::<Stopped>() => Event::Stopped,
        Err(error) => {
            // For the log, which outlives the terminal.
            let message = in_words(&with_disk_advice(error));
            let begin = if ends_within_line(Path::new("/proc/self/fd/2")) { "\n" } else { "" };
            write_log(&format!("{begin}{LAST_WORDS}{message}"));
            let signal = lock(&context.signal).take();
            Event::Failed { message, signal }
        }
    };
    sender.send(&event).context("cannot report the end of the stage")
}

/// Set in copies of a process that has loaded the program.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// Makes what each copy of this process would have to make for itself: for one whose copies become workers.
pub fn before_copies() {
    let _ = checkpoint::numbering();
    IS_COPY.store(true, Ordering::Relaxed);
}

/// The most memory that this process had at once since its program was started, in bytes. What the system reports of a
/// child that ended also counts the memory of the process that it was forked from. `None` of a copy, for which that is right.
fn peak_memory() -> Option<u64> {
    if IS_COPY.load(Ordering::Relaxed) {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Names this process in lists of processes (`ps`, `top`). A program that was started from an open file is called `exe` there.
pub fn name_process() {
    // It has 15 letters, the most that the system keeps.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(c"pipeline worker");
}

/// Writes a line to the log. The log can be on a full disk, which must not end the worker.
fn write_log(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether a log ends within a line, as where a program was killed that drew a bar.
pub fn ends_within_line(log: &Path) -> bool {
    let mut last = [0];
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != *b"\n"
}

/// After this, a file that grows beyond the limit on file sizes (`ulimit -f`) is an error of the write and does not end
/// this process. Programs that it starts are not affected.
pub fn file_size_limit_is_an_error() -> std::io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// What to do where the disk is full.
pub const DISK_IS_FULL: &str = "the disk is full: free some space, or, if the cache is on it, use another one \
    with --cache; nothing that was committed is lost";

/// An error, with advice if the disk is full.
pub fn with_disk_advice(error: anyhow::Error) -> anyhow::Error {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match io_error_kind(&error) {
        Some(FileTooLarge) => anyhow!(
            "{}\na file would be larger than is allowed: raise the limit of the shell (`ulimit -f`), or, if \
             it is that of the file system, use another file system; nothing that was committed is lost",
            in_words(&error)
        ),
        Some(StorageFull | QuotaExceeded) => anyhow!("{}\n{DISK_IS_FULL}", in_words(&error)),
        _ => error,
    }
}

/// An error with its causes in one line. A cause that the text before it ends in is not repeated: that of a library may say what its own
/// cause is.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The kind of the I/O error behind an error, if any.
pub fn io_error_kind(error: &anyhow::Error) -> Option<std::io::ErrorKind> {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.next().map(std::io::Error::kind)
}

fn read_request(input: &mut impl BufRead) -> anyhow::Result<Request> {
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the request")?;
    if line.is_empty() {
        return Err(anyhow!("this program is started by `pipeline`, which sends it a request"));
    }
    let protocol = serde_json::from_str::<serde_json::Value>(&line).ok();
    let protocol = protocol.and_then(|request| request.get("protocol")?.as_u64());
    if protocol != Some(u64::from(PROTOCOL)) {
        return Err(anyhow!(
            "the request is not of protocol {PROTOCOL}: `pipeline` and this worker are of different builds"
        ));
    }
    serde_json::from_str(&line).context("the request is invalid")
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_worker_is_asked_to_stop_by_the_end_of_its_input() {
        let (mut ours, theirs) = UnixStream::pair().expect("a socket");
        let input = Some(File::from(OwnedFd::from(theirs)));
        let stop = StopRequest { input, ..StopRequest::default() };
        assert!(!stop.is_wanted());
        ours.write_all(b"a line\n").expect("open");
        assert!(!stop.is_wanted() && !stop.is_wanted());
        drop(ours);
        assert!(stop.is_wanted() && stop.flag.load(Ordering::Relaxed));
    }
}
