//! Waiting for changes of files and folders, as the operating system reports them; the only file that names `notify`.
//!
//! A report is only a reason to recheck: whether the content differs is for those who wait.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use pipeline_stages::links::Way;

/// After this much time without another report, a change is complete unless somebody still writes to a file: editors write in
/// several steps.
const QUIET: Duration = Duration::from_millis(100);
/// It counts as complete after this time at the latest.
const LONGEST: Duration = Duration::from_secs(1);

/// So often the folders to watch are determined, if they change meanwhile.
const MOST_ROUNDS: usize = 100;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Targets {
    /// Files and folders, which may not exist yet. Absolute.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// A folder in which nothing counts.
    pub(crate) ignored: Option<PathBuf>,
}

/// A wait for changes. What changes while nobody waits is not lost.
pub(crate) struct FileWatch {
    _watcher: RecommendedWatcher,
    receiver: Receiver<FileEvent>,
}

/// What is reported of something that may have changed.
enum FileEvent {
    /// These files were made or written to, and may not be complete. They are closed when they are.
    Begun(Vec<PathBuf>),
    /// These files are closed by somebody who could write to them.
    Closed(Vec<PathBuf>),
    Other,
}

impl FileEvent {
    fn of(event: notify::Result<Event>) -> Self {
        // Elsewhere nobody says when a file is closed.
        let Some(event) = event.ok().filter(|_| cfg!(target_os = "linux")) else {
            return Self::Other;
        };
        match event.kind {
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                Self::Begun(event.paths)
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Self::Closed(event.paths),
            _ => Self::Other,
        }
    }
}

impl FileWatch {
    /// # Errors
    /// When the system cannot watch that much.
    pub(crate) fn on(targets: &Targets) -> anyhow::Result<Self> {
        let mut rounds = 0;
        loop {
            let relevant = Relevant::of(targets);
            let watched = relevant.watched();
            let watch = Self::start(relevant.clone(), &watched)?;
            rounds += 1;
            // A folder that was made before the one above it was watched has been reported to nobody, and so has a link.
            // Where folders come and go all the time, another report follows.
            let now = Relevant::of(targets);
            if rounds == MOST_ROUNDS || (now == relevant && now.watched() == watched) {
                return Ok(watch);
            }
        }
    }

    fn start(
        relevant: Relevant,
        watched: &BTreeMap<PathBuf, RecursiveMode>,
    ) -> anyhow::Result<Self> {
        let (sender, receiver) = channel();
        let handler = move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, |event| relevant.has(event)) {
                let _ = sender.send(FileEvent::of(event));
            }
        };
        let mut watcher = notify::recommended_watcher(handler)
            .map_err(|error| explained(error, Path::new("files")))?;
        for (path, mode) in watched {
            match watcher.watch(path, *mode) {
                // It has just been removed, or nobody may look into it: the folder above reports what follows.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) if is_denied(&error) => {}
                result => result.map_err(|error| explained(error, path))?,
            }
        }
        Ok(Self { _watcher: watcher, receiver })
    }

    /// Waits, without a limit, until something may have changed and no more follows at once.
    ///
    /// # Errors
    /// When nothing is reported any more.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        self.wait_for(LONGEST)
    }

    /// If something may have changed since these were started or last waited for, waits until no more follows at once. Returns whether it did.
    pub(crate) fn wait_if_changed(watches: &[Self]) -> bool {
        // A report takes a moment to arrive.
        let end = Instant::now() + QUIET;
        let waits = |watch: &&Self| {
            let rest = end.saturating_duration_since(Instant::now());
            let report = watch.receiver.recv_timeout(rest);
            report.map(|report| watch.wait_from(report, LONGEST)).is_ok()
        };
        watches.iter().filter(waits).count() > 0
    }

    fn wait_for(&self, longest: Duration) -> anyhow::Result<()> {
        let report =
            self.receiver.recv().context("the system does not report changes of files any more")?;
        self.wait_from(report, longest);
        Ok(())
    }

    /// Waits until nothing follows a report, and what it is about is complete.
    fn wait_from(&self, mut report: FileEvent, longest: Duration) {
        let end = Instant::now() + longest;
        let mut incomplete = BTreeSet::new();
        while Instant::now() < end {
            match report {
                FileEvent::Begun(files) => incomplete.extend(files),
                FileEvent::Closed(files) => incomplete.retain(|file| !files.contains(file)),
                FileEvent::Other => {}
            }
            report = match self.receiver.recv_timeout(QUIET) {
                Ok(report) => report,
                Err(RecvTimeoutError::Timeout) if !incomplete.is_empty() => FileEvent::Other,
                Err(_) => break,
            };
        }
        self.receiver.try_iter().for_each(drop);
    }
}

