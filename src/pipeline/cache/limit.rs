//! How much room a cache may take: a file in it. Once a day, whoever ends a run looks whether it does.

use std::io;

use anyhow::{Context, anyhow};

use super::lock::Lock;
use super::opened::Cache;
use super::{disk, durable, sweep};

/// A limit of a cache itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// It may take whatever room there is.
    None,
    Bytes(u64),
}

/// What the file has for no limit.
const NONE: &str = "none";

/// That it is looked at now whether a cache takes more room than it may, for the first time today.
pub(crate) struct DailyLook(Lock);

impl DailyLook {
    /// Remembers that it was looked at.
    pub(crate) fn done(self) {
        let _ = self.0.write(sweep::SWEPT);
    }
}

impl Cache {
    /// The limit of this cache, if it has its own.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub(crate) fn limit(&self) -> anyhow::Result<Option<Limit>> {
        let path = self.layout().limit();
        let text = match disk::read_text(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        match text.trim() {
            NONE => Ok(Some(Limit::None)),
            bytes => bytes.parse().map(|bytes| Some(Limit::Bytes(bytes))).map_err(|_| {
                anyhow!(
                    "{} is not a number of bytes: `pipeline cache limit SIZE` sets it",
                    path.display()
                )
            }),
        }
    }

    /// Gives this cache a limit of its own.
    pub(crate) fn set_limit(&self, limit: Limit) -> anyhow::Result<()> {
        let text = match limit {
            Limit::None => format!("{NONE}\n"),
            Limit::Bytes(bytes) => format!("{bytes}\n"),
        };
        durable::write_file(&self.layout().limit(), text.as_bytes())
    }

    /// The right to look whether the limit is kept. `None` where that was done within the last day, or somebody does it now.
    pub(crate) fn daily_look(&self) -> Option<DailyLook> {
        let place = self.layout().lock("limit");
        let lock = Lock::try_take(&place).ok()??;
        sweep::is_due(&place).then_some(DailyLook(lock))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_limit_is_kept_in_the_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        assert_eq!(cache.limit().expect("readable"), None);
        for limit in [Limit::Bytes(20_000_000_000), Limit::None, Limit::Bytes(0)] {
            cache.set_limit(limit).expect("writable");
            assert_eq!(cache.limit().expect("readable"), Some(limit));
        }
        durable::write_file(&cache.layout().limit(), b"20 GB\n").expect("writable");
        let error = cache.limit().expect_err("not a number").to_string();
        assert!(error.contains("`pipeline cache limit SIZE`"), "{error}");
    }

    #[test]
    fn the_limit_is_looked_at_once_a_day() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        let look = cache.daily_look().expect("the first one");
        assert!(cache.daily_look().is_none(), "somebody looks");
        // It did not come to its end.
        drop(look);
        cache.daily_look().expect("again").done();
        assert!(cache.daily_look().is_none(), "it is done for today");
        // A clock that was wrong then does not let it be done for years.
        let lock = File::options().write(true).open(cache.layout().lock("limit"));
        let set = |days: u64| {
            let time = SystemTime::now() + Duration::from_secs(days * 24 * 3600);
            lock.as_ref().expect("it exists").set_modified(time).expect("ours");
        };
        set(300);
        cache.daily_look().expect("the time is wrong").done();
        assert!(cache.daily_look().is_none(), "it is done for today");
    }
}
