//! The checkpoint folder of a stage, and who still works in it.
//!
//! ```text
//! partial/<key>/
//!   <id>/         what the stage writes; the newest counts
//!   <id>.lock     locked by its worker and by all programs that inherit the lock; names the worker
//! ```
//!
//! A program can outlive its worker if that is killed. It is found by the lock that it inherited, or, where it closed that, by its
//! process group and its environment. The next worker waits for the program and ends it if it is of the same user; otherwise it starts in a folder of another name. No name is used twice, so a program that still runs
//! cannot write into the folder that counts. Does not depend on what a stage does.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getuid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::proc_stat::ProcStat;
use crate::text::in_short;

/// In the environment of a program: its checkpoint folder.
pub const VARIABLE: &str = "PIPELINE_CHECKPOINT";

const POLL: Duration = Duration::from_millis(50);

/// How long the processes of an interrupted run may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// To exit without a signal. A worker allows its program five seconds.
    pub(crate) grace: Duration,
    /// To exit after SIGTERM, and to be gone after SIGKILL.
    pub(crate) end: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { grace: Duration::from_secs(10), end: Duration::from_secs(5) }
    }
}

/// A checkpoint folder that nobody else works in.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) folder: PathBuf,
    pub(crate) lock: File,
}

/// Whether an interrupted run left something to continue from.
pub fn holds_work(base: &Path) -> bool {
    let entries = newest(base).and_then(|id| fs::read_dir(base.join(id)).ok());
    entries.is_some_and(|mut entries| entries.next().is_some())
}

/// The files that an interrupted run left to continue from, and the folder that they are in.
pub fn files(base: &Path) -> Option<(PathBuf, Vec<PathBuf>)> {
    let top = base.join(newest(base)?);
    let (mut open, mut files) = (vec![top.clone()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Some((top, files))
}

/// Takes the checkpoint folder that an interrupted run left, or makes one. `None` if this process was asked to stop
/// while it waited.
pub(crate) fn take(
    base: &Path,
    patience: Patience,
    stopping: impl Fn() -> bool,
    note: impl Fn(String) -> anyhow::Result<()>,
) -> anyhow::Result<Option<Checkpoint>> {
    let Some(id) = newest(base) else { return make(base).map(Some) };
    let path = lock_path(base, &id);
    let lock = open_lock(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut step = Step::Begin;
    let mut since = Instant::now();
    loop {
        let left = Left::of(&lock, &path)?;
        if left.is_nobody() {
            name_owner(&lock);
            return Ok(Some(Checkpoint { folder: base.join(id), lock }));
        }
        if stopping() {
            return Ok(None);
        }
        let passed = since.elapsed();
        let next = match step {
            Step::Begin => {
                note(left.waits(patience))?;
                // A paused process cannot notice that its run is gone.
                left.signal(Signal::CONT);
                Some(Step::Wait)
            }
            Step::Wait if passed < patience.grace => None,
            Step::Wait if left.ours().next().is_some() => {
                left.signal(Signal::TERM);
                Some(Step::Asked)
            }
            Step::Asked if passed >= patience.end => {
                left.signal(Signal::KILL);
                note(format!("ended {}, which an interrupted run left running", left.names()))?;
                Some(Step::Killed)
            }
            Step::Killed if passed < patience.end => None,
            Step::Asked => None,
            Step::Wait | Step::Killed => {
                note(format!(
                    "{} does not exit: this run starts from nothing, in a new checkpoint folder",
                    left.names()
                ))?;
                return make(base).map(Some);
            }
        };
        if let Some(next) = next {
            (step, since) = (next, Instant::now());
        }
        std::thread::sleep(POLL);
    }
}

/// How far the wait for other processes is.
enum Step {
    Begin,
    Wait,
    Asked,
    Killed,
}

/// A new folder. Its name was never used before: it contains the time.
fn make(base: &Path) -> anyhow::Result<Checkpoint> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    // The names sort by time.
    let id = format!("{time:024}-{}", std::process::id());
    let folder = base.join(&id);
    let path = lock_path(base, &id);
    let making = || format!("cannot make the checkpoint folder {}", folder.display());
    fs::create_dir_all(&folder).with_context(making)?;
    let lock = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let lock = lock.with_context(making)?;
    lock.try_lock().map_err(std::io::Error::from).with_context(making)?;
    name_owner(&lock);
    Ok(Checkpoint { folder, lock })
}

fn lock_path(base: &Path, id: &str) -> PathBuf {
    base.join(format!("{id}.lock"))
}

/// The folder of a base that counts, by its name: later ones have greater names. A folder without its lock was made by a program
/// whose own folder was removed.
pub fn newest(base: &Path) -> Option<String> {
    let entries = fs::read_dir(base).ok()?.flatten();
    let ids = entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.strip_suffix(".lock")?.to_owned();
        base.join(&id).symlink_metadata().is_ok_and(|metadata| metadata.is_dir()).then_some(id)
    });
    ids.max()
}

