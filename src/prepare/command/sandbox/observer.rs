//! Watches what a program and all that it starts open, change and run, and keeps what a policy does not allow.
//!
//! This observes and does not enforce: the kernel reads a path again after it was looked at here, and a program that means to
//! can change it between the two.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};

use super::calls::{Action, Flags, Kind, Operand, needs, operands, seen_from_here, socket_path};
use super::interpreter;
use super::notify::{Listener, Next, Notice, read_memory};
use super::policy::{Policy, Use};
use super::same_file::SameFiles;

/// How often it looks whether it should end, where the kernel does not say that all observed processes have.
const POLL: Duration = Duration::from_millis(20);

/// How many different files are kept. More than this is only counted.
const MOST_KEPT: usize = 2000;

/// No path is longer, for the kernel.
const LONGEST_PATH: usize = 4096;

/// No address of a socket in the file system is longer, for the kernel.
const LONGEST_SOCKET: usize = size_of::<libc::sockaddr_un>();

/// How many bytes of a path are read at once. A read stops where the memory ends.
const CHUNK: usize = 256;

/// What a program did that its policy does not allow.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What was done, and at which path.
    pub(super) undeclared: BTreeSet<(Use, PathBuf)>,
    /// How many more there were.
    pub(super) more: u64,
    /// How many calls could not be looked at.
    pub(super) unreadable: u64,
}

/// Lets every call go on, until no process is left that is observed, or until `end`. Where the kernel enforces the policy, what it allows
/// by another name is not kept.
pub(super) fn watch(
    listener: &Listener,
    policy: &Policy,
    is_enforced: bool,
    end: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    let files = SameFiles::default();
    let allows = |usage, path: &Path| {
        policy.permits(usage, path) || is_enforced && files.permit(policy, usage, path)
    };
    loop {
        match listener.next(POLL) {
            Ok(Next::Call(notice)) => {
                look(notice, allows, &mut seen);
                listener.let_go_on(notice);
            }
            Ok(Next::Nothing) if !end.load(Ordering::Relaxed) => {}
            Ok(Next::Nothing | Next::End) => return seen,
            // Whoever is stopped goes on when the listener is closed, with an error.
            Err(_) => {
                seen.unreadable += 1;
                return seen;
            }
        }
    }
}

fn look(notice: Notice, allows: impl Fn(Use, &Path) -> bool, seen: &mut Seen) {
    for operand in operands(notice.call, notice.arguments) {
        let text = match operand.action {
            Action::Bind(length) => socket_at(notice.process, operand.path, length),
            _ => text_at(notice.process, operand.path),
        };
        let path = match text {
            Ok(Some(path)) => path,
            Ok(None) => continue,
            Err(_) => {
                seen.unreadable += 1;
                continue;
            }
        };
        for (usage, path) in uses(notice.process, operand, &path) {
            if allows(usage, &path) || !is_permitted(usage, &path) {
                continue;
            }
            let entry = (usage, path);
            if seen.undeclared.len() < MOST_KEPT {
                seen.undeclared.insert(entry);
            } else if !seen.undeclared.contains(&entry) {
                seen.more += 1;
            }
        }
    }
}

