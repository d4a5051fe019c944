//! Programs that are asked something: each runs to its end, or is ended once it has taken too long, or nobody wants its answer any more.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The longest pause between two checks whether a program has ended.
const POLL: Duration = Duration::from_millis(5);

/// How a program is run.
#[derive(Default)]
pub(crate) struct Deadline {
    /// How long it may take.
    pub(crate) limit: Duration,
    /// The most bytes that are kept of what it prints, where there is such a bound.
    pub(crate) most_bytes: Option<usize>,
    /// Whether it has a process group of its own, which ends with it: Ctrl-C in the terminal is not for it.
    pub(crate) has_group: bool,
    /// Whether the answer of a program that has ended is whole, although what it started keeps its output open; at the limit, any is.
    /// Without this, an answer is whole when the output is closed.
    pub(crate) is_enough: Option<fn(ExitStatus, &[u8]) -> bool>,
}

/// Ends the program that runs with it, now or later, from another thread.
#[derive(Debug, Default)]
pub(crate) struct Stop(Mutex<Stoppable>);

#[derive(Debug, Default)]
struct Stoppable {
    was_stopped: bool,
    /// The program that runs, as long as its number is its own, and whether it has a group.
    program: Option<(Pid, bool)>,
}

impl Stop {
    /// Ends the program that runs, and lets no other one start.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.was_stopped = true;
        state.end();
    }

    /// Whether it was stopped.
    pub(crate) fn was_stopped(&self) -> bool {
        self.lock().was_stopped
    }

    fn lock(&self) -> MutexGuard<'_, Stoppable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a program, unless it would be ended at once.
    fn spawn(&self, command: &mut Command, has_group: bool) -> io::Result<Option<Child>> {
        let mut state = self.lock();
        if state.was_stopped {
            return Ok(None);
        }
        let child = command.spawn()?;
        state.program = Some((Pid::from_child(&child), has_group));
        Ok(Some(child))
    }

    /// How a program has ended. Once this has seen the end, the number may be another one's.
    fn ended(&self, child: &mut Child) -> Option<ExitStatus> {
        let mut state = self.lock();
        let status = child.try_wait().unwrap_or_default();
        state.program.take_if(|_| status.is_some());
        status
    }

    /// Ends the program that runs: it has taken too long.
    fn end(&self) {
        self.lock().end();
    }
}

impl Stoppable {
    fn end(&mut self) {
        if let Some((program, has_group)) = self.program.take() {
            if has_group {
                let _ = kill_process_group(program, Signal::KILL);
            }
            let _ = kill_process(program, Signal::KILL);
        }
    }
}

