//! The cache: artifacts under the digest of their content, and a record for each stage key.
//!
//! Killed anywhere, it holds the old state or the new one. Files are the truth; the stat index is disposable.
//! Knows keys and records; not how a stage is run.

pub mod durable;
mod layout;
mod listing;
pub mod lock;
mod record;
mod stat_index;
pub mod store;
mod sweep;
mod tree;
mod verify;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

pub use layout::Layout;
pub use listing::{Difference, Listing};
pub use lock::Lock;
pub use record::Record;
pub use stat_index::StatIndex;
pub use store::Stored;
pub use tree::{Extent, Watch, digest_folder};
pub use verify::{Check, Damage, Verdict};

use crate::digest::Digest;
use crate::key::StageKey;

/// A cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    layout: Layout,
}

impl Cache {
    /// Opens a cache to look into it. It may not exist yet; nothing is written.
    ///
    /// # Errors
    /// When a newer version of this program made it.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let layout = Layout::new(root.to_owned());
        match fs::read_to_string(layout.version()) {
            Ok(text) => check_version(root, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("can't read the cache {}", root.display()));
            }
        }
        Ok(Self { layout })
    }

    /// Makes the folders of the cache, where they are missing, before something is written to it.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn prepare(&self) -> anyhow::Result<()> {
        self.claim_root()?;
        for folder in self.layout.folders() {
            durable::create_folder(&folder)?;
        }
        if !self.layout.version().exists() {
            durable::write_file(
                &self.layout.version(),
                format!("{}\n", layout::VERSION).as_bytes(),
            )?;
        }
        sweep::sweep(self);
        Ok(())
    }

    /// The paths of the cache.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The record of a key, if its artifact is there too.
    pub fn usable(&self, key: &StageKey) -> Option<Record> {
        let record = self.record(key)?;
        store::is_there(&self.layout, &record.output.digest).then_some(record)
    }

    /// The record of a key, whether or not its artifact is there.
    pub fn record(&self, key: &StageKey) -> Option<Record> {
        Record::read(&self.layout.record(key), key)
    }

    /// All records, and how many files in their place are none that can be read.
    pub fn records(&self) -> (Vec<Record>, usize) {
        let list = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
        let files = list(self.layout.records()).flat_map(|shard| list(shard.path()));
        let (mut records, mut damaged) = (Vec::new(), 0);
        for path in files.map(|file| file.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(name) = name.strip_suffix(".json") else { continue };
            match name.parse().ok().and_then(|key| Record::read(&path, &key)) {
                Some(record) => records.push(record),
                None => damaged += 1,
            }
        }
        records.sort_by(|one, other| {
            (&one.experiment, &one.stage, one.key).cmp(&(
                &other.experiment,
                &other.stage,
                other.key,
            ))
        });
        (records, damaged)
    }

    /// The digests of all artifacts in the store, sorted.
    pub fn artifacts(&self) -> Vec<Digest> {
        let listing = fs::read_dir(self.layout.store()).into_iter().flatten().flatten();
        let names = listing.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut digests: Vec<Digest> = names.collect();
        digests.sort();
        digests
    }

    /// The record that a stage had last.
    pub fn last_record(&self, experiment: &str, stage: &str) -> Option<Record> {
        self.record(&self.head(experiment, stage)?)
    }

    /// Where an artifact lies.
    pub fn artifact(&self, digest: &Digest) -> PathBuf {
        self.layout.artifact(digest)
    }

    /// Remembers that a stage has this record now, and points the link for people at its artifact.
    ///
    /// # Errors
    /// When it can't be written. Nothing is written where nothing changed.
    pub fn set_head(&self, experiment: &str, stage: &str, record: &Record) -> anyhow::Result<()> {
        if self.head(experiment, stage) != Some(record.key) {
            durable::write_file(
                &self.layout.head(experiment, stage),
                format!("{}\n", record.key).as_bytes(),
            )?;
        }
        let link = self.layout.link(experiment, stage);
        let target = Layout::link_target(&record.output.digest);
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            durable::write_link(&link, &target)?;
        }
        Ok(())
    }

    /// The key that a stage had last.
    pub fn head(&self, experiment: &str, stage: &str) -> Option<StageKey> {
        fs::read_to_string(self.layout.head(experiment, stage)).ok()?.trim().parse().ok()
    }

    /// Takes the lock of a key, or says that another process has it.
    ///
    /// # Errors
    /// When the lock can't be opened.
    pub fn try_lock(&self, key: &StageKey) -> anyhow::Result<Option<Lock>> {
        Lock::try_take(&self.layout.lock(&key.to_string()))
    }

    /// Makes the cache folder, where it is missing, and keeps it out of version control. Refuses a folder
    /// that is there for something else.
    fn claim_root(&self) -> anyhow::Result<()> {
        let root = self.layout.root();
        if self.layout.version().exists() {
            return Ok(());
        }
        let others = fs::read_dir(root).into_iter().flatten().flatten();
        // VERSION as well: another process can write it right now.
        let ours = ["VERSION", "README.md", ".gitignore", "stat.idx"];
        let other = others.map(|entry| entry.file_name()).find(|name| {
            let known = self.layout.folders().iter().any(|folder| folder.ends_with(name));
            !known
                && !ours.iter().any(|ours| name == ours)
                && !name.to_string_lossy().starts_with(durable::NEW)
        });
        if let Some(other) = other {
            bail!(
                "{} holds '{}' and is not a cache of pipeline: name another folder with --cache",
                root.display(),
                other.display()
            );
        }
        let is_new = !root.exists();
        durable::create_folder(root)?;
        if is_new {
            durable::write_file(&root.join(".gitignore"), b"*\n")?;
        }
        Ok(())
    }
}

fn check_version(root: &Path, text: &str) -> anyhow::Result<()> {
    match text.trim().parse::<u32>() {
        Ok(version) if version <= layout::VERSION => Ok(()),
        Ok(version) => bail!(
            "the cache {} has layout version {version}; this version of pipeline knows {} and older: \
             use a newer pipeline, or another cache with --cache",
            root.display(),
            layout::VERSION,
        ),
        Err(_) => bail!(
            "{}/VERSION holds '{}', not a version: is this a cache of pipeline?",
            root.display(),
            text.trim()
        ),
    }
}
