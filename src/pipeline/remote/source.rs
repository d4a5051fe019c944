//! A content that is received: what has arrived of it earlier, and then the rest from a remote.

use std::fs::File;
use std::io::{self, Read, Take};

use super::name::Name;
use super::transport::{Download, Remote, RemoteFailure};
use crate::cache::KeptFile;

/// Reads a content.
pub(super) struct Source<'r> {
    remote: &'r dyn Remote,
    name: Name,
    expected: u64,
    kept: Option<&'r KeptFile>,
    /// Whether what is read is to be kept as it is; else whoever reads it does that.
    is_copied: bool,
    earlier: Option<Take<File>>,
    done: u64,
    download: Option<Download<'r>>,
    failure: Option<RemoteFailure>,
}

impl<'r> Source<'r> {
    /// The content of a name, which has about so many bytes. Nothing is asked yet.
    pub(super) fn new(
        remote: &'r dyn Remote,
        name: Name,
        expected: u64,
        kept: Option<&'r KeptFile>,
        is_copied: bool,
    ) -> Self {
        let earlier = kept.and_then(KeptFile::earlier).map(|(file, bytes)| file.take(bytes));
        let (done, download, failure) = (0, None, None);
        Self { remote, name, expected, kept, is_copied, earlier, done, download, failure }
    }

    /// Why it could not be read to its end, as far as the remote says that.
    pub(super) fn into_failure(self) -> Option<RemoteFailure> {
        self.failure.or(self.download.and_then(|download| download.failure))
    }

    fn read_next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(earlier) = &mut self.earlier {
            let count = earlier.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.earlier = None;
            self.kept.iter().for_each(|kept| kept.forget_earlier());
        }
        if self.download.is_none() {
            let name = self.name.clone();
            let missing = || RemoteFailure::wrong(format!("{name} is missing there"));
            let opened = Download::open_from(self.remote, name.clone(), self.done, self.expected);
            match opened.and_then(|download| download.ok_or_else(missing)) {
                Ok(download) => self.download = Some(download),
                Err(failure) => {
                    let error = io::Error::other(failure.clone());
                    self.failure = Some(failure);
                    return Err(error);
                }
            }
        }
        self.download.as_mut().map_or(Ok(0), |download| download.read(buffer))
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_next(buffer)?;
        self.done += count as u64;
        if let Some(kept) = self.kept.filter(|_| self.is_copied)
            && kept.file.write(&buffer[..count]).is_err()
        {
            // There may be no room for it beside the artifact.
            self.is_copied = false;
            kept.forget();
        }
        Ok(count)
    }
}
