//! Where everything lies in a cache. No other file joins a path of the cache.
//!
//! ```text
//! cache/
//!   VERSION                        the version of this layout
//!   store/<digest>/                artifacts, read-only
//!   listings/ab/<digest>.json      the files of an artifact, each with its digest; disposable
//!   records/ab/<key>.json          one record per stage key; written last: the commit point
//!   heads/<experiment>/<stage>     the key that this stage had last
//!   runs/<experiment>/<stage>      -> ../../store/<digest>, links for people
//!   logs/ab/<key>.log              what the last run of this key wrote to standard error
//!   partial/<key>/                 checkpoints of a stage that has not finished
//!   tmp/<key>/                     work in progress
//!   locks/<key>                    flock files
//!   quarantine/<digest>-<n>/       artifacts that were found damaged
//!   reruns/<key>-<n>/              outputs of `verify --rerun --keep`
//!   stat.idx                       digests of files outside the cache, by their stat
//! ```

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::StageKey;

/// The version of the layout that this build reads and writes.
pub const VERSION: u32 = 1;

/// The paths of one cache.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below a folder.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folders that every cache has.
    pub fn folders(&self) -> [PathBuf; 8] {
        ["store", "records", "heads", "runs", "logs", "partial", "tmp", "locks"]
            .map(|name| self.root.join(name))
    }

    /// The file that holds the layout's version.
    pub fn version(&self) -> PathBuf {
        self.root.join("VERSION")
    }

    /// Where artifacts lie.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// An artifact.
    pub fn artifact(&self, digest: &Digest) -> PathBuf {
        self.store().join(digest.to_string())
    }

    /// The files of an artifact, each with its digest.
    pub fn listing(&self, digest: &Digest) -> PathBuf {
        self.sharded("listings", &digest.to_string(), "json")
    }

    /// A record.
    pub fn record(&self, key: &StageKey) -> PathBuf {
        self.sharded("records", &key.to_string(), "json")
    }

    /// The log of the last run of a key.
    pub fn log(&self, key: &StageKey) -> PathBuf {
        self.sharded("logs", &key.to_string(), "log")
    }

    /// The key that a stage had last.
    pub fn head(&self, experiment: &str, stage: &str) -> PathBuf {
        self.root.join("heads").join(experiment).join(stage)
    }

    /// The link for people to the artifact of a stage.
    pub fn link(&self, experiment: &str, stage: &str) -> PathBuf {
        self.root.join("runs").join(experiment).join(stage)
    }

    /// What [`Layout::link`] points at.
    pub fn link_target(digest: &Digest) -> PathBuf {
        Path::new("../../store").join(digest.to_string())
    }

    /// The records, two digits of a key for each folder.
    pub fn records(&self) -> PathBuf {
        self.root.join("records")
    }

    /// The checkpoints of all keys.
    pub fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// Checkpoints of a key.
    pub fn partial(&self, key: &StageKey) -> PathBuf {
        self.partials().join(key.to_string())
    }

    /// Work in progress, one folder for each key that is being worked on.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The lock of a name under [`Layout::tmp`], which is a key.
    pub fn lock(&self, key: &str) -> PathBuf {
        self.root.join("locks").join(key)
    }

    /// Where damaged artifacts go.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The stat index.
    pub fn stat_index(&self) -> PathBuf {
        self.root.join("stat.idx")
    }

    /// Where rerun outputs go that somebody wants to keep.
    pub fn reruns(&self) -> PathBuf {
        self.root.join("reruns")
    }

    /// The folders in which files are replaced in one step: a killed process may leave a new one there
    /// under its temporary name. Those that exist.
    pub fn replaced_in(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.root.clone()];
        for above in ["records", "listings", "heads", "runs"] {
            let listing = std::fs::read_dir(self.root.join(above)).into_iter().flatten().flatten();
            let inside = listing.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(inside.map(|entry| entry.path()));
        }
        folders
    }

    fn sharded(&self, folder: &str, name: &str, extension: &str) -> PathBuf {
        self.root.join(folder).join(&name[..2]).join(format!("{name}.{extension}"))
    }
}
