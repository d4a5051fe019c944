//! What is in a place, entry by entry, by the stat of each: two snapshots show whether something was touched between
//! them, also if it holds the same bytes again. Reads no file.
//!
//! Outside the cache, links are followed and what nobody wrote is left out. In an artifact nothing is left out, and a
//! link is what it says.

mod walk;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use pipeline_stages::kind::Counts;
use pipeline_stages::left_out::LeftOut;

use super::entry::{EntryKind, Extent, path_bytes};
use super::listing::{Line, Listing};
use super::parallel;
use super::stat::Stat;
use super::stat_index::StatIndex;
use crate::difference::{Difference, How};
use walk::{PlaceEntry, Target, Walk};

/// A file or folder outside the cache that a stage reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadPath<'a> {
    /// Where it is.
    pub(crate) path: &'a Path,
    /// What of a folder is left out.
    pub(crate) left_out: LeftOut<'a>,
    /// The cache folder: it is not part of the folder that it is in.
    pub(crate) cache: &'a Path,
}

/// What is in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Sorted by path.
    entries: Vec<PlaceEntry>,
    /// Outside the cache: the folder that the place is in.
    above: Option<Stat>,
}

/// A folder, whatever has its name later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopFolder(Stat);

impl TopFolder {
    /// Whether it is still in this place.
    pub(super) fn is_at(&self, place: &Path) -> bool {
        fs::symlink_metadata(place).is_ok_and(|metadata| {
            let now = Stat::of(&metadata);
            // A network file system may number its folders differently after a while.
            (self.0.device, self.0.inode) == (now.device, now.inode)
                || self.0.changed_nanoseconds == now.changed_nanoseconds
        })
    }
}

/// What happened between two snapshots of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Nothing.
    None,
    /// Nothing but the time at which something other than the bytes changed, as a backup leaves it.
    Status,
    /// Something was written, replaced, added or removed.
    Content(Vec<Difference>),
}

impl Snapshot {
    /// What is in the folder of an artifact.
    pub(crate) fn of_artifact(path: &Path) -> anyhow::Result<Self> {
        Self::of(Walk::new(path, None))
    }

    /// What is in a place outside the cache.
    pub(crate) fn of_outside(place: &ReadPath<'_>) -> anyhow::Result<Self> {
        let ReadPath { path, left_out, cache } = *place;
        Self::of(Walk::new(path, Some((left_out, cache))))
    }

    fn of(walk: Walk<'_>) -> anyhow::Result<Self> {
        let (entries, above) = walk.take()?;
        Ok(Self { entries, above })
    }

    /// What happened until `now`.
    pub(crate) fn touch(&self, now: &Self) -> Touch {
        let differences = self.differences(now);
        if !differences.is_empty() {
            Touch::Content(differences)
        } else if self.change_times().ne(now.change_times()) {
            Touch::Status
        } else {
            Touch::None
        }
    }

    /// How many files, folders and links are in it, with the place itself.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Which folder it was taken of. `None` if it is something else.
    pub(crate) fn top(&self) -> Option<TopFolder> {
        match self.entries.first()?.target {
            Target::Folder(stat) => Some(TopFolder(stat)),
            _ => None,
        }
    }

    /// How much is in an artifact. `None` where something is in its place that cannot be one.
    pub(crate) fn extent(&self) -> Option<Extent> {
        let (top, inside) = self.entries.split_first()?;
        let mut extent = Extent::default();
        for PlaceEntry { link, target, .. } in inside {
            match target {
                Target::Special(_) => return None,
                _ if link.is_some() => extent.files += 1,
                Target::File(stat) => {
                    extent.files += 1;
                    extent.bytes += stat.size;
                }
                _ => {}
            }
        }
        let is_folder = top.link.is_none() && matches!(top.target, Target::Folder(_));
        is_folder.then_some(extent)
    }

    fn change_times(&self) -> impl Iterator<Item = i128> {
        let outside = self.above.is_some();
        let stats = self.entries.iter().flat_map(move |PlaceEntry { link, target, .. }| {
            let behind = match target {
                Target::File(stat) | Target::Special(stat) => Some(*stat),
                Target::Folder(stat) => (!outside).then_some(*stat),
                Target::MetBefore(_) | Target::Nowhere => None,
            };
            [link.as_ref().map(|link| link.stat), behind]
        });
        stats.flatten().map(|stat| stat.changed_nanoseconds)
    }

