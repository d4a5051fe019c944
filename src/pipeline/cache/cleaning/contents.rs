//! What is in a cache, item by item, and how much room each takes on the disk.
//!
//! Looks twice for who cleans: what did not change since the first look is not read or measured again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::super::layout::{Bucket, Document, Layout};
use super::super::lazy_run::LazyRun;
use super::super::opened::Cache;
use super::super::record::{Record, Unreadable};
use super::super::{disk, store};
use super::names::{certain_folders, certain_names, names, numbered, sharded, stem};
use super::rooms::{Identity, Room, Rooms, identity};
use crate::digest::Digest;
use crate::key::{KeyPart, StageKey};

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// An artifact with its records, its listing and the logs of its stages.
    Artifact,
    /// A record whose artifact is gone, with its log.
    Record,
    Checkpoint,
    Failed,
    Quarantine,
    Rerun,
    /// The log of a stage without a result.
    Log,
    /// The files of an artifact that is gone, or of something outside of the cache that nothing was made from.
    Listing,
    /// How far a stage was when it was interrupted.
    Running,
    /// A text of the history that no run has.
    Document,
    Index,
    /// The mark of a run without records that are certain by it.
    Flushed,
    /// A record that a remote had when it was asked.
    RemoteRecord,
}

impl What {
    /// What several of them are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Artifact => "artifacts",
            Self::Record => "records without artifact",
            Self::Checkpoint => "checkpoints",
            Self::Failed => "failed outputs",
            Self::Quarantine => "quarantine",
            Self::Rerun => "reruns",
            Self::Log => "logs",
            Self::Listing => "listings",
            Self::Running => "progress of stages",
            Self::Document => "texts of the history",
            Self::Index => "indexes",
            Self::Flushed => "marks of runs",
            Self::RemoteRecord => "records of remotes",
        }
    }
}

/// Something that stays or goes as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) what: What,
    /// The kind of the stage and the experiment that its newest record names.
    pub(crate) made_by: Option<(String, String)>,
    /// The keys that it belongs to.
    pub(crate) keys: Vec<StageKey>,
    /// The artifact.
    pub(crate) artifact: Option<Digest>,
    /// How much room it takes.
    pub(crate) bytes: u64,
    /// How much of that logs take, which are part of it.
    pub(crate) log_bytes: u64,
    /// When it was made, or used last as far as the cache itself shows it: seconds since 1970, UTC.
    pub(crate) used: u64,
    /// The files of records: they go first.
    pub(super) records: Vec<PathBuf>,
    /// Everything else of it.
    pub(super) others: Vec<PathBuf>,
}

/// What is in a cache.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) items: Vec<Item>,
    /// What takes room besides: a name, and how much.
    pub(crate) rest: Vec<(&'static str, u64)>,
    /// Whether something could not be read, and takes more room than is known.
    pub(crate) is_partial: bool,
}

impl Contents {
    /// How much room all of it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let items = self.items.iter().map(|item| item.bytes);
        items.chain(self.rest.iter().map(|(_, bytes)| *bytes)).sum()
    }
}

/// What is known from an earlier look.
#[derive(Debug, Default)]
pub(crate) struct EarlierLook {
    records: HashMap<StageKey, (Identity, KnownRecord)>,
    rooms: Rooms,
    rest: Option<Vec<(&'static str, u64)>>,
}

/// What an item needs to know of a record.
#[derive(Debug, Clone)]
struct KnownRecord {
    digest: Digest,
    experiment: String,
    kind: String,
    finished: u64,
    outside: Vec<Digest>,
    /// The run that says whether it is certain.
    lazy: Option<String>,
}

impl From<Record> for KnownRecord {
    fn from(record: Record) -> Self {
        let mut kind = String::new();
        let mut outside = Vec::new();
        for part in record.parts {
            match part {
                KeyPart::Kind { name, .. } => kind = name,
                KeyPart::Outside { digest, .. } => outside.push(digest),
                _ => {}
            }
        }
        let Record { output, experiment, finished, lazy, .. } = record;
        let lazy = lazy.map(|run| run.name().to_owned());
        Self { digest: output.digest, experiment, kind, finished, outside, lazy }
    }
}

/// That a record cannot be read.
fn not_known(record: &Path) -> String {
    format!("cannot read the record {}: what it needs is not known", record.display())
}

impl EarlierLook {
    /// Whether something was recorded without waiting for the disk.
    pub(super) fn has_lazy(&self) -> bool {
        self.records.values().any(|(_, record)| record.lazy.is_some())
    }

