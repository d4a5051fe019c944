//! A folder with a manifest, and the program that is run in it: the base of all these tests.
//!
//! Knows how to run the program and to wait; no story.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Once};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use signal_hook::consts::SIGINT;
use tempfile::TempDir;

use crate::filter::Filter;

/// How long anything may take: a minute, or as many seconds as `PIPELINE_PATIENCE` says. Far more than it takes: only a story that
/// would never end reaches it, but beside other work at the lowest priority.
static LIMIT: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("PIPELINE_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
});

/// The manifest of a sandbox.
pub const MANIFEST: &str = "experiment.toml";

/// The user and group `nobody`.
const NOBODY: u32 = 65534;

/// Who runs the program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    /// Whoever runs the tests.
    Same,
    /// Somebody who is not root, with umask 077.
    Ordinary,
}

/// A project folder of its own.
pub struct Sandbox {
    top: TempDir,
    environment: BTreeMap<String, String>,
    user: User,
}

/// An orange square of 8 pixels, as PNG.
const PNG: &[u8] =
    b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x08\
    \x00\x00\x00\x08\x08\x02\x00\x00\x00\x4b\x6d\x29\xdc\x00\x00\x00\x11\x49\x44\x41\
    \x54\x78\xda\x63\x38\x51\xa1\x81\x15\x31\x0c\x2d\x09\x00\x52\xd5\x5a\x01\x22\xf9\
    \x7e\x1a\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";

/// Copies a program, or makes one of a script, by another process. What this one has open for writing is open for a moment in
/// whatever another thread starts just then, and a program that is open for writing does not start.
pub fn copy_program(from: &Path, to: &Path) {
    let copied =
        std::process::Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(copied.expect("coreutils").success(), "{} is copied", from.display());
}

impl Sandbox {
    /// A project with this manifest and no cache yet.
    pub fn new(manifest: &str) -> Self {
        let top = tempfile::tempdir().expect("a temporary folder");
        let sandbox = Self { top, environment: BTreeMap::new(), user: User::Same };
        // Without it, the default cache would be looked for above the sandbox.
        fs::create_dir_all(sandbox.path(".git")).expect("a folder");
        fs::create_dir_all(sandbox.output()).expect("a folder");
        sandbox.write(MANIFEST, manifest);
        sandbox
    }

    /// The same for somebody who is not root and whose new files nobody else may read. Root runs the
    /// program as `nobody`; anybody else is an ordinary user already.
    pub fn of_an_ordinary_user(manifest: &str) -> Self {
        let mut sandbox = Self::new(manifest);
        sandbox.user = User::Ordinary;
        let bin = sandbox.path(".bin");
        fs::create_dir(&bin).expect("a folder");
        for (program, name) in [(pipeline(), "pipeline"), (fake_learn(), "pipeline-learn")] {
            // The build folder may be where no other user has access.
            if fs::hard_link(&program, bin.join(name)).is_err() {
                copy_program(&program, &bin.join(name));
            }
        }
        if rustix::process::geteuid().is_root() {
            let give = |path: &Path| {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root may chown");
            };
            give(sandbox.top.path());
            give(&sandbox.folder());
            give(&sandbox.output());
            give(&sandbox.path(MANIFEST));
        }
        sandbox
    }

    /// Sets a variable in the environment of every program that is run from now on.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Uses the worker of tests for the learning kinds, with this behaviour.
    pub fn with_fake_learn(self, behaviour: &str) -> Self {
        let journal = self.path("journal").to_string_lossy().into_owned();
        self.set("PIPELINE_LEARN", fake_learn().to_string_lossy())
            .set("FAKE_LEARN", behaviour)
            .set("FAKE_LEARN_JOURNAL", journal)
    }