fn is_denied(error: &notify::Error) -> bool {
    matches!(&error.kind, ErrorKind::Io(error) if matches!(
        error.kind(),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound
    ))
}

fn explained(error: notify::Error, path: &Path) -> anyhow::Error {
    match error.kind {
        ErrorKind::MaxFilesWatch => anyhow!(
            "{} has more folders than this user may watch: raise fs.inotify.max_user_watches (`sysctl`), or name smaller folders in the manifest",
            path.display()
        ),
        ErrorKind::Io(error) => {
            anyhow::Error::from(error).context(format!("cannot watch {}", path.display()))
        }
        _ => anyhow!("cannot watch {}: {error}", path.display()),
    }
}

/// The folders above that exist: each reports that the next one is replaced.
fn folders_above(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1).filter(|above| above.is_dir())
}

/// The targets under the only names by which the system reports them: those without links in them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Relevant {
    /// What they lead to.
    ends: BTreeSet<PathBuf>,
    /// What can be replaced on the way there, by itself and not with what is in it.
    ways: BTreeSet<PathBuf>,
    ignored: Vec<PathBuf>,
}

impl Relevant {
    fn of(targets: &Targets) -> Self {
        let (mut ends, mut ways) = (BTreeSet::new(), BTreeSet::new());
        for Way { links, missing, end } in targets.paths.iter().map(|path| Way::to(path)) {
            ends.insert(end);
            ways.extend(links);
            ways.extend(missing);
        }
        let ignored = targets.ignored.iter().map(|path| Way::to(path).end).collect();
        Self { ends, ways, ignored }
    }

    /// The folders to watch. A file or link is watched through its folder: an editor puts a new file in its place; and so is each
    /// folder above. What does not exist yet is watched through those above that do.
    fn watched(&self) -> BTreeMap<PathBuf, RecursiveMode> {
        let above = self.ends.iter().chain(&self.ways).flat_map(|path| folders_above(path));
        let mut watched: BTreeMap<PathBuf, RecursiveMode> =
            above.map(|above| (above.to_owned(), RecursiveMode::NonRecursive)).collect();
        let whole: Vec<&PathBuf> = self.ends.iter().filter(|end| end.is_dir()).collect();
        watched.extend(whole.iter().map(|&end| (end.clone(), RecursiveMode::Recursive)));
        // Watched again by itself, a folder would no longer be watched with what is in it.
        watched
            .retain(|path, _| !whole.iter().any(|other| path != *other && path.starts_with(other)));
        watched
    }

