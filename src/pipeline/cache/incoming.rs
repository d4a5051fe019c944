//! Results from elsewhere: an artifact is received in a work folder, and counts once all of its bytes are those that its record names.
//!
//! Does not depend on where it comes from.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::claim::Committed;
use super::entry::EntryKind;
use super::file_digest::Watch;
use super::layout::Bucket;
use super::listing::Listing;
use super::lock::Lock;
use super::opened::Cache;
use super::own_pin::Pinned;
use super::record::Record;
use super::work::WorkFolder;
use super::{disk, durable, store};
use crate::digest::Digest;

/// What a cache has for a record from elsewhere.
#[derive(Debug)]
pub(crate) enum Reception {
    /// A result of the key: the own one counts.
    Hit(Box<Record>),
    /// Another process works on the key.
    Busy,
    /// Nothing: the artifact may be written now.
    Ready(Box<Incoming>),
}

/// The right to record a result from elsewhere under its key, and the folder for its artifact.
#[derive(Debug)]
pub(crate) struct Incoming {
    cache: Cache,
    record: Record,
    work: WorkFolder,
    /// The artifact is here already, with all of its bytes: another key has it, too.
    is_sound_here: bool,
}

/// What became of a result from elsewhere.
#[derive(Debug)]
pub(crate) enum Adopted {
    /// It counts here.
    Counts(Box<Committed>),
    /// What was written is not the artifact of the record.
    OtherBytes,
}

/// A file of an artifact that is received.
#[derive(Debug)]
pub(crate) struct IncomingFile(File);

/// A large content that is received beside the artifact. What has arrived of it stays where its process is killed or its source goes away,
/// until the key has a result or it is cleaned away by age, and is checked like everything else of whoever continues.
///
/// Each has a file of its own, also one that continues: what a process that was thought to be gone still writes is in no artifact.
#[derive(Debug)]
pub(crate) struct KeptFile {
    pub(crate) file: IncomingFile,
    place: PathBuf,
    /// What has arrived earlier.
    earlier: Option<PathBuf>,
}

impl KeptFile {
    /// What has arrived earlier, and how many bytes that are.
    pub(crate) fn earlier(&self) -> Option<(File, u64)> {
        disk::open_file(self.earlier.as_ref()?).ok()
    }

    /// Whether something has arrived earlier.
    pub(crate) fn is_continued(&self) -> bool {
        self.earlier.is_some()
    }

    /// All of what arrived earlier is in the new file.
    pub(crate) fn forget_earlier(&self) {
        self.earlier.iter().for_each(|place| durable::forget_file(place));
    }

    /// Nobody is to continue it.
    pub(crate) fn forget(&self) {
        self.forget_earlier();
        durable::forget_file(&self.place);
    }
}

impl IncomingFile {
    /// Adds bytes to it.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        disk::write(&self.0, bytes)
    }
}

impl Cache {
    /// Prepares to receive the artifact of a record from elsewhere.
    ///
    /// # Errors
    /// When the cache cannot be written, or the record of the key was withdrawn here: such a one never comes back by itself.
    pub(crate) fn receive(&self, record: &Record) -> anyhow::Result<Reception> {
        let key = record.key;
        self.pin([Pinned::Key(key), Pinned::Artifact(record.output.digest)], |_| {})?;
        let name = key.to_string();
        let Some(lock) = Lock::try_take(&self.layout.lock(&name))? else {
            return Ok(Reception::Busy);
        };
        if let Some(own) = self.usable(&key) {
            return Ok(Reception::Hit(Box::new(own)));
        }
        self.refuse_withdrawn(record)?;
        let work = WorkFolder::make(&self.layout, &name, lock)?;
        // By its bytes: a power cut may have torn what was recorded without waiting for the disk. What is damaged here is replaced.
        let artifact = &record.output;
        let is_sound_here = store::holds(&self.layout, artifact)
            && store::is_intact(&self.layout, &artifact.digest)?;
        Ok(Reception::Ready(Box::new(Incoming {
            cache: self.clone(),
            record: record.clone(),
            work,
            is_sound_here,
        })))
    }

    fn refuse_withdrawn(&self, record: &Record) -> anyhow::Result<()> {
        let why = self.why_withdrawn(&record.key).with_context(|| {
            let folder = self.layout.withdrawn_records();
            format!(
                "cannot look into {}: whether the result of {} was withdrawn here is not known",
                folder.display(),
                record.name()
            )
        })?;
        ensure!(
            why.is_none(),
            "the result of {} was withdrawn here, and does not come back by itself",
            record.name()
        );
        Ok(())
    }

    /// The files of at least this many bytes in the store, by their content. What a listing says of its artifact is not checked.
    pub(crate) fn stored_files(&self, at_least: u64) -> HashMap<Digest, PathBuf> {
        let list = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
        let shards = list(self.layout.bucket(Bucket::Listings));
        let paths = shards.flat_map(|shard| list(shard.path())).map(|file| file.path());
        let mut files = HashMap::new();
        for path in paths {
            let digest: Option<Digest> =
                path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            let Some(digest) = digest.filter(|digest| self.has_artifact(digest)) else { continue };
            let Some(listing) = Listing::read(&path, &digest) else { continue };
            let top = self.artifact(&digest);
            for (path, kind, content) in listing.entries() {
                if let (EntryKind::File { bytes, .. }, Some(content)) = (kind, content)
                    && *bytes >= at_least
                {
                    files.insert(*content, top.join(path));
                }
            }
        }
        files
    }

