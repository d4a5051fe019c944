//! What a program may read and write, as a pure function of the paths that it is given.
//!
//! Does not depend on how that is enforced or observed. All paths are absolute, without links in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a program does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Access {
    /// Its content is read, or it is executed.
    Read,
    /// The names in a folder are read.
    List,
    /// Its content, or the names in a folder, are changed.
    Write,
}

/// The files and folders that a program may use, each with all that is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Policy {
    list: BTreeSet<PathBuf>,
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

impl Policy {
    /// Allows it on a path and all that is below. To write includes to read, which includes to list.
    pub(super) fn allow(&mut self, access: Access, path: impl Into<PathBuf>) {
        self.of(access).insert(path.into());
    }

    fn of(&mut self, access: Access) -> &mut BTreeSet<PathBuf> {
        match access {
            Access::List => &mut self.list,
            Access::Read => &mut self.read,
            Access::Write => &mut self.write,
        }
    }

    /// Whether it is allowed.
    pub(super) fn allows(&self, access: Access, path: &Path) -> bool {
        path.ancestors().any(|above| {
            self.write.contains(above)
                || access != Access::Write && self.read.contains(above)
                || access == Access::List && self.list.contains(above)
        })
    }

    /// Every path that something is allowed on, and what.
    pub(super) fn rules(&self) -> impl Iterator<Item = (Access, &Path)> {
        let all =
            [(Access::List, &self.list), (Access::Read, &self.read), (Access::Write, &self.write)];
        all.into_iter().flat_map(|(access, paths)| paths.iter().map(move |path| (access, &**path)))
    }
}

#[cfg(test)]
mod tests {
    use super::Access::{List, Read, Write};
    use super::*;

    #[test]
    fn what_is_allowed() {
        let mut policy = Policy::default();
        for (access, path) in [
            (List, "/home/me/exp"),
            (Read, "/usr"),
            (Read, "/home/me/exp/train.py"),
            (Read, "/cache/store/aa"),
            (Write, "/cache/tmp/bb/output"),
            (Write, "/dev/null"),
        ] {
            policy.allow(access, path);
        }
        for (access, path, expected) in [
            (Read, "/usr/lib/libc.so", true),
            (Read, "/usr", true),
            (List, "/usr/lib", true),
            (Write, "/usr/lib/libc.so", false),
            (Read, "/usr2/lib", false),
            (Read, "/", false),
            (List, "/", false),
            (List, "/home/me/exp", true),
            (List, "/home/me/exp/data", true),
            (List, "/home/me", false),
            (Read, "/home/me/exp/data.csv", false),
            (Read, "/home/me/exp/train.py", true),
            (Read, "/home/me/exp/train.py2", false),
            (Write, "/home/me/exp/train.py", false),
            (Read, "/cache/store/aa/text", true),
            (Read, "/cache/store/ab/text", false),
            (Write, "/cache/store/aa/text", false),
            (Write, "/cache/tmp/bb/output/a/b", true),
            (Read, "/cache/tmp/bb/output/a/b", true),
            (List, "/cache/tmp/bb/output", true),
            (Write, "/cache/tmp/bb", false),
            (Write, "/dev/null", true),
            (Read, "/dev/sda", false),
        ] {
            assert_eq!(policy.allows(access, Path::new(path)), expected, "{access:?} {path}");
        }
        assert_eq!(Policy::default().rules().count(), 0);
        assert_eq!(policy.rules().count(), 6);
    }
}
