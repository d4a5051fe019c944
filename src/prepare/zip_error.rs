//! Messages for what is wrong with a zip archive.

use anyhow::anyhow;
use zip::result::ZipError;

/// The error of the library in the words of this crate.
pub(crate) fn describe(error: ZipError) -> anyhow::Error {
    match error {
        // Why, is in the words of its code.
        ZipError::InvalidArchive(_) => anyhow!("it is damaged, cut off, or not a zip archive"),
        ZipError::Io(error) => anyhow!(error).context("it is damaged or cut off"),
        ZipError::UnsupportedArchive(why) => {
            anyhow!("it uses a feature that is not supported: {why}")
        }
        ZipError::CompressionMethodNotSupported(number) => {
            let name = zip::CompressionMethod::name_from_u16(number);
            anyhow!("it is compressed by a method ({name}) that is not supported")
        }
        ZipError::FileNotFound => anyhow!("a file is missing in it"),
        other => anyhow!("it cannot be read: {other}"),
    }
}
