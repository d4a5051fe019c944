//! The cache that others share, as one process sees it: what it was asked, what it said, and whether it works.
//!
//! A remote that does not work is never an error of a run: it is left alone for a while, and the reason is kept for whoever shows it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::connect;
use super::name::{MOST_RECORD_BYTES, Name, RECORDS, SIGNATURES};
use super::outage::{News, Outage, first_pause};
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
    remote: OnceLock<Box<dyn Remote>>,
    /// Held by whoever makes that.
    connecting: Mutex<()>,
    /// Whether it says which layout it has, once it is known that it can be used.
    opened: Mutex<Option<bool>>,
    /// Whether it works.
    outage: Outage,
    /// Whether it takes what is sent. What is full can still be read.
    push_outage: Outage,
    /// What it said that cannot be right, and did not count.
    odd: Mutex<Vec<String>>,
    /// What it said of the keys that it was asked for in this process.
    said: Mutex<HashMap<StageKey, Option<Arc<Record>>>>,
    /// The records that are known of it, by their artifacts.
    by_artifact: Mutex<HashMap<Digest, Arc<Record>>>,
    /// What it had for a key did not come, and how that failed.
    forgotten: Mutex<HashMap<StageKey, FailureKind>>,
    stored: StoredFiles,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedCache {
    /// The one at an address. Nothing is asked yet.
    pub(crate) fn new(address: Address, signing: Signing) -> Self {
        Self::with_pause(address, signing, first_pause())
    }

    /// The same, which is left alone for this time once it has failed.
    fn with_pause(address: Address, signing: Signing, pause: Duration) -> Self {
        Self {
            address,
            signing,
            remote: OnceLock::new(),
            connecting: Mutex::default(),
            opened: Mutex::default(),
            outage: Outage::new(pause),
            push_outage: Outage::new(pause),
            odd: Mutex::default(),
            said: Mutex::default(),
            by_artifact: Mutex::default(),
            forgotten: Mutex::default(),
            stored: StoredFiles::default(),
        }
    }

    /// One in this place, which is left alone for this time once it has failed.
    #[cfg(test)]
    pub(super) fn over(remote: Box<dyn Remote>, signing: Signing, pause: Duration) -> Self {
        let shared = Self::with_pause(Address::Folder("/test".into()), signing, pause);
        assert!(shared.remote.set(remote).is_ok(), "it is new");
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

    /// Why it is left alone now.
    pub(crate) fn trouble(&self) -> Option<Failure> {
        self.outage.trouble()
    }

    /// The same, and also once it would be asked again, where nobody was told: for whoever says it now. It is no news any more.
    pub(crate) fn take_trouble(&self) -> Option<Failure> {
        self.outage.take_trouble()
    }

    /// For how long nothing is sent to it.
    pub(super) fn push_pause(&self) -> Option<Duration> {
        self.outage.pause().max(self.push_outage.pause())
    }

    /// Nobody can wait for long: it is asked again soon.
    pub(super) fn relent(&self) {
        self.outage.relent();
        self.push_outage.relent();
    }

    /// What nobody was told: that it does not work any more, or works again.
    pub(crate) fn take_news(&self) -> Vec<String> {
        let address = &self.address;
        let news = self.outage.take_news().map(|news| match news {
            News::Away(failure) => format!(
                "warning: the run goes on without the remote {address}, and asks it again later: {failure}"
            ),
            News::Back => format!("the remote {address} is used again"),
        });
        let push_news = self.push_outage.take_news().map(|news| match news {
            News::Away(failure) => format!(
                "warning: what is to be pushed to {address} waits, and is tried again later: {failure}"
            ),
            News::Back => format!("results are pushed to {address} again"),
        });
        news.into_iter().chain(push_news).collect()
    }

    /// What it said that cannot be right, and did not count, since the last time that somebody asked.
    pub(crate) fn take_odd(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.odd))
    }

    /// What it can do, unless it is left alone now.
    fn remote(&self) -> Result<&dyn Remote, Failure> {
        let made = || match self.trouble() {
            Some(trouble) => Err(trouble),
            None => Ok(self.remote.get().map(|remote| &**remote)),
        };
        if let Some(remote) = made()? {
            return Ok(remote);
        }
        let _connecting = lock(&self.connecting);
        match made()? {
            Some(remote) => Ok(remote),
            None => {
                let remote = self.note(connect(&self.address))?;
                Ok(&**self.remote.get_or_init(|| remote))
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
        let mut opened = lock(&self.opened);
        if let Some(has_version) = *opened {
            return Ok(has_version);
        }
        let has_version = self.note(open())?;
        *opened = Some(has_version);
        Ok(has_version)
    }

    /// Notes whether it works, by what became of something that it was asked.
    fn note<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        self.outage.note(result.as_ref().err());
        result
    }

    /// Asks for the records of these keys, unless it has answered in this process. Returns whether it answers for all of them. Where
    /// it does not, nothing is known.
    pub(crate) fn ask(&self, keys: &[StageKey]) -> bool {
        let known = lock(&self.said).keys().copied().collect::<HashSet<_>>();
        let keys: Vec<StageKey> = keys.iter().copied().filter(|key| !known.contains(key)).collect();
        if keys.is_empty() {
            return true;
        }
        let works = self.has_version().is_ok();
        let answers = on_threads(&keys, MOST_ASKED_AT_ONCE, |key| {
            if !works || self.trouble().is_some() {
                return None;
            }
            match self.note(self.fetch(key)) {
                Ok(record) => Some(record.map(Arc::new)),
                Err(failure) if failure.kind == FailureKind::Away => None,
                Err(failure) => {
                    lock(&self.odd).push(failure.reason);
                    Some(None)
                }
            }
        });
        let count = keys.len();
        let answered = keys.into_iter().zip(answers).filter_map(|(key, said)| Some((key, said?)));
        let answered: Vec<_> = answered.collect();
        let is_all = answered.len() == count;
        lock(&self.said).extend(answered);
        is_all
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

    /// Whether it has answered for the record of a key in this process.
    pub(crate) fn has_answered(&self, key: &StageKey) -> bool {
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
        if lock(&self.forgotten).contains_key(key) {
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

    /// In this process, it does not have anything for a key from now on, after what it had did not come for this reason.
    pub(crate) fn pass_over(&self, key: &StageKey, failure: &Failure) {
        lock(&self.forgotten).insert(*key, failure.kind);
        lock(&self.by_artifact).retain(|_, record| record.key != *key);
    }

    /// Whether it has something for a key, which did not come as it was away.
    pub(crate) fn is_out_of_reach(&self, key: &StageKey) -> bool {
        lock(&self.forgotten).get(key) == Some(&FailureKind::Away)
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
            Ok(_) => {
                self.outage.note(None);
                cache.forget_remote_record(&self.place(), &record.key);
            }
            Err(NotPulled::There(failure)) => {
                self.outage.note(Some(failure));
                if failure.kind == FailureKind::Wrong {
                    self.pass_over(&record.key, failure);
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
        if let Some(trouble) = self.push_outage.trouble() {
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
        let pushed = push();
        match &pushed {
            Ok(pushed) => {
                self.outage.note(None);
                self.push_outage.note(None);
                self.remember(cache, record, *pushed);
            }
            // Where it does not work at all, it takes nothing, either.
            Err(NotPulled::There(failure)) => {
                let does_not_work = self.outage.is_on();
                let outage = if does_not_work { &self.outage } else { &self.push_outage };
                outage.note(Some(failure));
            }
            Err(NotPulled::Here(_) | NotPulled::Stopped) => {}
        }
        pushed
    }

    /// Keeps the record that it has for a key in the cache, now that a result was pushed: what is new there is ours.
    fn remember(&self, cache: &Cache, ours: &Record, pushed: Pushed) {
        let place = self.place();
        if cache.remote_record(&place, &ours.key).is_some() {
            return;
        }
        match pushed {
            Pushed::New => cache.keep_remote_record(&place, ours),
            Pushed::Existed | Pushed::Unsigned => {
                if let Ok(Some(theirs)) = self.fetch(&ours.key) {
                    cache.keep_remote_record(&place, &theirs);
                }
            }
        }
    }

    /// Whether it may lack a result that was made here: it is not known to have a record of the key.
    pub(super) fn may_lack(&self, cache: &Cache, record: &Record) -> bool {
        record.made_here && cache.remote_record(&self.place(), &record.key).is_none()
    }

    /// Which of these keys it has a record of.
    ///
    /// # Errors
    /// When it does not work.
    pub(crate) fn has(&self, keys: &[StageKey]) -> Result<Vec<bool>, Failure> {
        self.has_version()?;
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
