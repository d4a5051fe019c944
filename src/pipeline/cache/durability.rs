//! Results that are not flushed to the disk at once: they count until the machine starts again, and after that once they were
//! flushed, or were checked.

use std::fs::{self, File};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::layout::Bucket;
use super::lazy_run::LazyRun;
use super::opened::Cache;
use super::record::Record;
use super::{disk, durable, store};

/// When results are flushed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Durability {
    /// Each before it counts: not even a power cut takes back what has ended.
    #[default]
    Full,
    /// All at the end of the run: what a power cut tears is made again.
    Lazy,
}

impl Cache {
    /// The same cache, where this process records results without waiting for the disk, until [`Cache::flush`]. `None` where the system
    /// does not number its starts.
    pub(crate) fn lazily(&self) -> Option<Self> {
        let boot = self.boot()?.to_owned();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("{}-{:09}-{}", since.as_secs(), since.subsec_nanos(), std::process::id());
        Some(Self { lazy: Some(Arc::new(LazyRun { boot, run })), ..self.clone() })
    }

    /// Makes what was recorded without waiting for the disk last. Nothing happens where that was not done.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        let Some(LazyRun { run, .. }) = self.lazy.as_deref() else { return Ok(()) };
        // Artifacts and records are on one file system, which need not be that of the cache folder.
        let store = self.layout.bucket(Bucket::Store);
        let sync = || disk::sync_file_system(&File::open(&store)?);
        sync().with_context(|| {
            format!(
                "cannot flush {} to disk: what this run made is checked first after a power cut",
                store.display()
            )
        })?;
        durable::write_file(&self.layout.flushed(run), b"")
    }

    /// Whether what a record says of its artifact is certain: no power cut can have torn it.
    pub(crate) fn is_certain(&self, record: &Record) -> bool {
        record.lazy.as_ref().is_none_or(|LazyRun { boot, run }| {
            self.boot() == Some(boot) || self.layout.flushed(run).exists()
        })
    }

    /// Whether the result of a record stays, whatever happens to the power; or this process does not wait for the disk itself.
    pub(crate) fn lasts(&self, record: &Record) -> bool {
        let is_flushed = |LazyRun { run, .. }: &LazyRun| self.layout.flushed(run).exists();
        self.lazy.is_some() || record.lazy.as_ref().is_none_or(is_flushed)
    }

    /// Checks the artifact of a record that is not certain. Where it is whole, it counts from now on. For whoever has the lock of
    /// the key.
    pub(super) fn make_certain(&self, record: Record) -> anyhow::Result<Option<Record>> {
        if !store::is_intact(&self.layout, &record.output.digest)? {
            return Ok(None);
        }
        store::sync_artifact(&self.layout, &record.output.digest)?;
        // Meanwhile one of its inputs may have been found damaged.
        let Some(_held) =
            self.hold_inputs(&[])?.filter(|_| self.record(&record.key).as_ref() == Some(&record))
        else {
            return Ok(None);
        };
        let record = Record { lazy: None, ..record };
        record.write(&self.layout.record(&record.key))?;
        Ok(Some(record))
    }

    fn boot(&self) -> Option<&str> {
        #[cfg(test)]
        if let Some(boot) = &self.other_boot {
            return Some(boot);
        }
        boot()
    }

    /// The same cache after another start of the machine.
    #[cfg(test)]
    pub(super) fn after_restart(&self, boot: &str) -> Self {
        Self { other_boot: Some(boot.into()), lazy: None, ..self.clone() }
    }
}

/// Which start of the machine this is. `None` where the system does not say.
pub(crate) fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned()).filter(|boot| !boot.is_empty())
    };
    BOOT.get_or_init(read).as_deref()
}
