//! Whether a cache still has what a run found in it, at the cost of a stat for each folder, not of a read for each result.
//!
//! A name that appears, goes or leads to another file changes the time of its folder. Folders whose time does not prove
//! that are looked into.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::ensure;
use pipeline_stages::message::Metrics;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, statat};
use rustix::path::Arg;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

use super::file_system::is_local;
use super::layout::{Bucket, Layout};
use super::opened::Cache;
use super::parallel::{all_in_parallel, at_once};
use super::record::Record;
use super::{disk, durable};
use crate::digest::Digest;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// On a file system that another machine may serve, times may be as coarse as this, and its clock another one.
const COARSE_SECONDS: i64 = 2;

/// Beyond this many indexes, the oldest go.
const MOST_INDEXES: usize = 64;

/// What the folders of a cache are in which a run found its results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// This changes before anything is removed.
    generation: String,
    /// Of each of the [folders](stamped) whose next change is certain to be seen.
    folders: Vec<Option<FolderStamp>>,
}

/// The places of the folders in a stamp. Those of the records follow, one for each shard.
const STORE: usize = 0;
const HEADS: usize = 1;
const LATEST: usize = 2;
const SHARDS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FolderStamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FolderStamp {
    #[allow(clippy::unnecessary_cast, reason = "other systems have other types")]
    fn of(folder: impl AsFd, path: &Path) -> Option<Self> {
        let stat = stat_in(folder, path).filter(is_folder)?;
        Some(Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        })
    }

    /// Gives a folder that has just been changed a time to the nanosecond, between two ticks of the clock that the system takes times
    /// from: whatever changes in it from now on, also in the same tick, gives it another one. `None` where that is not certain.
    fn mark(path: &Path) -> Option<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_DIRECTORY;
        let folder = File::options().read(true).custom_flags(flags).open(path).ok()?;
        let time = disk::touch(&folder).ok()?.duration_since(UNIX_EPOCH).ok()?;
        let time = (i64::try_from(time.as_secs()).ok()?, time.subsec_nanos().into());
        let is_unique = seconds(clock_gettime(coarse_clock())) != time;
        Self::of(CWD, path).filter(|stamp| is_unique && stamp.modified == time)
    }

    fn latest(&self) -> (i64, i64) {
        self.modified.max(self.changed)
    }
}

impl Stamp {
    /// What the cache was made with, until something was removed.
    pub(crate) fn generation(&self) -> &str {
        &self.generation
    }

    /// The same, where the heads of the experiment are to be looked at each.
    pub(crate) fn without_heads(mut self) -> Self {
        if let Some(heads) = self.folders.get_mut(HEADS) {
            *heads = None;
        }
        self
    }

    /// Whether a folder has not changed until `now`.
    fn is_same(&self, now: &Self, place: usize) -> bool {
        let of = |stamp: &Self| stamp.folders.get(place).copied().flatten();
        self.generation == now.generation && of(self).is_some() && of(self) == of(now)
    }
}

/// The clock that file systems take their times from, as it was before folders are looked at.
struct Clock {
    /// The device whose times are those of this machine's clock, to the nanosecond that it says.
    local: Option<u64>,
    /// What it says at least to whatever is changed from now on.
    coarse: (i64, i64),
    /// Seconds since 1970, UTC.
    now: i64,
}

impl Clock {
    fn of(root: &Path) -> Self {
        let local = is_local(root).then(|| FolderStamp::of(CWD, root)).flatten();
        Self {
            local: local.map(|root| root.device),
            // The kernel's own times come from this clock, or from a finer one that it then catches up with.
            coarse: seconds(clock_gettime(coarse_clock())),
            now: seconds(clock_gettime(ClockId::Realtime)).0,
        }
    }

    /// Whether its times are exact. A file system without nanoseconds always says none.
    fn is_exact(&self, folder: &FolderStamp) -> bool {
        self.local == Some(folder.device) && folder.latest().1 != 0
    }

    /// Whether whatever changed in the folder after this clock was read gave it a later time.
    fn is_past(&self, folder: &FolderStamp) -> bool {
        match self.is_exact(folder) {
            true => folder.latest() < self.coarse,
            false => folder.latest().0 + COARSE_SECONDS < self.now,
        }
    }
}

fn seconds(time: Timespec) -> (i64, i64) {
    (time.tv_sec, time.tv_nsec)
}

