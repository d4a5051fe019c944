//! The system calls that are observed: which of their arguments are paths, and what they do with them.
//!
//! Pure. What is not here (`stat`, `readlink`, `chmod`) reads no content and changes none.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::policy::Use;

/// A path among the arguments of a call, as addresses in the memory of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operand {
    /// The descriptor of the folder that a relative path begins at; `None` for the working folder.
    pub(super) folder: Option<i32>,
    /// Where the text of the path is.
    pub(super) path: u64,
    pub(super) action: Action,
}

/// What a call does with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Open(Flags),
    /// It becomes the program of the process.
    Run,
    /// The file is cut off.
    Truncate,
    /// A name is made that does not exist.
    Make,
    /// A name that exists is removed.
    Remove,
    /// Another file gets this name, whether it exists or not.
    Replace,
    /// The file gets another name too: where the path is a link, the file that it leads to, or the link.
    Link {
        follows: bool,
    },
    /// A socket is made. In place of a path, there is the address of a socket, of this length.
    Bind(usize),
}

/// The flags of `open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flags {
    Given(i32),
    /// In the memory of the caller: the first eight bytes there.
    At(u64),
}

/// The numbers of all calls that are observed.
pub(super) fn numbers() -> Vec<i64> {
    let mut numbers = vec![
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_truncate,
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_symlinkat,
        libc::SYS_linkat,
        libc::SYS_unlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_bind,
    ];
    #[cfg(target_arch = "x86_64")]
    numbers.extend([
        libc::SYS_open,
        libc::SYS_creat,
        libc::SYS_mkdir,
        libc::SYS_mknod,
        libc::SYS_symlink,
        libc::SYS_link,
        libc::SYS_unlink,
        libc::SYS_rmdir,
        libc::SYS_rename,
    ]);
    numbers
}

/// The paths among the arguments of a call.
pub(super) fn operands(number: i64, arguments: [u64; 6]) -> Vec<Operand> {
    use Action::{Bind, Link, Make, Open, Remove, Replace, Run, Truncate};
    // A descriptor and flags are the lower half of a register.
    let low = |place: usize| arguments[place] as u32 as i32;
    let here = |path: usize, action| Operand { folder: None, path: arguments[path], action };
    let at = |folder: usize, path: usize, action| {
        let folder = Some(low(folder)).filter(|folder| *folder != libc::AT_FDCWD);
        Operand { folder, path: arguments[path], action }
    };
    let given = |place: usize| Open(Flags::Given(low(place)));
    #[cfg(target_arch = "x86_64")]
    match number {
        libc::SYS_open => return vec![here(0, given(1))],
        libc::SYS_creat => {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
            return vec![here(0, Open(Flags::Given(flags)))];
        }
        libc::SYS_mkdir | libc::SYS_mknod => return vec![here(0, Make)],
        libc::SYS_symlink => return vec![here(1, Make)],
        libc::SYS_link => return vec![here(0, Link { follows: false }), here(1, Make)],
        libc::SYS_unlink | libc::SYS_rmdir => return vec![here(0, Remove)],
        libc::SYS_rename => return vec![here(0, Remove), here(1, Replace)],
        _ => {}
    }
    match number {
        libc::SYS_openat => vec![at(0, 1, given(2))],
        libc::SYS_openat2 => vec![at(0, 1, Open(Flags::At(arguments[2])))],
        libc::SYS_execve => vec![here(0, Run)],
        libc::SYS_execveat => vec![at(0, 1, Run)],
        libc::SYS_truncate => vec![here(0, Truncate)],
        libc::SYS_mkdirat | libc::SYS_mknodat => vec![at(0, 1, Make)],
        libc::SYS_symlinkat => vec![at(1, 2, Make)],
        libc::SYS_linkat => {
            let follows = low(4) & libc::AT_SYMLINK_FOLLOW != 0;
            vec![at(0, 1, Link { follows }), at(2, 3, Make)]
        }
        libc::SYS_unlinkat => vec![at(0, 1, Remove)],
        libc::SYS_renameat | libc::SYS_renameat2 => vec![at(0, 1, Remove), at(2, 3, Replace)],
        libc::SYS_bind => vec![here(1, Bind(usize::try_from(low(2)).unwrap_or_default()))],
        _ => Vec::new(),
    }
}

