//! The claim to a key: nothing can be recorded without having missed and locked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use pipeline_stages::ArtifactType;
use pipeline_stages::message::{self, Metrics, RanOn};

use super::damage::InputFolder;
use super::file_digest::Watch;
use super::layout::Bucket;
use super::lock::Lock;
use super::opened::Cache;
use super::own_pin::Pinned;
use super::record::{Record, Unreadable};
use super::withdrawal::Withdrawn;
use super::work::WorkFolder;
use super::{disk, durable, store};
use crate::digest::Digest;
use crate::key::{KeyPart, StageKey};
use crate::reason::Reason;
use crate::usage::Usage;

/// What is hashed within some tens of microseconds: files, and their bytes together.
const SMALL_FILES: usize = 16;
const SMALL_BYTES: u64 = 256 << 10;

/// What a cache has for a key.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// A result.
    Hit(Box<Record>),
    /// Another process works on it.
    Busy,
    /// Nothing: whoever asked may work on it now.
    Claim(Claim),
}

/// The right to work on a key, and the folder to do it in. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    cache: Cache,
    key: StageKey,
    work: WorkFolder,
    started: Instant,
}

/// A result that counts now.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) record: Record,
    /// What no longer counts: it was made from the same artifact while that was damaged.
    pub(crate) withdrawn: Vec<Withdrawn>,
}

/// A result that could not be recorded.
#[derive(Debug)]
pub(crate) struct NotCommitted {
    /// Why.
    pub(crate) error: anyhow::Error,
    /// The claim, to keep the output that there is.
    pub(crate) claim: Claim,
}

/// What is to be recorded of an execution, beside what the cache itself sees.
#[derive(Debug, Clone)]
pub(crate) struct ExecutionFacts {
    /// What the key was made of.
    pub(crate) parts: Vec<KeyPart>,
    /// What the stage is called.
    pub(crate) stage: String,
    pub(crate) experiment: String,
    /// Why it ran.
    pub(crate) reason: Reason,
    /// The type of the artifact.
    pub(crate) artifact: ArtifactType,
    /// What the stage measured.
    pub(crate) metrics: Metrics,
    /// What it ran on, where that matters.
    pub(crate) ran_on: Option<RanOn>,
    /// What it took.
    pub(crate) usage: Usage,
}

impl Cache {
    /// Looks a key up, and claims it where there is no result and nobody works on it.
    pub(crate) fn claim(&self, key: &StageKey) -> anyhow::Result<Lookup> {
        self.look_up(key, false)
    }

    /// Claims a key where nobody works on it, although there may be a result: a commit replaces its record.
    pub(crate) fn claim_again(&self, key: &StageKey) -> anyhow::Result<Lookup> {
        self.look_up(key, true)
    }

    fn look_up(&self, key: &StageKey, again: bool) -> anyhow::Result<Lookup> {
        let name = key.to_string();
        let place = self.layout.lock(&name);
        let Some(lock) = Lock::try_take(&place)? else {
            return Ok(Lookup::Busy);
        };
        // Under the lock: another process may have finished just now.
        let has_artifact = |record: &Record| self.has_artifact(&record.output.digest);
        let found = if again { None } else { self.replaceable_record(key)? };
        if let Some(record) = found.filter(has_artifact) {
            let is_fine = self.is_certain(&record) && self.lasts(&record);
            let found = if is_fine { Some(record) } else { self.make_certain(record)? };
            if let Some(record) = found {
                return Ok(Lookup::Hit(Box::new(record)));
            }
        }
        let work = WorkFolder::make(&self.layout, &name, lock)?;
        let claim = Claim { cache: self.clone(), key: *key, work, started: Instant::now() };
        durable::create_own_folder(&self.layout.partial(key))?;
        if let Some(folder) = claim.log().parent() {
            durable::create_folder(folder)?;
        }
        // In a shared cache another user may own the old one.
        let _ = disk::remove_file(&claim.log());
        Ok(Lookup::Claim(claim))
    }

