//! What happens to what is damaged: first what was made from it is withdrawn, then it moves to the quarantine.
//!
//! In this order and under the lock of the artifact: killed anywhere, nothing counts that may be wrong, and nothing is
//! withdrawn that was made from a sound one. Meanwhile nothing is recorded, so that no result slips through in between.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::lock::Lock;
use super::opened::Cache;
use super::record::Unreadable;
use super::snapshot::TopFolder;
use super::store;
use super::stored::Stored;
use super::withdrawal::Withdrawn;
use super::{disk, durable, stamp};
use crate::digest::Digest;
use crate::key::StageKey;

/// The artifact that a stage read at a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InputFolder {
    /// Its name.
    pub(crate) digest: Digest,
    /// The folder that it was.
    pub(crate) top: TopFolder,
}

/// That nothing is recorded now which was made from damaged artifacts.
#[derive(Debug)]
pub(super) struct Withdrawal(#[allow(dead_code, reason = "held until it is dropped")] Lock);

/// A damaged artifact that is out of the way now.
#[derive(Debug)]
pub(crate) struct Quarantined {
    /// Where it is. `None` where somebody else had moved it.
    pub(crate) place: Option<PathBuf>,
    /// What no longer counts, because it was made from it.
    pub(crate) withdrawn: Vec<Withdrawn>,
}

impl Cache {
    /// Moves an artifact out of the way if its extent is not the recorded one, and withdraws what was made from it.
    /// `None` where it is.
    pub(crate) fn quarantine_if_damaged(
        &self,
        stored: &Stored,
    ) -> anyhow::Result<Option<Quarantined>> {
        self.quarantine_unless(&stored.digest, || Ok(store::holds(&self.layout, stored)))
    }

    /// The same, going by the bytes.
    pub(crate) fn quarantine_if_rewritten(
        &self,
        digest: &Digest,
    ) -> anyhow::Result<Option<Quarantined>> {
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
        let _lock = store::lock(&self.layout, digest)?;
        // Where somebody removed it, or moved it away, it was not damaged for whoever read it. Looked at first: what has no place
        // can get one at any time, and what has one keeps it.
        let is_gone = fs::symlink_metadata(self.layout.artifact(digest)).is_err();
        if is_sound()? {
            return Ok(None);
        }
        if is_gone {
            return Ok(Some(Quarantined { place: None, withdrawn: Vec::new() }));
        }
        let (withdrawal, withdrawn) = self.begin_withdrawal(&[*digest])?;
        Ok(Some(Quarantined { place: self.quarantine(digest, &withdrawal)?, withdrawn }))
    }

    /// Withdraws what was made from these damaged artifacts, for whoever has their locks. Until what is returned is dropped,
    /// nothing is recorded that was made from them: they must be out of the way by then.
    pub(super) fn begin_withdrawal(
        &self,
        damaged: &[Digest],
    ) -> anyhow::Result<(Withdrawal, Vec<Withdrawn>)> {
        let withdrawal = Withdrawal(Lock::take(&self.withdrawal_lock())?);
        let withdrawn = self.withdraw_made_from(damaged)?;
        Ok((withdrawal, withdrawn))
    }

    /// Moves a damaged artifact out of the way, and reports where to; `None` if there is none.
    pub(super) fn quarantine(
        &self,
        digest: &Digest,
        _: &Withdrawal,
    ) -> anyhow::Result<Option<PathBuf>> {
        store::quarantine(&self.layout, digest)
    }

    /// Keeps these inputs of a stage from being found damaged until what is returned is dropped: for the moment in which what
    /// was made from them is recorded. `None` if one of them is no longer the folder that was read.
    pub(super) fn hold_inputs(&self, inputs: &[InputFolder]) -> anyhow::Result<Option<Lock>> {
        let lock = Lock::take_shared(&self.withdrawal_lock())?;
        let is_there = |input: &InputFolder| input.top.is_at(&self.artifact(&input.digest));
        Ok(inputs.iter().all(is_there).then_some(lock))
    }

    /// Shared by those who record a result, taken alone by those who withdraw.
    fn withdrawal_lock(&self) -> PathBuf {
        self.layout.lock("withdrawal")
    }

    /// Moves the file of a damaged record out of the way, and reports where to. `None` if it is not damaged any more, or
    /// somebody works on its key.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(crate) fn quarantine_record(&self, file: &Path) -> anyhow::Result<Option<PathBuf>> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let key: Option<StageKey> = name.strip_suffix(".json").and_then(|key| key.parse().ok());
        let _lock = match key {
            Some(key) => {
                let Some(lock) = Lock::try_take(&self.layout.lock(&key.to_string()))? else {
                    return Ok(None);
                };
                if self.read_record(&key) != Err(Unreadable::Damaged) {
                    return Ok(None);
                }
                Some(lock)
            }
            None => None,
        };
        let target =
            durable::free_name(&self.layout.withdrawn_records(), &format!("{name}.damaged"))?;
        stamp::begin_removal(&self.layout)?;
        disk::rename(file, target.as_path())
            .with_context(|| format!("cannot move the damaged {} away", file.display()))?;
        Ok(Some(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Snapshot;
    use crate::digest::FieldHasher;

    #[test]
    fn a_result_can_be_recorded_while_its_inputs_are_the_folders_that_were_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        let digest = FieldHasher::new("test").finish();
        let place = cache.artifact(&digest);
        fs::create_dir(&place).expect("writable");
        let top = Snapshot::of_artifact(&place).expect("a folder").top().expect("a folder");
        let inputs = [InputFolder { digest, top }];
        let held = cache.hold_inputs(&inputs).expect("writable").expect("it is in its place");
        assert!(cache.hold_inputs(&inputs).expect("writable").is_some(), "others may record, too");
        // Nobody can withdraw meanwhile.
        assert!(Lock::try_take(&cache.withdrawal_lock()).expect("writable").is_none());
        drop(held);
        let (withdrawal, _) = cache.begin_withdrawal(&[digest]).expect("writable");
        cache.quarantine(&digest, &withdrawal).expect("writable");
        drop(withdrawal);
        assert!(cache.hold_inputs(&inputs).expect("writable").is_none());
        // Made again, it is another folder.
        fs::create_dir(&place).expect("writable");
        assert!(cache.hold_inputs(&inputs).expect("writable").is_none());
    }
}
