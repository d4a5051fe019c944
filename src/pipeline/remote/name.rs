//! What is called how on a remote. No other file makes such a name.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::StageKey;

/// A name below a remote: parts of plain letters, with `/` between.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

/// The most bytes of a record.
pub(super) const MOST_RECORD_BYTES: u64 = 64 << 20;

/// The folder of records.
pub(super) const RECORDS: &str = "records";

/// The folder of signatures.
pub(super) const SIGNATURES: &str = "signatures";

/// How names begin that are not final yet, of files that become one of those above.
pub(super) const NEW: &str = ".new-";

/// A name that is not final, in a folder of a remote. No other process has it, on whichever machine.
pub(super) fn new_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    // Of two processes with the same number on machines with the same name, the times differ.
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{NEW}{host}-{:x}-{since:x}-{count:x}", std::process::id())
}

/// How the bytes of a file are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// As a Zstandard frame (RFC 8878).
    Zstd,
}

impl Name {
    /// What has the version of the layout.
    pub(super) fn version() -> Self {
        Self("VERSION".to_owned())
    }

    pub(super) fn record(key: &StageKey) -> Self {
        Self::sharded(RECORDS, &key.to_string(), ".json")
    }

    /// The signature of a statement by a key.
    pub(super) fn signature(statement: &Digest, key: &str) -> Self {
        Self::sharded(SIGNATURES, &statement.to_string(), &format!("-{key}"))
    }

    /// The files of an artifact.
    pub(super) fn index(artifact: &Digest) -> Self {
        Self::sharded("artifacts", &artifact.to_string(), ".json.zst")
    }

    /// The small files of an artifact.
    pub(super) fn pack(artifact: &Digest) -> Self {
        Self::sharded("packs", &artifact.to_string(), ".zst")
    }

    /// A large file with these bytes.
    pub(super) fn blob(content: &Digest, encoding: Encoding) -> Self {
        let end = match encoding {
            Encoding::Plain => "",
            Encoding::Zstd => ".zst",
        };
        Self::sharded("blobs", &content.to_string(), end)
    }

    fn sharded(folder: &str, name: &str, end: &str) -> Self {
        Self(format!("{folder}/{}/{name}{end}", &name[..2]))
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
