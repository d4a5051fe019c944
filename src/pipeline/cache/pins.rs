//! What must stay: a file for each process that uses a cache, with the keys and the artifacts that it uses.
//!
//! A pin counts as long as its process holds the lock of the file. Pins are begun and added to under the lock of all pins, which
//! they share for that moment; whoever cleans has it alone, from reading the pins until everything that goes has left its place.
//! So what somebody has pinned, and finds afterwards, stays. Nothing else needs a lock.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::fs::Mode;

use super::layout::{Bucket, Layout};
use super::lock::{Lock, Owner};
use super::{Cache, disk, durable};
use crate::digest::Digest;
use crate::key::StageKey;

/// Something that must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pinned {
    /// The record of a key, with its artifact, and what belongs to the work on it.
    Key(StageKey),
    Artifact(Digest),
    /// Whatever there is.
    Everything,
}

impl Pinned {
    pub(super) fn line(self) -> String {
        match self {
            Self::Key(key) => format!("key {key}\n"),
            Self::Artifact(digest) => format!("artifact {digest}\n"),
            Self::Everything => "everything\n".to_owned(),
        }
    }

    /// A line that is not known is of another version: everything may be meant.
    fn of_line(line: &str) -> Self {
        let known = match line.split_once(' ') {
            Some(("key", key)) => key.parse().ok().map(Self::Key),
            Some(("artifact", digest)) => digest.parse().ok().map(Self::Artifact),
            _ => None,
        };
        known.unwrap_or(Self::Everything)
    }
}

/// The pin of this process, once it has pinned something.
#[derive(Debug, Default)]
pub(super) struct OwnPin(Mutex<Option<Pin>>);

/// A pin: it ends when it is dropped.
#[derive(Debug)]
struct Pin {
    file: File,
    path: PathBuf,
    pinned: BTreeSet<Pinned>,
}

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
        let mut own = self.pin.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |one: &Pinned| own.as_ref().is_none_or(|own: &Pin| !own.pinned.contains(one));
        let new: BTreeSet<Pinned> = what.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        // Not before: a process that cleans must not take a pin that is just being made for one that is left over.
        let is_long = || self.say_who_cleans(say);
        let _pinning = Lock::take_shared(&pins_lock(&self.layout), is_long)?;
        let mut pin = match own.take() {
            Some(pin) => pin,
            None => Pin::begin(&self.layout)?,
        };
        let text: String = new.iter().map(|one| one.line()).collect();
        let added = disk::write(&pin.file, text.as_bytes());
        pin.pinned.extend(new.into_iter().filter(|_| added.is_ok()));
        *own = Some(pin);
        added.with_context(|| cannot_write(&self.layout))
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
        let _ = Lock::wait_for(&pins_lock(&self.layout), || self.say_who_cleans(say));
    }

    fn say_who_cleans(&self, say: impl FnOnce(&str)) {
        say(&format!("waits for {}, which cleans this cache", cleaner(&self.layout)));
    }

    /// Nothing that was pinned needs to stay any longer.
    pub(crate) fn unpin(&self) {
        drop(self.pin.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The lock of whoever cleans.
pub(super) fn cleaning_lock(layout: &Layout) -> PathBuf {
    layout.lock("gc")
}

/// Who cleans a cache now, in words.
pub(super) fn cleaner(layout: &Layout) -> String {
    let owner = fs::read(cleaning_lock(layout)).ok();
    let owner: Option<Owner> = owner.and_then(|text| serde_json::from_slice(&text).ok());
    owner.map_or("another process".to_owned(), |owner| owner.to_string())
}

/// Shared by those who pin, for a moment; taken alone by those who clean.
pub(super) fn pins_lock(layout: &Layout) -> PathBuf {
    layout.lock("pins")
}

impl Pin {
    fn begin(layout: &Layout) -> anyhow::Result<Self> {
        // Whoever only reads a cache of a group may be the first one who pins.
        if durable::is_shared(layout.root()) {
            durable::share_new_files();
        }
        let folder = layout.bucket(Bucket::Pins);
        durable::create_folder(&folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let mut names = (0..u32::MAX).map(|number| {
            folder.join(format!("{}-{:x}-{number}", std::process::id(), now & 0xffff_ffff))
        });
        let begin = |path: &Path| -> io::Result<File> {
            // Whoever cleans may read it from the first moment on.
            let mode = if durable::is_shared(&folder) { 0o664 } else { 0o644 };
            let file = disk::create_file(path, mode)?;
            // Somebody who only looks may try it at this moment.
            disk::lock(&file)?;
            disk::set_mode(&file, Mode::from_raw_mode(mode))?;
            let owner = serde_json::to_string(&Owner::this_process()).unwrap_or_default();
            disk::write(&file, format!("{owner}\n").as_bytes())?;
            Ok(file)
        };
        loop {
            let Some(path) = names.next() else { bail!("no free name in {}", folder.display()) };
            match begin(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Ok(file) => return Ok(Self { file, path, pinned: BTreeSet::new() }),
                Err(error) => {
                    durable::forget_file(&path);
                    return Err(error).with_context(|| cannot_write(layout));
                }
            }
        }
    }
}

fn cannot_write(layout: &Layout) -> String {
    format!("cannot write into {}", layout.bucket(Bucket::Pins).display())
}

impl Drop for Pin {
    fn drop(&mut self) {
        durable::forget_file(&self.path);
    }
}

/// The pins that count. Those of processes that are gone are removed, for whoever has the lock of all pins alone (`sweeps`).
///
/// # Errors
/// When it is not certain what is pinned.
pub(super) fn read_pins(layout: &Layout, sweeps: bool) -> anyhow::Result<Vec<LivePin>> {
    let folder = layout.bucket(Bucket::Pins);
    let cannot_read =
        |path: &Path| format!("cannot read {}, where a process says what it uses", path.display());
    let listing = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.with_context(|| cannot_read(&folder))?),
    };
    let mut live = Vec::new();
    for entry in listing.into_iter().flatten() {
        let path = entry.with_context(|| cannot_read(&folder))?.path();
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
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
    let listing = match fs::read_dir(layout.bucket(Bucket::Jobs)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut live = Vec::new();
    for entry in listing {
        let entry = entry?;
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
    use super::*;
    use crate::digest::Encoder;

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
        let digest = Encoder::new("test").finish();
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
