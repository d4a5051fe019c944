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

use super::calls::{Action, Flags, Kind, Operand, needs, operands, seen_from_here};
use super::interpreter;
use super::notify::{Listener, Next, Notice, read_memory};
use super::policy::{Access, Policy};

/// How often it looks whether it should end, where the kernel does not say that all observed processes have.
const POLL: Duration = Duration::from_millis(20);

/// How many different files are kept. More than this is only counted.
const MOST_KEPT: usize = 2000;

/// No path is longer, for the kernel.
const LONGEST_PATH: usize = 4096;

/// How many bytes of a path are read at once. A read stops where the memory ends.
const CHUNK: usize = 256;

/// What a program did that its policy does not allow.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What was read or written, and which file.
    pub(super) undeclared: BTreeSet<(Access, PathBuf)>,
    /// How many more there were.
    pub(super) more: u64,
    /// How many calls could not be looked at.
    pub(super) unreadable: u64,
}

/// Lets every call go on, until no process is left that is observed, or until `end`.
pub(super) fn watch(listener: &Listener, policy: &Policy, end: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    loop {
        match listener.next(POLL) {
            Ok(Next::Call(notice)) => {
                look(notice, policy, &mut seen);
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

fn look(notice: Notice, policy: &Policy, seen: &mut Seen) {
    for operand in operands(notice.call, notice.arguments) {
        let path = match text_at(notice.process, operand.path) {
            Ok(Some(path)) => path,
            Ok(None) => continue,
            Err(_) => {
                seen.unreadable += 1;
                continue;
            }
        };
        for (access, path) in uses(notice.process, operand, &path) {
            if policy.allows(access, &path) || !is_permitted(access, &path) {
                continue;
            }
            let entry = (access, path);
            if seen.undeclared.len() < MOST_KEPT {
                seen.undeclared.insert(entry);
            } else if !seen.undeclared.contains(&entry) {
                seen.more += 1;
            }
        }
    }
}

/// What a call uses: files by their real paths. Nothing where it fails for want of a file.
fn uses(process: u32, operand: Operand, path: &Path) -> Vec<(Access, PathBuf)> {
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
                needed.iter().map(|access| (*access, real.clone())).collect()
            })
        }
        Action::Run => {
            let mut used = Vec::new();
            for program in found().into_iter().flat_map(|(_, real)| interpreter::chain(&real)) {
                used.extend(resolve(&program).map(|(_, real)| (Access::Read, real)));
            }
            used
        }
        Action::Truncate => found().map(|(_, real)| (Access::Write, real)).into_iter().collect(),
        Action::Make if path.symlink_metadata().is_ok() => Vec::new(),
        Action::Remove if path.symlink_metadata().is_err() => Vec::new(),
        Action::Make | Action::Remove | Action::Replace => {
            resolve_new(&path).map(|real| (Access::Write, real)).into_iter().collect()
        }
    }
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
fn is_permitted(access: Access, path: &Path) -> bool {
    use rustix::fs::Access as Permission;
    let has = |path: &Path, permission| rustix::fs::access(path, permission).is_ok();
    match access {
        Access::Read | Access::List => has(path, Permission::READ_OK),
        Access::Write if path.symlink_metadata().is_ok() => has(path, Permission::WRITE_OK),
        Access::Write => path.parent().is_some_and(|folder| has(folder, Permission::WRITE_OK)),
    }
}

/// The text at an address of another process, up to its NUL. `None` if there is none, or the process has ended.
fn text_at(process: u32, address: u64) -> std::io::Result<Option<PathBuf>> {
    let mut text = Vec::new();
    let mut chunk = [0; CHUNK];
    while text.len() < LONGEST_PATH {
        let Some(from) = address.checked_add(text.len() as u64) else { return Ok(None) };
        let read = match read_memory(process, from, &mut chunk) {
            Ok(read) => read,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EFAULT)) => 0,
            Err(error) => return Err(error),
        };
        let part = chunk.get(..read).unwrap_or_default();
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
