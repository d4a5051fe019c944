//! What a program may read and write, as a pure function of the paths that it is given.
//!
//! Does not depend on how that is enforced or observed. All paths are absolute, without links in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What may be allowed on a file or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Its content is read, or it is executed.
    Read,
    /// The names in a folder are read.
    List,
    /// Its content, or the names in a folder, are changed.
    Write,
}

impl Access {
    /// Whether who is allowed this is allowed the other, too.
    pub(super) fn includes(self, other: Self) -> bool {
        match self {
            Self::Write => true,
            Self::Read => other != Self::Write,
            Self::List => other == Self::List,
        }
    }
}

/// What a program does at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// The content of the file is read, or it is executed.
    Read,
    /// The names in the folder are read.
    List,
    /// The file gets another name too, elsewhere.
    Link,
    /// The content of the file is changed.
    Write,
    /// The name is made, removed, or another file gets it.
    Name,
}

impl Use {
    /// What must be allowed for this, and where: the kernel asks the folder of a name, not the file.
    pub(super) fn needs(self, path: &Path) -> Option<(Access, &Path)> {
        match self {
            Self::Read => Some((Access::Read, path)),
            Self::List => Some((Access::List, path)),
            Self::Write => Some((Access::Write, path)),
            Self::Link | Self::Name => Some((Access::Write, path.parent()?)),
        }
    }
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

    /// Whether a program may do this at this path.
    pub(super) fn permits(&self, usage: Use, path: &Path) -> bool {
        usage.needs(path).is_none_or(|(access, place)| self.allows(access, place))
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
        for (usage, path, expected) in [
            (Use::Write, "/dev/null", true),
            (Use::Name, "/dev/null", false),
            (Use::Name, "/cache/tmp/bb/output", false),
            (Use::Name, "/cache/tmp/bb/output/a", true),
            (Use::Read, "/usr/lib/libc.so", true),
            (Use::Link, "/usr/lib/libc.so", false),
            (Use::Link, "/cache/tmp/bb/output/a", true),
        ] {
            assert_eq!(policy.permits(usage, Path::new(path)), expected, "{usage:?} {path}");
        }
        assert_eq!(Policy::default().rules().count(), 0);
        assert_eq!(policy.rules().count(), 6);
    }
}
