//! The files of the history: how they are written so that a run that is killed leaves what it had started.
//!
//! Does not depend on what is in them.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::bail;

use super::layout::{Document, RUN_SUFFIX};
use super::lock::Lock;
use super::opened::Cache;
use super::{disk, durable};
use crate::digest::Digest;

/// How often a free name is looked for.
const ATTEMPTS: u32 = 100;

/// The record of a run, to which lines are added. It is locked as long as this exists.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Adds whole lines: in one step, so that a run that is killed leaves whole lines.
    pub(crate) fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        disk::write(&self.file, lines)
    }

    /// Makes what was added last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        disk::sync(&self.file)
    }
}

impl Cache {
    /// Begins the record of a run with its first line. Its name is free, and begins with `stem`.
    pub(crate) fn begin_journal(
        &self,
        experiment: &str,
        stem: &str,
        first: &[u8],
    ) -> anyhow::Result<Journal> {
        for attempt in 0..ATTEMPTS {
            let id = match attempt {
                0 => stem.to_owned(),
                _ => format!("{stem}-{attempt}"),
            };
            let path = self.layout().run(experiment, &id);
            let is_taken = || fs::symlink_metadata(&path).is_ok();
            if is_taken() {
                continue;
            }
            let file = match durable::begin_file(&path, first) {
                // Another run took the name meanwhile.
                Err(_) if is_taken() => continue,
                other => other?,
            };
            // Somebody who only looks may try it at this moment. Where locks do not work, a run that is killed cannot be told from
            // one that runs.
            let _ = disk::lock(&file);
            return Ok(Journal { file });
        }
        bail!("no free name in {}", self.layout().runs(experiment).display())
    }

    /// Keeps a text under its digest, once.
    pub(crate) fn keep_document(&self, kind: Document, text: &[u8]) -> anyhow::Result<Digest> {
        let digest = Digest::from(blake3::hash(text));
        let path = self.layout().document(kind, &digest);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == text.len() as u64) {
            return Ok(digest);
        }
        durable::write_file(&path, text)?;
        Ok(digest)
    }

    /// A text of the history. `None` where it is missing or damaged.
    pub(crate) fn document(&self, kind: Document, digest: &Digest) -> Option<Vec<u8>> {
        let text = disk::read(&self.layout().document(kind, digest), disk::LARGEST_LIST).ok()?;
        (Digest::from(blake3::hash(&text)) == *digest).then_some(text)
    }

    /// The digests of all texts of a kind.
    ///
    /// # Errors
    /// When it is not known what there is, as for what follows.
    pub(crate) fn documents(&self, kind: Document) -> anyhow::Result<Vec<Digest>> {
        let entries = self.listed(&self.layout().documents(kind))?.into_iter();
        let digests = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok());
        Ok(digests.collect())
    }

    /// Whether something else is where the history would be, so that none is kept.
    pub(crate) fn has_no_place_for_history(&self) -> bool {
        match fs::metadata(self.layout().all_runs()) {
            Ok(found) => !found.is_dir(),
            Err(error) => error.kind() == io::ErrorKind::NotADirectory,
        }
    }

    /// What is in a folder of the history. Nothing depends on it: without one, there is nothing.
    fn listed(&self, folder: &Path) -> anyhow::Result<Vec<DirEntry>> {
        match self.has_no_place_for_history() {
            true => Ok(Vec::new()),
            false => disk::certain_entries(folder),
        }
    }

    /// The experiments of which runs are recorded, sorted.
    pub(crate) fn experiments(&self) -> anyhow::Result<Vec<String>> {
        let mut names = disk::folder_names(self.listed(&self.layout().all_runs())?);
        names.sort();
        Ok(names)
    }

    /// The names of the recorded runs of an experiment, newest first.
    pub(crate) fn runs(&self, experiment: &str) -> anyhow::Result<Vec<String>> {
        let entries = self.listed(&self.layout().runs(experiment))?.into_iter();
        let names = entries.filter_map(|entry| {
            Some(entry.file_name().to_str()?.strip_suffix(RUN_SUFFIX)?.to_owned())
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(names)
    }

    /// The record of a run, and whether its process still adds to it.
    pub(crate) fn run(&self, experiment: &str, id: &str) -> io::Result<(Vec<u8>, bool)> {
        let path = self.layout().run(experiment, id);
        // In this order: a run that ends meanwhile has its last line.
        let is_running = Lock::is_taken(&path);
        Ok((disk::read(&path, disk::LARGEST_LIST)?, is_running))
    }

    /// How long the record of a run is to which its process still adds. `None` for a run that has ended.
    pub(crate) fn run_in_progress(&self, experiment: &str, id: &str) -> Option<u64> {
        let path = self.layout().run(experiment, id);
        let length = fs::metadata(&path).ok()?.len();
        Lock::is_taken(&path).then_some(length)
    }

    /// Remembers that a run of an experiment ended now: one that found nothing to do leaves nothing else.
    pub(crate) fn set_checked(&self, experiment: &str) {
        // Only for people: a cache that cannot be written still has all results.
        let path = self.layout().checked(experiment);
        let open = || File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let touch = || disk::touch(&open()?);
        if touch().is_err() && self.layout().version().exists() {
            let _ = durable::write_disposable(&path, b"");
        }
    }

    /// When a run of an experiment last ended, whether or not it did something: seconds since 1970, UTC.
    pub(crate) fn checked(&self, experiment: &str) -> Option<u64> {
        let modified = fs::metadata(self.layout().checked(experiment)).ok()?.modified().ok()?;
        Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
    }
}
