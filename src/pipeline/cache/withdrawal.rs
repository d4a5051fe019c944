//! Records that no longer count: what was made from a damaged artifact may be wrong.
//!
//! They move to the quarantine with the reason, where nothing uses them, and can be brought back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::opened::Cache;
use super::own_pin::Pinned;
use super::record::{Record, Unreadable};
use super::{disk, durable, stamp, store};
use crate::digest::Digest;
use crate::key::StageKey;

/// A record that no longer counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Withdrawn {
    pub(crate) record: Record,
    /// Why it does not count.
    pub(crate) reason: String,
}

/// What became of a withdrawn record that was to be brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    CountsAgain,
    /// Its stage ran again meanwhile: there is a newer one.
    Replaced,
    /// Its artifact is gone.
    ArtifactGone,
}

impl Cache {
    /// Withdraws the records of everything that was made from these artifacts, directly or not, and returns them.
    ///
    /// What was made from an artifact that another record, which still counts, has made as well is left alone.
    pub(super) fn withdraw_made_from(&self, damaged: &[Digest]) -> anyhow::Result<Vec<Withdrawn>> {
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let (records, unreadable) = self.records();
        if let Some((path, _)) = unreadable.iter().find(|(_, why)| *why == Unreadable::Inaccessible)
        {
            bail!(
                "cannot read {}: whether it was made from what is damaged is not known",
                path.display()
            );
        }
        let mut withdrawn = Vec::new();
        for (index, from) in made_from(&records, damaged) {
            let record = &records[index];
            let reason = match damaged.contains(&from) {
                true => format!("it was made from the artifact {}, which is damaged", from.short()),
                false => format!(
                    "it was made from the artifact {}, whose own record was withdrawn",
                    from.short()
                ),
            };
            self.withdraw(record, &reason)?;
            withdrawn.push(Withdrawn { record: record.clone(), reason });
        }
        // Before the artifact leaves: after a power cut nothing counts that was made from what is not there to be checked.
        let places = withdrawn.iter().map(|one| self.layout.record(&one.record.key));
        let folders = places.filter_map(|place| Some(place.parent()?.to_owned()));
        for folder in folders.collect::<BTreeSet<_>>() {
            durable::sync_folder(&folder)
                .with_context(|| format!("cannot flush {} to disk", folder.display()))?;
        }
        Ok(withdrawn)
    }

