//! Where everything is in a cache. No other file joins a path of the cache.
//!
//! ```text
//! cache/
//!   VERSION                        the version of this layout
//!   store/<digest>/                artifacts, read-only
//!   listings/ab/<digest>.json      the files of an artifact, each with its digest
//!   records/ab/<key>.json          one record per stage key; written last: the commit point
//!   heads/<experiment>/<stage>     the key that this stage had last
//!   latest/<experiment>/<stage>    -> ../../store/<digest>, links for people
//!   logs/ab/<key>.log              what the last run of this key wrote to standard error
//!   partial/<key>/                 checkpoints of a stage that has not finished; what has arrived of large files
//!   tmp/<key>-<own>/               work in progress
//!   locks/<key>                    flock files
//!   quarantine/<digest>-<n>/       artifacts that were found damaged
//!   quarantine/records/<key>.json  records that no longer count, each with its <key>.reason
//!   reruns/<key>-<n>/              outputs of `verify --rerun --keep`
//!   failed/<key>/                  what a stage had written when it failed
//!   running/<key>                  what works on a key now, or how far it was when it was interrupted
//!   history/runs/<experiment>/     a file for each run that did something, a line for each event
//!   history/plans/<digest>.json    the stages of runs, with their keys; history/manifests/ their texts
//!   history/checked/<experiment>   when a run last ended, also one that found nothing to do
//!   pins/<process>-<n>             the keys and artifacts that a process uses now, as long as it holds its lock
//!   jobs/<key>/                    a job elsewhere: what it is to do, its id there, what it reports
//!   indexes/<digest>               what a run with nothing to do relied on, for the next one
//!   remote/<remote>/<key>.json     records that a remote had when it was asked
//!   flushed/<run>                  a run with `--durability=lazy` whose results are on the disk
//!   limit                          how much room the cache may take
//!   generation                     changes before a record or an artifact is removed: no index counts then
//!   stat.idx                       digests of files outside the cache, by their stat
//! ```

use std::path::{Path, PathBuf};

use pipeline_stages::checkpoint;

use crate::digest::Digest;
use crate::key::StageKey;

/// The version of the layout that this build reads and writes.
pub(crate) const VERSION: u32 = 2;

/// A folder directly below the cache folder: everything in a cache is in one of these.
///
/// *Truth* is what cannot be made again from the rest; everything else may be deleted at any time, and costs
/// time at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bucket {
    /// Artifacts. Truth. Written by a commit; an artifact that is found damaged leaves for the quarantine.
    Store,
    /// The files of each artifact. Written by a commit; proves itself.
    Listings,
    /// Records. Truth. Written by a commit, last; one that no longer counts leaves for the quarantine.
    Records,
    /// The key that each stage had last. Written by the main thread of a run.
    Heads,
    /// Links for people, swapped as a whole. Written by the main thread of a run.
    Latest,
    /// Logs. Written by the worker of the key.
    Logs,
    /// Checkpoints, and what has arrived of large files from elsewhere. Written by the worker of the key, or whoever receives its result;
    /// removed by its commit, and by the sweep.
    Partial,
    /// Work in progress. Written and removed by whoever has the lock of the name; swept when nobody has it.
    Tmp,
    /// The files of locks. They stay, empty or not.
    Locks,
    /// What was found damaged, and records of what was made from it. Nothing but these records is used; it is cleaned by age, and people may
    /// delete it.
    Quarantine,
    /// Outputs of reruns that somebody wants to keep. Cleaned by age; people may delete them.
    Reruns,
    /// The outputs of failed stages, the newest of each key. Removed by the next success, or cleaned by age; people may delete
    /// them.
    Failed,
    /// What works on a key now, and how far it was when it was interrupted. Written by one reporter per run; removed when
    /// the stage ends otherwise.
    Running,
    /// What each run did. Written by one reporter per run; people may delete it, and `results` finds less then.
    History,
    /// What cleaning must keep, a file for each process. Written by it; one whose lock is free is swept.
    Pins,
    /// Stages that run elsewhere. Made by a run before it submits one, and removed by whoever has seen its end.
    Jobs,
    /// What runs that found nothing to do relied on. Written at the end of a run; each proves itself.
    Indexes,
    /// The names of the runs that flushed their results once, at their end. Written then; without it, the results are checked after
    /// the next start of the machine.
    Flushed,
    /// Records that remotes had when they were asked. Written by whoever asks; each proves itself.
    Remote,
}