/// The path in the address of a socket. `None` if it is not in the file system.
pub(super) fn socket_path(address: &[u8]) -> Option<PathBuf> {
    let (family, path) = address.split_first_chunk()?;
    // A path may fill the address, without a NUL. A name that is not in the file system begins with one.
    let path = path.split(|byte| *byte == 0).next()?;
    let is_path = i32::from(u16::from_ne_bytes(*family)) == libc::AF_UNIX && !path.is_empty();
    is_path.then(|| PathBuf::from(OsStr::from_bytes(path)))
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    /// A file, or anything else that is not a folder.
    File,
    Missing,
}

/// What an `open` with these flags needs, at the path itself. Nothing where it fails anyway, or does not look at the
/// content.
pub(super) fn needs(flags: i32, kind: Kind) -> &'static [Use] {
    let has = |flag: i32| flags & flag == flag;
    let reads = flags & libc::O_ACCMODE != libc::O_WRONLY;
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || has(libc::O_TRUNC);
    match kind {
        _ if has(libc::O_PATH) => &[],
        // A file without a name in this folder.
        Kind::Folder if has(libc::O_TMPFILE) => &[Use::Write],
        Kind::Folder => &[Use::List],
        Kind::File if has(libc::O_DIRECTORY) || has(libc::O_CREAT | libc::O_EXCL) => &[],
        Kind::File if reads && writes => &[Use::Read, Use::Write],
        Kind::File if writes => &[Use::Write],
        Kind::File => &[Use::Read],
        // It is of no use to it that somebody makes the file before.
        Kind::Missing if has(libc::O_CREAT | libc::O_EXCL) => &[Use::Name],
        Kind::Missing if has(libc::O_CREAT) => &[Use::Write],
        Kind::Missing => &[],
    }
}

/// A path of another process as it is found from this one: `/proc/self` is that process, and so are its descriptors in `/dev`.
pub(super) fn seen_from_here(path: &Path, folder: Option<i32>, process: u32) -> PathBuf {
    let of_process = |rest: &Path| Path::new("/proc").join(process.to_string()).join(rest);
    if path.is_relative() {
        let base = match folder {
            None => "cwd".to_owned(),
            Some(folder) => format!("fd/{folder}"),
        };
        return of_process(Path::new(&base)).join(path);
    }
    for (prefix, own) in [("/proc/self", ""), ("/proc/thread-self", ""), ("/dev/fd", "fd")] {
        if let Ok(rest) = path.strip_prefix(prefix) {
            return of_process(Path::new(own)).join(rest);
        }
    }
    let streams = [("/dev/stdin", "fd/0"), ("/dev/stdout", "fd/1"), ("/dev/stderr", "fd/2")];
    let stream = streams.into_iter().find(|(stream, _)| path == Path::new(stream));
    stream.map_or_else(|| path.to_owned(), |(_, own)| of_process(Path::new(own)))
}

#[cfg(test)]
mod tests {
    use super::Use::{List, Name, Read, Write};
    use super::*;

    const CWD: u64 = libc::AT_FDCWD as u32 as u64;