    fn withdraw(&self, record: &Record, reason: &str) -> anyhow::Result<()> {
        let place = self.layout.withdrawn(&record.key);
        // The reason first: a record without one would be brought back without a word.
        durable::write_file(&place.with_extension("reason"), format!("{reason}\n").as_bytes())?;
        stamp::begin_removal(&self.layout)?;
        match disk::rename(self.layout.record(&record.key).as_path(), place.as_path()) {
            // Somebody else has removed it, or withdrawn it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !place.exists() {
                    durable::forget_file(&place.with_extension("reason"));
                }
                Ok(())
            }
            moved => moved.with_context(|| format!("cannot withdraw the record {}", record.key)),
        }
    }

    /// Why the record of a key no longer counts. `None` where there is no such record.
    pub(crate) fn withdrawn(&self, key: &StageKey) -> Option<Withdrawn> {
        self.read_withdrawn(key).ok()
    }

    fn read_withdrawn(&self, key: &StageKey) -> Result<Withdrawn, Unreadable> {
        let record = Record::read(&self.layout.withdrawn(key), key)?;
        let reason = self.why_withdrawn(key).ok().flatten().unwrap_or_default();
        Ok(Withdrawn { record, reason })
    }

    /// Why a record of a key was withdrawn here, also once it was cleaned away. `None` where none was, or its stage has run again.
    ///
    /// # Errors
    /// When there may be one, and it cannot be seen.
    pub(crate) fn why_withdrawn(&self, key: &StageKey) -> io::Result<Option<String>> {
        let place = self.layout.withdrawn(key);
        match disk::read_text(&place.with_extension("reason")) {
            Ok(reason) => Ok(Some(reason.trim().to_owned())),
            // It says nothing, and is there.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
            Err(error) if !store::is_absence(&error) => Err(error),
            Err(_) => match place.symlink_metadata() {
                Err(error) if !store::is_absence(&error) => Err(error),
                found => Ok(found.is_ok().then(String::new)),
            },
        }
    }

    /// All records that no longer count, sorted by their names.
    ///
    /// # Errors
    /// When there may be one that cannot be read.
    pub(crate) fn all_withdrawn(&self) -> anyhow::Result<Vec<Withdrawn>> {
        let mut all = Vec::new();
        for entry in disk::certain_entries(&self.layout.withdrawn_records())? {
            let name = entry.file_name();
            let key = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let Some(key) = key else { continue };
            match self.read_withdrawn(&key) {
                Err(Unreadable::Inaccessible) => bail!(cannot_read(&entry.path())),
                found => all.extend(found),
            }
        }
        all.sort_by_key(|one: &Withdrawn| one.record.name());
        Ok(all)
    }

    /// Lets a withdrawn record count again, if its artifact exists and its stage has not run again.
    pub(crate) fn restore(&self, key: &StageKey) -> anyhow::Result<Restored> {
        let (place, target) = (self.layout.withdrawn(key), self.layout.record(key));
        // Whoever works on the key records a newer one.
        let Some(_lock) = Lock::try_take(&self.layout.lock(&key.to_string()))? else {
            return Ok(Restored::Replaced);
        };
        match self.read_record(key) {
            Ok(_) => return Ok(Restored::Replaced),
            Err(Unreadable::Inaccessible) => bail!("cannot read the record that there is of {key}"),
            Err(_) => {}
        }
        let record = match Record::read(&place, key) {
            Err(Unreadable::Inaccessible) => bail!(cannot_read(&place)),
            Err(_) => return Ok(Restored::ArtifactGone),
            Ok(record) => record,
        };
        // Whoever cleans leaves it where it is from here on.
        self.pin([Pinned::Key(*key), Pinned::Artifact(record.output.digest)], |_| {})?;
        if !store::exists(&self.layout, &record.output.digest) {
            return Ok(Restored::ArtifactGone);
        }
        let restore = || -> anyhow::Result<()> {
            let folder = target.parent().context("a record is in a folder")?;
            durable::create_folder_durably(folder)?;
            disk::rename(place.as_path(), target.as_path())?;
            Ok(durable::sync_folder(folder)?)
        };
        restore().with_context(|| format!("cannot restore the record {key}"))?;
        let _ = disk::remove_file(&place.with_extension("reason"));
        Ok(Restored::CountsAgain)
    }
}

fn cannot_read(withdrawn: &Path) -> String {
    format!("cannot read the withdrawn record {}: make it readable", withdrawn.display())
}