/// Opens a file that is there to lock it alone, and not what a link in its place leads to. On NFS, that takes the right to write it; on a
/// file system of this machine, that to read it. In a shared cache another user may have made it, and this one may only read it.
///
/// # Errors
/// When there is none, or it cannot be opened.
pub fn open_lock(path: &Path) -> std::io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let options =
        |write| OpenOptions::new().read(true).write(write).custom_flags(no_follow).open(path);
    match options(true) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            options(false)
        }
        open => open,
    }
}

/// Who locked a folder: a worker, which leads a process group.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    pid: i32,
    /// For people.
    host: String,
    /// See [`numbering`].
    numbering: Option<String>,
    /// When it had started, by [`ticks`]: distinguishes it from a later process with the same number.
    started: u64,
}

impl Owner {
    fn this_process() -> Self {
        Self {
            pid: getpid().as_raw_pid(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            numbering: numbering().map(str::to_owned),
            started: ticks(),
        }
    }
}

/// Where and since when the numbers of processes are unique: in one namespace, from one start of the machine to the next.
/// The same number elsewhere is another process. `None` where the system does not say.
pub(crate) fn numbering() -> Option<&'static str> {
    static NUMBERING: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        Some(format!("{} {}", boot.trim(), namespace.display()))
    };
    NUMBERING.get_or_init(read).as_deref()
}

