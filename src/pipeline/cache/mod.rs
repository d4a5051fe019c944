//! The cache: artifacts under the digest of their content, and a record for each stage key.
//!
//! Killed anywhere, it holds the old state or the new one. Files are the truth; the stat index is disposable.
//! Does not depend on how a stage is run.

mod claim;
mod cleaning;
mod damage;
mod disk;
mod durability;
mod durable;
mod entry;
mod file_digest;
mod file_system;
mod folder;
mod history;
mod incoming;
mod jobs;
mod latest;
mod layout;
mod lazy_run;
mod limit;
mod listing;
mod lock;
mod opened;
mod own_pin;
mod parallel;
mod pins;
mod reach;
mod record;
mod remote_records;
mod snapshot;
mod stamp;
mod stat;
mod stat_index;
mod store;
mod stored;
mod sweep;
#[cfg(test)]
mod tests;
mod verify;
mod withdrawal;
mod work;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use pipeline_stages::known::Known;
use pipeline_stages::{ArtifactType, checkpoint};

pub(crate) use claim::{Claim, Committed, ExecutionFacts, Lookup, NotCommitted};
pub(crate) use cleaning::{
    Cleaned, Contents, EarlierLook, Fate, Item, Need, Uses, What, Why, Wish,
};
pub(crate) use damage::{InputFolder, Quarantined};
pub(crate) use disk::{LARGEST_TEXT, read as read_file};
pub(crate) use durability::{Durability, boot};
pub(crate) use durable::{create_folder, forget_file, write_disposable};
pub(crate) use entry::EntryKind;
#[cfg(test)]
pub(crate) use entry::Extent;
pub(crate) use file_digest::{Watch, digest_open_file};
pub(crate) use history::Journal;
pub(crate) use incoming::{Adopted, Incoming, KeptFile, Reception};
pub(crate) use jobs::{JobFolder, JobJournal, SpecStamp};
pub(crate) use latest::Links;
pub(crate) use layout::{Bucket, Document, Layout, VERSION};
pub(crate) use limit::Limit;
pub(crate) use listing::Listing;
pub(crate) use lock::{Lock, Owner, now};
pub(crate) use opened::Cache;
pub(crate) use own_pin::Pinned;
pub(crate) use parallel::{at_once, on_threads};
pub(crate) use record::{KnownResult, Record, Unreadable};
pub(crate) use snapshot::{ReadPath, Snapshot, Touch};
pub(crate) use stamp::{ExpectedResult, ExpectedResults, ResultFiles, Stamp};
pub(crate) use stat_index::StatIndex;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use stat_index::is_stat_index;
pub(crate) use stored::Stored;
pub(crate) use verify::{Check, Checked, Damage, Verdict};
pub(crate) use withdrawal::{Restored, Withdrawn};
pub(crate) use work::WorkFolder;

use crate::digest::{Digest, FieldHasher};
use crate::key::StageKey;
use work::RERUN_PREFIX;

