//! The cache that others share, as one process sees it: what it was asked, what it said, and whether it works.
//!
//! A remote that does not work is never an error of a run: it is left alone for a while, and the reason is kept for whoever shows it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::anyhow;

use super::connect::connect;
use super::name::{MOST_RECORD_BYTES, Name};
use super::outage::{News, Outage, first_pause};
use super::pull::{NotPulled, Puller, StoredFiles};
use super::push::{DamagedHere, Pushed, Pusher, What};
use super::spoiled::{Spoiled, SpoiledResults, spoiled_by};
use super::transport::{Content, FailureKind, Remote, RemoteFailure, get_all};
use crate::cache::{self, Cache, Record, Watch, Withdrawn, on_threads};
use crate::digest::{Digest, FieldHasher};
use crate::key::StageKey;
use crate::remote_address::Address;
use crate::signing::{MOST_SIGNATURE_BYTES, Signing, Statement};
use crate::trust::Trust;

/// The version of the layout that this build reads and writes.
const VERSION: &str = "1";

/// How many records are asked for at once.
pub(super) const MOST_ASKED_AT_ONCE: usize = 16;

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
    /// What it said that cannot be right, and did not count, each with the key that it was about.
    odd: Mutex<Vec<(Option<StageKey>, String)>>,
    /// What it said of the keys that it was asked for in this process.
    said: Mutex<HashMap<StageKey, Option<Arc<Record>>>>,
    /// The records that are known of it, by their artifacts.
    by_artifact: Mutex<HashMap<Digest, Arc<Record>>>,
    /// What it had for a key did not come, and how that failed.
    forgotten: Mutex<HashMap<StageKey, FailureKind>>,
    /// Whether results count again whose artifacts did not arrive in full.
    tries_again: AtomicBool,
    stored: StoredFiles,
    spoiled: Mutex<SpoiledResults>,
}