    /// The record of a key, if there is one that counts. Where there is none, another one may take its place.
    ///
    /// # Errors
    /// When there is one that only this process, or this version of the program, cannot read.
    fn replaceable_record(&self, key: &StageKey) -> anyhow::Result<Option<Record>> {
        let place = || self.layout.record(key).display().to_string();
        match self.read_record(key) {
            Ok(record) => Ok(Some(record)),
            Err(Unreadable::Missing | Unreadable::Damaged) => Ok(None),
            Err(Unreadable::Inaccessible) => {
                bail!("there is a result, whose record cannot be read: {}", place())
            }
            Err(Unreadable::OtherVersion) => bail!(
                "there is a result of another version of pipeline, which this one cannot read, in {}: run it with that version, \
                 with another --cache, or with --force, which replaces it",
                place()
            ),
        }
    }
}

impl Claim {
    /// What is said of one that is lost, where it has failed with that.
    pub(crate) const LOST: &str = "the folder of its work is gone: another process has begun the same work, or has swept it as left over, \
         or the stage has removed what is above its output folder";

    /// Where the stage writes its output.
    pub(crate) fn output(&self) -> PathBuf {
        self.work.output()
    }

    /// Where its worker has the folder for its checkpoint.
    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.cache.layout.checkpoint(&self.key)
    }

    /// Its time counts from now.
    pub(crate) fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// Whether there is a checkpoint of an interrupted run.
    pub(crate) fn resumes(&self) -> bool {
        self.cache.holds_checkpoint(&self.key)
    }

    /// Whether another process has taken the work over, as a file server may take the lock away while its process lives.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub(crate) fn is_lost(&self) -> anyhow::Result<bool> {
        let is_own = self.work.is_own();
        let is_own =
            is_own.context("cannot find out whether another process has begun the same work")?;
        Ok(!is_own)
    }

    /// Removes the checkpoint, where it was made from something else than the key says.
    pub(crate) fn remove_checkpoint(&self) -> anyhow::Result<()> {
        let place = self.cache.layout.partial(&self.key);
        let all = self.cache.layout.bucket(Bucket::Partial);
        // Out of the way first: what another user wrote in it may not be ours to remove.
        let away = durable::free_name(&all, &format!("{}{}", durable::NEW, self.key))?;
        let is_away = disk::rename(place.as_path(), away.as_path()).is_ok();
        if !is_away {
            durable::remove_tree(&place)?;
        }
        if is_away {
            let _ = durable::remove_tree(&away);
        }
        // Not even a power cut brings it back.
        durable::sync_folder(&all).with_context(|| format!("cannot flush {}", all.display()))
    }

    /// Where its log goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.cache.layout.log(&self.key)
    }

    /// Whether there is so little in the output that hashing it takes no time worth mentioning.
    pub(crate) fn has_small_output(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.output()) else { return false };
        let mut bytes = 0;
        let is_little = |(number, entry): (usize, io::Result<fs::DirEntry>)| {
            let Ok(metadata) = entry.and_then(|entry| entry.metadata()) else { return false };
            bytes += metadata.len();
            number < SMALL_FILES && metadata.is_file() && bytes <= SMALL_BYTES
        };
        entries.enumerate().all(is_little)
    }

    /// Moves the output into the store and records it: the commit. `inputs` are the artifacts that it was made from; `watch` may end it
    /// while the output is read; `hashed` is called when only writing to the disk is left.
    ///
    /// # Errors
    /// When the output cannot be kept, or the cache cannot be written. Nothing is recorded then, and the claim stays.
    pub(crate) fn commit(
        self,
        execution: ExecutionFacts,
        inputs: &[InputFolder],
        watch: &Watch,
        hashed: &dyn Fn(),
    ) -> Result<Committed, Box<NotCommitted>> {
        self.record(execution, inputs, watch, hashed)
            .map_err(|error| Box::new(NotCommitted { error, claim: self }))
    }

    fn record(
        &self,
        execution: ExecutionFacts,
        inputs: &[InputFolder],
        watch: &Watch,
        hashed: &dyn Fn(),
    ) -> anyhow::Result<Committed> {
        if StageKey::of(&execution.parts) != self.key {
            bail!("internal error: the parts of the execution do not make the key {}", self.key);
        }
        let Self { cache, key, work, started } = self;
        let (layout, key) = (&cache.layout, *key);
        let mut withdrawn = Vec::new();
        let pin = |digest: &Digest| {
            hashed();
            cache.pin([Pinned::Key(key), Pinned::Artifact(*digest)], |_| {})
        };
        // After a power cut an older record of the key may be back, which says that its artifact is on the disk.
        let has_older = || cache.read_record(&key).err() != Some(Unreadable::Missing);
        let lasts = cache.lazy.is_none() || has_older();
        let output = store::commit(layout, work, watch, lasts, pin, |digest| {
            let (withdrawal, all) = cache.begin_withdrawal(&[*digest])?;
            withdrawn = all;
            Ok(withdrawal)
        })?;
        let ExecutionFacts { parts, stage, experiment, reason, artifact, metrics, ran_on, usage } =
            execution;
        let record = Record {
            key,
            parts,
            stage,
            experiment,
            reason,
            artifact,
            output,
            metrics,
            seconds: started.elapsed().as_secs_f64(),
            finished: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            ran_on,
            usage,
            version: message::VERSION.to_owned(),
            lazy: cache.lazy.as_deref().cloned(),
            made_here: true,
        };
        // What takes long of what is removed before the record. Another user's leftovers may stay.
        let _ = work.clear();
        let Some(inputs) = cache.hold_inputs(inputs)? else {
            bail!(
                "an input was found damaged, and moved away, after the stage had read it: run it again"
            );
        };
        // After everything that may wait. What it moved into the store may stay there.
        if self.is_lost()? {
            bail!(Self::LOST);
        }
        // Before the record: nobody looks for what is left of a stage that is fresh.
        work.remove();
        record.write(&layout.record(&key)).with_context(|| {
            let place = layout.artifact(&record.output.digest);
            format!(
                "the output of the stage is whole, in {}, but it cannot be recorded",
                place.display()
            )
        })?;
        // While the inputs are held: the new record cannot be withdrawn to this place yet.
        for place in [layout.withdrawn(&key), layout.withdrawn(&key).with_extension("reason")] {
            let _ = disk::remove_file(&place);
        }
        drop(inputs);
        // It counts now; what stays behind is only litter.
        for place in [layout.partial(&key), layout.failed(&key)] {
            let _ = durable::remove_tree(&place);
        }
        Ok(Committed { record, withdrawn })
    }

    /// Keeps what the stage had written when it failed, to look at, and reports where. `None` where it had
    /// written nothing.
    pub(crate) fn keep_failed(self) -> anyhow::Result<Option<PathBuf>> {
        let Ok(output) = self.work.open_output() else { return Ok(None) };
        if fs::read_dir(output.path())?.next().is_none() {
            return Ok(None);
        }
        let place = self.cache.layout.failed(&self.key);
        durable::remove_tree(&place)?;
        durable::create_folder(place.parent().unwrap_or(Path::new("/")))?;
        store::move_output(&self.work, &output, &place)?;
        Ok(Some(place))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_small_output_is_a_few_small_files() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let cache = Cache::open(&folder.path().join("cache"))?;
        cache.prepare()?;
        let Lookup::Claim(claim) = cache.claim(&StageKey::of(&[]))? else { bail!("no claim") };
        let place = |name: &str| claim.output().join(name);
        assert!(claim.has_small_output(), "nothing");
        fs::write(place("0"), "a few bytes")?;
        assert!(claim.has_small_output());
        fs::File::create(place("large"))?.set_len(SMALL_BYTES)?;
        assert!(!claim.has_small_output(), "too much");
        fs::remove_file(place("large"))?;
        fs::create_dir(place("folder"))?;
        assert!(!claim.has_small_output(), "whatever is in the folder");
        fs::remove_dir(place("folder"))?;
        symlink("0", place("link"))?;
        assert!(!claim.has_small_output(), "a link");
        fs::remove_file(place("link"))?;
        for number in 1..SMALL_FILES {
            fs::write(place(&number.to_string()), "")?;
        }
        assert!(claim.has_small_output(), "as many as may be");
        fs::write(place("one more"), "")?;
        assert!(!claim.has_small_output());
        fs::remove_dir_all(claim.output())?;
        assert!(!claim.has_small_output(), "it is not there");
        Ok(())
    }
}