    fn differences(&self, now: &Self) -> Vec<Difference> {
        let mut earlier: HashMap<&Path, &PlaceEntry> =
            self.entries.iter().map(|entry| (entry.path.as_path(), entry)).collect();
        let mut differences = Vec::new();
        let mut add = |path: &Path, how| differences.push(Difference { path: path.into(), how });
        // Folders in which something was added, removed or renamed. Each comes before what is in it.
        let mut changed_folders: HashSet<&Path> = HashSet::new();
        let above_changed = self.above.map(|stat| stat.modified_nanoseconds)
            != now.above.map(|stat| stat.modified_nanoseconds);
        for entry in &now.entries {
            let path = entry.path.as_path();
            let Some(was) = earlier.remove(path) else {
                add(path, How::Added);
                continue;
            };
            if let (Target::Folder(was), Target::Folder(is)) = (&was.target, &entry.target)
                && was.modified_nanoseconds != is.modified_nanoseconds
            {
                changed_folders.insert(path);
            }
            let in_changed = match path.parent() {
                Some(folder) => changed_folders.contains(folder),
                None => above_changed,
            };
            let moved = || (in_changed && was.was_moved(entry)).then_some(How::Written);
            if let Some(how) = was.touch(entry).or_else(moved) {
                add(path, how);
            }
        }
        earlier.into_keys().for_each(|path| add(path, How::Missing));
        differences.sort_by(|a, b| path_bytes(&a.path).cmp(path_bytes(&b.path)));
        differences
    }

    /// What is in a place outside the cache, each file with the digest of its bytes.
    pub(crate) fn listing(
        &self,
        place: &ReadPath<'_>,
        counts: Counts,
        index: &StatIndex,
    ) -> anyhow::Result<Listing> {
        let form = counts == Counts::Form;
        let line = |PlaceEntry { path, link, target }: &PlaceEntry| {
            let (kind, content) = match target {
                Target::File(stat) => {
                    let whole = if path.as_os_str().is_empty() {
                        place.path.to_owned()
                    } else {
                        place.path.join(path)
                    };
                    let executable = form && stat.is_executable();
                    let content = index.digest(&whole, stat)?;
                    (EntryKind::File { executable, bytes: stat.size }, Some(content))
                }
                Target::Folder(_) => (EntryKind::Folder, None),
                Target::MetBefore(path) => (EntryKind::Link { target: path.clone() }, None),
                Target::Nowhere | Target::Special(_) => {
                    (EntryKind::Link { target: PathBuf::new() }, None)
                }
            };
            let through = link.as_ref().filter(|_| form).map(|link| link.text.clone());
            Ok(Line { path: path.clone(), through, kind, content })
        };
        Ok(Listing::of_lines(parallel::try_for_each(&self.entries, line)?))
    }
}

impl PlaceEntry {
    /// Whether it could have been renamed, and renamed back: that changes its ctime and nothing else of it. A program that
    /// read another file under its name meanwhile has read something else. `now` is in a folder in which names changed.
    fn was_moved(&self, now: &Self) -> bool {
        let pair = match (&self.link, &now.link, &self.target, &now.target) {
            (Some(was), Some(is), ..) => Some((was.stat, is.stat)),
            (_, _, Target::File(was), Target::File(is))
            | (_, _, Target::Folder(was), Target::Folder(is)) => Some((*was, *is)),
            _ => None,
        };
        pair.is_some_and(|(was, is)| {
            was.changed_nanoseconds != is.changed_nanoseconds
                && was.modified_nanoseconds == is.modified_nanoseconds
        })
    }