    /// The files of an artifact in the store, each with its digest: as they were when it was made, or else as they are.
    pub(crate) fn listing(&self, digest: &Digest) -> anyhow::Result<Listing> {
        match Listing::read(&self.layout.listing(digest), digest) {
            Some(listing) => Ok(listing),
            None => Listing::of(&self.artifact(digest)),
        }
    }
}

impl Incoming {
    /// The record.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Whether nothing needs to be written, as the store has the artifact.
    pub(crate) fn is_sound_here(&self) -> bool {
        self.is_sound_here
    }

    /// Makes a folder of the artifact.
    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        disk::create_folder(&self.work.output().join(path))
    }

    /// Makes a link of the artifact.
    pub(crate) fn create_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        disk::create_link(target, &self.work.output().join(path))
    }

    /// Makes a file of the artifact, which is empty.
    pub(crate) fn create_file(&self, path: &Path, executable: bool) -> io::Result<IncomingFile> {
        let place = self.work.output().join(path);
        disk::create_file(place.as_path(), mode_of(executable)).map(IncomingFile)
    }

    /// Begins to keep a content of this name, which is to be a file of the artifact, or what one is made of.
    pub(crate) fn keep(&self, name: &str, executable: bool) -> anyhow::Result<KeptFile> {
        let folder = self.cache.layout.partial(&self.record.key);
        durable::create_own_folder(&folder)?;
        let begins = format!("{name}-");
        let found = disk::certain_entries(&folder)?.into_iter().filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.starts_with(&begins))
        });
        let found = found.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())));
        let mut found: Vec<(PathBuf, u64)> = found.collect();
        found.sort_by_key(|(_, bytes)| *bytes);
        let earlier = found.pop().map(|(place, _)| place);
        found.iter().for_each(|(place, _)| durable::forget_file(place));
        let place = folder.join(begins + &durable::unique_name());
        let file = disk::create_file(place.as_path(), mode_of(executable))?;
        Ok(KeptFile { file: IncomingFile(file), place, earlier })
    }

    /// Makes what was kept, and is whole, a file of the artifact.
    pub(crate) fn place(&self, kept: &KeptFile, path: &Path, executable: bool) -> io::Result<()> {
        match disk::rename(kept.place.as_path(), self.work.output().join(path).as_path()) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                disk::copy(&disk::open(&kept.place)?, &self.create_file(path, executable)?.0)?;
                kept.forget();
                Ok(())
            }
            renamed => renamed,
        }
    }

    /// Makes a file of the artifact with the bytes of another one.
    pub(crate) fn copy_file(&self, from: &Path, to: &Path, executable: bool) -> io::Result<()> {
        let from = File::open(self.work.output().join(from))?;
        disk::copy(&from, &self.create_file(to, executable)?.0)
    }

    /// Removes a file that turned out to have other bytes.
    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        disk::remove_file(&self.work.output().join(path))
    }

    /// Moves the artifact into the store and records the result, if each byte is as the record says.
    ///
    /// # Errors
    /// When the cache cannot be written. Nothing is recorded then.
    pub(crate) fn adopt(&self) -> anyhow::Result<Adopted> {
        let Self { cache, record, work, is_sound_here } = self;
        let layout = &cache.layout;
        let mut withdrawn = Vec::new();
        if *is_sound_here {
            // Whoever put it there may not have waited for the disk.
            store::sync_artifact(layout, &record.output.digest)?;
        } else {
            let mut is_other = false;
            let check = |digest: &Digest| {
                is_other = *digest != record.output.digest;
                ensure!(!is_other, "it has other bytes than its record says");
                Ok(())
            };
            let committed = store::commit(layout, work, &Watch::default(), true, check, |digest| {
                let (withdrawal, all) = cache.begin_withdrawal(&[*digest])?;
                withdrawn = all;
                Ok(withdrawal)
            });
            match committed {
                Err(_) if is_other => return Ok(Adopted::OtherBytes),
                other => other?,
            };
        }
        // Meanwhile nothing is withdrawn.
        let _held = cache.hold_inputs(&[])?;
        cache.refuse_withdrawn(record)?;
        let record = record.for_others();
        record
            .write(&layout.record(&record.key))
            .with_context(|| format!("cannot record the result of {}", record.name()))?;
        let kept = layout.partial(&record.key);
        if kept.is_dir() {
            // Where it has checkpoints, the sweep removes it.
            let _ = disk::remove_folder(&kept);
        }
        Ok(Adopted::Counts(Box::new(Committed { record, withdrawn })))
    }
}

/// The permissions of a new file.
fn mode_of(executable: bool) -> u32 {
    if executable { 0o777 } else { 0o666 }
}