#[cfg(target_os = "linux")]
fn coarse_clock() -> ClockId {
    ClockId::RealtimeCoarse
}

#[cfg(not(target_os = "linux"))]
fn coarse_clock() -> ClockId {
    ClockId::Realtime
}

/// The folders in a stamp, by their paths below the cache.
fn stamped(experiment: &str) -> impl Iterator<Item = PathBuf> {
    let shards = (0..=u8::MAX).map(Layout::record_folder);
    beside_records(experiment).into_iter().chain(shards)
}

/// Those beside the folders of records, at their places in a stamp.
fn beside_records(experiment: &str) -> [PathBuf; SHARDS] {
    let below = |bucket: Bucket| PathBuf::from(bucket.name());
    [
        below(Bucket::Store),
        below(Bucket::Heads).join(experiment),
        below(Bucket::Latest).join(experiment),
    ]
}

/// What a run knows of the results of its stages.
pub(crate) struct ExpectedResults<'a> {
    pub(crate) experiment: &'a str,
    pub(crate) results: Vec<ExpectedResult<'a>>,
    /// Whether the links for people are exactly theirs.
    pub(crate) are_all: bool,
}

/// The result of a stage.
pub(crate) struct ExpectedResult<'a> {
    pub(crate) stage: &'a StageName,
    pub(crate) key: &'a StageKey,
    /// The artifact.
    pub(crate) digest: &'a Digest,
    pub(crate) metrics: &'a Metrics,
    /// What its files were, by their stat.
    pub(crate) files: ResultFiles,
    /// Whether its record was looked at in this run. The next one looks at it again, whatever the stamp says.
    pub(crate) has_record: bool,
}

/// What distinguishes the files about a result from those that were written later, also in their place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResultFiles {
    record: Option<u64>,
    /// The head of its stage.
    head: Option<u64>,
    /// The link for people.
    link: Option<u64>,
}

impl ResultFiles {
    /// Whether each of them is known.
    pub(crate) fn are_known(&self) -> bool {
        self.record.is_some() && self.head.is_some() && self.link.is_some()
    }
}

impl Cache {
    /// Whether it is on a file system of this machine: what another process wrote is seen at once.
    pub(crate) fn is_local(&self) -> bool {
        is_local(self.layout().root())
    }

    /// The stamp of what the cache has now.
    pub(crate) fn stamp(&self, experiment: &str) -> Stamp {
        self.stamp_of(experiment, |_| None)
    }

    /// The same, where a folder that has just been changed gets a [time of its own](FolderStamp::mark).
    pub(crate) fn settled_stamp(&self, experiment: &str) -> Stamp {
        let root = self.layout().root();
        self.stamp_of(experiment, |folder| FolderStamp::mark(&root.join(folder)))
    }

    /// The stamp of what the cache has now. `of_new` is that of a folder of which there is none only because it has just been changed.
    fn stamp_of(&self, experiment: &str, of_new: impl Fn(&Path) -> Option<FolderStamp>) -> Stamp {
        let root = self.layout().root();
        let clock = Clock::of(root);
        let generation = self.generation();
        let Some(root) = open_folder(CWD, root) else {
            return Stamp { generation, ..Stamp::default() };
        };
        let of = |folder: PathBuf| {
            let stamp = FolderStamp::of(&root, &folder)?;
            match clock.is_past(&stamp) {
                true => Some(stamp),
                false => clock.is_exact(&stamp).then(|| of_new(&folder))?,
            }
        };
        Stamp { generation, folders: stamped(experiment).map(of).collect() }
    }

