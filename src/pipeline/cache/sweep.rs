//! Sweeping out what processes left behind that were killed.
//!
//! Work that was cut off can be large, so every run that has work to do looks for it. What a kill leaves in a
//! window of microseconds is small: once a day is enough. What can't be removed (another user's program
//! wrote it) is in nobody's way.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Cache, Lock, durable};
use crate::key::StageKey;

/// How often all of the cache is looked through.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A file under a temporary name gets its final one within moments. What is older than this, whatever two
/// machines that share the cache think of the time, belongs to a process that is gone.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What is in the lock of the sweep when a sweep has come to its end.
const SWEPT: &[u8] = b"swept\n";

/// Removes what is left of processes that are gone.
pub fn sweep(cache: &Cache) {
    sweep_work(cache);
    let place = cache.layout().lock("sweep");
    // Whoever has the lock sweeps already.
    if let Ok(Some(_lock)) = Lock::try_take(&place)
        && is_due(&place)
    {
        sweep_checkpoints(cache);
        sweep_new_files(cache);
        let _ = fs::write(&place, SWEPT);
    }
}

/// Work that was cut off: nobody has the lock of its name.
fn sweep_work(cache: &Cache) {
    for entry in fs::read_dir(cache.layout().tmp()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Ok(Some(_lock)) = Lock::try_take(&cache.layout().lock(&name)) {
            let _ = durable::remove_tree(&entry.path());
        }
    }
}

/// Checkpoints of stages that have finished, whose process was killed before it came to remove them. Those
/// of stages that have not are kept: their next run goes on from there.
fn sweep_checkpoints(cache: &Cache) {
    for entry in fs::read_dir(cache.layout().partials()).into_iter().flatten().flatten() {
        let Ok(key) = entry.file_name().to_string_lossy().parse::<StageKey>() else { continue };
        // Under the lock: nobody is about to resume from it.
        if let Ok(Some(_lock)) = cache.try_lock(&key)
            && cache.usable(&key).is_some()
        {
            let _ = durable::remove_tree(&entry.path());
        }
    }
}

/// New files and links that never got their final name.
fn sweep_new_files(cache: &Cache) {
    for folder in cache.layout().replaced_in() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_new = entry.file_name().to_string_lossy().starts_with(durable::NEW);
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_new && !is_folder && is_older(&entry.path(), ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn is_due(place: &Path) -> bool {
    let swept = fs::metadata(place).is_ok_and(|metadata| metadata.len() > 0);
    !swept || is_older(place, INTERVAL)
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let now = SystemTime::now();
    modified.is_ok_and(|then| now.duration_since(then).is_ok_and(|passed| passed > age))
}
