//! What is wrong with a zip archive, for people.

use anyhow::anyhow;
use zip::result::ZipError;

/// The error of the library in the words of this crate.
pub(crate) fn describe(error: ZipError) -> anyhow::Error {
    match error {
        ZipError::InvalidArchive(why) => {
            anyhow!("it is damaged, cut off, or no zip archive: {why}")
        }
        other => other.into(),
    }
}