    /// The records that can be read, each with its key.
    fn read_records(&mut self, cache: &Cache) -> anyhow::Result<Vec<(StageKey, KnownRecord)>> {
        let folder = cache.layout().bucket(Bucket::Records);
        let mut keys: Vec<StageKey> = Vec::new();
        for shard in certain_folders(&folder)?.into_iter().map(|shard| folder.join(shard)) {
            keys.extend(
                certain_names(&shard)?.iter().filter_map(|name| stem::<StageKey>(name, ".json")),
            );
        }
        let mut records = Vec::with_capacity(keys.len());
        for key in keys {
            let place = cache.layout().record(&key);
            let metadata = match fs::symlink_metadata(&place) {
                Err(error) if store::is_absence(&error) => continue,
                found => found.with_context(|| not_known(&place))?,
            };
            let identity = identity(&metadata);
            if let Some((known, record)) = self.records.get(&key)
                && *known == identity
            {
                records.push((key, record.clone()));
                continue;
            }
            match cache.read_record(&key) {
                Ok(record) => {
                    let record = KnownRecord::from(record);
                    self.records.insert(key, (identity, record.clone()));
                    records.push((key, record));
                }
                Err(Unreadable::OtherVersion) => bail!(
                    "the record {} is of another version of pipeline, and what it needs is not known: clean with that version",
                    place.display()
                ),
                // It does not count.
                Err(Unreadable::Missing | Unreadable::Damaged) => {}
                Err(Unreadable::Inaccessible) => bail!(not_known(&place)),
            }
        }
        Ok(records)
    }