impl Cache {
    /// Makes the folders of the cache, where they are missing, before something is written to it.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        self.claim_root()?;
        // The programs that this process starts write into it, too.
        disk::share_new_files(self.layout.root());
        for folder in self.layout.folders() {
            durable::create_folder_durably(&folder)?;
        }
        if !self.layout.version().exists() {
            durable::write_file(
                &self.layout.version(),
                format!("{}\n", layout::VERSION).as_bytes(),
            )?;
        }
        self.sweep();
        Ok(())
    }

    /// Removes what is left of processes that are gone.
    pub(crate) fn sweep(&self) {
        sweep::sweep(self);
    }

    /// The record of a key, if its artifact exists too, and no power cut can have torn it.
    pub(crate) fn usable(&self, key: &StageKey) -> Option<Record> {
        let record = self.record(key)?;
        (self.has_artifact(&record.output.digest) && self.is_certain(&record)).then_some(record)
    }

    /// Whether an artifact exists, at the cost of one stat, whatever its size.
    pub(crate) fn has_artifact(&self, digest: &Digest) -> bool {
        store::exists(&self.layout, digest)
    }

    /// The record of a key, whether or not its artifact exists.
    pub(crate) fn record(&self, key: &StageKey) -> Option<Record> {
        self.read_record(key).ok()
    }

    /// The record of a key, or why there is none.
    ///
    /// # Errors
    /// When there is none, or its file is damaged.
    pub(crate) fn read_record(&self, key: &StageKey) -> Result<Record, Unreadable> {
        Record::read(&self.layout.record(key), key)
    }

    /// All records, and what there is in their place that cannot be read: files, and folders of such.
    pub(crate) fn records(&self) -> (Vec<Record>, Vec<(PathBuf, Unreadable)>) {
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        let mut list = |folder: PathBuf| {
            let names = disk::list(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            names.unwrap_or_else(|error| {
                if !store::is_absence(&error) {
                    unreadable.push((folder, Unreadable::Inaccessible));
                }
                Vec::new()
            })
        };
        let shards = list(self.layout.bucket(Bucket::Records));
        let files: Vec<_> = shards.iter().flat_map(|shard| list(shard.path())).collect();
        for path in files.iter().map(fs::DirEntry::path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(name) = name.strip_suffix(".json") else { continue };
            match name.parse().ok().map(|key| Record::read(&path, &key)) {
                Some(Ok(record)) => records.push(record),
                Some(Err(Unreadable::Missing)) => {}
                Some(Err(why)) => unreadable.push((path, why)),
                None => unreadable.push((path, Unreadable::Damaged)),
            }
        }
        records.sort_by_key(|record| (record.name(), record.key));
        unreadable.sort();
        (records, unreadable)
    }

    /// The digests of all artifacts in the store, sorted.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub(crate) fn artifacts(&self) -> anyhow::Result<Vec<Digest>> {
        let entries = disk::certain_entries(&self.layout.bucket(Bucket::Store))?.into_iter();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut digests: Vec<Digest> = names.collect();
        digests.sort();
        Ok(digests)
    }

    /// Whether a stage of this experiment may ever have run.
    pub(crate) fn has_heads(&self, experiment: &str) -> bool {
        self.layout.heads(experiment).exists()
    }

    /// The record that a stage had last, whether it still counts or not.
    pub(crate) fn last_record(&self, experiment: &str, stage: &str) -> Option<Record> {
        self.record_once(&self.head(experiment, stage)?)
    }

    /// The record of a key, whether it still counts or not.
    pub(crate) fn record_once(&self, key: &StageKey) -> Option<Record> {
        self.record(key).or_else(|| Some(self.withdrawn(key)?.record))
    }

    /// The keys that something works on, or did when it was interrupted.
    pub(crate) fn running_keys(&self) -> impl Iterator<Item = StageKey> {
        self.keys_in(Bucket::Running)
    }

    /// The keys that have a folder for checkpoints.
    pub(crate) fn begun_keys(&self) -> impl Iterator<Item = StageKey> {
        self.keys_in(Bucket::Partial)
    }

    /// The names in a bucket that are keys.
    fn keys_in(&self, bucket: Bucket) -> impl Iterator<Item = StageKey> {
        let listing = fs::read_dir(self.layout.bucket(bucket)).into_iter().flatten().flatten();
        listing.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// Whether an interrupted run of a key left a checkpoint.
    pub(crate) fn holds_checkpoint(&self, key: &StageKey) -> bool {
        checkpoint::holds_work(&self.layout.checkpoint(key))
    }

    /// What is in the files of that checkpoint, whenever they were written: changes when it advances. `None` where there are none. Of
    /// large files, samples: whoever asks has seconds, and a training changes all of what it keeps.
    pub(crate) fn checkpoint_digest(&self, key: &StageKey) -> Option<Digest> {
        let (top, mut files) = checkpoint::files(&self.layout.checkpoint(key))?;
        // What was being written when its process was killed is nothing to continue from.
        files.retain(|file| file.extension().is_none_or(|extension| extension != "partial"));
        let mut hasher = FieldHasher::new("pipeline 2026-11 checkpoint");
        for file in &files {
            let name = file.strip_prefix(&top).unwrap_or(file);
            hasher.bytes(name.as_os_str().as_encoded_bytes());
            // One that is removed meanwhile is a change, too.
            let sample = file_digest::sample_file(file).ok();
            hasher.bytes(sample.as_ref().map_or(&[], |digest| digest.as_bytes()));
        }
        (!files.is_empty()).then(|| hasher.finish())
    }

    /// What an artifact says of itself, where its type says something.
    pub(crate) fn known(&self, artifact: ArtifactType, digest: &Digest) -> Option<Known> {
        Known::of_artifact(artifact, &self.artifact(digest))
    }

    /// Where an artifact is.
    pub(crate) fn artifact(&self, digest: &Digest) -> PathBuf {
        self.layout.artifact(digest)
    }

    /// Remembers that a stage has this record now. Returns whether it had another one.
    pub(crate) fn set_head(
        &self,
        experiment: &str,
        stage: &str,
        key: &StageKey,
    ) -> anyhow::Result<bool> {
        let is_news = self.head(experiment, stage) != Some(*key);
        if is_news {
            let write = match &self.lazy {
                Some(_) => durable::write_disposable,
                None => durable::write_file,
            };
            // With all others who set heads, and without whoever removes those that lead to nothing.
            let _lock = Lock::take_shared(&self.heads_lock(experiment))?;
            write(&self.layout.head(experiment, stage), format!("{key}\n").as_bytes())?;
        }
        Ok(is_news)
    }

    /// The lock of the heads of an experiment, whose name may be too long for that of a lock.
    fn heads_lock(&self, experiment: &str) -> PathBuf {
        let name = FieldHasher::new("pipeline 2026-11 heads").text(experiment).finish().short();
        self.layout.lock(&format!("heads-{name}"))
    }

    /// The key that a stage had last.
    pub(crate) fn head(&self, experiment: &str, stage: &str) -> Option<StageKey> {
        disk::read_text(&self.layout.head(experiment, stage)).ok()?.trim().parse().ok()
    }

    /// A folder to run a recorded stage again in. `None` where another process does that right now.
    pub(crate) fn scratch(&self, key: &StageKey) -> anyhow::Result<Option<WorkFolder>> {
        let name = format!("{RERUN_PREFIX}{key}");
        let lock = Lock::try_take(&self.layout.lock(&name))?;
        lock.map(|lock| WorkFolder::make(&self.layout, &name, lock)).transpose()
    }

    /// Moves the output of a rerun where it stays, and reports where that is.
    pub(crate) fn keep_rerun(
        &self,
        scratch: &WorkFolder,
        key: &StageKey,
    ) -> anyhow::Result<PathBuf> {
        let place = durable::free_name(&self.layout.bucket(Bucket::Reruns), &key.to_string())?;
        store::move_output(scratch, &scratch.open_output()?, &place)?;
        Ok(place)
    }

    /// Makes the cache folder, where it is missing, and keeps it out of version control. Refuses a folder
    /// that is used for something else.
    fn claim_root(&self) -> anyhow::Result<()> {
        let root = self.layout.root();
        if self.layout.version().exists() {
            return Ok(());
        }
        let other = entry_of_others(root).with_context(|| {
            format!(
                "cannot list {}, and it may contain something else than a cache: name another folder with --cache",
                root.display()
            )
        })?;
        if let Some(other) = other {
            bail!(
                "{} contains '{}' and is not a cache of pipeline: name another folder with --cache",
                root.display(),
                other.display()
            );
        }
        let is_new = !root.exists();
        durable::create_folder_durably(root)?;
        if is_new {
            durable::write_file(&root.join(".gitignore"), b"*\n")?;
        }
        Ok(())
    }
}

/// Whether a folder is used for something else than a cache of this program. One that has results of this program is not.
pub(crate) fn is_of_others(root: &Path) -> bool {
    let layout = Layout::new(root.to_owned());
    let results = [Bucket::Store, Bucket::Records].map(|bucket| layout.bucket(bucket));
    let is_ours = layout.version().exists() || results.iter().any(|results| results.exists());
    !is_ours && entry_of_others(root).is_ok_and(|other| other.is_some())
}

/// What a folder has that no cache has. Entries of ours may be there without a VERSION: another process can be making the cache right now, or it was lost.
fn entry_of_others(root: &Path) -> io::Result<Option<std::ffi::OsString>> {
    let mut names = disk::entries(root)?.into_iter().map(|entry| entry.file_name());
    Ok(names.find(|name| {
        let name = name.to_string_lossy();
        !Layout::is_ours(&name) && !name.starts_with(durable::NEW)
    }))
}