impl Bucket {
    /// Every bucket.
    pub(crate) const ALL: [Self; 19] = [
        Self::Store,
        Self::Listings,
        Self::Records,
        Self::Heads,
        Self::Latest,
        Self::Logs,
        Self::Partial,
        Self::Tmp,
        Self::Locks,
        Self::Quarantine,
        Self::Reruns,
        Self::Failed,
        Self::Running,
        Self::History,
        Self::Pins,
        Self::Jobs,
        Self::Indexes,
        Self::Flushed,
        Self::Remote,
    ];

    /// The name of its folder.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Listings => "listings",
            Self::Records => "records",
            Self::Heads => "heads",
            Self::Latest => "latest",
            Self::Logs => "logs",
            Self::Partial => "partial",
            Self::Tmp => "tmp",
            Self::Locks => "locks",
            Self::Quarantine => "quarantine",
            Self::Reruns => "reruns",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::History => "history",
            Self::Pins => "pins",
            Self::Jobs => "jobs",
            Self::Indexes => "indexes",
            Self::Flushed => "flushed",
            Self::Remote => "remote",
        }
    }

    /// Whether every cache has it from the beginning; the others are made when they are needed.
    const fn is_made_at_once(self) -> bool {
        matches!(
            self,
            Self::Store
                | Self::Records
                | Self::Heads
                | Self::Latest
                | Self::Logs
                | Self::Partial
                | Self::Tmp
                | Self::Locks
                | Self::Pins
        )
    }
}

/// How the names of the records of runs end.
pub(crate) const RUN_SUFFIX: &str = ".jsonl";

/// What the history keeps once for all runs that have it in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// The stages of a run, with their kinds and keys.
    Plan,
    /// The text of a manifest, and of the files that it includes.
    Manifest,
}

impl Document {
    const fn folder(self) -> &'static str {
        match self {
            Self::Plan => "plans",
            Self::Manifest => "manifests",
        }
    }
}

/// The files directly below the cache folder.
const FILES: [&str; 6] = ["VERSION", "README.md", ".gitignore", "stat.idx", "generation", "limit"];

