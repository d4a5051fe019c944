//! Text files of the user.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// The text of a UTF-8 file of at most this many bytes, without a byte order mark.
///
/// # Errors
/// With the path, and what is wrong.
pub fn read(path: &Path, most_bytes: u64) -> anyhow::Result<String> {
    let name = path.display();
    let size = path.metadata().with_context(|| format!("cannot read {name}"))?.len();
    ensure!(size <= most_bytes, "{name} has {size} bytes: at most {most_bytes} are read");
    let text = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let mut text = String::from_utf8(text).with_context(|| format!("{name} is not UTF-8"))?;
    let marks = text.len() - text.trim_start_matches('\u{feff}').len();
    text.drain(..marks);
    Ok(text)
}
