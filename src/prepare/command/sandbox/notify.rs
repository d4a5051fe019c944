//! The system calls behind seccomp's user notification (seccomp_unotify(2)): the kernel stops a process at certain calls and
//! tells another one, which lets it go on.
//!
//! The only file of this folder with `unsafe`: no crate offers these calls without a library in C. Does not depend on what the
//! observed calls mean.

use std::io::{Error, ErrorKind, Result};
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The numbering of system calls that the filter understands; programs with another one (32 bits) are not observed.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: the stopped process and its observer wake each other on one processor (Linux 6.6).
const SYNC_WAKE_UP: u64 = 1;

/// A process that is stopped at a system call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notice {
    id: u64,
    /// Its number (that of the thread).
    pub(super) process: u32,
    /// The number of the system call.
    pub(super) call: i64,
    pub(super) arguments: [u64; 6],
}

/// What is next at a listener.
pub(super) enum Next {
    Call(Notice),
    /// Nothing happened in this time.
    Nothing,
    /// No process is left that is observed.
    End,
}

/// Where the kernel reports system calls.
pub(super) struct Listener(OwnedFd);

/// From now on, the kernel reports these system calls of this thread and of all that it starts to the listener: they
/// wait until it lets them go on. Needs no_new_privs on this thread.
///
/// # Errors
/// When the kernel cannot, or when this thread is observed already.
pub(super) fn observe_this_thread(calls: &[i64]) -> Result<Listener> {
    check_sizes()?;
    let mut program = filter(calls)?;
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: `program` points at the instructions of a filter, which the kernel copies. The result is a new
        // descriptor, which nobody else owns.
        unsafe {
            let result = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            );
            match i32::try_from(result) {
                Ok(descriptor) if descriptor >= 0 => Ok(OwnedFd::from_raw_fd(descriptor)),
                _ => Err(Error::last_os_error()),
            }
        }
    };
    // Without SPEC_ALLOW, kernels before 5.16 slow the whole program down, against attacks that this does not defend from.
    let listen = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // Where it is known (Linux 5.19), a signal does not interrupt a call that is being looked at.
    let descriptor =
        install(listen | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV).or_else(|error| {
            if error.raw_os_error() == Some(libc::EINVAL) { install(listen) } else { Err(error) }
        })?;
    // SAFETY: the request takes a number, not a pointer. A kernel that does not know it is slower, and nothing else.
    unsafe {
        libc::ioctl(descriptor.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP);
    }
    Ok(Listener(descriptor))
}

/// A kernel whose messages are longer than those of this build would write beyond them.
fn check_sizes() -> Result<()> {
    // SAFETY: the structure is plain numbers, which the kernel fills.
    let sizes = unsafe {
        let mut sizes: libc::seccomp_notif_sizes = zeroed();
        let asked =
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0_u64, &raw mut sizes);
        if asked != 0 {
            return Err(Error::last_os_error());
        }
        sizes
    };
    let fits = usize::from(sizes.seccomp_notif) <= size_of::<libc::seccomp_notif>()
        && usize::from(sizes.seccomp_notif_resp) <= size_of::<libc::seccomp_notif_resp>();
    if fits { Ok(()) } else { Err(ErrorKind::Unsupported.into()) }
}

/// A program for the kernel: report these calls, and let all others pass.
fn filter(calls: &[i64]) -> Result<Vec<libc::sock_filter>> {
    let count = u8::try_from(calls.len()).map_err(|_| ErrorKind::InvalidInput)?;
    let statement =
        |code: u32, value: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value };
    let jump_if_equal = |value: u32, equal: u8, other: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: equal,
        jf: other,
        k: value,
    };
    let load = |offset: usize| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32);
    let mut program = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        // To the end: over the load below, one comparison a call.
        jump_if_equal(ARCHITECTURE, 0, count + 1),
        load(offset_of!(libc::seccomp_data, nr)),
    ];
    for (place, call) in (0..count).zip(calls) {
        let number = u32::try_from(*call).map_err(|_| ErrorKind::InvalidInput)?;
        program.push(jump_if_equal(number, count - place, 0));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF));
    Ok(program)
}

impl Listener {
    /// Waits for the next call.
    pub(super) fn next(&self, patience: Duration) -> Result<Next> {
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        let patience = Timespec::try_from(patience).map_err(|_| ErrorKind::InvalidInput)?;
        match poll(&mut ready, Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Next::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        if !ready[0].revents().contains(PollFlags::IN) {
            return Ok(Next::End);
        }
        // SAFETY: the structure is plain numbers. The kernel wants it zeroed, and fills it.
        let (received, notice) = unsafe {
            let mut notice: libc::seccomp_notif = zeroed();
            let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
            (libc::ioctl(self.0.as_raw_fd(), request, &raw mut notice), notice)
        };
        if received == 0 {
            let libc::seccomp_notif { id, pid, data, .. } = notice;
            let call = i64::from(data.nr);
            return Ok(Next::Call(Notice { id, process: pid, call, arguments: data.args }));
        }
        match Error::last_os_error() {
            // The process has ended meanwhile.
            error if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                Ok(Next::Nothing)
            }
            error => Err(error),
        }
    }

    /// Lets a process go on with its call. One that has ended meanwhile does not matter.
    pub(super) fn let_go_on(&self, notice: Notice) {
        let response = libc::seccomp_notif_resp {
            id: notice.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        // SAFETY: the kernel reads the response, which lives until the call returns.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response);
        }
    }
}

/// Reads the memory of another process, as far as `buffer` or the memory goes. Returns how much that is.
pub(super) fn read_memory(process: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
    let process = libc::pid_t::try_from(process).map_err(|_| ErrorKind::InvalidInput)?;
    let here = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let there =
        libc::iovec { iov_base: address as usize as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: the kernel writes to `buffer` only, at most its length; the other address is of the other process, where
    // it is only read.
    let read =
        unsafe { libc::process_vm_readv(process, &raw const here, 1, &raw const there, 1, 0) };
    usize::try_from(read).map_err(|_| Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_jumps_to_its_last_line_for_the_calls_and_over_them_for_others() {
        let program = filter(&[5, 6, 7]).expect("a filter");
        let last = program.len() - 1;
        let target = |place: usize, jump: u8| place + 1 + usize::from(jump);
        for (place, call) in program.iter().enumerate().take(6).skip(3) {
            assert_eq!(target(place, call.jt), last, "{place}");
            assert_eq!(target(place, call.jf), place + 1);
        }
        assert_eq!(target(1, program[1].jt), 2);
        assert_eq!(target(1, program[1].jf), last - 1, "another architecture is let through");
        assert_eq!(program[last].k, libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(program[last - 1].k, libc::SECCOMP_RET_ALLOW);
        assert!(filter(&[-1]).is_err() && filter(&[0; 300]).is_err());
    }

    #[test]
    fn memory_is_read_up_to_where_it_ends() {
        let text = *b"some text";
        let mut buffer = [0; 4];
        let read = read_memory(std::process::id(), text.as_ptr().addr() as u64, &mut buffer);
        assert_eq!((read.ok(), &buffer), (Some(4), b"some"));
        assert!(read_memory(std::process::id(), 8, &mut buffer).is_err());
    }
}