/// The time in the clock ticks in which the system says when a process started (proc_pid_stat(5)). Not from `/proc`: what is looked at
/// there of a process makes its end take longer.
fn ticks() -> u64 {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        let since = clock_gettime(ClockId::Boottime);
        let per_second = rustix::param::clock_ticks_per_second();
        let [seconds, nanoseconds] = [since.tv_sec, since.tv_nsec].map(|part| part as u64);
        seconds * per_second + nanoseconds * per_second / 1_000_000_000
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// For people, and to find what the worker leaves running. If this cannot be written, no owner is named.
fn name_owner(lock: &File) {
    if let Ok(text) = serde_json::to_vec(&Owner::this_process()) {
        let _ = lock.set_len(0).and_then(|()| { &*lock }.write_all(&text));
    }
}

/// What remains of an interrupted run.
struct Left {
    locked: bool,
    processes: Vec<Process>,
    owner: Option<Owner>,
}

impl Left {
    fn of(lock: &File, path: &Path) -> anyhow::Result<Self> {
        let alone = lock.try_lock();
        let taken = match &alone {
            // NFS lets nobody lock a file alone who may not write it. Together with others, that says as much of who works there.
            Err(TryLockError::Error(error)) if Errno::from_io_error(error) == Some(Errno::BADF) => {
                lock.try_lock_shared()
            }
            _ => alone,
        };
        let locked = match taken {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        let mut text = Vec::new();
        let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut text));
        let owner: Option<Owner> = serde_json::from_slice(&text).ok();
        let numbering = numbering();
        let here = owner
            .as_ref()
            .filter(|owner| owner.numbering.is_some() && owner.numbering.as_deref() == numbering);
        let file = lock.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let processes = Process::all().filter(|process| {
            here.is_some_and(|owner| process.is_of(owner, path))
                || locked && file.is_some_and(|file| process.holds(file))
        });
        Ok(Self { locked, processes: processes.collect(), owner })
    }

    fn is_nobody(&self) -> bool {
        !self.locked && self.processes.is_empty()
    }

    fn ours(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.user == getuid().as_raw())
    }

    /// Signals those of the same user.
    fn signal(&self, signal: Signal) {
        for process in self.ours() {
            // The number could belong to another process by now, but not while this descriptor is open.
            let Ok(held) = pidfd_open(process.pid, PidfdFlags::empty()) else { continue };
            if Process::read(process.pid).is_some_and(|now| now.started == process.started) {
                let _ = pidfd_send_signal(held, signal);
            }
        }
    }

    fn names(&self) -> String {
        if !self.processes.is_empty() {
            return in_short(self.processes.iter().map(Process::describe), 3);
        }
        match &self.owner {
            Some(owner) => format!("a program of process {} on {}", owner.pid, owner.host),
            None => "another process".to_owned(),
        }
    }

    fn waits(&self, patience: Patience) -> String {
        let seconds = patience.grace.as_secs();
        let then = if self.ours().next().is_some() {
            "it is ended"
        } else {
            "this run starts in a new checkpoint folder"
        };
        let names = self.names();
        format!(
            "waits for an interrupted run of this stage to exit: {names}; after {seconds} s {then}"
        )
    }
}

/// A running process.
#[derive(Debug)]
struct Process {
    pid: Pid,
    name: String,
    group: i32,
    user: u32,
    started: u64,
}

impl Process {
    /// All but this one.
    fn all() -> impl Iterator<Item = Self> {
        let others = ProcStat::all().filter(|&(pid, _)| pid != getpid());
        others.filter_map(|(pid, stat)| Self::of(pid, stat))
    }

    fn read(pid: Pid) -> Option<Self> {
        Self::of(pid, ProcStat::read(pid)?)
    }