/// The records that were made from these artifacts, directly or not, each with the artifact that spoils it. An
/// artifact that a sound record produced as well spoils nothing.
fn made_from(records: &[Record], damaged: &[Digest]) -> Vec<(usize, Digest)> {
    let mut readers: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    let mut makers: BTreeMap<Digest, usize> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        for digest in record.inputs() {
            readers.entry(*digest).or_default().push(index);
        }
        *makers.entry(record.output.digest).or_default() += 1;
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<Digest> = damaged.to_vec();
    while let Some(digest) = open.pop() {
        for &reader in readers.get(&digest).into_iter().flatten() {
            if !seen.insert(reader) {
                continue;
            }
            found.push((reader, digest));
            let output = records[reader].output.digest;
            let left = makers.entry(output).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 && !damaged.contains(&output) {
                open.push(output);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {

    use super::*;

    use crate::cache::Bucket;
    use crate::digest::FieldHasher;
    use crate::key::KeyPart;

    fn digest(text: &str) -> Digest {
        FieldHasher::new("test").text(text).finish()
    }

    /// `b<a`: a record named b of an artifact b, made from a. `c:b<a`: named c, of an artifact b.
    fn record(text: &str) -> Record {
        let (output, inputs) = text.split_once('<').unwrap_or((text, ""));
        let (stage, output) = output.split_once(':').unwrap_or((output, output));
        let name = KeyPart::Kind { name: stage.to_owned(), version: 1 };
        let inputs = inputs.split_terminator(',').map(|input| KeyPart::Input {
            port: input.to_owned(),
            from: "x".parse().expect("a name"),
            digest: digest(input),
        });
        let parts: Vec<KeyPart> = std::iter::once(name).chain(inputs).collect();
        Record::for_test(stage, parts, digest(output))
    }

    #[test]
    fn what_is_gone_when_it_would_be_withdrawn_leaves_no_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("cache")).expect("a cache");
        cache.prepare().expect("writable");
        let record = record("a");
        cache.withdraw(&record, "it was made from b").expect("writable");
        assert_eq!(cache.why_withdrawn(&record.key).expect("readable"), None);
        // Where somebody else was faster, theirs stays.
        durable::write_file(&cache.layout.withdrawn(&record.key), b"a record").expect("writable");
        cache.withdraw(&record, "it was made from b").expect("writable");
        let why = cache.why_withdrawn(&record.key).expect("readable");
        assert_eq!(why.as_deref(), Some("it was made from b"));
    }

    #[test]
    fn where_it_cannot_be_seen_what_was_withdrawn_nothing_counts_as_not_withdrawn() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("cache")).expect("a cache");
        cache.prepare().expect("writable");
        let record = record("a");
        let reason = cache.layout.withdrawn(&record.key).with_extension("reason");
        // It cannot be followed, also by root.
        let put_loop = |place: &Path| {
            std::os::unix::fs::symlink(place.file_name().expect("a name"), place).expect("ours");
        };
        let is_refused = || {
            let received = cache.receive(&record).map(drop).map_err(|error| format!("{error:#}"));
            received.is_err_and(|error| error.contains("was withdrawn here is not known"))
        };
        assert!(!is_refused() && cache.all_withdrawn().expect("nothing").is_empty());
        put_loop(&cache.layout.bucket(Bucket::Quarantine));
        assert!(is_refused() && cache.all_withdrawn().is_err());
        std::fs::remove_file(cache.layout.bucket(Bucket::Quarantine)).expect("ours");
        durable::create_folder(&cache.layout.withdrawn_records()).expect("writable");
        assert!(!is_refused());
        put_loop(&reason);
        assert!(is_refused());
        put_loop(&cache.layout.withdrawn(&record.key));
        assert!(cache.all_withdrawn().is_err() && cache.restore(&record.key).is_err());
    }

    #[test]
    fn everything_made_from_a_damaged_artifact_is_found_and_nothing_else() {
        for (records, damaged, expected) in [
            ("a b<a c<b d", "a", "b c"),
            ("a b<a c<b d", "b", "c"),
            ("a b<a c<b d", "d c", ""),
            ("a b<a c<a d<b,c", "a", "b c d"),
            // Somebody else made the same b, from what is sound.
            ("a b<a x:b<y c<b", "a", "b"),
            // And here from what is not.
            ("a b<a x:b<a c<b", "a", "b c x"),
            // What is damaged itself spoils its readers whoever made it.
            ("a x:a b<a", "a", "b"),
        ] {
            let records: Vec<Record> = records.split(' ').map(record).collect();
            let damaged: Vec<Digest> = damaged.split(' ').map(digest).collect();
            let found = made_from(&records, &damaged);
            let mut names: Vec<&str> =
                found.iter().map(|(index, _)| records[*index].stage.as_str()).collect();
            names.sort();
            assert_eq!(names.join(" "), expected);
        }
    }
}
