//! The cache that others share, as one process sees it: what it was asked, what it said, and whether it works.
//!
//! A remote that does not work is never an error of a run: it is not asked again, and the reason is kept for whoever shows it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::connect;
use super::name::{MOST_RECORD_BYTES, Name, RECORDS, SIGNATURES};
use super::pull::{NotPulled, Puller, StoredFiles};
use super::push::{Pushed, Pusher, What};
use super::transport::{Content, Extent, Failure, FailureKind, Remote, get_all};
use crate::cache::{Cache, Record, Watch, Withdrawn, on_threads};
use crate::digest::{Digest, Encoder};
use crate::key::StageKey;
use crate::remote_address::Address;
use crate::signing::{MOST_SIGNATURE_BYTES, Signing, Statement, Trust};

/// The version of the layout that this build reads and writes.
const VERSION: &str = "1";

/// How many records are asked for at once.
const MOST_ASKED_AT_ONCE: usize = 16;

/// A cache that others share.
pub(crate) struct SharedCache {
    address: Address,
    signing: Signing,
    remote: OnceLock<Result<Box<dyn Remote>, Failure>>,
    /// Whether it can be used, and says which layout it has.
    opened: Mutex<Option<Result<bool, Failure>>>,
    /// Why it is not asked any more.
    trouble: Mutex<Option<Failure>>,
    /// Why nothing is sent any more. What is full can still be read.
    push_trouble: Mutex<Option<Failure>>,
    /// What it said that cannot be right, and did not count.
    odd: Mutex<Vec<String>>,
    /// What it said of the keys that it was asked for in this process.
    said: Mutex<HashMap<StageKey, Option<Arc<Record>>>>,
    /// The records that are known of it, by their artifacts.
    by_artifact: Mutex<HashMap<Digest, Arc<Record>>>,
    /// What it had for a key was missing or wrong.
    forgotten: Mutex<HashSet<StageKey>>,
    stored: StoredFiles,
}

