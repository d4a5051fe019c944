//! A program and all that it started: waited for together, asked to leave together, killed together.
//!
//! A shell that dies of SIGTERM leaves behind the program that it ran, which may be the one that wants to
//! save its work. So a worker takes over what its program leaves behind (Linux calls that a subreaper):
//! these processes become its own children, which it can wait for and, where they don't leave, kill. A
//! process of its own child can't be replaced by another one of the same number before it was waited for.
//!
//! Knows no stage.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pipeline_stages::worker::Context;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, kill_process_group, wait, waitpid,
};

/// The longest pause between two looks at who is left.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// How long killed processes may take to be gone: one that waits for a disk can't be killed at once.
const BURIAL: Duration = Duration::from_secs(5);

/// Who is ours to wait for and to signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everybody: a worker leads a process group, in which the program and its children are, and has no
    /// other children.
    Everybody,
    /// The program itself: this process does other things, too.
    ProgramOnly,
}

impl Reach {
    /// The reach of the process that runs a stage. A worker takes over what its children leave behind.
    ///
    /// # Errors
    /// When the system refuses that.
    pub(super) fn of(context: &Context) -> anyhow::Result<Self> {
        if context.checkpoint_lock().is_none() || getpgrp() != getpid() {
            return Ok(Self::ProgramOnly);
        }
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(getpid()))
            .context("can't take over what the program leaves behind")?;
        Ok(Self::Everybody)
    }
}

/// A program that was started, and all that it started.
pub(super) struct Descendants {
    program: Pid,
    reach: Reach,
    /// How the program itself ended.
    end: Option<ExitStatus>,
    /// Whether nobody is left.
    gone: bool,
}

impl Descendants {
    /// Those of a program that was started after its [`Reach`] was found out.
    pub(super) fn of(program: &Child, reach: Reach) -> Self {
        Self { program: Pid::from_child(program), reach, end: None, gone: false }
    }

    /// How the program itself ended, once it has.
    ///
    /// # Errors
    /// When it was lost.
    pub(super) fn program_end(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.look()?;
        Ok(self.end)
    }

    /// Takes leave of everybody who has ended.
    fn look(&mut self) -> anyhow::Result<()> {
        while !self.gone {
            let ended = match self.reach {
                Reach::Everybody => wait(WaitOptions::NOHANG),
                Reach::ProgramOnly => waitpid(Some(self.program), WaitOptions::NOHANG),
            };
            match ended {
                Ok(Some((who, status))) if who == self.program => {
                    self.end = Some(ExitStatus::from_raw(status.as_raw()));
                    self.gone = self.reach == Reach::ProgramOnly;
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return Ok(()),
                Err(Errno::CHILD) => self.gone = true,
                Err(error) => return Err(error).context("lost the program"),
            }
        }
        ensure!(self.end.is_some(), "lost the program: nobody can say how it ended");
        Ok(())
    }

    /// Asks all of them to leave, waits until they have, and kills those who stay for longer.
    ///
    /// # Errors
    /// When they can't be signalled or waited for.
    pub(super) fn stop(&mut self, grace: Duration) -> anyhow::Result<()> {
        self.ask_to_leave()?;
        if !self.wait_until_gone(grace)? {
            self.kill()?;
        }
        Ok(())
    }

    fn ask_to_leave(&self) -> anyhow::Result<()> {
        let asked = match self.reach {
            Reach::Everybody => {
                // The signal comes back to this process, which must not die of it.
                signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::default())
                    .context("can't listen to signals")?;
                kill_process_group(getpgrp(), Signal::TERM)
            }
            Reach::ProgramOnly if self.gone => Ok(()),
            Reach::ProgramOnly => kill_process(self.program, Signal::TERM),
        };
        match asked {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("can't signal the program"),
        }
    }

    fn wait_until_gone(&mut self, time: Duration) -> anyhow::Result<bool> {
        let started = Instant::now();
        loop {
            self.look()?;
            if self.gone || started.elapsed() >= time {
                return Ok(self.gone);
            }
            std::thread::sleep(POLL.min(time));
        }
    }

    /// Kills whoever is left. The children of those who are killed become children of this process, so
    /// that they are next.
    ///
    /// # Errors
    /// When they can't be waited for.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        self.look()?;
        while !self.gone && started.elapsed() < BURIAL {
            for child in self.children() {
                // An error says that it has ended in this very moment.
                let _ = kill_process(child, Signal::KILL);
            }
            self.wait_until_gone(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// The processes whose parent is this one, whether they have ended or not.
    fn children(&self) -> Vec<Pid> {
        let itself = self.end.is_none().then_some(self.program);
        if self.reach == Reach::ProgramOnly {
            return itself.into_iter().collect();
        }
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let numbers = processes.filter_map(number).filter_map(Pid::from_raw);
        let mut children: Vec<_> =
            numbers.filter(|&process| parent_of(process) == Some(getpid())).collect();
        // Where there is no /proc.
        children.extend(itself.filter(|program| !children.contains(program)));
        children
    }
}

/// The fourth field of `/proc/PID/stat` (proc_pid_stat(5)); the second is a name in parentheses, which may
/// hold spaces and parentheses itself.
fn parent_of(process: Pid) -> Option<Pid> {
    let stat = std::fs::read(format!("/proc/{}/stat", process.as_raw_pid())).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, after_name) = stat.rsplit_once(')')?;
    Pid::from_raw(after_name.split_ascii_whitespace().nth(1)?.parse().ok()?)
}
