//! A record: what is known of one execution of a stage key. Writing it is what commits the execution.
//!
//! A record proves itself: its file begins with a checksum of the rest of it.

use std::io;
use std::path::Path;

use anyhow::Context;
use pipeline_stages::ArtifactType;
use pipeline_stages::message::{Metrics, RanOn};
use serde::{Deserialize, Serialize};

use super::lazy_run::LazyRun;
use super::stored::Stored;
use super::{disk, durable};
use crate::digest::Digest;
use crate::key::{KeyPart, StageKey};
use crate::reason::Reason;
use crate::usage::Usage;

/// How the file of a record begins. After it come 64 hexadecimal digits, [`AFTER_CHECKSUM`], and what they
/// are the BLAKE3 digest of.
const BEFORE_CHECKSUM: &str = "{\n  \"checksum\": \"";
const AFTER_CHECKSUM: &str = "\",\n";

/// What is known of one execution of a stage key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Record {
    pub(crate) key: StageKey,
    /// What the key was made of.
    pub(crate) parts: Vec<KeyPart>,
    /// What the stage was called, and in which experiment.
    pub(crate) stage: String,
    pub(crate) experiment: String,
    /// Why it ran.
    pub(crate) reason: Reason,
    /// The type of the artifact.
    pub(crate) artifact: ArtifactType,
    /// The artifact.
    pub(crate) output: Stored,
    /// What the stage measured.
    pub(crate) metrics: Metrics,
    /// Seconds from its start to the end of its commit; of the last part, where it was interrupted.
    pub(crate) seconds: f64,
    /// When it ended: seconds since 1970, UTC.
    pub(crate) finished: u64,
    /// Where it ran.
    pub(crate) host: String,
    /// What it ran on, where that matters.
    pub(crate) ran_on: Option<RanOn>,
    /// What it took, of the last part where it was interrupted.
    #[serde(default)]
    pub(crate) usage: Usage,
    /// The version of the program.
    pub(crate) version: String,
    /// The run that recorded it without waiting for the disk, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lazy: Option<LazyRun>,
    /// Whether the stage ran for this cache, so that whoever signs here answers for it. Not so of what came from a remote, and of
    /// what was recorded before results could be signed: that may have come from one, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) made_here: bool,
}

/// What a run needs to know of a result: a part of its record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KnownResult {
    pub(crate) key: StageKey,
    /// The artifact.
    pub(crate) output: Stored,
    /// Its type.
    pub(crate) artifact: ArtifactType,
    pub(crate) metrics: Metrics,
    /// The artifacts that it was made from, each with its port.
    pub(crate) inputs: Vec<(String, Digest)>,
    /// The digests of what was read outside the cache, in the order of the stage's paths.
    pub(crate) outside: Vec<Digest>,
    /// What it ran on, where that matters.
    pub(crate) ran_on: Option<RanOn>,
}

impl From<Record> for KnownResult {
    fn from(record: Record) -> Self {
        let Record { key, parts, artifact, output, metrics, ran_on, .. } = record;
        let (mut inputs, mut outside) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                KeyPart::Input { port, digest, .. } => inputs.push((port, digest)),
                KeyPart::Outside { digest, .. } => outside.push(digest),
                _ => {}
            }
        }
        Self { key, output, artifact, metrics, inputs, outside, ran_on }
    }
}

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unreadable {
    /// There is none.
    Missing,
    /// There is a file, and the system does not let it be read now.
    Inaccessible,
    /// There is a file, but it is not a whole record of this key.
    Damaged,
    /// It is whole, and another version of this program wrote it.
    OtherVersion,
}

impl Record {
    /// The same for other caches: where and when it waited for a disk is a matter of this one, and so is where it came from.
    pub(crate) fn for_others(&self) -> Self {
        Self { lazy: None, made_here: false, ..self.clone() }
    }