/// Keeps the first failure after which nothing else works.
fn note_in(trouble: &Mutex<Option<Failure>>, failure: &Failure) {
    if failure.kind == FailureKind::Away {
        lock(trouble).get_or_insert_with(|| failure.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedCache {
    /// The one at an address. Nothing is asked yet.
    pub(crate) fn new(address: Address, signing: Signing) -> Self {
        Self {
            address,
            signing,
            remote: OnceLock::new(),
            opened: Mutex::default(),
            trouble: Mutex::default(),
            push_trouble: Mutex::default(),
            odd: Mutex::default(),
            said: Mutex::default(),
            by_artifact: Mutex::default(),
            forgotten: Mutex::default(),
            stored: StoredFiles::default(),
        }
    }

    /// One in this place.
    #[cfg(test)]
    pub(super) fn over(remote: Box<dyn Remote>, signing: Signing) -> Self {
        let shared = Self::new(Address::Folder("/test".into()), signing);
        assert!(shared.remote.set(Ok(remote)).is_ok(), "it is new");
        shared
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What the record of a key is called there.
    pub(crate) fn record_name(key: &StageKey) -> String {
        Name::record(key).to_string()
    }

    /// What records of it are kept under in a cache.
    fn place(&self) -> Digest {
        let mut place = Encoder::new("pipeline 2026-11 remote");
        place.text(&self.address.to_string());
        // What was believed once is asked for again by whoever believes less.
        if let Trust::Signed(keys) = &self.signing.trust {
            for key in keys {
                place.text(&key.to_string());
            }
        }
        place.finish()
    }

    /// Why it is not asked any more.
    pub(crate) fn trouble(&self) -> Option<Failure> {
        lock(&self.trouble).clone()
    }

    /// What it said that cannot be right, and did not count, since the last time that somebody asked.
    pub(crate) fn take_odd(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.odd))
    }

    /// What it can do, unless it does not work.
    fn remote(&self) -> Result<&dyn Remote, Failure> {
        match self.trouble() {
            Some(trouble) => Err(trouble),
            None => {
                let remote = self.remote.get_or_init(|| connect(&self.address)).as_ref();
                remote.map(|remote| &**remote).map_err(Failure::clone)
            }
        }
    }

    /// Whether it says which layout it has. One without it has nothing yet, or its server has removed what is old: whatever
    /// is there is checked when it is read.
    ///
    /// # Errors
    /// When it cannot be read, or has another layout: nothing else works then.
    fn has_version(&self) -> Result<bool, Failure> {
        let open = || {
            let version = get_all(self.remote()?, &Name::version(), 64)
                .map_err(|failure| Failure::away(failure.reason))?;
            let Some(version) = version else {
                // A server on the web does not say that a folder does not exist.
                if matches!(self.address, Address::Web(_)) {
                    let version = Name::version();
                    lock(&self.odd).push(format!(
                        "it has no {version}: nothing was pushed there yet, or the address is wrong"
                    ));
                }
                return Ok(false);
            };
            match String::from_utf8_lossy(&version).trim() {
                VERSION => Ok(true),
                other => Err(Failure::away(format!(
                    "its layout has version '{}', and this version of pipeline knows {VERSION}",
                    crate::visible::text(other)
                ))),
            }
        };
        lock(&self.opened).get_or_insert_with(open).clone()
    }

    /// Notes a failure after which nothing else works.
    fn note<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.inspect_err(|failure| note_in(&self.trouble, failure))
    }

    /// Asks for the records of these keys, unless it was asked before in this process. Where it does not work, nothing is known.
    pub(crate) fn ask(&self, keys: &[StageKey]) {
        let known = lock(&self.said).keys().copied().collect::<HashSet<_>>();
        let keys: Vec<StageKey> = keys.iter().copied().filter(|key| !known.contains(key)).collect();
        if keys.is_empty() {
            return;
        }
        let works = self.note(self.has_version()).is_ok();
        let records = on_threads(&keys, MOST_ASKED_AT_ONCE, |key| {
            if !works || self.trouble().is_some() {
                return None;
            }
            self.note(self.fetch(key)).unwrap_or_else(|failure| {
                if failure.kind != FailureKind::Away {
                    lock(&self.odd).push(failure.reason);
                }
                None
            })
        });
        let mut said = lock(&self.said);
        said.extend(keys.into_iter().zip(records.into_iter().map(|record| record.map(Arc::new))));
    }

    /// Keeps what it said in a cache that exists, for later processes.
    pub(crate) fn keep(&self, cache: &Cache) {
        let said = lock(&self.said);
        let place = self.place();
        let records = said.values().flatten();
        let new = records.filter(|record| cache.remote_record(&place, &record.key).is_none());
        new.for_each(|record| cache.keep_remote_record(&place, record));
    }

    /// Whether it had a record of something that it was asked for.
    pub(crate) fn says_something(&self) -> bool {
        lock(&self.said).values().any(Option::is_some)
    }

    /// Whether it was asked for the record of a key in this process.
    pub(crate) fn was_asked(&self, key: &StageKey) -> bool {
        lock(&self.said).contains_key(key)
    }

    fn fetch(&self, key: &StageKey) -> Result<Option<Record>, Failure> {
        let bytes = get_all(self.remote()?, &Name::record(key), MOST_RECORD_BYTES)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record = Record::of_key(&bytes, key)
            .ok_or_else(|| Failure::wrong(format!("the record {key} is damaged")))?;
        self.check_signed(key, &bytes)?;
        Ok(Some(record))
    }

    /// Checks that somebody has signed a record who is trusted, where that is asked for.
    fn check_signed(&self, key: &StageKey, record: &[u8]) -> Result<(), Failure> {
        let Trust::Signed(trusted) = &self.signing.trust else { return Ok(()) };
        let statement = Statement::new(key, record);
        let mut unread = None;
        for public in trusted {
            let name = Name::signature(&statement.digest(), &public.id());
            match get_all(self.remote()?, &name, MOST_SIGNATURE_BYTES) {
                Ok(Some(signature)) if public.has_signed(&statement, &signature) => return Ok(()),
                Err(failure) if failure.kind == FailureKind::Away => return Err(failure),
                // Somebody else may have signed it.
                Err(failure) if failure.kind == FailureKind::Refused => {
                    unread = Some(failure.reason);
                }
                _ => {}
            }
        }
        let why = unread.map_or(String::new(), |why| format!(" ({why})"));
        Err(Failure::wrong(format!(
            "the record {key} is not signed by anybody whom you trust{why}"
        )))
    }

    /// The record that it has for a key, as far as that is known: from this process, or from an earlier one.
    pub(crate) fn known(&self, cache: &Cache, key: &StageKey) -> Option<Arc<Record>> {
        if lock(&self.forgotten).contains(key) {
            return None;
        }
        let said = lock(&self.said).get(key).cloned();
        let record =
            said.unwrap_or_else(|| cache.remote_record(&self.place(), key).map(Arc::new))?;
        lock(&self.by_artifact).insert(record.output.digest, Arc::clone(&record));
        Some(record)
    }

    /// A record with this artifact, of those that were found to be known.
    pub(crate) fn of_artifact(&self, artifact: &Digest) -> Option<Arc<Record>> {
        lock(&self.by_artifact).get(artifact).cloned()
    }

    /// In this process, it does not have anything for a key from now on.
    pub(crate) fn pass_over(&self, key: &StageKey) {
        lock(&self.forgotten).insert(*key);
        lock(&self.by_artifact).retain(|_, record| record.key != *key);
    }

    /// Brings a result into the cache, as it is recorded there. Returns what counts then, and what no longer does. What is wrong or
    /// missing there is forgotten. What does not come for another reason is still known: it may come tomorrow.
    pub(crate) fn pull(
        &self,
        cache: &Cache,
        record: &Record,
        watch: &Watch,
    ) -> Result<(Record, Vec<Withdrawn>), NotPulled> {
        let pull = || {
            let remote = self.remote()?;
            Puller { remote, cache, stored: &self.stored, watch }.pull(record)
        };
        let pulled = pull();
        match &pulled {
            Ok(_) => cache.forget_remote_record(&self.place(), &record.key),
            Err(NotPulled::There(failure)) => {
                note_in(&self.trouble, failure);
                if failure.kind == FailureKind::Wrong {
                    self.pass_over(&record.key);
                    cache.forget_remote_record(&self.place(), &record.key);
                }
            }
            Err(NotPulled::Here(_) | NotPulled::Stopped) => {}
        }
        pulled
    }

    /// Sends a result of the cache, or its record alone, unless there is one of its key.
    pub(crate) fn push(
        &self,
        cache: &Cache,
        record: &Record,
        what: What,
        watch: &Watch,
    ) -> Result<Pushed, NotPulled> {
        if let Some(trouble) = lock(&self.push_trouble).clone() {
            return Err(trouble.into());
        }
        let push = || {
            let signer = self.signing.signer()?;
            let remote = self.remote()?;
            if !self.has_version()? {
                remote.put(&Name::version(), &Content::Bytes(format!("{VERSION}\n").as_bytes()))?;
                // Somebody else may have put another one.
                *lock(&self.opened) = None;
                self.has_version()?;
            }
            Pusher { remote, cache, watch, signer: signer.as_ref() }.push(record, what)
        };
        push().inspect_err(|why| {
            if let NotPulled::There(failure) = why {
                note_in(&self.push_trouble, failure);
            }
        })
    }

    /// Which of these keys it has a record of.
    ///
    /// # Errors
    /// When it does not work.
    pub(crate) fn has(&self, keys: &[StageKey]) -> Result<Vec<bool>, Failure> {
        self.note(self.has_version())?;
        let found = on_threads(keys, MOST_ASKED_AT_ONCE, |key| {
            self.note(self.remote()?.size(&Name::record(key))).map(|size| size.is_some())
        });
        found.into_iter().collect()
    }

    /// How many results it has, and how many bytes they take.
    pub(crate) fn count(&self) -> Result<(Extent, u64), Failure> {
        let remote = self.remote()?;
        let records = self.note(remote.count(RECORDS))?;
        let others = [SIGNATURES, "artifacts", "packs", "blobs"];
        let mut bytes = records.bytes;
        for folder in others {
            bytes += self.note(remote.count(folder))?.bytes;
        }
        Ok((records, bytes))
    }
}