/// What a call uses: files by their real paths. Nothing where it fails for want of a file.
fn uses(process: u32, operand: Operand, path: &Path) -> Vec<(Use, PathBuf)> {
    let path = seen_from_here(path, operand.folder, process);
    let found = || resolve(&path);
    match operand.action {
        Action::Open(flags) => {
            let flags = match flags {
                Flags::Given(flags) => flags,
                Flags::At(address) => {
                    let mut bytes = [0; 8];
                    match read_memory(process, address, &mut bytes) {
                        Ok(8) => u64::from_ne_bytes(bytes) as i32,
                        _ => libc::O_RDONLY,
                    }
                }
            };
            let (kind, real) = match found() {
                Some((kind, real)) => (kind, Some(real)),
                None => (Kind::Missing, None),
            };
            let needed = needs(flags, kind);
            if needed.is_empty() {
                return Vec::new();
            }
            let real = real.or_else(|| resolve_new(&path));
            real.map_or_else(Vec::new, |real| {
                needed.iter().map(|usage| (*usage, real.clone())).collect()
            })
        }
        Action::Run => {
            let mut used = Vec::new();
            for program in found().into_iter().flat_map(|(_, real)| interpreter::chain(&real)) {
                used.extend(resolve(&program).map(|(_, real)| (Use::Read, real)));
            }
            used
        }
        Action::Truncate => found().map(|(_, real)| (Use::Write, real)).into_iter().collect(),
        Action::Link { follows: true } => {
            found().map_or_else(Vec::new, |(_, real)| linked(real).into())
        }
        Action::Make | Action::Bind(_) if path.symlink_metadata().is_ok() => Vec::new(),
        Action::Remove | Action::Link { .. } if path.symlink_metadata().is_err() => Vec::new(),
        Action::Link { .. } => resolve_new(&path).map_or_else(Vec::new, |real| linked(real).into()),
        Action::Make | Action::Bind(_) | Action::Remove | Action::Replace => {
            resolve_new(&path).map(|real| (Use::Name, real)).into_iter().collect()
        }
    }
}

/// What a hard link does with the file: it also brings its content to where the other name is.
fn linked(real: PathBuf) -> [(Use, PathBuf); 2] {
    [(Use::Read, real.clone()), (Use::Link, real)]
}

/// What is at a path, and its real path. `None` if nothing is, or if it is not in a file system (a pipe, a socket).
fn resolve(path: &Path) -> Option<(Kind, PathBuf)> {
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let kind = match FileType::from_raw_mode(fstat(&file).ok()?.st_mode) {
        FileType::Directory => Kind::Folder,
        _ => Kind::File,
    };
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let real = readlinkat(CWD, link, Vec::new()).ok()?;
    let real = PathBuf::from(OsStr::from_bytes(real.to_bytes()));
    real.is_absolute().then_some((kind, real))
}

/// The real path of a name that does not exist, or is not to be followed.
fn resolve_new(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let (kind, folder) = resolve(path.parent()?)?;
    (kind == Kind::Folder).then(|| folder.join(name))
}

/// Whether the user may do this at all. What the system refuses anyway is not of interest.
fn is_permitted(usage: Use, path: &Path) -> bool {
    use rustix::fs::Access as Permission;
    let has = |path: &Path, permission| rustix::fs::access(path, permission).is_ok();
    match usage {
        Use::Read | Use::List | Use::Link => has(path, Permission::READ_OK),
        Use::Write if path.symlink_metadata().is_ok() => has(path, Permission::WRITE_OK),
        Use::Write | Use::Name => {
            path.parent().is_some_and(|folder| has(folder, Permission::WRITE_OK))
        }
    }
}

/// The text at an address of another process, up to its NUL. `None` if there is none, or the process has ended.
fn text_at(process: u32, address: u64) -> std::io::Result<Option<PathBuf>> {
    let mut text = Vec::new();
    let mut chunk = [0; CHUNK];
    while text.len() < LONGEST_PATH {
        let Some(from) = address.checked_add(text.len() as u64) else { return Ok(None) };
        let part = bytes_at(process, from, &mut chunk)?;
        if part.is_empty() {
            return Ok(None);
        }
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(part.get(..end).unwrap_or_default());
            return Ok(Some(PathBuf::from(OsStr::from_bytes(&text))));
        }
        text.extend_from_slice(part);
    }
    Ok(None)
}

/// The path in the address of a socket, which is of this length and at an address of another process.
fn socket_at(process: u32, address: u64, length: usize) -> std::io::Result<Option<PathBuf>> {
    let mut buffer = [0; LONGEST_SOCKET];
    let buffer = buffer.get_mut(..length).unwrap_or_default();
    Ok(socket_path(bytes_at(process, address, buffer)?))
}

/// The bytes at an address of another process, as far as the buffer goes. None if there are none, or the process has ended.
fn bytes_at(process: u32, address: u64, buffer: &mut [u8]) -> std::io::Result<&[u8]> {
    let read = match read_memory(process, address, buffer) {
        Ok(read) => read,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EFAULT)) => 0,
        Err(error) => return Err(error),
    };
    Ok(buffer.get(..read).unwrap_or_default())
}