    /// Whether everything is there that is expected. `then` is the stamp of a moment at which it was; what has not changed
    /// until `now` is not looked at again.
    pub(crate) fn still_has(
        &self,
        expected: &ExpectedResults<'_>,
        then: &Stamp,
        now: &Stamp,
    ) -> bool {
        let is_same = |place| then.is_same(now, place);
        let (is_same_store, are_same_heads) = (is_same(STORE), is_same(HEADS));
        let are_same_links = is_same(LATEST);
        let Some(root) = Root::open(self.layout(), expected.experiment) else {
            return expected.results.is_empty();
        };
        let has_record = |one: &ExpectedResult<'_>| {
            let is_this = |now: &Record| {
                now.output.digest == *one.digest
                    && now.metrics == *one.metrics
                    && self.is_certain(now)
            };
            let is_same_shard = is_same(SHARDS + usize::from(one.key.shard()));
            is_same_shard && is_file(one.files.record, || root.record(one.key))
                || self.record(one.key).as_ref().is_some_and(is_this)
        };
        let has = |one: &ExpectedResult<'_>| {
            let (stage, experiment) = (one.stage.as_str(), expected.experiment);
            (one.has_record || has_record(one))
                && (are_same_heads
                    || is_file(one.files.head, || root.head(stage))
                    || self.head(experiment, stage) == Some(*one.key))
                && (are_same_links
                    || is_file(one.files.link, || root.link(stage))
                    || self.link(experiment, stage) == Some(*one.digest))
        };
        let has_all = || all_in_parallel(&expected.results, has);
        if is_same_store && are_same_links {
            return has_all();
        }
        let has_others = || {
            (is_same_store || root.has_artifacts(expected.results.iter().map(|one| one.digest)))
                && (are_same_links || self.are_all_links(expected))
        };
        let (has_others, has_all) = at_once(has_others, has_all);
        has_others && has_all
    }

    /// Whether there are no links beside those that are expected, which exist.
    fn are_all_links(&self, expected: &ExpectedResults<'_>) -> bool {
        let folder = self.layout().links(expected.experiment);
        let names = fs::read_dir(&folder).map(Iterator::count);
        let is_alike = names.ok() == Some(expected.results.len()) && !folder.is_symlink();
        // There may be something of people among them.
        let are_these = || {
            let wanted = expected.results.iter();
            let wanted = wanted.map(|one| (one.stage.to_string(), *one.digest)).collect();
            self.links_are_these(expected.experiment, &wanted)
        };
        expected.are_all && (is_alike || are_these())
    }

    /// What the records of these keys are now, and nothing else about their results.
    pub(crate) fn record_files<'k>(
        &self,
        keys: impl Iterator<Item = &'k StageKey>,
    ) -> Vec<ResultFiles> {
        let root = Root::open(self.layout(), "");
        let record = |key| root.as_ref().and_then(|root| root.record(key));
        keys.map(|key| ResultFiles { record: record(key), ..ResultFiles::default() }).collect()
    }

    /// What the files about these results are now: each has a stage and a key.
    pub(crate) fn result_files<'r>(
        &self,
        experiment: &str,
        results: impl Iterator<Item = (&'r str, &'r StageKey)>,
    ) -> Vec<ResultFiles> {
        let Some(root) = Root::open(self.layout(), experiment) else {
            return results.map(|_| ResultFiles::default()).collect();
        };
        let files = |(stage, key)| ResultFiles {
            record: root.record(key),
            head: root.head(stage),
            link: root.link(stage),
        };
        results.map(files).collect()
    }

    /// Keeps an index, and forgets the oldest where there are many.
    pub(crate) fn keep_index(&self, asked: &Digest, content: &[u8]) -> anyhow::Result<()> {
        ensure!(self.layout().version().exists(), "nothing has been kept in this cache yet");
        let folder = self.layout().bucket(Bucket::Indexes);
        let found = fs::read_dir(&folder).into_iter().flatten().flatten();
        let place = self.layout().index(asked);
        let mut others: Vec<_> = found
            .filter(|one| one.path() != place)
            .filter_map(|one| Some((one.metadata().ok()?.modified().ok()?, one.path())))
            .collect();
        others.sort_unstable();
        let too_many = (others.len() + 1).saturating_sub(MOST_INDEXES);
        others.iter().take(too_many).for_each(|(_, path)| durable::forget_file(path));
        durable::write_disposable(&place, content)
    }

    /// What was kept in an index. `None` where there is none, or something else is in its place.
    pub(crate) fn kept_index(&self, asked: &Digest) -> Option<Vec<u8>> {
        disk::read(&self.layout().index(asked), disk::LARGEST_LIST).ok()
    }

    /// What every index of this cache was made with, until something is removed.
    pub(crate) fn generation(&self) -> String {
        disk::read_text(&self.layout().generation()).unwrap_or_default()
    }
}

/// The folders of a cache, open, so that the system need not walk to them for each of thousands of files.
struct Root {
    folder: OwnedFd,
    /// Those of an experiment, where they exist.
    heads: Option<OwnedFd>,
    links: Option<OwnedFd>,
    store: Option<OwnedFd>,
    /// The paths below the first one.
    below: Layout,
}

