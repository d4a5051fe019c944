//! Records that a remote had when it was asked, or when a result was pushed: copies, so that it need not be asked again. They do not count as results of this cache.

use super::durable;
use super::opened::Cache;
use super::record::Record;
use crate::digest::Digest;
use crate::key::StageKey;

impl Cache {
    /// Keeps the record that a remote has for its key. Nothing happens where nothing was ever kept in this cache, or it cannot be written.
    pub(crate) fn keep_remote_record(&self, remote: &Digest, record: &Record) {
        if self.layout.version().exists()
            && let Ok(text) = record.text()
        {
            let path = self.layout.remote_record(remote, &record.key);
            let _ = durable::write_disposable(&path, &text);
        }
    }

    /// The record that a remote had for a key when it was asked.
    pub(crate) fn remote_record(&self, remote: &Digest, key: &StageKey) -> Option<Record> {
        Record::read(&self.layout.remote_record(remote, key), key).ok()
    }

    /// Forgets what a remote had for a key.
    pub(crate) fn forget_remote_record(&self, remote: &Digest, key: &StageKey) {
        durable::forget_file(&self.layout.remote_record(remote, key));
    }
}
