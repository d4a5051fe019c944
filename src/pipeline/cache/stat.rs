//! What the system knows of a file without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::difference::How;

/// What distinguishes a file from its earlier self without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stat {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) modified_nanoseconds: i128,
    pub(super) changed_nanoseconds: i128,
}

impl Stat {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            size: metadata.size(),
            modified_nanoseconds: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_nanoseconds: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(super) fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    /// How the file differs now, going by what is known of it.
    pub(super) fn touch(&self, now: &Self) -> Option<How> {
        let changed = self.changed_nanoseconds != now.changed_nanoseconds;
        // Network filesystems may number their files differently at any time; who replaces one changes this time too.
        let replaced = self.inode != now.inode && changed;
        if self.size != now.size {
            Some(How::Changed { old_bytes: self.size, new_bytes: now.size })
        } else if replaced || self.modified_nanoseconds != now.modified_nanoseconds {
            Some(How::Written)
        } else {
            (self.mode != now.mode).then_some(How::Permissions)
        }
    }
}
