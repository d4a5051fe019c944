//! What a change of a cache is about.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::CWD;

/// A name: below an open folder, or anywhere.
#[derive(Debug, Clone, Copy)]
pub(in crate::cache) struct At<'a> {
    pub(super) folder: BorrowedFd<'a>,
    pub(super) path: &'a Path,
}

impl<'a> At<'a> {
    /// A name below an open folder.
    pub(in crate::cache) fn below(folder: &'a impl AsFd, path: &'a Path) -> Self {
        Self { folder: folder.as_fd(), path }
    }
}

impl<'a> From<&'a Path> for At<'a> {
    fn from(path: &'a Path) -> Self {
        Self { folder: CWD, path }
    }
}

/// What a change is about.
#[cfg_attr(not(test), allow(dead_code, reason = "who puts faults between changes reads it"))]
pub(super) enum Change<'a> {
    /// Names lead to something else afterwards: all of them, or none.
    Names(&'a [At<'a>]),
    /// Bytes are added to a file, where it is open.
    Bytes(&'a File, &'a [u8]),
    /// A file or folder has other properties, which take no room.
    Properties,
    /// A file has other content.
    Content,
    /// The same, and it takes no more room.
    Over,
    /// What a file or folder has now stays, also after a power cut.
    Sync(BorrowedFd<'a>),
    /// The same for everything.
    SyncAll,
}
