//! What must stay: a file for each process that uses a cache, with the keys and the artifacts that it uses.
//!
//! A pin counts as long as its process holds the lock of the file. Pins are begun and added to under the lock of all pins, which
//! they share for that moment; whoever cleans has it alone, from reading the pins until everything that goes has left its place.
//! So what somebody has pinned, and finds afterwards, stays. Nothing else needs a lock.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

use super::layout::{Bucket, Layout};
use super::lock::{LONG, Lock, Owner};
use super::opened::Cache;
use super::own_pin::{Pin, Pinned, cannot_write};
use super::{disk, durable};
use crate::key::StageKey;

/// A pin that counts.
#[derive(Debug)]
pub(super) struct LivePin {
    /// Whose it is, in words.
    pub(super) by: String,
    pub(super) pinned: Vec<Pinned>,
}

impl Cache {
    /// Keeps these from being cleaned away, until [`Cache::unpin`], or the end of this process. Whether they still exist is to
    /// be looked at afterwards. `say` as for [`Cache::wait_for_cleaning`].
    ///
    /// # Errors
    /// When the cache cannot be written. They may be cleaned away then.
    pub(crate) fn pin(
        &self,
        what: impl IntoIterator<Item = Pinned>,
        say: impl FnOnce(&str),
    ) -> anyhow::Result<()> {
        self.pin_while(what, &mut always(say)).map(drop)
    }

    /// The same for as long as `waits_on` says, which is asked again and again while somebody cleans, once with a line about who that
    /// is. Returns whether they are kept.
    ///
    /// # Errors
    /// As [`pin`](Self::pin).
    pub(crate) fn pin_while(
        &self,
        what: impl IntoIterator<Item = Pinned>,
        waits_on: &mut dyn FnMut(Option<&str>) -> bool,
    ) -> anyhow::Result<bool> {
        let is_new = |own: &Option<Pin>, one: &Pinned| {
            own.as_ref().is_none_or(|own| !own.pinned.contains(one))
        };
        let own = self.own_pin();
        let mut new: BTreeSet<Pinned> = what.into_iter().filter(|one| is_new(&own, one)).collect();
        // Other threads go on while this one waits.
        drop(own);
        if new.is_empty() {
            return Ok(true);
        }
        // Not before: a process that cleans must not take a pin that is just being made for one that is left over.
        let mut waits_on = self.with_cleaner(waits_on);
        let Some(_pinning) = Lock::share_while(&pins_lock(&self.layout), &mut waits_on)? else {
            return Ok(false);
        };
        let mut own = self.own_pin();
        new.retain(|one| is_new(&own, one));
        let mut pin = match own.take() {
            Some(pin) => pin,
            None => Pin::begin(&self.layout)?,
        };
        let text: String = new.iter().map(|one| one.line()).collect();
        let added = disk::write(&pin.file, text.as_bytes());
        pin.pinned.extend(new.into_iter().filter(|_| added.is_ok()));
        *own = Some(pin);
        added.with_context(|| cannot_write(&self.layout))?;
        Ok(true)
    }

    /// Keeps everything from being cleaned away while it is read. A cache that cannot be written is read without that. `say` as
    /// for [`Cache::wait_for_cleaning`].
    pub(crate) fn pin_everything(&self, say: impl FnOnce(&str)) {
        if self.layout.version().exists() {
            let _ = self.pin([Pinned::Everything], say);
        }
    }

    /// Waits until what somebody is just cleaning away has left its place. Where that takes long, `say` gets a line about who it
    /// is: that process may be suspended.
    pub(crate) fn wait_for_cleaning(&self, say: impl FnOnce(&str)) {
        let mut waits_on = always(say);
        let _ = Lock::wait_for(&pins_lock(&self.layout), &mut self.with_cleaner(&mut waits_on));
    }

    /// Whoever waits for a lock, told once by whom that is held where it takes long.
    fn with_cleaner(
        &self,
        waits_on: &mut dyn FnMut(Option<&str>) -> bool,
    ) -> impl FnMut(Duration) -> bool {
        let mut has_said = false;
        move |waited| {
            let is_long = waited >= LONG && !std::mem::replace(&mut has_said, waited >= LONG);
            let text = || format!("waits for {}, which cleans this cache", cleaner(&self.layout));
            waits_on(is_long.then(text).as_deref())
        }
    }

    fn own_pin(&self) -> MutexGuard<'_, Option<Pin>> {
        self.pin.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing that was pinned needs to stay any longer.
    pub(crate) fn unpin(&self) {
        drop(self.own_pin().take());
    }
}

/// Waits for as long as it takes, and passes a line on.
fn always(say: impl FnOnce(&str)) -> impl FnMut(Option<&str>) -> bool {
    let mut say = Some(say);
    move |text| {
        if let Some(text) = text
            && let Some(say) = say.take()
        {
            say(text);
        }
        true
    }
}

/// The lock of whoever cleans.
pub(super) fn cleaning_lock(layout: &Layout) -> PathBuf {
    layout.lock("gc")
}

/// Who cleans a cache now, in words.
pub(super) fn cleaner(layout: &Layout) -> String {
    let owner = disk::read(&cleaning_lock(layout), disk::LARGEST_TEXT).ok();
    let owner: Option<Owner> = owner.and_then(|text| serde_json::from_slice(&text).ok());
    owner.map_or("another process".to_owned(), |owner| owner.to_string())
}

/// Shared by those who pin, for a moment; taken alone by those who clean.
pub(super) fn pins_lock(layout: &Layout) -> PathBuf {
    layout.lock("pins")
}