    /// Whether an event can be about a target. That something was read is not a change.
    fn has(&self, event: &Event) -> bool {
        let is_written = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
        if event.kind.is_access() && !is_written {
            return false;
        }
        if event.need_rescan() || event.paths.is_empty() {
            return true;
        }
        let of_target = |path: &PathBuf| {
            self.ends.iter().any(|end| path.starts_with(end))
                || self.ends.iter().chain(&self.ways).any(|one| one.starts_with(path))
        };
        let is_ignored = |path: &PathBuf| self.ignored.iter().any(|one| path.starts_with(one));
        event.paths.iter().any(|path| of_target(path) && !is_ignored(path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    #[cfg(target_os = "linux")]
    use std::io::Write;

    use super::*;

    fn reported(targets: &Targets, change: impl FnOnce(), within: Duration) -> bool {
        let watch = FileWatch::on(targets).expect("a few folders can be watched");
        change();
        watch.receiver.recv_timeout(within).is_ok()
    }

    /// Whether a change is reported, also beside other work.
    fn reports(targets: &Targets, change: impl FnOnce()) -> bool {
        reported(targets, change, Duration::from_secs(60))
    }

    fn is_silent(targets: &Targets, change: impl FnOnce()) -> bool {
        !reported(targets, change, Duration::from_millis(500))
    }

    #[test]
    fn what_is_reported_and_what_is_not() {
        let top = tempfile::tempdir().expect("a folder");
        let at = |name: &str| top.path().join(name);
        for folder in ["photos/deep", "photos/cache", "other"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        let write = |name: &str, text: &str| fs::write(at(name), text).expect("writable");
        write("a.toml", "1");
        std::os::unix::fs::symlink("../a.toml", at("other/link.toml")).expect("a link");
        let targets = Targets {
            paths: ["a.toml", "photos", "other/missing/b.toml", "other/link.toml"].map(at).into(),
            ignored: Some(at("photos/cache")),
        };
        let reports = |change: &dyn Fn()| reports(&targets, change);
        let is_silent = |change: &dyn Fn()| is_silent(&targets, change);
        assert!(reports(&|| write("a.toml", "2")));
        // As editors save.
        assert!(reports(&|| {
            write(".a.toml.new", "3");
            fs::rename(at(".a.toml.new"), at("a.toml")).expect("a new name");
        }));
        assert!(reports(&|| write("photos/deep/1.png", "1")));
        assert!(reports(&|| {
            fs::create_dir(at("photos/new")).expect("a folder");
        }));
        assert!(reports(&|| fs::remove_file(at("photos/deep/1.png")).expect("it exists")));
        assert!(reports(&|| fs::create_dir(at("other/missing")).expect("a folder")));
        assert!(reports(&|| write("other/missing/b.toml", "1")));
        assert!(reports(&|| {
            fs::rename(at("photos"), at("photos.old")).expect("a new name");
            fs::create_dir_all(at("photos/cache")).expect("a folder");
        }));
        assert!(is_silent(&|| write("photos/cache/record", "1")));
        assert!(is_silent(&|| write("b.toml", "1")));
        assert!(is_silent(&|| drop(fs::read(at("a.toml")).and(fs::read_dir(at("photos"))))));
    }

    #[test]
    fn a_folder_that_is_made_meanwhile_is_watched() {
        for microseconds in 0..300 {
            let top = tempfile::tempdir().expect("a folder");
            let folder = top.path().join("more");
            let path = folder.join("b.toml");
            let targets = Targets { paths: [path.clone()].into(), ignored: None };
            let start = std::sync::Barrier::new(2);
            let watch = std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    std::thread::sleep(Duration::from_micros(microseconds));
                    fs::create_dir(&folder).expect("a folder");
                });
                start.wait();
                FileWatch::on(&targets).expect("a folder can be watched")
            });
            fs::write(&path, "1").expect("writable");
            let report = watch.receiver.recv_timeout(Duration::from_secs(60));
            assert!(report.is_ok(), "after {microseconds} microseconds");
        }
    }

