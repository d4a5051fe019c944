//! The ends of a program that must take or send something within a time: one that hangs is not waited for.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One end of a program.
pub(super) struct InTime {
    end: File,
    longest: Duration,
    until: Instant,
}

impl InTime {
    /// What a program says.
    pub(super) fn said(end: impl Into<OwnedFd>) -> Self {
        let end: OwnedFd = end.into();
        Self { end: end.into(), longest: Duration::ZERO, until: Instant::now() }
    }

    /// What a program is told.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn told(end: impl Into<OwnedFd>) -> io::Result<Self> {
        let told = Self::said(end);
        // What does not fit would be waited for otherwise.
        rustix::io::ioctl_fionbio(&told.end, true)?;
        Ok(told)
    }

    /// The next bytes come, or are taken, within this time.
    pub(super) fn allow(&mut self, longest: Duration) {
        (self.longest, self.until) = (longest, Instant::now() + longest);
    }

    fn wait(&self, for_what: PollFlags) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.end, for_what)], Some(&left))? {
            0 => {
                let words = format!("no answer in {} s", self.longest.as_secs());
                Err(io::Error::new(ErrorKind::TimedOut, words))
            }
            _ => Ok(()),
        }
    }
}

impl Read for InTime {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN)?;
        self.end.read(buffer)
    }
}

impl Write for InTime {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.end.write(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT)?,
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_program_that_hangs_is_not_waited_for() {
        let mut command = Command::new("sleep");
        let mut child =
            command.arg("60").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sleep");
        let mut said = InTime::said(child.stdout.take().expect("piped"));
        let mut told = InTime::told(child.stdin.take().expect("piped")).expect("ours");
        said.allow(Duration::from_millis(50));
        told.allow(Duration::from_millis(50));
        let nothing = said.read(&mut [0]).map(drop);
        // More than a pipe holds.
        let too_much = told.write_all(&[0; 4 << 20]);
        child.kill().expect("ours");
        child.wait().expect("ours");
        for error in [nothing, too_much] {
            assert_eq!(error.expect_err("it hangs").kind(), ErrorKind::TimedOut);
        }
    }
}