    fn touch(&self, now: &Self) -> Option<How> {
        match (&self.link, &now.link) {
            (None, None) => {}
            (Some(was), Some(is)) if was.text == is.text => {
                if was.stat.touch(&is.stat).is_some() {
                    return Some(How::Link);
                }
            }
            (Some(_), Some(_)) => return Some(How::Link),
            _ => return Some(How::Kind),
        }
        match (&self.target, &now.target) {
            (Target::File(was), Target::File(is)) => was.touch(is),
            (Target::Folder(_), Target::Folder(_))
            | (Target::Nowhere, Target::Nowhere)
            | (Target::Special(_), Target::Special(_)) => None,
            (Target::MetBefore(was), Target::MetBefore(is)) => (was != is).then_some(How::Link),
            _ => Some(How::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::digest::Digest;

    /// A folder `top` in a folder of its own, and how it is looked at.
    struct Outside {
        folder: tempfile::TempDir,
        ignore: Vec<String>,
        counts: Counts,
    }

    impl Outside {
        fn new(counts: Counts) -> Self {
            let outside =
                Self { folder: tempfile::tempdir().expect("a folder"), ignore: vec![], counts };
            fs::create_dir(outside.at("top")).expect("writable");
            outside
        }

        fn at(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn write(&self, path: &str, text: &str) {
            fs::create_dir_all(self.at(path).parent().expect("a folder")).expect("writable");
            fs::write(self.at(path), text).expect("writable");
        }

        fn link(&self, text: &str, path: &str) {
            let _ = fs::remove_file(self.at(path));
            symlink(text, self.at(path)).expect("writable");
        }

        fn mode(&self, path: &str, mode: u32) {
            fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).expect("ours");
        }

        fn place<T>(&self, name: &str, with: impl FnOnce(&ReadPath<'_>) -> T) -> T {
            let (path, cache) = (self.at(name), self.at("top/cache"));
            let left_out = LeftOut::with(&self.ignore);
            with(&ReadPath { path: &path, left_out, cache: &cache })
        }

        fn snapshot(&self) -> Snapshot {
            self.place("top", |place| Snapshot::of_outside(place).expect("readable"))
        }

        fn listing(&self, name: &str) -> anyhow::Result<Listing> {
            let index = StatIndex::at(self.at("stat.idx"));
            self.place(name, |place| {
                Snapshot::of_outside(place)?.listing(place, self.counts, &index)
            })
        }

        fn digest(&self) -> Digest {
            self.listing("top").expect("readable").digest()
        }

        fn refusal(&self, name: &str) -> String {
            format!("{:#}", self.listing(name).expect_err("refused"))
        }
    }

    fn both() -> [Outside; 2] {
        [Counts::Content, Counts::Form].map(Outside::new)
    }

    #[test]
    fn names_and_bytes_count_and_times_do_not() {
        for outside in both() {
            outside.write("top/a", "1");
            let one = outside.digest();
            let past = SystemTime::now() - Duration::from_secs(60);
            let file = fs::File::open(outside.at("top/a")).expect("ours");
            file.set_modified(past).expect("ours");
            assert_eq!(outside.digest(), one, "times are not content");
            outside.write("top/b", "1");
            let two = outside.digest();
            assert_ne!(two, one);
            fs::rename(outside.at("top/b"), outside.at("top/c")).expect("ours");
            assert_ne!(outside.digest(), two);
            fs::create_dir(outside.at("top/empty")).expect("ours");
            assert_ne!(outside.digest(), two);
        }
    }

    #[test]
    fn the_executable_bit_and_the_text_of_a_link_count_for_a_program() {
        for outside in both() {
            let counts = outside.counts == Counts::Form;
            outside.write("top/a", "1");
            outside.write("one", "1");
            outside.write("two", "1");
            let before = outside.digest();
            outside.mode("top/a", 0o755);
            assert_eq!(outside.digest() != before, counts);
            outside.mode("top/a", 0o666);
            assert_eq!(outside.digest(), before, "who else may read it is not content");
            outside.link("../one", "top/link");
            let to_one = outside.digest();
            assert_ne!(to_one, before);
            outside.link("../two", "top/link");
            assert_eq!(outside.digest() != to_one, counts, "the same bytes elsewhere");
            outside.write("two", "2");
            assert_ne!(outside.digest(), to_one, "other bytes behind the link");
        }
    }

    #[test]
    fn a_file_is_looked_at_like_one_in_a_folder() {
        let outside = Outside::new(Counts::Form);
        outside.write("r1", "1");
        outside.write("r2", "1");
        outside.link("r1", "file");
        let digest = || outside.listing("file").expect("readable").digest();
        let one = digest();
        outside.link("r2", "file");
        assert_ne!(digest(), one);
        fs::remove_file(outside.at("file")).expect("ours");
        outside.write("file", "1");
        let plain = digest();
        assert_ne!(plain, one);
        outside.mode("file", 0o755);
        assert_ne!(digest(), plain);
    }

    #[test]
    fn links_that_lead_nowhere_or_round_in_circles_come_to_an_end() {
        for outside in both() {
            outside.write("top/a/x", "1");
            outside.write("top/b/y", "1");
            outside.link("nowhere", "top/dangling");
            outside.link("itself", "top/itself");
            outside.link("..", "top/a/up");
            outside.link("../../b", "top/a/other");
            outside.link("../a", "top/b/back");
            outside.link("..", "top/above");
            let before = outside.digest();
            assert_eq!(outside.digest(), before);
            outside.link("else", "top/dangling");
            assert_eq!(outside.digest() != before, outside.counts == Counts::Form);
            outside.write("top/a/x", "2");
            assert_ne!(outside.digest(), before);
            outside.link("nowhere", "alone");
            assert!(outside.refusal("alone").contains("No such file"));
        }
    }

    #[test]
    fn what_nobody_wrote_is_left_out_but_for_the_place_itself() {
        for mut outside in both() {
            outside.write("top/a", "1");
            let before = outside.digest();
            for path in [".DS_Store", "._a", ".a.swp", "a~", ".git/HEAD", "__pycache__/a.pyc"] {
                outside.write(&format!("top/{path}"), "1");
            }
            outside.write("top/cache/store/x", "1");
            assert_eq!(outside.digest(), before);
            outside.write("top/__pycache__/x", "1");
            assert_ne!(outside.digest(), before);
            outside.ignore = vec!["x".to_owned()];
            assert_eq!(outside.digest(), before);
            outside.write("notes~", "1");
            let notes = |outside: &Outside| outside.listing("notes~").expect("readable").digest();
            let one = notes(&outside);
            outside.write("notes~", "2");
            assert_ne!(notes(&outside), one);
        }
    }

    #[test]
    fn what_has_no_content_that_lasts_is_refused_and_not_opened() {
        let outside = Outside::new(Counts::Form);
        let pipe = |path: &str| {
            let status = std::process::Command::new("mkfifo").arg(outside.at(path)).status();
            assert!(status.expect("mkfifo runs").success());
        };
        pipe("pipe");
        pipe("top/pipe");
        let _socket = std::os::unix::net::UnixListener::bind(outside.at("socket")).expect("ours");
        for (name, what) in [
            ("pipe", "pipe is a named pipe"),
            ("top", "top/pipe is a named pipe"),
            ("socket", "socket is a socket"),
            ("/dev/null", "/dev/null is a device"),
        ] {
            let refusal = outside.refusal(name);
            assert!(refusal.contains(what), "{refusal}");
        }
        for name in ["/proc/kmsg", "/proc/version", "/proc/self", "/sys/kernel"] {
            if cfg!(target_os = "linux") && Path::new(name).exists() {
                let refusal = outside.refusal(name);
                assert!(refusal.contains("made up by the kernel"), "{refusal}");
            }
        }
    }

    #[test]
    fn a_name_that_is_not_text_counts_too() {
        use std::os::unix::ffi::OsStrExt;
        let outside = Outside::new(Counts::Form);
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(outside.at("top").join(name), "1").expect("writable");
        let listing = outside.listing("top").expect("readable");
        let path = outside.at("listing.json");
        listing.write(&path).expect("a listing of any names can be kept");
        assert_eq!(Listing::read(&path, &listing.digest()), Some(listing));
    }

    fn told(touch: Touch) -> String {
        match touch {
            Touch::None => "none".to_owned(),
            Touch::Status => "status".to_owned(),
            Touch::Content(all) => {
                let all = all.iter().map(|one| format!("{} {}", one.path.display(), one.how));
                all.collect::<Vec<_>>().join(", ")
            }
        }
    }

    #[test]
    fn what_was_done_meanwhile_is_seen_also_if_the_bytes_are_the_same_again() {
        let outside = Outside::new(Counts::Form);
        outside.write("top/a", "1");
        outside.write("top/b/c", "1");
        outside.link("a", "top/link");
        let rewrite = || {
            // A coarse clock gives two writes in a row one time.
            std::thread::sleep(Duration::from_millis(20));
            outside.write("top/a", "2");
            outside.write("top/a", "1");
        };
        let replace = || {
            std::thread::sleep(Duration::from_millis(20));
            let old = fs::metadata(outside.at("top/a")).expect("there").modified().expect("a time");
            outside.write("new", "1");
            let new = fs::File::options().write(true).open(outside.at("new")).expect("ours");
            new.set_modified(old).expect("ours");
            fs::rename(outside.at("new"), outside.at("top/a")).expect("ours");
        };
        let relink = || {
            std::thread::sleep(Duration::from_millis(20));
            outside.link("b/c", "top/link");
            outside.link("a", "top/link");
        };
        let status = || {
            std::thread::sleep(Duration::from_millis(20));
            outside.mode("top/a", 0o644);
        };
        outside.mode("top/a", 0o644);
        for (what, act, expected) in [
            ("nothing", &(|| ()) as &dyn Fn(), "none"),
            ("a swap file", &|| outside.write("top/.a.swp", "1"), "none"),
            ("rewritten", &rewrite, "a written to, or replaced, link written to, or replaced"),
            ("replaced", &replace, "a written to, or replaced, link written to, or replaced"),
            ("relinked", &relink, "link a link with another target"),
            ("status", &status, "status"),
            ("added", &|| outside.write("top/b/d", ""), "b/d added"),
            ("grown", &|| outside.write("top/b/c", "12"), "b/c other bytes: 2 in place of 1"),
            ("mode", &|| outside.mode("top/b/c", 0o600), "b/c other permissions"),
            ("removed", &|| fs::remove_file(outside.at("top/b/d")).expect("ours"), "b/d missing"),
        ] {
            let before = outside.snapshot();
            act();
            assert_eq!(told(before.touch(&outside.snapshot())), expected, "{what}");
        }
    }

    #[test]
    fn another_number_of_a_file_alone_is_nothing() {
        let outside = Outside::new(Counts::Form);
        outside.write("top/a", "1");
        let before = outside.snapshot();
        let mut now = before.clone();
        let Target::File(stat) = &mut now.entries[1].target else { panic!("a file") };
        (stat.inode, stat.device) = (stat.inode + 1, stat.device + 1);
        assert_eq!(before.touch(&now), Touch::None);
    }

    #[test]
    fn in_an_artifact_everything_counts() {
        let outside = Outside::new(Counts::Form);
        outside.write("top/a", "1");
        outside.link("nowhere", "top/link");
        let snapshot = || Snapshot::of_artifact(&outside.at("top")).expect("readable");
        let before = snapshot();
        assert_eq!(before.touch(&snapshot()), Touch::None);
        outside.write("top/.DS_Store", "1");
        assert_eq!(told(before.touch(&snapshot())), ".DS_Store added");
        fs::remove_file(outside.at("top/.DS_Store")).expect("ours");
        assert_ne!(before.touch(&snapshot()), Touch::None, "the folder was written to");
    }

    #[test]
    fn the_extent_of_an_artifact_is_that_of_its_files() {
        let outside = Outside::new(Counts::Form);
        let top = outside.at("top");
        let extent = || Snapshot::of_artifact(&top).expect("readable").extent();
        assert_eq!(extent(), Some(Extent::default()));
        outside.write("top/a", "123");
        outside.write("top/b/c", "45");
        outside.link("../../elsewhere", "top/b/link");
        outside.link(".", "top/b/again");
        assert_eq!(extent(), Some(Extent { files: 4, bytes: 5 }));
        assert_eq!(extent(), super::super::folder::extent(&top).ok());
        outside.link("top", "link");
        let extent =
            |place: &str| Snapshot::of_artifact(&outside.at(place)).expect("readable").extent();
        assert_eq!((extent("link"), extent("top/a")), (None, None));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            outside.at("top/fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("writable");
        assert_eq!(extent("top"), None);
    }
}
