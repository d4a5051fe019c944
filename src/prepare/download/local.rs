//! A mirror that is a file of this machine.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use pipeline_stages::worker::Context;

use super::partial::{Partial, Version};
use super::retry::DownloadFailure;

/// Copies the file.
pub(super) fn copy(
    path: &Path,
    partial: &mut Partial,
    context: &Context,
    progress: &dyn Fn(u64, Option<u64>),
) -> Result<(), DownloadFailure> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => {
            DownloadFailure::lasting(format!("{} does not exist", path.display()))
        }
        _ => DownloadFailure::lasting(format!("cannot read {}: {error}", path.display())),
    };
    // Before it is opened: opening a pipe waits for a writer.
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(DownloadFailure::lasting(format!("{} is not a regular file", path.display())));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    partial.start_version(Version::default())?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        context.stop_point()?;
        let read = file.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            return Ok(());
        }
        partial.append(buffer.get(..read).unwrap_or_default())?;
        progress(partial.len(), Some(metadata.len().max(partial.len())));
    }
}
