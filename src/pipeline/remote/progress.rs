//! How much of a file has been sent.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what is sent of a file, perhaps compressed, in bytes of the file.
#[derive(Debug)]
pub(super) struct UploadProgress<'a> {
    /// The bytes of all files.
    total: &'a AtomicU64,
    /// How many bytes the file has, and how many of them were counted.
    bytes: u64,
    counted: AtomicU64,
}

impl<'a> UploadProgress<'a> {
    /// Of a file that has so many bytes.
    pub(super) fn new(total: &'a AtomicU64, bytes: u64) -> Self {
        Self { total, bytes, counted: AtomicU64::new(0) }
    }

    /// Counts so many of the `length` bytes that are to be sent. What is sent again does not count as more than the file.
    pub(super) fn add(&self, count: u64, length: u64) {
        let share = u128::from(count) * u128::from(self.bytes) / u128::from(length.max(1));
        let share = u64::try_from(share).unwrap_or(self.bytes);
        let before = self.counted.fetch_add(share, Ordering::Relaxed).min(self.bytes);
        self.total.fetch_add(share.min(self.bytes - before), Ordering::Relaxed);
    }

    /// All of it is there, whether it was sent or not.
    pub(super) fn finish(&self) {
        self.add(self.bytes, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_once_however_it_is_sent() {
        let total = AtomicU64::new(5);
        let seen = || total.load(Ordering::Relaxed);
        let progress = UploadProgress::new(&total, 100);
        progress.add(10, 50);
        assert_eq!(seen(), 25);
        progress.add(30, 50);
        assert_eq!(seen(), 85);
        // Again from the beginning.
        progress.add(50, 50);
        assert_eq!(seen(), 105);
        progress.finish();
        assert_eq!(seen(), 105);
        UploadProgress::new(&total, 7).finish();
        let empty = UploadProgress::new(&total, 0);
        empty.add(0, 0);
        empty.finish();
        assert_eq!(seen(), 112);
    }
}