/// The pins that count. Those of processes that are gone are removed, for whoever has the lock of all pins alone (`sweeps`).
///
/// # Errors
/// When it is not certain what is pinned.
pub(super) fn read_pins(layout: &Layout, sweeps: bool) -> anyhow::Result<Vec<LivePin>> {
    let folder = layout.bucket(Bucket::Pins);
    let cannot_read =
        |path: &Path| format!("cannot read {}, where a process says what it uses", path.display());
    let mut live = Vec::new();
    for entry in disk::entries(&folder).with_context(|| cannot_read(&folder))? {
        let path = entry.path();
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open(&path);
        let mut file = match file {
            // It has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.with_context(|| cannot_read(&path))?,
        };
        match file.try_lock_shared() {
            Ok(()) if sweeps => durable::forget_file(&path),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = Vec::new();
                file.read_to_end(&mut text).with_context(|| cannot_read(&path))?;
                live.push(LivePin::of_process(&String::from_utf8_lossy(&text)));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| cannot_read(&path));
            }
        }
    }
    // After those of processes: whoever makes a job has pinned the same until then.
    live.extend(job_pins(layout).with_context(|| cannot_read(&layout.bucket(Bucket::Jobs)))?);
    Ok(live)
}

/// The pins of jobs that run elsewhere, or wait there.
fn job_pins(layout: &Layout) -> io::Result<Vec<LivePin>> {
    let mut live = Vec::new();
    for entry in disk::entries(&layout.bucket(Bucket::Jobs))? {
        if entry.file_name().to_str().is_none_or(|name| name.parse::<StageKey>().is_err()) {
            continue;
        }
        let place = entry.path();
        let text = disk::read_text(&place.join("pins"));
        // It has just ended.
        if text.is_err() && !place.exists() {
            continue;
        }
        let pinned = match text {
            Ok(text) => text.lines().map(Pinned::of_line).collect(),
            Err(_) => vec![Pinned::Everything],
        };
        live.push(LivePin { by: format!("the job {}", place.display()), pinned });
    }
    Ok(live)
}

impl LivePin {
    fn of_process(text: &str) -> Self {
        let owner = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
        let by = owner.map_or("a process".to_owned(), |owner: Owner| owner.to_string());
        let pinned = text.lines().skip(1).map(Pinned::of_line).collect();
        Self { by, pinned }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::digest::FieldHasher;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        (folder, cache)
    }

    fn pins(cache: &Cache) -> Vec<Vec<Pinned>> {
        let pins = read_pins(cache.layout(), true).expect("readable");
        pins.into_iter().map(|pin| pin.pinned).collect()
    }

    #[test]
    fn a_pin_counts_until_its_process_is_done() {
        let (_folder, cache) = cache();
        let digest = FieldHasher::new("test").finish();
        let (key, artifact) = (Pinned::Key(StageKey::of(&[])), Pinned::Artifact(digest));
        cache.pin([key], |_| {}).expect("writable");
        // Clones share it.
        let clone = cache.clone();
        clone.pin([artifact, key], |_| {}).expect("writable");
        assert_eq!(pins(&cache), [[key, artifact]]);
        let by = read_pins(cache.layout(), true).expect("readable").remove(0).by;
        assert_eq!(by, Owner::this_process().to_string());
        let other = Cache::open(cache.layout().root()).expect("a cache");
        other.pin([Pinned::Everything], |_| {}).expect("writable");
        assert_eq!(pins(&cache).len(), 2);
        cache.unpin();
        assert_eq!(pins(&cache), [[Pinned::Everything]]);
        drop(other);
        assert!(pins(&cache).is_empty());
        let left = fs::read_dir(cache.layout().bucket(Bucket::Pins)).expect("a folder").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn what_a_process_left_that_was_killed_is_swept() {
        let (_folder, cache) = cache();
        cache.pin([Pinned::Everything], |_| {}).expect("writable");
        let path = cache.pin.0.lock().expect("ours").as_ref().expect("a pin").path.clone();
        cache.unpin();
        durable::write_disposable(&path, b"{}\neverything\n").expect("writable");
        assert!(read_pins(cache.layout(), false).expect("readable").is_empty());
        assert!(path.exists(), "whoever only looks removes nothing");
        assert!(pins(&cache).is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn a_line_that_is_not_known_may_mean_everything() {
        let key = StageKey::of(&[]);
        let text = format!("{{}}\nkey {key}\nkey 12\n\nlease x\n");
        let pin = LivePin::of_process(&text);
        let all = [Pinned::Everything; 3];
        assert_eq!(pin.pinned, [&[Pinned::Key(key)][..], &all].concat());
        assert_eq!(pin.by, "a process");
        assert!(LivePin::of_process("").pinned.is_empty());
    }

    #[test]
    fn whoever_only_looks_is_in_nobodys_way() {
        let (_folder, cache) = cache();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    read_pins(cache.layout(), false).expect("readable");
                }
            });
            let pinned: Vec<_> = (0..2000)
                .map(|_| {
                    let other = Cache::open(cache.layout().root()).expect("a cache");
                    other.pin([Pinned::Everything], |_| {})
                })
                .collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            pinned.into_iter().for_each(|pinned| pinned.expect("writable"));
        });
    }

    #[test]
    fn nobody_pins_while_somebody_cleans() {
        let (_folder, cache) = cache();
        let alone = Lock::take(&pins_lock(cache.layout())).expect("writable");
        let clone = cache.clone();
        let pinning = std::thread::spawn(move || clone.pin([Pinned::Everything], |_| {}));
        // It cannot have pinned, whether or not it has come to the lock yet.
        assert!(pins(&cache).is_empty());
        drop(alone);
        pinning.join().expect("no panic").expect("writable");
        assert_eq!(pins(&cache), [[Pinned::Everything]]);
    }
}
