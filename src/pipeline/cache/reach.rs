//! Whether the locks of a cache hold on other machines, too, as far as its mount says so.

use std::fs;
use std::path::{Path, PathBuf};

use super::opened::Cache;

impl Cache {
    /// Why two machines could hold the same lock of this cache. `None` where nothing says so: a file system of this machine, or one
    /// that passes locks on.
    pub(crate) fn locks_stay_here(&self) -> Option<String> {
        let root = self.layout().root();
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        // Linux alone has this: see proc(5).
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Mount::of(&mounts, &root)?.mistake(|path| fs::read_to_string(path).ok())
    }
}

/// A file system, and where it is mounted.
struct Mount<'m> {
    place: PathBuf,
    kind: &'m str,
    options: Vec<&'m str>,
}

impl<'m> Mount<'m> {
    /// The one that a folder is on: the last of those with the longest path.
    fn of(mounts: &'m str, folder: &Path) -> Option<Self> {
        let above = mounts.lines().filter_map(Self::read);
        let above = above.filter(|mount| folder.starts_with(&mount.place));
        above.max_by_key(|mount| mount.place.components().count())
    }

    fn read(line: &'m str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let place = PathBuf::from(without_escapes(fields.nth(4)?));
        let own = fields.next()?;
        let mut fields = after.split(' ');
        let (kind, of_all) = (fields.next()?, fields.nth(1)?);
        Some(Self { place, kind, options: own.split(',').chain(of_all.split(',')).collect() })
    }

    /// Why its locks hold on this machine only. `read` reads a file of settings.
    fn mistake(&self, read: impl Fn(&str) -> Option<String>) -> Option<String> {
        let first = |names: &[&str]| {
            let given = self.options.iter().find(|option| names.contains(option));
            given.map(|option| format!("with '{option}'"))
        };
        let why = match self.kind {
            "nfs" | "nfs4" => first(&["nolock", "local_lock=flock", "local_lock=all"]),
            "lustre" if self.options.contains(&"flock") => None,
            "lustre" => Some("without 'flock'".to_owned()),
            "beegfs" => {
                let named = self.options.iter().find_map(|option| option.strip_prefix("cfgFile="));
                let settings = named.unwrap_or("/etc/beegfs/beegfs-client.conf");
                match read(settings) {
                    None => Some(format!("whose settings in {settings} cannot be read")),
                    Some(text) if is_set(&text, "tuneUseGlobalFileLocks") => None,
                    Some(_) => {
                        Some(format!("without 'tuneUseGlobalFileLocks = true' in {settings}"))
                    }
                }
            }
            "cifs" | "smb3" => first(&["nobrl", "nolock"]),
            "fuse.sshfs" => Some("which does not pass locks on".to_owned()),
            _ => None,
        };
        why.map(|why| format!("{} ({}, {why})", self.place.display(), self.kind))
    }
}

/// Whether settings of BeeGFS, a line each, say that something is so. The last line counts, and nothing means yes.
fn is_set(settings: &str, name: &str) -> bool {
    let lines = settings.lines().filter_map(|line| line.split_once('='));
    let said = lines.rev().find(|(given, _)| given.trim() == name);
    let yes = |value: &str| ["", "1", "y", "on", "yes", "true"].contains(&value);
    said.is_some_and(|(_, value)| yes(&value.trim().to_ascii_lowercase()))
}

/// Spaces, tabs, newlines and backslashes are written in octal.
fn without_escapes(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, letter)| text.replace(escape, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_say_whether_locks_hold_elsewhere() {
        let mounts = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:41 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2,local_lock=none,addr=10.0.0.1
31 22 0:42 / /old rw,relatime - nfs server:/old rw,vers=3,nolock,local_lock=all
32 22 0:43 / /scratch rw - lustre mds@tcp:/scratch rw,flock,lazystatfs
33 22 0:44 / /fast rw - lustre mds@tcp:/fast rw,localflock
34 22 0:45 / /my\\040files rw - fuse.sshfs host:/ rw
35 30 0:46 / /home/group rw - nfs4 server:/group rw,local_lock=flock
36 22 0:47 / /bee rw,relatime - beegfs beegfs_nodev rw,cfgFile=/etc/bee.conf
37 22 0:48 / /hive rw,relatime - beegfs beegfs_nodev rw
38 22 0:49 / /comb rw - beegfs beegfs_nodev rw,cfgFile=/etc/secret.conf
";
        let read = |path: &str| match path {
            "/etc/bee.conf" => Some("a = 1\n tuneUseGlobalFileLocks   = true\n".to_owned()),
            "/etc/beegfs/beegfs-client.conf" => {
                Some("tuneUseGlobalFileLocks = false\n# tuneUseGlobalFileLocks = true\n".to_owned())
            }
            _ => None,
        };
        let mistake = |folder: &str| Mount::of(mounts, Path::new(folder))?.mistake(read);
        for (folder, expected) in [
            ("/var/cache", None),
            ("/home/ann/cache", None),
            ("/homes", None),
            ("/old/cache", Some("/old (nfs, with 'nolock')")),
            ("/scratch/cache", None),
            ("/fast/cache", Some("/fast (lustre, without 'flock')")),
            ("/my files/cache", Some("/my files (fuse.sshfs, which does not pass locks on)")),
            ("/bee/cache", None),
            (
                "/hive/cache",
                Some(
                    "/hive (beegfs, without 'tuneUseGlobalFileLocks = true' in /etc/beegfs/beegfs-client.conf)",
                ),
            ),
            (
                "/comb/cache",
                Some("/comb (beegfs, whose settings in /etc/secret.conf cannot be read)"),
            ),
            ("/home/group/cache", Some("/home/group (nfs4, with 'local_lock=flock')")),
        ] {
            assert_eq!(mistake(folder).as_deref(), expected, "{folder}");
        }
        assert!(Mount::of("", Path::new("/")).is_none());
    }
}