    fn of(pid: Pid, stat: ProcStat) -> Option<Self> {
        let ProcStat { name, is_running: true, group, started, .. } = stat else { return None };
        let (name, group) = (name.escape_debug().to_string(), group.map_or(0, Pid::as_raw_pid));
        let status = fs::read(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
        let status = String::from_utf8_lossy(&status);
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let user = user.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(Self { pid, name, group, user, started })
    }

    /// Whether it is the worker that locked a folder, or was started by it: a process group keeps its number while a process is
    /// in it. When all of the worker's group have ended, the number may be that of another group.
    fn is_of(&self, owner: &Owner, lock: &Path) -> bool {
        self.group == owner.pid
            && match Pid::from_raw(owner.pid).and_then(Self::read) {
                Some(leader) => leader.started <= owner.started,
                // The environment of another user's process cannot be read. That process is only waited for.
                None => self.works_in(lock).unwrap_or(self.user != getuid().as_raw()),
            }
    }

    /// Whether its checkpoint folder is that of a lock, by its environment, which it has from the program of a stage. `None` if
    /// that cannot be read. No name of a folder is used twice.
    fn works_in(&self, lock: &Path) -> Option<bool> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid.as_raw_pid())).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let folder = variables
            .find_map(|variable| variable.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"="));
        let name = folder.and_then(|folder| Path::new(OsStr::from_bytes(folder)).file_name());
        Some(name.is_some_and(|name| Some(name) == lock.file_stem()))
    }

    /// Whether it holds the lock of a file. An open file is not enough.
    fn holds(&self, file: (u64, u64)) -> bool {
        let folder = format!("/proc/{}", self.pid.as_raw_pid());
        let descriptors = fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|descriptor| {
            let same = fs::metadata(descriptor.path())
                .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == file);
            let number = descriptor.file_name();
            same && fs::read_to_string(format!("{folder}/fdinfo/{}", number.display()))
                .is_ok_and(|info| info.contains("FLOCK"))
        })
    }

    /// `python3 (process 4711 of ann, for 12 s)`
    fn describe(&self) -> String {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(self.user)).then(|| name.to_owned())
        });
        let user = name.unwrap_or_else(|| format!("user {}", self.user));
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
        let started = self.started / rustix::param::clock_ticks_per_second();
        let age = uptime.map_or(0, |uptime| uptime.saturating_sub(started));
        format!("{} (process {} of {user}, for {age} s)", self.name, self.pid.as_raw_pid())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::sync::Mutex;

    use super::*;

    /// The program of one test must not inherit the descriptor of another test.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    const SHORT: Patience =
        Patience { grace: Duration::from_millis(200), end: Duration::from_millis(200) };

    fn taken(base: &Path) -> (Checkpoint, Vec<String>) {
        let notes = RefCell::new(Vec::new());
        let note = |text| {
            notes.borrow_mut().push(text);
            Ok(())
        };
        let checkpoint = take(base, SHORT, || false, note).expect("it can be made");
        (checkpoint.expect("nobody asked to stop"), notes.take())
    }

    /// A program that does not end and holds the lock.
    fn start_with(lock: &File, line: &str) -> Child {
        let inherited = rustix::io::dup(lock).expect("a descriptor");
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("sh");
        drop(inherited);
        let mut ready = [0; 2];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("its output");
        child
    }

    #[test]
    fn what_an_interrupted_run_left_is_taken_over() {
        let _guard = ONE_AT_A_TIME.lock();
        let base = tempfile::tempdir().expect("a folder");
        assert!(!holds_work(base.path()));
        let (first, notes) = taken(base.path());
        assert!(notes.is_empty() && !holds_work(base.path()));
        fs::write(first.folder.join("step"), "7").expect("a file");
        assert!(holds_work(base.path()));
        let folder = first.folder.clone();
        drop(first);
        let (second, notes) = taken(base.path());
        assert_eq!((second.folder, notes), (folder, vec![]));
        // A folder that a program makes again after it was removed has no lock, and does not count.
        fs::create_dir_all(base.path().join("9/step")).expect("a folder");
        assert!(newest(base.path()).is_some_and(|id| id != "9"));
    }

    #[test]
    fn a_program_of_the_same_user_that_does_not_exit_is_ended() {
        let _guard = ONE_AT_A_TIME.lock();
        for line in ["echo 1; exec sleep 60", "trap '' TERM; echo 1; while :; do sleep 0.05; done"]
        {
            let base = tempfile::tempdir().expect("a folder");
            let (first, _) = taken(base.path());
            let folder = first.folder.clone();
            let mut child = start_with(&first.lock, line);
            drop(first);
            // It is a child of this process, and is gone only after a wait for it.
            let waiting = std::thread::spawn(move || child.wait());
            let (second, notes) = taken(base.path());
            assert_eq!(second.folder, folder, "its lock was released");
            assert!(
                notes[0].contains("(process ") && notes[0].ends_with("it is ended"),
                "{notes:?}"
            );
            assert_eq!(notes.len(), if line.contains("trap") { 2 } else { 1 }, "{notes:?}");
            assert!(!waiting.join().expect("no panic").expect("it is ours").success());
        }
    }

    /// A process group whose leader has ended, as that of a killed worker: with a program that did not inherit the lock and has
    /// this variable. Python closes descriptors that its children do not need.
    fn group_without_leader(checkpoint: &Path) -> i32 {
        let mut leader = Command::new("sh");
        leader.args(["-c", "sleep 60 > /dev/null & echo 1"]).process_group(0);
        leader.env(VARIABLE, checkpoint).stdout(Stdio::null());
        let mut leader = leader.spawn().expect("sh");
        leader.wait().expect("it is ours");
        let group = leader.id() as i32;
        while member(group).is_none_or(|program| program.name != "sleep") {
            std::thread::sleep(Duration::from_millis(5));
        }
        group
    }

    /// Makes the folder that counts somebody else's.
    fn name_another(base: &Path, owner: &Owner) {
        let path = lock_path(base, &newest(base).expect("one"));
        fs::write(path, serde_json::to_vec(owner).expect("JSON")).expect("a file");
    }

    /// The program of [`group_without_leader`].
    fn member(group: i32) -> Option<Process> {
        Process::all().find(|process| process.group == group)
    }

    #[test]
    fn a_program_that_closed_the_lock_is_found_by_its_group() {
        let _guard = ONE_AT_A_TIME.lock();
        let base = tempfile::tempdir().expect("a folder");
        let (first, _) = taken(base.path());
        let group = group_without_leader(&first.folder);
        let owner = Owner { pid: group, started: 1, ..Owner::this_process() };
        name_another(base.path(), &owner);
        drop(first);
        let (_, notes) = taken(base.path());
        assert!(notes[0].contains("sleep (process "), "{notes:?}");
        assert!(member(group).is_none(), "it was ended");
    }

    #[test]
    fn a_group_that_is_not_the_workers_is_left_alone() {
        let _guard = ONE_AT_A_TIME.lock();
        let base = tempfile::tempdir().expect("a folder");
        let (first, _) = taken(base.path());
        let this = || Owner::this_process();
        // A program of another stage, in a group whose number was the worker's before, and programs whose worker was one of
        // another machine or container, or of where neither is known.
        let other = group_without_leader(&base.path().join("000-1"));
        let same = group_without_leader(&first.folder);
        // A leader that started when the worker did not.
        let mut leader = Command::new("sleep");
        let mut leader = leader.arg("60").process_group(0).spawn().expect("sleep");
        let unknown = Some("0 pid:[4026531836]".to_owned());
        let owners = [
            Owner { pid: other, started: 1, ..this() },
            Owner { pid: same, started: 1, numbering: unknown, ..this() },
            Owner { pid: same, started: 1, numbering: None, ..this() },
            Owner { pid: leader.id() as i32, started: 1, ..this() },
        ];
        drop(first);
        for owner in owners {
            name_another(base.path(), &owner);
            let (_, notes) = taken(base.path());
            assert_eq!(notes, [""; 0], "{owner:?}");
            assert!(member(owner.pid).is_some(), "{owner:?}");
        }
        leader.kill().expect("it runs");
        leader.wait().expect("it is ours");
        for group in [other, same] {
            let group = Pid::from_raw(group).expect("a group");
            rustix::process::kill_process_group(group, Signal::KILL).expect("it runs");
        }
    }

    #[test]
    fn a_process_that_cannot_be_ended_leads_to_a_new_folder() {
        let _guard = ONE_AT_A_TIME.lock();
        let base = tempfile::tempdir().expect("a folder");
        // This process holds the lock, and never ends itself.
        let (first, _) = taken(base.path());
        fs::write(first.folder.join("step"), "7").expect("a file");
        let (second, notes) = taken(base.path());
        assert_ne!(second.folder, first.folder);
        assert!(notes[0].ends_with("in a new checkpoint folder"), "{notes:?}");
        assert!(notes[1].contains("does not exit"), "{notes:?}");
        assert!(!holds_work(base.path()) && first.folder.join("step").exists());
        let folder = second.folder.clone();
        drop(second);
        let (third, notes) = taken(base.path());
        assert_eq!((third.folder, notes), (folder, vec![]), "the next run does not wait again");
    }
}