    /// Lets the program find GPUs of these models, as the driver lists them.
    pub fn with_gpus(self, models: &[&str]) -> Self {
        let folder = self.path("driver");
        fs::create_dir_all(&folder).expect("a folder");
        for (number, model) in models.iter().enumerate() {
            let text = format!("Model: \t\t {model}\nGPU UUID: \t GPU-{number}-of-the-test\n");
            self.write(&format!("driver/0000:0{number}:00.0/information"), text);
        }
        self.set("PIPELINE_GPU_FOLDER", folder.to_string_lossy())
    }

    /// Lets the program find no files of a driver, but a program `nvidia-smi`: this script.
    pub fn with_nvidia_smi(self, script: &str) -> Self {
        self.write_program("bin/nvidia-smi", script);
        let path = std::env::var("PATH").expect("a path");
        let path = format!("{}:{path}", self.path("bin").display());
        let missing = self.path("no-driver").to_string_lossy().into_owned();
        self.set("PATH", path).set("PIPELINE_GPU_FOLDER", missing)
    }

    /// The project folder.
    pub fn folder(&self) -> PathBuf {
        self.top.path().join("project")
    }

    /// A path in the project folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// A path in the default cache.
    pub fn cache(&self, name: &str) -> PathBuf {
        self.path("cache").join(name)
    }