    /// Looks at everything in a cache. `documents` are the texts of the history that its runs have.
    ///
    /// # Errors
    /// When a record cannot be read now, or is of another version, so that its artifact would seem to belong to nothing.
    pub(crate) fn look(
        &mut self,
        cache: &Cache,
        documents: &HashSet<Digest>,
    ) -> anyhow::Result<Contents> {
        let layout = cache.layout();
        // Before the records: a run that flushes them meanwhile keeps its name.
        let flushed = names(&layout.bucket(Bucket::Flushed));
        let records = self.read_records(cache)?;
        let of_records: HashSet<StageKey> = records.iter().map(|(key, _)| *key).collect();
        let outside: HashSet<Digest> =
            records.iter().flat_map(|(_, record)| record.outside.iter().copied()).collect();
        let lazy: HashSet<String> =
            records.iter().filter_map(|(_, record)| record.lazy.clone()).collect();
        let mut items = self.results(cache, records)?;
        let artifacts: HashSet<Digest> = items.iter().filter_map(|item| item.artifact).collect();
        for (bucket, what) in [
            (Bucket::Partial, What::Checkpoint),
            (Bucket::Failed, What::Failed),
            (Bucket::Running, What::Running),
        ] {
            let keys =
                names(&layout.bucket(bucket)).into_iter().filter_map(|name| name.parse().ok());
            for key in keys {
                let place = match bucket {
                    Bucket::Partial => layout.partial(&key),
                    Bucket::Failed => layout.failed(&key),
                    _ => layout.running(&key),
                };
                self.add_item(&mut items, what, vec![key], vec![place]);
            }
        }
        for (bucket, what) in [
            (Bucket::Quarantine, What::Quarantine),
            (Bucket::Reruns, What::Rerun),
            (Bucket::Indexes, What::Index),
        ] {
            let folder = layout.bucket(bucket);
            for name in names(&folder) {
                // What somebody else put there is theirs.
                let key = match bucket {
                    Bucket::Quarantine => numbered::<Digest>(&name).map(|_| None),
                    Bucket::Reruns => numbered::<StageKey>(&name).map(Some),
                    _ => Digest::is_short(&name).then_some(None),
                };
                if let Some(key) = key {
                    self.add_item(&mut items, what, Vec::from_iter(key), vec![folder.join(name)]);
                }
            }
        }
        self.withdrawn(layout, &mut items);
        for run in flushed {
            if !lazy.contains(&run) && LazyRun::is_name(&run) {
                let place = layout.flushed(&run);
                self.add_item(&mut items, What::Flushed, Vec::new(), vec![place]);
            }
        }
        for (path, name) in sharded(&layout.bucket(Bucket::Remote)) {
            if let Some(key) = stem(&name, ".json") {
                self.add_item(&mut items, What::RemoteRecord, vec![key], vec![path]);
            }
        }
        for (path, name) in sharded(&layout.bucket(Bucket::Logs)) {
            if let Some(key) = stem(&name, ".log").filter(|key| !of_records.contains(key)) {
                self.add_item(&mut items, What::Log, vec![key], vec![path]);
            }
        }
        for (path, name) in sharded(&layout.bucket(Bucket::Listings)) {
            let is_needed =
                |digest: &Digest| artifacts.contains(digest) || outside.contains(digest);
            if stem(&name, ".json").is_some_and(|digest| !is_needed(&digest)) {
                self.add_item(&mut items, What::Listing, Vec::new(), vec![path]);
            }
        }
        for kind in [Document::Plan, Document::Manifest] {
            let folder = layout.documents(kind);
            for name in names(&folder) {
                if stem(&name, ".json").is_some_and(|digest| !documents.contains(&digest)) {
                    let place = folder.join(name);
                    self.add_item(&mut items, What::Document, Vec::new(), vec![place]);
                }
            }
        }
        let rest = match self.rest.clone() {
            Some(rest) => rest,
            None => self.measure_rest(layout, &items),
        };
        Ok(Contents { items, rest, is_partial: self.rooms.is_partial })
    }

    fn add_item(
        &mut self,
        items: &mut Vec<Item>,
        what: What,
        keys: Vec<StageKey>,
        others: Vec<PathBuf>,
    ) {
        let rooms: Vec<Room> = others.iter().filter_map(|path| self.rooms.room(path)).collect();
        if rooms.is_empty() {
            return;
        }
        items.push(Item {
            what,
            made_by: None,
            keys,
            artifact: None,
            bytes: rooms.iter().map(|room| room.bytes).sum(),
            log_bytes: 0,
            used: rooms.iter().map(|room| room.newest).max().unwrap_or_default(),
            records: Vec::new(),
            others,
        });
    }

