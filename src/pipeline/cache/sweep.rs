//! Sweeping out what killed processes left behind.
//!
//! Work that was cut off can be large, so every run that has work to do looks for it. What a kill leaves in a
//! window of microseconds is small: once a day is enough. Only what this tool made is removed: a folder (never a
//! link) whose name begins with that of a key, and whose lock exists. What cannot be removed (another user's program
//! wrote it) is in nobody's way.

use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::jobs::JobFolder;
use super::jobs::LEFT;
use super::layout::Bucket;
use super::lock::Lock;
use super::opened::Cache;
use super::pins::{pins_lock, read_pins};
use super::work::{discard, lock_name};
use super::{cleaning, disk, durable, store};
use crate::digest::Digest;
use crate::key::StageKey;

/// How often all of the cache is looked through.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A file under a temporary name gets its final one within moments. What is older than this, whatever two
/// machines that share the cache think of the time, belongs to a process that is gone.
const ABANDONED: Duration = Duration::from_secs(3600);

/// So long after its end, nobody comes to see how a job elsewhere ended: its manifest was edited since, or is gone. Its result stays.
const UNSEEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is in the lock of the sweep when a sweep has come to its end.
pub(super) const SWEPT: &[u8] = b"swept\n";

/// Removes what is left of processes that are gone.
pub(crate) fn sweep(cache: &Cache) {
    sweep_work(cache);
    cleaning::sweep_trash(cache.layout(), false);
    let place = cache.layout().lock("sweep");
    // Whoever has the lock sweeps already.
    if let Ok(Some(lock)) = Lock::try_take(&place)
        && is_due(&place)
    {
        sweep_checkpoints(cache);
        sweep_jobs(cache);
        sweep_running(cache);
        sweep_copies(cache);
        sweep_new_files(cache);
        sweep_links(cache);
        sweep_pins(cache);
        cleaning::sweep_trash(cache.layout(), true);
        let _ = lock.write(SWEPT);
    }
}

/// What is in a bucket.
fn entries(cache: &Cache, bucket: Bucket) -> impl Iterator<Item = DirEntry> {
    fs::read_dir(cache.layout().bucket(bucket)).into_iter().flatten().flatten()
}

/// The folders in a bucket, each with its name. No links.
fn folders(cache: &Cache, bucket: Bucket) -> impl Iterator<Item = (String, DirEntry)> {
    let all = entries(cache, bucket);
    let folders = all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry)))
}

/// Work that was cut off: nobody has the lock of its name.
fn sweep_work(cache: &Cache) {
    // All of them first: each gets another name.
    for (name, entry) in folders(cache, Bucket::Tmp).collect::<Vec<_>>() {
        if let Some(name) = lock_name(&name)
            && let Ok(Some(_lock)) = Lock::try_take_existing(&cache.layout().lock(name))
        {
            discard(cache.layout(), &entry.path(), name);
        }
    }
}

/// Checkpoints of stages that have finished, whose process was killed before it came to remove them. Those
/// of stages that have not are kept: their next run continues from there.
fn sweep_checkpoints(cache: &Cache) {
    for (name, entry) in folders(cache, Bucket::Partial) {
        // One that was to be removed.
        if name.starts_with(durable::NEW) && is_older(&entry.path(), ABANDONED) {
            let _ = durable::remove_tree(&entry.path());
        }
        let Ok(key) = name.parse::<StageKey>() else { continue };
        // Under the lock: nobody is about to resume from it.
        if let Ok(Some(_lock)) = Lock::try_take_existing(&cache.layout().lock(&name))
            && cache.usable(&key).is_some()
        {
            let _ = durable::remove_tree(&entry.path());
        }
    }
}

/// Jobs elsewhere that have ended and that nobody asks for, or that were never submitted; and what is left of those whose removal, or making, was cut off.
pub(super) fn sweep_jobs(cache: &Cache) {
    for (name, entry) in folders(cache, Bucket::Jobs) {
        if name.starts_with(durable::NEW) && is_older(&entry.path(), ABANDONED) {
            let _ = durable::remove_tree(&entry.path());
        }
        let Ok(key) = name.parse::<StageKey>() else { continue };
        // Under the lock: nobody follows it from here on. A run that would submit it makes it again.
        if let Ok(Some(_lock)) = cache.lock_job(&key)
            && let Some(job) = cache.job(&key)
            && (is_older(&job.ended(), UNSEEN) || was_never_submitted(&job))
        {
            let _ = job.remove();
        }
    }
    for entry in entries(cache, Bucket::Jobs) {
        let name = entry.file_name();
        let left = name.to_str().and_then(|name| name.strip_prefix(LEFT));
        if left.is_some_and(|left| is_older(&entry.path(), UNSEEN) && !is_needed(cache, left)) {
            durable::forget_file(&entry.path());
        }
    }
}