    /// The names of the artifacts in the quarantine.
    pub fn quarantined(&self) -> Vec<String> {
        let names = names(&self.cache("quarantine")).into_iter();
        names.filter(|name| name != "records").collect()
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Writes a script that can be run.
    pub fn write_program(&self, name: &str, script: &str) {
        let text = format!("{name}.text");
        self.write(&text, script);
        copy_program(&self.path(&text), &self.path(name));
        fs::remove_file(self.path(&text)).expect("ours");
    }

    /// Writes a data set in MNIST's format: grey images of 8x8 pixels and two classes.
    pub fn write_idx_images(&self, folder: &str, train: u8, test: u8) {
        for (part, count) in [("train", train), ("t10k", test)] {
            let header = |kind: u8, lengths: &[u8]| {
                let lengths = lengths.iter().flat_map(|&length| u32::from(length).to_be_bytes());
                [0, 0, 8, kind].into_iter().chain(lengths).collect::<Vec<u8>>()
            };
            let pixels = vec![7; usize::from(count) * 64];
            let images = [header(3, &[count, 8, 8]), pixels].concat();
            let labels = (0..count).map(|index| index % 2).collect();
            let labels = [header(1, &[count]), labels].concat();
            self.write(&format!("{folder}/{part}-images-idx3-ubyte"), images);
            self.write(&format!("{folder}/{part}-labels-idx1-ubyte"), labels);
        }
    }

    /// Writes folders of images, as for `image-folder`: this many for each class.
    pub fn write_photos(&self, folder: &str, classes: &[&str], train: usize, test: usize) {
        for (part, count) in [("train", train), ("test", test)] {
            for class in classes {
                for number in 0..count {
                    self.write(&format!("{folder}/{part}/{class}/{number}.png"), PNG);
                }
            }
        }
    }

    /// The text of a file of the project; empty if it is missing.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Replaces a text that is in the manifest once.
    pub fn edit(&self, from: &str, to: &str) {
        let text = self.read(MANIFEST);
        assert_eq!(text.matches(from).count(), 1, "{from:?} is once in\n{text}");
        self.write(MANIFEST, text.replace(from, to));
    }

    /// A call of the program in the project folder, not yet made.
    pub fn command(&self, arguments: &str) -> Command {
        let program = match self.user {
            User::Same => pipeline(),
            User::Ordinary => self.path(".bin/pipeline"),
        };
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        self.dress(&mut command);
        command
    }

    /// Puts any program into the sandbox: its folder, its environment, its user.
    pub fn dress(&self, command: &mut Command) {
        command.current_dir(self.folder()).env_clear().stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        // Not that of whoever runs the tests, and no other one in its place.
        command.env("HOME", self.top.path().join("home"));
        command.envs(&self.environment);
        // SAFETY: signal is a bare system call: it neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| {
                // Whoever runs the tests may ignore them, as continuous integration does.
                for signal in [libc::SIGTSTP, libc::SIGHUP] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                Ok(())
            });
        }
        if self.user == User::Ordinary {
            if rustix::process::geteuid().is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
            // SAFETY: umask is a bare system call: it neither allocates nor takes a lock.
            unsafe {
                command.pre_exec(|| {
                    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
                    Ok(())
                });
            }
        }
    }

    /// Runs the program to its end.
    pub fn pipeline(&self, arguments: &str) -> Ended {
        self.start(arguments).wait()
    }

    /// Starts the program.
    pub fn start(&self, arguments: &str) -> Running {
        self.start_command(self.command(arguments))
    }

    /// Starts a call that was made with [`Sandbox::command`].
    pub fn start_command(&self, mut command: Command) -> Running {
        let_interrupts_through();
        let output = tempfile::tempdir_in(self.output()).expect("a folder for what it prints");
        let create = |name: &str| File::create(output.path().join(name)).expect("a new file");
        command.stdout(create("stdout")).stderr(create("stderr"));
        let child = command.spawn().expect("the program starts");
        Running { child, output, filter: self.blanks() }
    }

    /// The folder of a stage's artifact, which must be fresh.
    pub fn artifact(&self, stage: &str) -> PathBuf {
        let ended = self.pipeline(&format!("path {MANIFEST} {stage}"));
        assert!(ended.status.success(), "{ended}");
        PathBuf::from(ended.stdout.trim_end())
    }

    /// The name of a stage's artifact: the digest of its content.
    pub fn digest(&self, stage: &str) -> String {
        self.artifact(stage).file_name().expect("a name").to_string_lossy().into_owned()
    }

    /// Takes the locks of a key away while processes have them, as a file server may do.
    pub fn lose_locks(&self, key: &str) {
        fs::remove_file(self.cache("locks").join(key)).expect("somebody has it");
        let checkpoints = self.cache("partial").join(key);
        for name in names(&checkpoints).iter().filter(|name| name.ends_with(".lock")) {
            fs::remove_file(checkpoints.join(name)).expect("ours");
        }
    }

    /// Lets the owner change an artifact, as no program should.
    pub fn unprotect(&self, artifact: &Path) {
        for path in walk(artifact).into_iter().chain([artifact.to_owned()]) {
            // What a link leads to is not ours to change.
            if path.is_symlink() {
                continue;
            }
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
    }

    /// Waits until a file of the project has a line.
    pub fn wait_for_line(&self, name: &str, line: &str) {
        eventually(&format!("the line '{line}' in {name}"), || {
            self.read(name).lines().any(|other| other == line)
        });
    }

    /// The text with all that differs from run to run blanked.
    pub fn filter(&self, text: &str) -> String {
        self.blanks().apply(text)
    }

    fn blanks(&self) -> Filter {
        let programs = [(fake_learn_path(), "[pipeline-learn]"), (pipeline(), "[pipeline]")];
        let paths = programs.into_iter().chain([(self.folder(), "[project]")]);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // As it is named where a job begins, and where a process is.
        let hosts =
            [(format!(" on {host}:"), " on [host]:"), (format!(" on {host})"), " on [host])")];
        let hosts = hosts.into_iter().map(|(text, name)| (PathBuf::from(text), name));
        Filter { paths: paths.chain(hosts).collect() }
    }

    /// Leaves the folder behind, to be looked at.
    pub fn keep(&mut self) -> PathBuf {
        self.top.disable_cleanup(true);
        self.folder()
    }

    fn output(&self) -> PathBuf {
        self.top.path().join("output")
    }
}

/// Programs that are started from now on end on SIGINT, as in a terminal, also where it is ignored: a shell starts what is in the
/// background like that, and whoever is started inherits it. What has a handler is the default again in a new program.
fn let_interrupts_through() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let always = Arc::new(AtomicBool::new(true));
        let interrupted = signal_hook::flag::register_conditional_shutdown(SIGINT, 130, always);
        interrupted.expect("a handler");
    });
}