impl Root {
    fn open(layout: &Layout, experiment: &str) -> Option<Self> {
        let folder = open_folder(CWD, layout.root())?;
        let [store, heads, links] =
            beside_records(experiment).map(|path| open_folder(&folder, &path));
        Some(Self { folder, heads, links, store, below: Layout::new(PathBuf::new()) })
    }

    /// Whether these are in the store. A list of it takes a part of the time that a look at each would.
    fn has_artifacts<'d>(&self, digests: impl Iterator<Item = &'d Digest>) -> bool {
        /// A list of a much larger store would take longer.
        const MOST: usize = 4;
        let mut missing: HashSet<String> = digests.map(Digest::to_string).collect();
        let Some(store) = &self.store else { return missing.is_empty() };
        let most = MOST * missing.len();
        for_each_folder_in(store, most, |name| {
            missing.remove(name);
        });
        // Not every file system says what is a folder.
        missing.into_iter().all(|name| stat_in(store, name).as_ref().is_some_and(is_folder))
    }

    /// A number for what the system knows of the record of a key without reading it.
    fn record(&self, key: &StageKey) -> Option<u64> {
        stat_in(&self.folder, self.below.record(key)).map(number)
    }

    /// The same of the head of a stage.
    fn head(&self, stage: &str) -> Option<u64> {
        stat_in(self.heads.as_ref()?, stage).map(number)
    }

    /// The same of the link of a stage.
    fn link(&self, stage: &str) -> Option<u64> {
        stat_in(self.links.as_ref()?, stage).map(number)
    }
}

fn open_folder(folder: impl AsFd, path: &Path) -> Option<OwnedFd> {
    const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    rustix::fs::openat(folder, path, FLAGS, Mode::empty()).ok()
}