    /// What people call it: the experiment and the stage.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.experiment, self.stage)
    }

    /// The artifacts that it was made from.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Digest> {
        self.parts.iter().filter_map(|part| match part {
            KeyPart::Input { digest, .. } => Some(digest),
            _ => None,
        })
    }

    /// Reads the record of a key.
    ///
    /// # Errors
    /// When there is none, its file is damaged, or of another version.
    pub(crate) fn read(path: &Path, key: &StageKey) -> Result<Self, Unreadable> {
        let text = disk::read(path, disk::LARGEST_TEXT).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unreadable::Missing,
            io::ErrorKind::InvalidData => Unreadable::Damaged,
            _ => Unreadable::Inaccessible,
        })?;
        Self::of_key(&text, key).ok_or_else(|| match Self::is_of_another_version(&text, key) {
            true => Unreadable::OtherVersion,
            false => Unreadable::Damaged,
        })
    }

    /// The record of a key in the bytes of a file, if it is whole and of this key.
    pub(crate) fn of_key(text: &[u8], key: &StageKey) -> Option<Self> {
        Self::parse(text).filter(|record| record.key == *key && StageKey::of(&record.parts) == *key)
    }

    /// One for tests, of a stage with this name whose key was made of these parts.
    #[cfg(test)]
    pub(crate) fn for_test(
        stage: &str,
        parts: Vec<KeyPart>,
        output: crate::digest::Digest,
    ) -> Self {
        let extent = super::entry::Extent::default();
        Self {
            key: StageKey::of(&parts),
            parts,
            stage: stage.to_owned(),
            experiment: "test".to_owned(),
            reason: Reason::NeverRan,
            artifact: ArtifactType::Directory,
            output: Stored { digest: output, extent },
            metrics: Metrics::new(),
            seconds: 0.1,
            finished: 7,
            host: String::new(),
            ran_on: None,
            usage: Usage::default(),
            version: "0".to_owned(),
            lazy: None,
            made_here: true,
        }
    }

    /// The record in the bytes of a file, if it is whole.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if !is_whole(text) {
            return None;
        }
        serde_json::from_slice(text).ok()
    }

    /// Whether another version wrote what is in the place of the record of a key, and cannot be understood: it is whole.
    fn is_of_another_version(text: &[u8], key: &StageKey) -> bool {
        let fields: Option<serde_json::Value> = serde_json::from_slice(text).ok();
        // Somebody may have put the record of another key there.
        let of = fields.as_ref().and_then(|fields| fields.get("key")?.as_str()?.parse().ok());
        is_whole(text) && of.is_none_or(|of: StageKey| of == *key)
    }

    /// The bytes of its file.
    pub(crate) fn text(&self) -> anyhow::Result<Vec<u8>> {
        let fields = serde_json::to_string_pretty(self).context("a record is plain data")?;
        let rest = format!("{}\n", fields.strip_prefix("{\n").unwrap_or_default());
        let checksum = Digest::from(blake3::hash(rest.as_bytes()));
        Ok(format!("{BEFORE_CHECKSUM}{checksum}{AFTER_CHECKSUM}{rest}").into_bytes())
    }

    /// Writes a record in one step, and durably unless it says otherwise. For whoever has the claim to its key.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let write = match &self.lazy {
            Some(_) => durable::write_disposable,
            None => durable::write_file,
        };
        write(path, &self.text()?)
    }
}

/// Whether the bytes of a file match the checksum that it begins with.
fn is_whole(text: &[u8]) -> bool {
    let parts = || {
        let text = text.strip_prefix(BEFORE_CHECKSUM.as_bytes())?;
        let (checksum, rest) = text.split_at_checked(64)?;
        let checksum = std::str::from_utf8(checksum).ok()?.parse::<Digest>().ok()?;
        Some((checksum, rest.strip_prefix(AFTER_CHECKSUM.as_bytes())?))
    };
    parts().is_some_and(|(checksum, rest)| Digest::from(blake3::hash(rest)) == checksum)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::digest::FieldHasher;

    fn record() -> Record {
        let parts = vec![KeyPart::Kind { name: "command".to_owned(), version: 1 }];
        let metrics = [("accuracy".to_owned(), 0.15)].into();
        Record { metrics, ..Record::for_test("a", parts, FieldHasher::new("test").finish()) }
    }

    #[test]
    fn a_record_from_before_its_usage_was_measured_is_read() {
        let record = record();
        let text = String::from_utf8(record.text().expect("plain data")).expect("text");
        let rest = text.split_once(AFTER_CHECKSUM).expect("a checksum").1;
        let rest = rest.replace("  \"usage\": {},\n", "");
        assert!(!rest.contains("usage"), "{rest}");
        let checksum = Digest::from(blake3::hash(rest.as_bytes()));
        let before = format!("{BEFORE_CHECKSUM}{checksum}{AFTER_CHECKSUM}{rest}");
        assert_eq!(Record::parse(before.as_bytes()), Some(record));
    }

    #[test]
    fn what_is_no_file_of_a_record_is_damage_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.json");
        let key = record().key;
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        assert_eq!(Record::read(&path, &key), Err(Unreadable::Damaged));
        fs::remove_file(&path).expect("ours");
        // Without a byte on the disk.
        let sparse = fs::File::create(&path).expect("writable");
        sparse.set_len(20 << 30).expect("ours");
        assert_eq!(Record::read(&path, &key), Err(Unreadable::Damaged));
        fs::remove_file(&path).expect("ours");
        fs::create_dir(&path).expect("writable");
        assert_eq!(Record::read(&path, &key), Err(Unreadable::Damaged));
        fs::remove_dir(&path).expect("ours");
        std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert_eq!(Record::read(&path, &key), Err(Unreadable::Damaged));
    }

    #[test]
    fn a_record_reads_back_and_any_other_bit_of_it_is_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.json");
        let record = record();
        assert_eq!(Record::read(&path, &record.key), Err(Unreadable::Missing));
        record.write(&path).expect("writable");
        assert_eq!(Record::read(&path, &record.key).as_ref(), Ok(&record));
        let text = fs::read(&path).expect("readable");
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "people read it too");
        for place in 0..text.len() {
            let mut damaged = text.clone();
            damaged[place] ^= 8;
            fs::write(&path, &damaged).expect("writable");
            assert_eq!(Record::read(&path, &record.key), Err(Unreadable::Damaged), "byte {place}");
        }
        for length in 0..text.len() {
            fs::write(&path, &text[..length]).expect("writable");
            assert_eq!(
                Record::read(&path, &record.key),
                Err(Unreadable::Damaged),
                "{length} bytes"
            );
        }
    }
}