    #[test]
    fn a_folder_may_have_several_names() {
        let top = tempfile::tempdir().expect("a folder");
        let at = |name: &str| top.path().join(name);
        for folder in ["photos", "other", "cache"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        fs::write(at("a.toml"), "1").expect("writable");
        std::os::unix::fs::symlink("..", at("other/here")).expect("a link");
        for photos in ["photos", "other/../photos", "other/here/photos"] {
            let targets = Targets {
                paths: ["a.toml", photos, "other/here/b.toml"].map(at).into(),
                ignored: Some(at("other/../cache")),
            };
            for name in ["a.toml", "b.toml", "photos/1.png"] {
                let write = || fs::write(at(name), photos).expect("writable");
                assert!(reports(&targets, write), "{photos}: {name}");
            }
            for name in ["c.toml", "cache/record"] {
                let write = || fs::write(at(name), photos).expect("writable");
                assert!(is_silent(&targets, write), "{photos}: {name}");
            }
        }
    }

    #[test]
    fn a_link_on_the_way_may_lead_elsewhere() {
        let top = tempfile::tempdir().expect("a folder");
        let at = |name: &str| top.path().join(name);
        for folder in ["v1/deep", "v2", "p", "o", "sub"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        let write = |name: &str| fs::write(at(name), "1").expect("writable");
        ["v1/x", "v2/x", "o/b1", "o/b2"].into_iter().for_each(write);
        let set = |link: &str, target: &str| {
            let _ = fs::remove_file(at(".new"));
            std::os::unix::fs::symlink(target, at(".new")).expect("a link");
            fs::rename(at(".new"), at(link)).expect("a new name");
        };
        let targets = |name: &str| Targets { paths: [at(name)].into(), ignored: Some(at("cache")) };
        for (target, link, before, after, end, beside) in [
            ("cur/x", "cur", "v1", "v2", "v2/x", "v1/x"),
            ("sub/../cur/x", "cur", "v1", "v2", "v2/x", "v1/x"),
            ("l1", "p/l2", "../o/b1", "../o/b2", "o/b2", "o/b1"),
            ("cur/x", "cur", "missing", "v2", "v2/x", "v1/x"),
        ] {
            set("l1", "p/l2");
            set(link, before);
            let targets = targets(target);
            assert!(reports(&targets, || set(link, after)), "{target}: {link}");
            assert!(reports(&targets, || write(end)), "{target}: {end}");
            assert!(is_silent(&targets, || write(beside)), "{target}: {beside}");
        }
        // What else is in the folder of a link does not count, nor does what is below a link that only leads on.
        set("cur", "v1");
        assert!(is_silent(&targets("cur/x"), || write("v1/deep/y")));
        assert!(reports(&targets("later/../cur/x"), || {
            fs::create_dir(at("later")).expect("a folder");
        }));
    }

    #[test]
    fn a_folder_further_up_may_be_replaced() {
        let top = tempfile::tempdir().expect("a folder");
        let at = |name: &str| top.path().join(name);
        let rename = |from: &str, to: &str| fs::rename(at(from), at(to)).expect("a new name");
        for (round, target) in ["a/b/c/x", "a/b/c", "a/b/c/later/y"].into_iter().enumerate() {
            for folder in ["a/b/c", "new/b/c"] {
                fs::create_dir_all(at(folder)).expect("a folder");
                fs::write(at(folder).join("x"), folder).expect("writable");
            }
            let targets = Targets { paths: [at(target)].into(), ignored: None };
            let replace = || {
                rename("a", &format!("old-{round}"));
                rename("new", "a");
            };
            assert!(reports(&targets, replace), "{target}");
            let beside = || fs::write(at("a/b/y"), "1").and(fs::write(at("y"), "1"));
            assert!(is_silent(&targets, || beside().expect("writable")), "{target}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_is_still_written_is_not_complete() {
        let top = tempfile::tempdir().expect("a folder");
        let path = top.path().join("a.toml");
        fs::write(&path, "whole").expect("writable");
        let targets = Targets { paths: [path.clone()].into(), ignored: None };
        let watch = FileWatch::on(&targets).expect("a file can be watched");
        let mut file = fs::File::create(&path).expect("writable");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(QUIET * 3);
                file.write_all(b"whole").expect("writable");
                drop(file);
            });
            watch.wait_for(Duration::from_secs(60)).expect("a report");
            assert_eq!(fs::read_to_string(&path).expect("readable"), "whole");
        });
        let watches = [watch];
        std::thread::scope(|scope| {
            let mut file = fs::File::create(&path).expect("writable");
            scope.spawn(move || {
                std::thread::sleep(QUIET * 3);
                file.write_all(b"whole").expect("writable");
            });
            assert!(FileWatch::wait_if_changed(&watches));
            assert_eq!(fs::read_to_string(&path).expect("readable"), "whole");
        });
        assert!(!FileWatch::wait_if_changed(&watches));
        // Who keeps a file open is not waited for without an end.
        let _open = fs::File::create(&path).expect("writable");
        watches[0].wait().expect("a report");
    }
}