impl Drop for Sandbox {
    /// Read-only folders cannot be emptied by an ordinary user.
    fn drop(&mut self) {
        for path in walk(&self.folder()) {
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
            }
        }
    }
}

/// The program while it runs.
pub struct Running {
    child: Child,
    output: TempDir,
    filter: Filter,
}

impl Drop for Running {
    /// A story that fails leaves nothing behind.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
    }
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        is_alive(self.child.id())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("it is our child");
    }

    /// Waits until it has printed a text to standard error.
    pub fn wait_for(&self, text: &str) {
        eventually(&format!("'{text}' on standard error"), || self.read("stderr").contains(text));
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        self.read("stdout")
    }

    /// What it has printed to standard error so far.
    pub fn said(&self) -> String {
        self.read("stderr")
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + *LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!(
                    "it did not end in {:?}:\n{}{}",
                    *LIMIT,
                    self.read("stdout"),
                    self.read("stderr")
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        Ended { status, stdout, stderr, filter: self.filter.clone() }
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.output.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What came of a call. Shown, it is all of it, with what differs from run to run blanked.
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said on the way.
    pub stderr: String,
    filter: Filter,
}

impl Ended {
    /// Its exit status.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it printed, filtered.
    pub fn printed(&self) -> String {
        assert!(self.status.success(), "{self}");
        self.filter.apply(&self.stdout)
    }

    /// What it printed, as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{self}"))
    }

    /// The results in the table at the end, in order: `data fresh, train ran`.
    pub fn results(&self) -> String {
        let rows = self.stdout.lines().skip_while(|line| !line.starts_with("stage ")).skip(1);
        let cells = rows.take_while(|line| !line.is_empty()).map(|line| {
            let mut words = line.split_whitespace();
            let (stage, result) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            format!("{stage} {result}")
        });
        cells.collect::<Vec<_>>().join(", ")
    }

    /// The same of a run that must have succeeded.
    pub fn success(&self) -> String {
        assert!(self.status.success(), "{self}");
        self.results()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => writeln!(f, "status {code}")?,
            (None, signal) => writeln!(f, "signal {signal:?}")?,
        }
        for (name, text) in [("stderr", &self.stderr), ("stdout", &self.stdout)] {
            if !text.is_empty() {
                write!(f, "--- {name}\n{}", self.filter.apply(text))?;
            }
        }
        Ok(())
    }
}

/// Waits for something that will come true.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + *LIMIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited {:?} for {what}", *LIMIT);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test did not test something.
pub fn skipped(what: &str) {
    say(&format!("SKIPPED: {what}"));
}

/// Says something of a test that passes. Not with `eprintln!`: the harness hides that.
pub fn say(what: &str) {
    // Where standard error is closed, nobody reads it.
    let _ = std::io::stderr().write_all(format!("{what}\n").as_bytes());
}

/// Whether a process works; a dead one that nobody buried does not.
pub fn is_alive(pid: u32) -> bool {
    !matches!(process_state(pid).as_str(), "" | "Z" | "X")
}

/// The letter that `/proc` has for the state of a process: `T` for one that is stopped.
pub fn process_state(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.unwrap_or_default().to_owned()
}

/// Everything below a folder: each folder before what is in it. Links are not followed.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

/// The names in a folder, sorted; none if it is missing.
pub fn names(folder: &Path) -> Vec<String> {
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        listing.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The program.
pub fn pipeline() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pipeline"))
}

/// The worker of tests for the learning kinds.
pub fn fake_learn() -> PathBuf {
    let path = fake_learn_path();
    assert!(path.is_file(), "{}: build it with `cargo build --examples`", path.display());
    path
}

/// Where that worker must be.
pub fn fake_learn_path() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let profile = own.ancestors().nth(2).unwrap_or(Path::new(""));
    profile.join("examples").join("fake-learn")
}