    #[test]
    fn paths_among_the_arguments() {
        let operand = |folder, path, action| Operand { folder, path, action };
        let open = |flags| Action::Open(Flags::Given(flags));
        for (number, arguments, expected) in [
            (libc::SYS_openat, [CWD, 10, 0, 0, 0, 0], vec![operand(None, 10, open(0))]),
            (libc::SYS_openat, [7, 10, 1, 0, 0, 0], vec![operand(Some(7), 10, open(1))]),
            (
                libc::SYS_openat2,
                [7, 10, 20, 24, 0, 0],
                vec![operand(Some(7), 10, Action::Open(Flags::At(20)))],
            ),
            (libc::SYS_execve, [10, 1, 2, 0, 0, 0], vec![operand(None, 10, Action::Run)]),
            (libc::SYS_symlinkat, [10, CWD, 20, 0, 0, 0], vec![operand(None, 20, Action::Make)]),
            (
                libc::SYS_renameat2,
                [3, 10, CWD, 20, 0, 0],
                vec![operand(Some(3), 10, Action::Remove), operand(None, 20, Action::Replace)],
            ),
            (
                libc::SYS_linkat,
                [CWD, 10, 4, 20, libc::AT_SYMLINK_FOLLOW as u64, 0],
                vec![
                    operand(None, 10, Action::Link { follows: true }),
                    operand(Some(4), 20, Action::Make),
                ],
            ),
            (libc::SYS_bind, [3, 10, 24, 0, 0, 0], vec![operand(None, 10, Action::Bind(24))]),
            (libc::SYS_getpid, [0; 6], vec![]),
        ] {
            assert_eq!(operands(number, arguments), expected, "{number} {arguments:?}");
        }
        for number in numbers() {
            assert!(!operands(number, [0; 6]).is_empty(), "{number} is observed for nothing");
        }
    }

    #[test]
    fn what_an_open_needs() {
        use libc::{
            O_CREAT, O_DIRECTORY, O_EXCL, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY,
        };
        for (flags, kind, expected) in [
            (O_RDONLY, Kind::File, &[Read] as &[_]),
            (O_RDONLY, Kind::Folder, &[List]),
            (O_RDONLY | O_DIRECTORY, Kind::Folder, &[List]),
            (O_RDONLY | O_DIRECTORY, Kind::File, &[]),
            (O_RDONLY, Kind::Missing, &[]),
            (O_RDONLY | O_TRUNC, Kind::File, &[Read, Write]),
            (O_WRONLY, Kind::File, &[Write]),
            (O_WRONLY | O_CREAT, Kind::Missing, &[Write]),
            (O_WRONLY | O_CREAT | O_EXCL, Kind::File, &[]),
            (O_WRONLY | O_CREAT | O_EXCL, Kind::Missing, &[Name]),
            (O_RDONLY | O_CREAT, Kind::File, &[Read]),
            (O_RDWR, Kind::File, &[Read, Write]),
            (O_RDWR | O_TMPFILE, Kind::Folder, &[Write]),
            (O_PATH, Kind::File, &[]),
            (O_PATH | O_DIRECTORY, Kind::Folder, &[]),
        ] {
            assert_eq!(needs(flags, kind), expected, "{flags:o} {kind:?}");
        }
    }

    #[test]
    fn the_address_of_a_socket() {
        for (family, rest, expected) in [
            (libc::AF_UNIX, "/run/a.sock\0\0", Some("/run/a.sock")),
            (libc::AF_UNIX, "a.sock", Some("a.sock")),
            (libc::AF_UNIX, "\0abstract", None),
            (libc::AF_UNIX, "", None),
            (libc::AF_INET, "/run/a.sock", None),
        ] {
            let address = [&(family as u16).to_ne_bytes(), rest.as_bytes()].concat();
            assert_eq!(socket_path(&address).as_deref(), expected.map(Path::new), "{rest:?}");
        }
        assert_eq!(socket_path(&[1]), None);
    }

    #[test]
    fn paths_of_another_process() {
        for (path, folder, expected) in [
            ("/etc/passwd", None, "/etc/passwd"),
            ("a/b", None, "/proc/7/cwd/a/b"),
            ("../b", Some(4), "/proc/7/fd/4/../b"),
            ("/proc/self/maps", None, "/proc/7/maps"),
            ("/proc/selfish", None, "/proc/selfish"),
            ("/dev/fd/63", None, "/proc/7/fd/63"),
            ("/dev/stderr", None, "/proc/7/fd/2"),
            ("/dev/null", Some(3), "/dev/null"),
        ] {
            let seen = seen_from_here(Path::new(path), folder, 7);
            assert_eq!(seen, Path::new(expected), "{path}");
        }
    }
}