/// Whether two records are one on a remote.
fn are_same(one: &Record, other: &Record) -> bool {
    one.for_others() == other.for_others()
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
            tries_again: AtomicBool::default(),
            stored: StoredFiles::default(),
            spoiled: Mutex::default(),
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
        self.place_of("pipeline 2026-11 remote")
    }

    /// What records of results are kept under of which nothing more is to be sent to it.
    fn place_of_sent(&self) -> Digest {
        self.place_of("pipeline 2026-11 sent to a remote")
    }

    /// What records are kept under that it had, while their artifacts did not arrive in full.
    fn place_of_incomplete(&self) -> Digest {
        self.place_of("pipeline 2026-11 incomplete on a remote")
    }

    fn place_of(&self, what: &str) -> Digest {
        let mut place = FieldHasher::new(what);
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
    pub(crate) fn trouble(&self) -> Option<RemoteFailure> {
        self.outage.trouble()
    }

    /// The same, and also once it would be asked again, where nobody was told: for whoever says it now. After that it has been said.
    pub(crate) fn take_trouble(&self) -> Option<RemoteFailure> {
        self.outage.take_trouble()
    }

    /// For how long nothing is sent to it.
    pub(super) fn push_pause(&self) -> Option<Duration> {
        self.outage.pause().max(self.push_outage.pause())
    }

    /// Whether it has failed, and nothing has worked since.
    pub(super) fn is_away(&self) -> bool {
        self.outage.failure().is_some()
    }

    /// Why it takes nothing: it does not work, or did not take what was sent to it last.
    pub(super) fn failure(&self) -> Option<RemoteFailure> {
        self.outage.failure().or_else(|| self.push_outage.failure())
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
            News::Away(failure) if failure.is_lasting => {
                format!("warning: the run goes on without the remote {address}: {failure}")
            }
            News::Away(failure) => format!(
                "warning: the run goes on without the remote {address}, and asks it again later: {failure}"
            ),
            News::Back => format!("the remote {address} is used again"),
        });
        let push_news = self.push_outage.take_news().and_then(|news| match news {
            // What is not pushed is said at the end.
            News::Away(failure) if failure.is_lasting => None,
            News::Away(failure) => Some(format!(
                "warning: what is to be pushed to {address} waits, and is tried again later: {failure}"
            )),
            News::Back => Some(format!("results are pushed to {address} again")),
        });
        news.into_iter().chain(push_news).collect()
    }

    /// What it said that cannot be right, and did not count, since the last time that somebody asked, each with the key that it was about.
    pub(crate) fn take_odd(&self) -> Vec<(Option<StageKey>, String)> {
        std::mem::take(&mut lock(&self.odd))
    }

    /// What it can do, unless it is left alone now. Of those who want that after a pause, the first finds out whether it works.
    pub(super) fn remote(&self) -> Result<&dyn Remote, RemoteFailure> {
        if self.outage.begin()? {
            return self.note(self.connected().and_then(|remote| {
                Self::read_version(remote)?;
                Ok(remote)
            }));
        }
        if let Some(remote) = self.remote.get() {
            return Ok(&**remote);
        }
        let _connecting = lock(&self.connecting);
        match self.trouble() {
            Some(trouble) => Err(trouble),
            None => self.connected().inspect_err(|failure| self.outage.note(Some(failure))),
        }
    }

    fn connected(&self) -> Result<&dyn Remote, RemoteFailure> {
        match self.remote.get() {
            Some(remote) => Ok(&**remote),
            None => {
                let remote = connect(&self.address)?;
                Ok(&**self.remote.get_or_init(|| remote))
            }
        }
    }

    /// Whether it says which layout it has. One without it has nothing yet, or its server has removed what is old: whatever
    /// is there is checked when it is read.
    ///
    /// # Errors
    /// When it cannot be read, or has another layout: nothing else works then.
    pub(super) fn has_version(&self) -> Result<bool, RemoteFailure> {
        // Not after somebody else who finds out whether it works.
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        let mut opened = lock(&self.opened);
        if let Some(has_version) = *opened {
            return Ok(has_version);
        }
        let remote = self.remote()?;
        let has_version = self.note(Self::read_version(remote))?;
        // A server on the web does not say that a folder does not exist.
        if !has_version && matches!(self.address, Address::Web(_)) {
            let version = Name::version();
            let why = format!(
                "it has no {version}: nothing was pushed there yet, or the address is wrong"
            );
            lock(&self.odd).push((None, why));
        }
        *opened = Some(has_version);
        Ok(has_version)
    }

    /// Whether one says which layout it has.
    fn read_version(remote: &dyn Remote) -> Result<bool, RemoteFailure> {
        let version = get_all(remote, &Name::version(), 64)
            .map_err(|failure| RemoteFailure { kind: FailureKind::Away, ..failure })?;
        let Some(version) = version else { return Ok(false) };
        match String::from_utf8_lossy(&version).trim() {
            VERSION => Ok(true),
            other if other == cache::VERSION.to_string() => Err(RemoteFailure::away(
                "it is the folder of a cache of pipeline, and not a remote: name another folder, which may be empty",
            )
            .lasting()),
            other => Err(RemoteFailure::away(format!(
                "its layout has version '{}', and this version of pipeline knows {VERSION}",
                crate::visible::text(other)
            ))
            .lasting()),
        }
    }

    /// Notes whether it works, by what became of something that it was asked.
    pub(super) fn note<T>(&self, result: Result<T, RemoteFailure>) -> Result<T, RemoteFailure> {
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
        let works = self.has_version().and_then(|_| self.remote()).is_ok();
        let answers = on_threads(&keys, MOST_ASKED_AT_ONCE, |key| {
            let remote = if works { self.remote().ok()? } else { return None };
            match self.note(self.fetch(remote, key)) {
                Ok(record) => Some(record.map(Arc::new)),
                Err(failure) if failure.kind == FailureKind::Away => None,
                Err(failure) => {
                    lock(&self.odd).push((Some(*key), failure.reason));
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

    /// Keeps what it said in a cache that exists, for later processes, and forgets there what it does not have any more.
    pub(crate) fn keep(&self, cache: &Cache) {
        let place = self.place();
        for (key, said) in &*lock(&self.said) {
            match said {
                Some(record) => self.keep_one(cache, record),
                None => cache.forget_remote_record(&place, key),
            }
        }
    }

    /// It has this record now.
    fn has_now(&self, cache: &Cache, record: &Record) {
        lock(&self.said).insert(record.key, Some(Arc::new(record.clone())));
        self.keep_one(cache, record);
    }

    fn keep_one(&self, cache: &Cache, record: &Record) {
        let place = self.place();
        if cache.remote_record(&place, &record.key).as_ref() != Some(record) {
            cache.keep_remote_record(&place, record);
        }
    }

    /// Whether it had a record of something that it was asked for.
    pub(crate) fn says_something(&self) -> bool {
        lock(&self.said).values().any(Option::is_some)
    }

    /// Whether it has answered for the record of a key in this process.
    pub(crate) fn has_answered(&self, key: &StageKey) -> bool {
        lock(&self.said).contains_key(key)
    }

    fn fetch(&self, remote: &dyn Remote, key: &StageKey) -> Result<Option<Record>, RemoteFailure> {
        let bytes = get_all(remote, &Name::record(key), MOST_RECORD_BYTES)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record = Record::of_key(&bytes, key)
            .ok_or_else(|| RemoteFailure::wrong(format!("the record {key} is damaged")))?;
        self.check_signed(remote, key, &bytes)?;
        Ok(Some(record))
    }

    /// Checks that somebody has signed a record who is trusted, where that is asked for.
    pub(super) fn check_signed(
        &self,
        remote: &dyn Remote,
        key: &StageKey,
        record: &[u8],
    ) -> Result<(), RemoteFailure> {
        let Trust::Signed(trusted) = &self.signing.trust else { return Ok(()) };
        let statement = Statement::new(key, record);
        let mut unread = None;
        for public in trusted {
            let name = Name::signature(&statement.digest(), &public.id());
            match get_all(remote, &name, MOST_SIGNATURE_BYTES) {
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
        Err(RemoteFailure::wrong(format!(
            "the record {key} is not signed by anybody whom you trust{why}"
        )))
    }

    /// The record that it has for a key, as far as that is known: from this process, or from an earlier one. Not one whose artifact did
    /// not arrive in full.
    pub(crate) fn known(&self, cache: &Cache, key: &StageKey) -> Option<Arc<Record>> {
        let (record, is_incomplete) = self.found(cache, key)?;
        if is_incomplete && !self.tries_again.load(Ordering::Relaxed) {
            return None;
        }
        lock(&self.by_artifact).insert(record.output.digest, Arc::clone(&record));
        Some(record)
    }

    /// The record that it has for a key whose artifact did not arrive in full, before this process: somebody may have pushed it again.
    pub(crate) fn incomplete(&self, cache: &Cache, key: &StageKey) -> Option<Arc<Record>> {
        self.found(cache, key).and_then(|(record, is_incomplete)| is_incomplete.then_some(record))
    }

    /// From now on, results count again whose artifacts did not arrive in full before: for whoever brings them next.
    pub(crate) fn try_again(&self) {
        self.tries_again.store(true, Ordering::Relaxed);
    }

    /// The record that it has for a key, and whether its artifact did not arrive in full.
    fn found(&self, cache: &Cache, key: &StageKey) -> Option<(Arc<Record>, bool)> {
        if lock(&self.forgotten).contains_key(key) {
            return None;
        }
        let said = lock(&self.said).get(key).cloned();
        let record =
            said.unwrap_or_else(|| cache.remote_record(&self.place(), key).map(Arc::new))?;
        let incomplete = cache.remote_record(&self.place_of_incomplete(), key);
        let is_incomplete = incomplete.is_some_and(|incomplete| are_same(&incomplete, &record));
        Some((record, is_incomplete))
    }

    /// A record with this artifact, of those that were found to be known.
    pub(crate) fn of_artifact(&self, artifact: &Digest) -> Option<Arc<Record>> {
        lock(&self.by_artifact).get(artifact).cloned()
    }

    /// In this process, it does not have anything for a key from now on, after what it had did not come for this reason.
    pub(crate) fn pass_over(&self, key: &StageKey, failure: &RemoteFailure) {
        lock(&self.forgotten).insert(*key, failure.kind);
        lock(&self.by_artifact).retain(|_, record| record.key != *key);
    }

    /// Whether it has something for a key, which did not come as it was away.
    pub(crate) fn is_out_of_reach(&self, key: &StageKey) -> bool {
        lock(&self.forgotten).get(key) == Some(&FailureKind::Away)
    }

    /// Brings a result into the cache, as it is recorded there. Returns what counts then, and what no longer does. Where that is
    /// wrong or missing there, it does not count any more. What does not come for another reason is still known: it may come tomorrow.
    pub(crate) fn pull(
        &self,
        cache: &Cache,
        record: &Record,
        watch: &Watch,
    ) -> Result<(Record, Vec<Withdrawn>), NotPulled> {
        let remote = self.remote()?;
        if let Err(failure) = self.confirm(remote, record) {
            self.outage.note(Some(&failure));
            if failure.kind == FailureKind::Wrong {
                self.pass_over(&record.key, &failure);
                cache.forget_remote_record(&self.place(), &record.key);
            }
            return Err(failure.into());
        }
        let pulled = Puller { remote, cache, stored: &self.stored, watch }.pull(record);
        match &pulled {
            Ok(_) => {
                self.outage.note(None);
                cache.forget_remote_record(&self.place(), &record.key);
                cache.forget_remote_record(&self.place_of_incomplete(), &record.key);
            }
            Err(NotPulled::There(failure)) => {
                self.outage.note(Some(failure));
                if failure.kind == FailureKind::Wrong {
                    self.pass_over(&record.key, failure);
                    cache.keep_remote_record(&self.place_of_incomplete(), record);
                    cache.forget_remote_record(&self.place(), &record.key);
                }
            }
            Err(NotPulled::Here(_) | NotPulled::Stopped) => {}
        }
        pulled
    }

    /// Fails where it does not have this record any more, which it had in an earlier process.
    fn confirm(&self, remote: &dyn Remote, record: &Record) -> Result<(), RemoteFailure> {
        if self.has_answered(&record.key) {
            return Ok(());
        }
        match self.fetch(remote, &record.key)? {
            Some(there) if are_same(&there, record) => Ok(()),
            Some(_) => Err(RemoteFailure::wrong("another record has taken its place there")),
            None => Err(RemoteFailure::wrong("its record was removed there")),
        }
    }

    /// Sends a result of the cache, or its record alone, unless there is one of its key. Not one that was made from what turned out to
    /// be damaged here.
    pub(crate) fn push(
        &self,
        cache: &Cache,
        record: &Record,
        what: What,
        watch: &Watch,
    ) -> Result<Pushed, NotPulled> {
        let digest = record.output.digest;
        let mut spoiled = lock(&self.spoiled);
        if let Some(stage) = spoiled_by(&mut spoiled, cache, record) {
            let why = anyhow!("made from the result of {stage}, which is damaged here");
            spoiled.insert(digest, Spoiled::new(record, stage));
            return Err(why.into());
        }
        drop(spoiled);
        let pushed = self.push_sound(cache, record, what, watch);
        match &pushed {
            Err(NotPulled::Here(error)) if error.is::<DamagedHere>() => {
                lock(&self.spoiled).insert(digest, Spoiled::new(record, record.stage.clone()));
            }
            // Of what has other bytes there, nobody has looked at those that are here.
            Ok(pushed) if what == What::Result && *pushed != Pushed::OtherBytes => {
                lock(&self.spoiled).remove(&digest);
            }
            _ => {}
        }
        pushed
    }

    fn push_sound(
        &self,
        cache: &Cache,
        record: &Record,
        what: What,
        watch: &Watch,
    ) -> Result<Pushed, NotPulled> {
        let remote = self.remote()?;
        self.push_outage.begin()?;
        let push = || {
            let signer = self.signing.signer()?;
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
                self.remember(remote, cache, record, what, *pushed);
            }
            Err(NotPulled::There(failure)) => self.note_not_pushed(remote, failure),
            Err(NotPulled::Here(_) | NotPulled::Stopped) => self.push_outage.leave(),
        }
        pushed
    }

    /// Notes that it did not take something. Where it does not work at all, it takes nothing, either.
    fn note_not_pushed(&self, remote: &dyn Remote, failure: &RemoteFailure) {
        if failure.kind == FailureKind::Away && !self.is_away() {
            let _ = self.note(Self::read_version(remote));
        }
        match self.is_away() {
            true => self.push_outage.leave(),
            false => self.push_outage.note(Some(failure)),
        }
    }

    /// Keeps the record that it has for a key in the cache, now that a result was pushed: what is new there is ours.
    fn remember(
        &self,
        remote: &dyn Remote,
        cache: &Cache,
        ours: &Record,
        what: What,
        pushed: Pushed,
    ) {
        if what == What::Result {
            cache.keep_remote_record(&self.place_of_sent(), ours);
        }
        match pushed {
            Pushed::New | Pushed::Signed => self.has_now(cache, &ours.for_others()),
            _ if cache.remote_record(&self.place(), &ours.key).is_some() => {}
            _ => {
                if let Ok(Some(theirs)) = self.fetch(remote, &ours.key) {
                    self.has_now(cache, &theirs);
                }
            }
        }
    }

    /// Whether it may lack a result that was made here, or its record.
    pub(super) fn may_lack(&self, cache: &Cache, record: &Record, what: What) -> bool {
        let is_kept = |place| cache.remote_record(&place, &record.key).is_some();
        let is_there =
            || is_kept(self.place_of_sent()) || what == What::Record && is_kept(self.place());
        record.made_here && !is_there()
    }
}
