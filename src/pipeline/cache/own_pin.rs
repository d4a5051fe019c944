//! What this process keeps from being cleaned away: a file in the cache, locked for as long as the process uses it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::fs::Mode;

use super::layout::{Bucket, Layout};
use super::lock::Owner;
use super::{disk, durable};
use crate::digest::Digest;
use crate::key::StageKey;

/// Something that must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pinned {
    /// The record of a key, with its artifact, and what belongs to the work on it.
    Key(StageKey),
    Artifact(Digest),
    /// Whatever there is.
    Everything,
}

impl Pinned {
    pub(super) fn line(self) -> String {
        match self {
            Self::Key(key) => format!("key {key}\n"),
            Self::Artifact(digest) => format!("artifact {digest}\n"),
            Self::Everything => "everything\n".to_owned(),
        }
    }

    /// A line that is not known is of another version: everything may be meant.
    pub(super) fn of_line(line: &str) -> Self {
        let known = match line.split_once(' ') {
            Some(("key", key)) => key.parse().ok().map(Self::Key),
            Some(("artifact", digest)) => digest.parse().ok().map(Self::Artifact),
            _ => None,
        };
        known.unwrap_or(Self::Everything)
    }
}

/// The pin of this process, once it has pinned something.
#[derive(Debug, Default)]
pub(super) struct OwnPin(pub(super) Mutex<Option<Pin>>);

/// A pin: it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) pinned: BTreeSet<Pinned>,
}

impl Pin {
    pub(super) fn begin(layout: &Layout) -> anyhow::Result<Self> {
        let folder = layout.bucket(Bucket::Pins);
        durable::create_folder(&folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let mut names = (0..u32::MAX).map(|number| {
            folder.join(format!("{}-{:x}-{number}", std::process::id(), now & 0xffff_ffff))
        });
        let begin = |path: &Path| -> io::Result<File> {
            // Whoever cleans may read it from the first moment on.
            let mode = if disk::is_shared(&folder) { 0o664 } else { 0o644 };
            let file = disk::create_file(path, mode)?;
            // Somebody who only looks may try it at this moment.
            disk::lock(&file)?;
            disk::set_mode(&file, Mode::from_raw_mode(mode))?;
            let owner = serde_json::to_string(&Owner::this_process()).unwrap_or_default();
            disk::write(&file, format!("{owner}\n").as_bytes())?;
            Ok(file)
        };
        loop {
            let Some(path) = names.next() else { bail!("no free name in {}", folder.display()) };
            match begin(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Ok(file) => return Ok(Self { file, path, pinned: BTreeSet::new() }),
                Err(error) => {
                    durable::forget_file(&path);
                    return Err(error).with_context(|| cannot_write(layout));
                }
            }
        }
    }
}

pub(super) fn cannot_write(layout: &Layout) -> String {
    format!("cannot write into {}", layout.bucket(Bucket::Pins).display())
}

impl Drop for Pin {
    fn drop(&mut self) {
        durable::forget_file(&self.path);
    }
}