/// The paths of one cache.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below a folder.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The cache folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a bucket.
    pub(crate) fn bucket(&self, bucket: Bucket) -> PathBuf {
        self.root.join(bucket.name())
    }

    /// The folders that every cache has.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let at_once = Bucket::ALL.into_iter().filter(|bucket| bucket.is_made_at_once());
        at_once.map(|bucket| self.bucket(bucket))
    }

    /// Whether a cache can have something of this name directly below its folder.
    pub(crate) fn is_ours(name: &str) -> bool {
        FILES.contains(&name) || Bucket::ALL.iter().any(|bucket| bucket.name() == name)
    }

    /// The file that holds the layout's version.
    pub(crate) fn version(&self) -> PathBuf {
        self.root.join("VERSION")
    }

    pub(crate) fn artifact(&self, digest: &Digest) -> PathBuf {
        self.bucket(Bucket::Store).join(digest.to_string())
    }

    /// The files of an artifact, each with its digest.
    pub(crate) fn listing(&self, digest: &Digest) -> PathBuf {
        self.sharded(Bucket::Listings, &digest.to_string(), "json")
    }

    /// The folder of the records of the keys in a [shard](StageKey::shard), below the cache folder.
    pub(crate) fn record_folder(shard: u8) -> PathBuf {
        let mut folder = PathBuf::with_capacity(Bucket::Records.name().len() + 3);
        folder.push(Bucket::Records.name());
        folder.push(format!("{shard:02x}"));
        folder
    }

    pub(crate) fn record(&self, key: &StageKey) -> PathBuf {
        self.sharded(Bucket::Records, &key.to_string(), "json")
    }

    /// The log of the last run of a key.
    pub(crate) fn log(&self, key: &StageKey) -> PathBuf {
        self.sharded(Bucket::Logs, &key.to_string(), "log")
    }

    /// The keys that the stages of an experiment had last.
    pub(crate) fn heads(&self, experiment: &str) -> PathBuf {
        self.bucket(Bucket::Heads).join(experiment)
    }

    /// The key that a stage had last.
    pub(crate) fn head(&self, experiment: &str, stage: &str) -> PathBuf {
        self.heads(experiment).join(stage)
    }

    /// The links for people to the artifacts of an experiment.
    pub(crate) fn links(&self, experiment: &str) -> PathBuf {
        self.bucket(Bucket::Latest).join(experiment)
    }

    /// The link for people to the artifact of a stage.
    pub(crate) fn link(&self, experiment: &str, stage: &str) -> PathBuf {
        self.links(experiment).join(stage)
    }

    /// What [`Layout::link`] points at.
    pub(crate) fn link_target(digest: &Digest) -> PathBuf {
        Path::new("../..").join(Bucket::Store.name()).join(digest.to_string())
    }

    /// Checkpoints of a key.
    pub(crate) fn partial(&self, key: &StageKey) -> PathBuf {
        self.bucket(Bucket::Partial).join(key.to_string())
    }

    /// The work in progress under a name: a key, or a key with a word before it.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.bucket(Bucket::Tmp).join(name)
    }

    /// The lock of a name.
    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.bucket(Bucket::Locks).join(name)
    }

    /// A record that no longer counts.
    pub(crate) fn withdrawn(&self, key: &StageKey) -> PathBuf {
        self.withdrawn_records().join(format!("{key}.json"))
    }

    /// Where records go that no longer count.
    pub(crate) fn withdrawn_records(&self) -> PathBuf {
        self.bucket(Bucket::Quarantine).join("records")
    }

    /// What a stage had written when it failed.
    pub(crate) fn failed(&self, key: &StageKey) -> PathBuf {
        self.bucket(Bucket::Failed).join(key.to_string())
    }

    /// Checkpoints of a key: see [`checkpoint`](pipeline_stages::checkpoint). Earlier versions had them in a folder of their own.
    pub(crate) fn checkpoint(&self, key: &StageKey) -> PathBuf {
        let place = self.partial(key);
        let old = place.join("checkpoint");
        let is_there = old.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        if is_there && checkpoint::newest(&old) > checkpoint::newest(&place) { old } else { place }
    }

    /// What works on a key now.
    pub(crate) fn running(&self, key: &StageKey) -> PathBuf {
        self.bucket(Bucket::Running).join(key.to_string())
    }

    /// The job elsewhere of a key.
    pub(crate) fn job(&self, key: &StageKey) -> PathBuf {
        self.bucket(Bucket::Jobs).join(key.to_string())
    }

    /// The records of the runs of an experiment.
    pub(crate) fn runs(&self, experiment: &str) -> PathBuf {
        self.all_runs().join(experiment)
    }

    /// The records of runs, in a folder for each experiment.
    pub(crate) fn all_runs(&self) -> PathBuf {
        self.bucket(Bucket::History).join("runs")
    }

    /// The record of a run.
    pub(crate) fn run(&self, experiment: &str, id: &str) -> PathBuf {
        self.runs(experiment).join(format!("{id}{RUN_SUFFIX}"))
    }

    /// What several runs have in common, under the digest of its text.
    pub(crate) fn document(&self, kind: Document, digest: &Digest) -> PathBuf {
        self.documents(kind).join(format!("{digest}.json"))
    }

    /// What several runs have in common.
    pub(crate) fn documents(&self, kind: Document) -> PathBuf {
        self.bucket(Bucket::History).join(kind.folder())
    }

    /// When a run of an experiment last ended: the time of this file.
    pub(crate) fn checked(&self, experiment: &str) -> PathBuf {
        self.bucket(Bucket::History).join("checked").join(experiment)
    }

    /// What a run with nothing to do relied on, by what it was asked to do.
    pub(crate) fn index(&self, asked: &Digest) -> PathBuf {
        self.bucket(Bucket::Indexes).join(asked.short())
    }

    /// The record that a remote had for a key when it was asked.
    pub(crate) fn remote_record(&self, remote: &Digest, key: &StageKey) -> PathBuf {
        self.bucket(Bucket::Remote).join(remote.short()).join(format!("{key}.json"))
    }

    /// That the results of a run are on the disk.
    pub(crate) fn flushed(&self, run: &str) -> PathBuf {
        self.bucket(Bucket::Flushed).join(run)
    }

    pub(crate) fn generation(&self) -> PathBuf {
        self.root.join("generation")
    }

    /// How much room the cache may take.
    pub(crate) fn limit(&self) -> PathBuf {
        self.root.join("limit")
    }

    pub(crate) fn stat_index(&self) -> PathBuf {
        self.root.join("stat.idx")
    }

    /// The folders in which files are replaced in one step: a killed process may leave a new one there
    /// under its temporary name. Those that exist.
    pub(crate) fn replaced_in(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.root.clone(), self.withdrawn_records()];
        let flat = [Bucket::Indexes, Bucket::Flushed, Bucket::Jobs, Bucket::Running];
        folders.extend(flat.map(|bucket| self.bucket(bucket)));
        let buckets = [
            Bucket::Records,
            Bucket::Listings,
            Bucket::Heads,
            Bucket::Latest,
            Bucket::History,
            Bucket::Remote,
        ];
        let buckets = buckets.map(|bucket| self.bucket(bucket));
        for above in buckets.into_iter().chain([self.all_runs()]) {
            let listing = std::fs::read_dir(above).into_iter().flatten().flatten();
            let inside = listing.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(inside.map(|entry| entry.path()));
        }
        folders
    }

    fn sharded(&self, bucket: Bucket, name: &str, extension: &str) -> PathBuf {
        // Thousands of them are made in a row, by several threads. What must grow waits for memory that another one may have.
        let root = self.root.as_os_str();
        let parts = root.len() + bucket.name().len() + name.len() + extension.len();
        let mut path = PathBuf::with_capacity(parts + 6);
        path.extend([root, bucket.name().as_ref(), name[..2].as_ref(), name.as_ref()]);
        for end in [".", extension] {
            path.as_mut_os_string().push(end);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_is_listed_once_and_drawn_in_the_head_of_this_file() {
        let drawing = include_str!("layout.rs");
        for (index, bucket) in Bucket::ALL.into_iter().enumerate() {
            assert_eq!(bucket as usize, index);
            assert!(Layout::is_ours(bucket.name()));
            let drawn = drawing.lines().take_while(|line| line.starts_with("//!"));
            assert!(drawn.into_iter().any(|line| line.contains(&format!("{}/", bucket.name()))));
        }
        assert!(!Layout::is_ours("photos"));
    }

    #[test]
    fn a_checkpoint_of_an_earlier_version_stays_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path().to_owned());
        let key = StageKey::of(&[]);
        assert_eq!(layout.checkpoint(&key), layout.partial(&key));
        let old = layout.partial(&key).join("checkpoint");
        std::fs::create_dir_all(&old).expect("writable");
        assert_eq!(layout.checkpoint(&key), layout.partial(&key));
        // The newest counts, where both versions have been at work.
        for (id, newest) in [("2", old.clone()), ("4", layout.partial(&key)), ("3", old)] {
            std::fs::create_dir(newest.join(id)).expect("writable");
            std::fs::write(newest.join(format!("{id}.lock")), "").expect("writable");
            let expected = if id == "3" { layout.partial(&key) } else { newest };
            assert_eq!(layout.checkpoint(&key), expected, "{id}");
        }
    }
}
