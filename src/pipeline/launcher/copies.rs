//! Workers as copies of a process that has loaded this program and waits: for a short stage, loading it would be a third of the
//! work.
//!
//! Both ends are here. For each worker, the original gets the streams of one, becomes two, and answers with the number of the
//! other. That is a child of whoever asked, as any worker is. Does not depend on what workers do.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeline_stages::worker::{before_copies, name_process};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{DumpableBehavior, Pid, dumpable_behavior, set_dumpable_behavior};

/// A socket, and a log.
const STREAMS: usize = 2;

/// How long the original may take to answer. Somebody may have stopped it, and nobody will continue it: without an end to this,
/// the run would wait for ever, and not hear Ctrl-C either.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts workers as copies. The original is started with the first of them, or before.
#[derive(Debug, Default)]
pub(crate) struct Copies(Mutex<OriginalState>);

#[derive(Debug, Default)]
pub(super) enum OriginalState {
    #[default]
    NotStarted,
    Waits(Original),
    /// It does not answer.
    Gone,
}

/// The process that waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Original {
    process: Child,
    socket: UnixStream,
}

impl Copies {
    /// Starts a worker with this standard input and output, and this standard error, which leads a process group of its own. `program`
    /// is one that calls [`serve`]. `None` where there is no copy, and another way has to be found.
    pub(super) fn start(
        &self,
        program: impl FnOnce() -> io::Result<Command>,
        streams: &UnixStream,
        log: &File,
    ) -> Option<Pid> {
        let mut state = self.begin(program);
        let OriginalState::Waits(original) = &*state else { return None };
        let copy = original.copy(streams, log);
        if copy.is_err() {
            *state = OriginalState::Gone;
        }
        copy.ok()
    }

    /// Starts the original, unless it was.
    pub(super) fn begin(
        &self,
        program: impl FnOnce() -> io::Result<Command>,
    ) -> MutexGuard<'_, OriginalState> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let OriginalState::NotStarted = *state {
            let original = program().and_then(Original::start);
            *state = original.map_or(OriginalState::Gone, OriginalState::Waits);
        }
        state
    }
}

impl Original {
    fn start(mut program: Command) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        program.process_group(0);
        program.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { process: program.spawn()?, socket })
    }

    fn copy(&self, streams: &UnixStream, log: &File) -> io::Result<Pid> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let given = [streams.as_fd(), log.as_fd()];
        rights.push(SendAncillaryMessage::ScmRights(&given));
        sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut rights, SendFlags::NOSIGNAL)?;
        let mut answer = [0; 4];
        (&self.socket).read_exact(&mut answer)?;
        let copy = Pid::from_raw(i32::from_ne_bytes(answer));
        let copy = copy.ok_or_else(|| io::Error::other("it cannot be copied"))?;
        // As it does itself, too: whoever of both is first.
        let _ = rustix::process::setpgid(Some(copy), Some(copy));
        Ok(copy)
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The original: each of its copies is a `worker`. Ends when nobody can ask any more.
pub(crate) fn serve(worker: impl FnOnce() -> ExitCode) -> ExitCode {
    name_process();
    before_copies();
    match serve_until_copied() {
        Ok(true) => worker(),
        Ok(false) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whether this is a copy now.
fn serve_until_copied() -> io::Result<bool> {
    let prevented = Tracing::prevent()?;
    let mut socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    while let Some([streams, log]) = receive(&socket)? {
        match copy() {
            Ok(Copy::Other(pid)) => socket.write_all(&pid.to_ne_bytes())?,
            Ok(Copy::This) => {
                rustix::process::setpgid(None, None)?;
                rustix::stdio::dup2_stdin(&streams)?;
                rustix::stdio::dup2_stdout(&streams)?;
                rustix::stdio::dup2_stderr(&log)?;
                prevented.allow()?;
                return Ok(true);
            }
            Err(_) => socket.write_all(&0_i32.to_ne_bytes())?,
        }
    }
    Ok(false)
}

/// The streams of the next copy. `None` when there will not be another one.
fn receive(socket: &UnixStream) -> io::Result<Option<[OwnedFd; STREAMS]>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::io::retry_on_intr(|| recvmsg(socket, &mut into, &mut rights, flags))?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let given = rights.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(given) => given.collect(),
        _ => Vec::new(),
    });
    let given: Vec<OwnedFd> = given.collect();
    given.try_into().map(Some).map_err(|_| io::Error::other("this is for `pipeline` itself"))
}

/// Which of two processes this is.
enum Copy {
    This,
    /// The original, which is told the number of the other.
    Other(i32),
}

/// Becomes two processes. The new one is a child of this one's parent.
fn copy() -> io::Result<Copy> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: this process has one thread, so that the new one has all that it needs; without a stack of its own, it has a copy of
    // this one, as after `fork`.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Copy::This),
        pid => i32::try_from(pid).map(Copy::Other).map_err(io::Error::other),
    }
}

/// Programs of stages must not control the original: what they make of it would be in every copy. Copies are as any worker.
struct Tracing(DumpableBehavior);

impl Tracing {
    fn prevent() -> io::Result<Self> {
        let before = dumpable_behavior()?;
        // The system sets this for a program that its user may not read (fs.suid_dumpable), and nobody else can: a copy could not
        // become as any worker.
        if before == DumpableBehavior::DumpableReadableOnlyByRoot {
            return Err(io::ErrorKind::Unsupported.into());
        }
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(Self(before))
    }

    fn allow(self) -> io::Result<()> {
        Ok(set_dumpable_behavior(self.0)?)
    }
}