/// Whether a job names what was kept under this name: it may have waited in its queue for longer than that is kept.
fn is_needed(cache: &Cache, left: &str) -> bool {
    // What cannot be read may name it.
    let Ok(jobs) = disk::entries(&cache.layout().bucket(Bucket::Jobs)) else { return true };
    let keys = jobs.iter().filter_map(|job| job.file_name().to_str()?.parse().ok());
    let mut specs = keys.map(|key: StageKey| disk::read_text(&cache.job_place(&key).spec()));
    specs.any(|spec| match spec {
        Ok(spec) => spec.contains(left),
        Err(error) => !store::is_absence(&error),
    })
}

/// Whether whoever made it was killed before its scheduler had it. Where that was asked to take it, and the answer is lost, it may wait there.
fn was_never_submitted(job: &JobFolder) -> bool {
    let age = if matches!(job.handed_over(), Ok(None)) { ABANDONED } else { UNSEEN };
    !job.was_submitted() && !job.has_begun() && is_older(&job.spec(), age)
}

/// What is said of keys that nothing works on and that have a result.
fn sweep_running(cache: &Cache) {
    for key in cache.running_keys() {
        if let Ok(Some(_lock)) = Lock::try_take_existing(&cache.layout().lock(&key.to_string()))
            && cache.usable(&key).is_some()
        {
            let _ = disk::remove_file(&cache.layout().running(&key));
        }
    }
}

/// Copies of artifacts that never got their final name.
fn sweep_copies(cache: &Cache) {
    for (name, entry) in folders(cache, Bucket::Store) {
        let Some(digest) = name.strip_prefix(durable::NEW) else { continue };
        let lock = cache.layout().lock(&format!("store-{digest}"));
        if digest.parse::<Digest>().is_ok()
            && let Ok(Some(_lock)) = Lock::try_take_existing(&lock)
        {
            let _ = durable::remove_tree(&entry.path());
        }
    }
}

/// Folders of links that never took their place, or the old ones that did not come to be removed.
fn sweep_links(cache: &Cache) {
    for (name, entry) in folders(cache, Bucket::Latest) {
        if name.starts_with(durable::NEW) && is_older(&entry.path(), ABANDONED) {
            super::latest::remove_links(&entry.path());
        }
    }
}

/// Pins of processes that are gone.
fn sweep_pins(cache: &Cache) {
    if let Ok(Some(_alone)) = Lock::try_take_existing(&pins_lock(cache.layout())) {
        let _ = read_pins(cache.layout(), true);
    }
}

/// New files and links that never got their final name.
pub(super) fn sweep_new_files(cache: &Cache) {
    let links = cache.layout().bucket(Bucket::Latest);
    for folder in cache.layout().replaced_in() {
        let has_links = folder.starts_with(&links);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_new = entry.file_name().to_string_lossy().starts_with(durable::NEW);
            // Files of people may be behind a bucket that is a link.
            let is_ours = entry
                .file_type()
                .is_ok_and(|kind| if has_links { kind.is_symlink() } else { kind.is_file() });
            if is_new && is_ours && is_older(&entry.path(), ABANDONED) {
                let _ = disk::remove_file(&entry.path());
            }
        }
    }
}

pub(super) fn is_due(place: &Path) -> bool {
    let swept = fs::metadata(place).is_ok_and(|metadata| metadata.len() > 0);
    !swept || is_older(place, INTERVAL) || is_in_future(place)
}

/// Whether something is said to have changed in the future, by a clock that was set back since: it would not get older.
fn is_in_future(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let ahead = modified.ok().and_then(|then| then.duration_since(SystemTime::now()).ok());
    ahead.is_some_and(|ahead| ahead > ABANDONED)
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let now = SystemTime::now();
    modified.is_ok_and(|then| now.duration_since(then).is_ok_and(|passed| passed > age))
}
