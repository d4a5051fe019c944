//! What happens to what is damaged: first what was made from it is withdrawn, then it moves to the quarantine.
//!
//! In this order and under the lock of the artifact: killed anywhere, nothing counts that may be wrong, and nothing is
//! withdrawn that was made from a sound one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::lock::Lock;
use super::store::{self, Stored};
use super::withdrawal::Withdrawn;
use super::{Cache, durable};
use crate::digest::Digest;

/// A damaged artifact that is out of the way now.
#[derive(Debug)]
pub struct Quarantined {
    /// Where it is. `None` where somebody else had moved it.
    pub place: Option<PathBuf>,
    /// What no longer counts, because it was made from it.
    pub withdrawn: Vec<Withdrawn>,
}

impl Cache {
    /// Moves an artifact out of the way if its extent is not the recorded one, and withdraws what was made from it.
    /// `None` where it is.
    ///
    /// # Errors
    /// When something cannot be moved.
    pub fn quarantine_if_damaged(&self, stored: &Stored) -> anyhow::Result<Option<Quarantined>> {
        self.quarantine_unless(&stored.digest, || Ok(store::holds(&self.layout, stored)))
    }

    /// The same, going by the bytes.
    ///
    /// # Errors
    /// When something cannot be read or moved.
    pub fn quarantine_if_rewritten(&self, digest: &Digest) -> anyhow::Result<Option<Quarantined>> {
        self.quarantine_unless(digest, || store::is_intact(&self.layout, digest))
    }

    fn quarantine_unless(
        &self,
        digest: &Digest,
        is_sound: impl Fn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<Quarantined>> {
        if is_sound()? {
            return Ok(None);
        }
        let lock = store::lock(&self.layout, digest)?;
        if is_sound()? {
            return Ok(None);
        }
        // Where somebody removed it, or moved it away, it was not damaged for whoever read it.
        let is_gone = fs::symlink_metadata(self.layout.artifact(digest)).is_err();
        let withdrawn = if is_gone { Vec::new() } else { self.withdraw_made_from(&[*digest])? };
        Ok(Some(Quarantined { place: self.quarantine(digest, &lock)?, withdrawn }))
    }

    /// Withdraws what was made from an artifact that is no longer the one that it was, for whoever has just recorded something
    /// that was. The lock makes sure that somebody who found the damage saw that record, or has moved the artifact.
    ///
    /// # Errors
    /// When a record cannot be moved.
    pub fn withdraw_unless(
        &self,
        digest: &Digest,
        is_the_same: impl Fn() -> bool,
    ) -> anyhow::Result<Vec<Withdrawn>> {
        let _lock = store::lock(&self.layout, digest)?;
        if is_the_same() { Ok(Vec::new()) } else { self.withdraw_made_from(&[*digest]) }
    }

    /// Moves an artifact out of the way, for whoever has its lock and withdrew what was made from it. Reports where to;
    /// `None` where there is none.
    pub(super) fn quarantine(&self, digest: &Digest, _: &Lock) -> anyhow::Result<Option<PathBuf>> {
        store::quarantine(&self.layout, digest)
    }

    /// Moves the file of a record that cannot be read out of the way, and reports where to.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn quarantine_record(&self, file: &Path) -> anyhow::Result<PathBuf> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let target =
            durable::free_name(&self.layout.withdrawn_records(), &format!("{name}.damaged"))?;
        fs::rename(file, &target)
            .with_context(|| format!("cannot move the damaged {} away", file.display()))?;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Record;
    use crate::digest::Encoder;
    use crate::key::Part;

    #[test]
    fn a_result_is_withdrawn_if_its_input_changed_before_it_was_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        let digest = |text: &str| Encoder::new("test").text(text).finish();
        let input = digest("input");
        let port = "data".to_owned();
        let parts = vec![Part::Input { port, from: "a".parse().expect("a name"), digest: input }];
        let record = Record::for_test("b", parts, digest("output"));
        let place = cache.layout().record(&record.key);
        durable::create_folder(place.parent().expect("a folder")).expect("writable");
        record.write(&place).expect("writable");

        assert_eq!(cache.withdraw_unless(&input, || true).expect("writable"), []);
        assert!(cache.record(&record.key).is_some());
        let withdrawn = cache.withdraw_unless(&input, || false).expect("writable");
        assert_eq!(withdrawn.iter().map(|one| one.record.name()).collect::<Vec<_>>(), ["test/b"]);
        assert!(cache.record(&record.key).is_none() && cache.withdrawn(&record.key).is_some());
    }
}