    /// The artifacts with all that belongs to them.
    fn results(
        &mut self,
        cache: &Cache,
        records: Vec<(StageKey, KnownRecord)>,
    ) -> anyhow::Result<Vec<Item>> {
        let layout = cache.layout();
        let stored = cache.artifacts()?.into_iter().map(|digest| (digest, Vec::new()));
        let mut by_digest: BTreeMap<Digest, Vec<(StageKey, KnownRecord)>> = stored.collect();
        for (key, record) in records {
            by_digest.entry(record.digest).or_default().push((key, record));
        }
        // What was withdrawn can be restored as long as its artifact exists.
        let mut withdrawn: HashMap<Digest, Vec<(StageKey, u64)>> = HashMap::new();
        for one in cache.all_withdrawn()? {
            let key = one.record.key;
            let since = self.rooms.room(&layout.withdrawn(&key)).map_or(0, |room| room.newest);
            withdrawn.entry(one.record.output.digest).or_default().push((key, since));
        }
        let mut items = Vec::with_capacity(by_digest.len());
        for (digest, mut makers) in by_digest {
            makers.sort_by_key(|(key, record)| (record.finished, *key));
            let artifact = self.rooms.room(&layout.artifact(&digest));
            let parked = withdrawn.remove(&digest).unwrap_or_default();
            let used = makers.iter().map(|(_, record)| record.finished);
            let used = used.chain(parked.iter().map(|(_, since)| *since)).max();
            let keys: Vec<StageKey> = makers.iter().map(|(key, _)| *key).collect();
            let records: Vec<PathBuf> = keys.iter().map(|key| layout.record(key)).collect();
            // The artifact comes last: what is said of it goes before it.
            let others = keys.iter().map(|key| layout.log(key)).chain([layout.listing(&digest)]);
            let others: Vec<PathBuf> = others
                .chain([layout.artifact(&digest)])
                .filter(|path| self.rooms.room(path).is_some())
                .collect();
            let mut sum = |paths: &[PathBuf]| -> u64 {
                paths.iter().filter_map(|path| self.rooms.room(path)).map(|room| room.bytes).sum()
            };
            let bytes = sum(&records) + sum(&others);
            let logs: Vec<PathBuf> = keys.iter().map(|key| layout.log(key)).collect();
            let newest_record = makers.pop().map(|(_, record)| (record.kind, record.experiment));
            items.push(Item {
                what: if artifact.is_some() { What::Artifact } else { What::Record },
                made_by: newest_record,
                keys: keys.into_iter().chain(parked.into_iter().map(|(key, _)| key)).collect(),
                artifact: Some(digest),
                bytes,
                log_bytes: sum(&logs),
                used: used.or(artifact.map(|room| room.newest)).unwrap_or_default(),
                records,
                others,
            });
        }
        Ok(items)
    }

    /// Records that no longer count, and files of records that were damaged. The reasons stay: what was withdrawn does not come back
    /// from elsewhere.
    fn withdrawn(&mut self, layout: &Layout, items: &mut Vec<Item>) {
        let folder = layout.withdrawn_records();
        let mut by_stem: BTreeMap<String, PathBuf> = BTreeMap::new();
        for name in names(&folder) {
            let stem = name.strip_suffix(".json");
            let damaged = || Some(name.rsplit_once(".json.damaged-")?.0);
            // What somebody else put there is theirs.
            let Some(key) = stem.or_else(damaged).filter(|key| key.parse::<StageKey>().is_ok())
            else {
                continue;
            };
            let stem = if stem.is_some() { key } else { &name };
            by_stem.insert(stem.to_owned(), folder.join(&name));
        }
        for (stem, place) in by_stem {
            let keys = stem.parse().into_iter().collect();
            self.add_item(items, What::Quarantine, keys, vec![place]);
        }
    }

    /// What is in the cache besides, and is not cleaned item by item.
    fn measure_rest(&mut self, layout: &Layout, items: &[Item]) -> Vec<(&'static str, u64)> {
        let all = items.iter().flat_map(|item| item.records.iter().chain(&item.others));
        let all: HashSet<&Path> = all.map(PathBuf::as_path).collect();
        let mut rest: BTreeMap<&'static str, u64> = BTreeMap::new();
        for bucket in Bucket::ALL {
            let folder = layout.bucket(bucket);
            // It may be a link to another place.
            let Some(metadata) = self.rooms.known_metadata(fs::metadata(&folder)) else { continue };
            let name = match bucket {
                Bucket::Tmp if !names(&folder).is_empty() => "work in progress",
                Bucket::History => "history",
                _ => "other",
            };
            *rest.entry(name).or_default() += self.rooms.measure(&folder, &metadata, &all).bytes;
        }
        let files = disk::entries(layout.root());
        self.rooms.is_partial |= files.is_err();
        let mut room = Room::default();
        for file in files.unwrap_or_default() {
            let metadata = self.rooms.known_metadata(file.metadata());
            let file = metadata.filter(fs::Metadata::is_file);
            file.iter().for_each(|file| self.rooms.add(&mut room, file));
        }
        *rest.entry("other").or_default() += room.bytes;
        let rest: Vec<_> = rest.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        self.rest = Some(rest.clone());
        rest
    }
}
