//! What a remote has for some keys, and how much it has: for whoever shows that.

use super::name::{MOST_RECORD_BYTES, Name, RECORDS, SIGNATURES};
use super::shared::{MOST_ASKED_AT_ONCE, SharedCache};
use super::transport::{ContentTotals, FailureKind, Remote, RemoteFailure, get_all};
use crate::cache::{Record, on_threads};
use crate::digest::Digest;
use crate::key::StageKey;

/// What a remote has for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemoteState {
    Nothing,
    /// A result; with the bytes that are here, if it is here, too.
    Result,
    OtherBytes,
    /// The record of a result, and nothing of its artifact.
    RecordOnly,
    /// Something that is not a record of the key.
    Damaged,
    /// A record that nobody has signed who is trusted.
    NotTrusted,
}

impl SharedCache {
    /// What it has for each of these keys, of which some have this artifact here.
    ///
    /// # Errors
    /// When it does not work.
    pub(crate) fn has(
        &self,
        wanted: &[(StageKey, Option<Digest>)],
    ) -> Result<Vec<RemoteState>, RemoteFailure> {
        self.has_version()?;
        let found = on_threads(wanted, MOST_ASKED_AT_ONCE, |(key, artifact)| {
            let remote = self.remote()?;
            self.note(self.look(remote, key, artifact.as_ref()))
        });
        found.into_iter().collect()
    }

    fn look(
        &self,
        remote: &dyn Remote,
        key: &StageKey,
        here: Option<&Digest>,
    ) -> Result<RemoteState, RemoteFailure> {
        let record = match get_all(remote, &Name::record(key), MOST_RECORD_BYTES) {
            Err(failure) if failure.kind == FailureKind::Wrong => return Ok(RemoteState::Damaged),
            record => record?,
        };
        let Some(bytes) = record else { return Ok(RemoteState::Nothing) };
        let Some(record) = Record::of_key(&bytes, key) else { return Ok(RemoteState::Damaged) };
        match self.check_signed(remote, key, &bytes) {
            Err(failure) if failure.kind == FailureKind::Wrong => {
                return Ok(RemoteState::NotTrusted);
            }
            signed => signed?,
        }
        let digest = &record.output.digest;
        if here.is_some_and(|here| here != digest) {
            return Ok(RemoteState::OtherBytes);
        }
        // Whoever has sent something of an artifact has sent its small files before the list.
        let is_sent = |name: Name| remote.size(&name).map(|size| size.is_some());
        Ok(match is_sent(Name::index(digest))? || is_sent(Name::pack(digest))? {
            true => RemoteState::Result,
            false => RemoteState::RecordOnly,
        })
    }

    /// How many results it has, and how many bytes they take.
    pub(crate) fn count(&self) -> Result<(ContentTotals, u64), RemoteFailure> {
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