impl Deadline {
    /// Runs a program. `None` where it took too long.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn run(&self, command: Command) -> io::Result<Option<Output>> {
        self.run_until(&Stop::default(), command)
    }

    /// The same. `None`, or what there is by then, also where it was stopped: whoever does that does not want the answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn run_until(
        &self,
        stop: &Stop,
        mut command: Command,
    ) -> io::Result<Option<Output>> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        if self.has_group {
            command.process_group(0);
        }
        let Some(mut child) = stop.spawn(&mut command, self.has_group)? else { return Ok(None) };
        let deadline = Instant::now() + self.limit;
        let pipes =
            [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let open = (0..).zip(pipes).filter_map(|(place, pipe)| Some((place, File::from(pipe?))));
        let mut open: Vec<(usize, File)> = open.collect();
        open.retain(|(_, file)| ioctl_fionbio(file, true).is_ok());
        let (mut texts, mut block) = ([Vec::new(), Vec::new()], [0; 8192]);
        loop {
            let looks = open.is_empty() || self.is_enough.is_some();
            let status = if looks { stop.ended(&mut child) } else { None };
            let is_enough = |status| self.is_enough.is_some_and(|is| is(status, &texts[0]));
            let left = deadline.saturating_duration_since(Instant::now());
            match status {
                Some(status) if open.is_empty() || left.is_zero() || is_enough(status) => {
                    let [stdout, stderr] = texts;
                    return Ok(Some(Output { status, stdout, stderr }));
                }
                None if left.is_zero() => {
                    stop.end();
                    // One that hangs with a driver or a disk ends late, and must not be a zombie then.
                    let _ = std::thread::Builder::new().spawn(move || child.wait());
                    return Ok(None);
                }
                _ => {}
            }
            let files = open.iter().map(|(_, file)| PollFd::new(file, PollFlags::IN));
            let pause = if looks { left.min(POLL) } else { left };
            let _ = poll(&mut files.collect::<Vec<_>>(), Timespec::try_from(pause).ok().as_ref());
            open.retain_mut(|(place, file)| match file.read(&mut block) {
                Ok(count) => {
                    texts[*place].extend(&block[..count]);
                    texts[*place].truncate(self.most_bytes.unwrap_or(usize::MAX));
                    count > 0
                }
                Err(error) => {
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_or_is_ended_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let long = Duration::from_secs(30);
        let run = |how: Deadline, text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]).stderr(Stdio::piped()).current_dir(folder.path());
            let ended = how.run(command).expect("a shell");
            ended.map(|ended| {
                let text = |bytes| String::from_utf8(bytes).expect("text");
                (ended.status.code(), text(ended.stdout), text(ended.stderr))
            })
        };
        let within = |limit| Deadline { limit, ..Deadline::default() };
        let soon = || within(Duration::from_secs(3));
        let ended = |code, stdout: &str, stderr: &str| {
            Some((Some(code), stdout.to_owned(), stderr.to_owned()))
        };
        let began = Instant::now();
        // More than fits into the pipes.
        let many = "x".repeat(200_000);
        let both = "x() { head -c 200000 /dev/zero | tr '\\0' x; }; x; x >&2; exit 3";
        assert!(run(within(long), both) == ended(3, &many, &many));
        let first = Deadline { most_bytes: Some(7), ..within(long) };
        assert_eq!(run(first, both), ended(3, "xxxxxxx", "xxxxxxx"));
        let at_once = Deadline { is_enough: Some(|_, text| text == b"1\n"), ..within(long) };
        assert_eq!(run(at_once, "sleep 60 & echo 1"), ended(0, "1\n", ""), "not waited for");
        let late = Deadline { is_enough: Some(|_, _| false), ..soon() };
        assert_eq!(run(late, "sleep 5 & echo 1"), ended(0, "1\n", ""), "all that there is");
        assert_eq!(
            run(soon(), "exec > /dev/null 2>&1; exec sleep 60"),
            None,
            "closed, and not ended"
        );
        assert_eq!(run(within(Duration::ZERO), "exec sleep 60"), None);
        let group = Deadline { has_group: true, ..soon() };
        assert_eq!(
            run(group, "echo $$ > a; sleep 60 & echo $! > b; exit"),
            None,
            "it holds the output"
        );
        assert_eq!(run(soon(), "echo $$ > c; exec sleep 60"), None);
        assert!(began.elapsed() < long, "{:?}", began.elapsed());
        // Neither running nor zombies; whose child the one of the group has become is not known.
        let is_there = |name: &str| {
            let pid = std::fs::read_to_string(folder.path().join(name)).expect("its number");
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_ok_and(|stat| name != "b" || !stat.contains(") Z "))
        };
        while ["a", "b", "c"].into_iter().any(is_there) {
            assert!(began.elapsed() < long, "one is still there");
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn what_nobody_wants_to_know_any_more_is_ended_and_not_asked_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = Stop::default();
        let run = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]).current_dir(folder.path());
            let long = Duration::from_secs(60);
            let how = Deadline { limit: long, has_group: true, ..Deadline::default() };
            how.run_until(&stop, command).expect("a shell")
        };
        assert!(run("exit 3").is_some_and(|ended| ended.status.code() == Some(3)));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let hangs = scope.spawn(|| run("sleep 60 & echo $! > pid.new; mv pid.new pid; wait"));
            while !folder.path().join("pid").exists() {
                std::thread::sleep(POLL);
            }
            stop.stop();
            let ended = hangs.join().expect("no panic").expect("it was ended");
            assert!(!ended.status.success(), "{ended:?}");
        });
        // Its output was closed, which both had.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert!(run("echo > again").is_none());
        assert!(!folder.path().join("again").exists());
    }
}