/// Does this with the name of each of the first entries of a folder that its list says are folders: at most so many entries.
fn for_each_folder_in(folder: impl AsFd, most: usize, mut with: impl FnMut(&str)) {
    // One that is only a place cannot be listed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = rustix::fs::openat(folder, ".", flags, Mode::empty()).and_then(Dir::new);
    let entries = list.into_iter().flatten().take(most).map_while(Result::ok);
    for entry in entries.filter(|entry| entry.file_type() == FileType::Directory) {
        if let Ok(name) = entry.file_name().to_str() {
            with(name);
        }
    }
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn stat_in(folder: impl AsFd, path: impl Arg) -> Option<Stat> {
    statat(folder, path, AtFlags::SYMLINK_NOFOLLOW).ok()
}

#[allow(clippy::unnecessary_cast, reason = "other systems have other types")]
fn number(stat: Stat) -> u64 {
    let mut hasher = DefaultHasher::new();
    (stat.st_dev as u64, stat.st_ino as u64, stat.st_mode as u32, stat.st_size as i64)
        .hash(&mut hasher);
    for (seconds, rest) in
        [(stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)]
    {
        (seconds as i64, rest as i64).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a file is the one of this number.
fn is_file(number: Option<u64>, now: impl FnOnce() -> Option<u64>) -> bool {
    number.is_some() && now() == number
}

/// Before a record or an artifact is removed: no index counts any longer.
pub(super) fn begin_removal(layout: &Layout) -> anyhow::Result<()> {
    let time = seconds(clock_gettime(ClockId::Realtime));
    let text = format!("{}.{:09} {}\n", time.0, time.1, std::process::id());
    let written = durable::write_disposable(&layout.generation(), text.as_bytes());
    // On a full disk something is to be removed, too: there is room where the old one is.
    written.or_else(|error| {
        durable::overwrite(&layout.generation(), text.as_bytes()).map_err(|_| error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_changed_in_the_tick_of_the_clock_is_not_settled() {
        let clock = Clock { local: Some(1), coarse: (100, 4_000_000), now: 100 };
        for (device, changed, is_past) in [
            (1, (100, 3_999_999), true),
            (1, (100, 4_000_000), false),
            (1, (100, 5_000_000), false),
            (1, (99, 0), false),
            (1, (97, 0), true),
            (2, (99, 1), false),
            (2, (98, 1), false),
            (2, (97, 1), true),
        ] {
            let folder = FolderStamp { device, inode: 5, modified: (50, 1), changed };
            assert_eq!(clock.is_past(&folder), is_past, "{device} {changed:?}");
            let folder = FolderStamp { modified: changed, changed: (50, 1), ..folder };
            assert_eq!(clock.is_past(&folder), is_past, "{device} {changed:?}");
        }
    }

    #[test]
    fn after_a_removal_every_entry_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("cache")).expect("a cache");
        cache.prepare().expect("writable");
        let digest = crate::digest::FieldHasher::new("test").finish();
        let record = Record::for_test("a", Vec::new(), digest);
        record.write(&cache.layout().record(&record.key)).expect("writable");
        fs::create_dir(cache.artifact(&digest)).expect("writable");
        cache.set_head("test", "a", &record.key).expect("writable");
        cache.set_link("test", "a", &digest).expect("writable");
        let stage: StageName = "a".parse().expect("a name");
        let result = ExpectedResult {
            stage: &stage,
            key: &record.key,
            digest: &digest,
            metrics: &record.metrics,
            files: cache.result_files("test", [("a", &record.key)].into_iter())[0],
            has_record: false,
        };
        let expected = ExpectedResults { experiment: "test", results: vec![result], are_all: true };
        // As if all folders had been settled.
        let root = cache.layout().root();
        let all = stamped("test").map(|at| FolderStamp::of(CWD, &root.join(at)));
        let then = Stamp { generation: cache.generation(), folders: all.collect() };
        assert!(cache.still_has(&expected, &then, &then));
        fs::remove_dir(cache.artifact(&digest)).expect("ours");
        assert!(cache.still_has(&expected, &then, &then), "the folders say that nothing changed");
        begin_removal(cache.layout()).expect("writable");
        let now = Stamp { generation: cache.generation(), ..then.clone() };
        assert!(!cache.still_has(&expected, &then, &now));
    }

    #[test]
    fn the_list_of_a_folder_has_its_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "").expect("ours");
        fs::create_dir(folder.path().join("folder")).expect("ours");
        let place = open_folder(CWD, folder.path()).expect("it is there");
        let mut found = Vec::new();
        for_each_folder_in(&place, 9, |name| found.push(name.to_owned()));
        found.retain(|name| !name.starts_with('.'));
        // Where it does not say what is a folder, none.
        assert!(found == ["folder"] || !is_local(folder.path()), "{found:?}");
        for_each_folder_in(&place, 0, |name| panic!("{name}"));
    }

    #[test]
    fn artifacts_are_found_in_a_store_of_any_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("cache")).expect("a cache");
        cache.prepare().expect("writable");
        let digest = |number: u64| crate::digest::FieldHasher::new("test").number(number).finish();
        let wanted: Vec<_> = (0..20).map(digest).collect();
        // The store is much larger than what is asked for in the end.
        for others in [0..20, 100..120, 200..500] {
            let root = Root::open(cache.layout(), "test").expect("a cache");
            for number in others {
                assert_eq!(root.has_artifacts(wanted.iter()), number >= 20, "{number}");
                fs::create_dir(cache.artifact(&digest(number))).expect("writable");
            }
            assert!(root.has_artifacts(wanted.iter()));
        }
        let root = Root::open(cache.layout(), "test").expect("a cache");
        for (number, one) in wanted.iter().enumerate() {
            fs::remove_dir(cache.artifact(one)).expect("ours");
            assert!(!root.has_artifacts(wanted.iter()), "{number} is gone");
            fs::write(cache.artifact(one), "").expect("ours");
            assert!(!root.has_artifacts(wanted.iter()), "{number} is a file");
            fs::remove_file(cache.artifact(one)).expect("ours");
            fs::create_dir(cache.artifact(one)).expect("ours");
        }
        assert!(root.has_artifacts(wanted.iter()));
    }

    #[test]
    fn a_change_after_a_settled_stamp_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("cache")).expect("a cache");
        cache.prepare().expect("writable");
        let store = cache.layout().bucket(Bucket::Store);
        for number in 0..20 {
            let before = cache.settled_stamp("test");
            // On a file system that is not known, a folder that was just changed counts as changed.
            let was = before.folders[STORE];
            fs::create_dir(store.join(number.to_string())).expect("ours");
            assert!(was.is_none() || was != FolderStamp::of(CWD, &store), "{number}");
        }
    }
}
