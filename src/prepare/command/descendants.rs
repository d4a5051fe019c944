//! A program and all that it started: waited for together, asked to exit together, killed together.
//!
//! A shell that SIGTERM ends leaves the program running that it started, which may be the one that needs to
//! save its work. So a worker adopts what its program leaves behind (a subreaper on Linux): these processes
//! become its children, which it can wait for and, if they do not exit, kill. The number of a child cannot be
//! used again before it was waited for.
//!
//! Does not depend on stages.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pipeline_stages::proc_stat::ProcStat;
use pipeline_stages::worker::Context;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, kill_process_group, wait, waitpid,
};

/// The longest pause between two checks for remaining processes.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// How long killed processes may take to exit: one that waits for a disk does not exit at once.
const BURIAL: Duration = Duration::from_secs(5);

/// Which processes to wait for and to signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All: a worker leads a process group with the program and its children, and does not have other
    /// children.
    Everybody,
    /// Only the program: this process has other children too.
    ProgramOnly,
}

impl Reach {
    /// The reach of the process that runs a stage. A worker adopts what its children leave behind.
    pub(super) fn of(context: &Context) -> anyhow::Result<Self> {
        if context.checkpoint_lock().is_none() || getpgrp() != getpid() {
            return Ok(Self::ProgramOnly);
        }
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(getpid()))
            .context("cannot adopt the processes that the program leaves behind")?;
        Ok(Self::Everybody)
    }
}

/// A program that was started, and all that it started.
pub(super) struct Descendants {
    program: Pid,
    reach: Reach,
    /// The exit status of the program.
    end: Option<ExitStatus>,
    /// Whether all have exited.
    gone: bool,
}

impl Descendants {
    /// The descendants of a program that was started after its [`Reach`] was determined.
    pub(super) fn of(program: &Child, reach: Reach) -> Self {
        Self { program: Pid::from_child(program), reach, end: None, gone: false }
    }

    /// The exit status of the program, once it has ended.
    pub(super) fn program_end(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.look()?;
        Ok(self.end)
    }

    /// Waits until the program ends, a signal comes, or this time is over.
    pub(super) fn wait_for_program(&self, time: Duration) {
        if !self.is_seen_to_end(time) {
            std::thread::sleep(time.min(Duration::from_millis(5)));
        }
    }

    /// The same, where the system can report the end of a process.
    #[cfg(target_os = "linux")]
    fn is_seen_to_end(&self, time: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::process::{PidfdFlags, pidfd_open};
        let Ok(program) = pidfd_open(self.program, PidfdFlags::empty()) else { return false };
        let timeout = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        let ended = poll(&mut [PollFd::new(&program, PollFlags::IN)], Some(&timeout));
        matches!(ended, Ok(_) | Err(Errno::INTR))
    }

    #[cfg(not(target_os = "linux"))]
    fn is_seen_to_end(&self, _time: Duration) -> bool {
        false
    }

    /// Reaps all processes that have ended.
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
                Err(error) => return Err(error).context("cannot wait for the program"),
            }
        }
        ensure!(self.end.is_some(), "the exit status of the program is not available");
        Ok(())
    }

    /// Asks all of them to exit, waits, and kills those that do not exit in time.
    pub(super) fn stop(&mut self, grace: Duration) -> anyhow::Result<()> {
        self.ask_to_exit()?;
        if !self.wait_until_gone(grace)? {
            self.kill()?;
        }
        Ok(())
    }

    fn ask_to_exit(&self) -> anyhow::Result<()> {
        let asked = match self.reach {
            Reach::Everybody => {
                // This process gets the signal too, and must not be ended by it.
                signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::default())
                    .context("cannot listen to signals")?;
                kill_process_group(getpgrp(), Signal::TERM)
            }
            Reach::ProgramOnly if self.gone => Ok(()),
            Reach::ProgramOnly => kill_process(self.program, Signal::TERM),
        };
        match asked {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("cannot signal the program"),
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

    /// Kills the remaining processes. The children of killed ones become children of this process and
    /// are killed next.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        self.look()?;
        while !self.gone && started.elapsed() < BURIAL {
            for child in self.children() {
                // An error means that it has just ended.
                let _ = kill_process(child, Signal::KILL);
            }
            self.wait_until_gone(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// The children of this process, including those that have ended.
    fn children(&self) -> Vec<Pid> {
        let itself = self.end.is_none().then_some(self.program);
        if self.reach == Reach::ProgramOnly {
            return itself.into_iter().collect();
        }
        let children = ProcStat::all().filter(|(_, process)| process.parent == Some(getpid()));
        let mut children: Vec<_> = children.map(|(pid, _)| pid).collect();
        // Without /proc.
        children.extend(itself.filter(|program| !children.contains(program)));
        children
    }
}
