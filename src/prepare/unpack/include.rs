//! The globs of `include`: which paths they match, and whether each of them matched.

use anyhow::{Context as _, bail};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::path::InnerPath;

/// The most paths that a message names.
const NAMED: usize = 8;

/// The globs, and which of them matched.
pub(super) struct Include {
    globs: Vec<String>,
    used: Vec<bool>,
    set: GlobSet,
    /// The first paths of the archive, for messages.
    met: Vec<String>,
}

impl Include {
    /// Without globs, everything is included.
    pub(super) fn new(globs: &[String]) -> anyhow::Result<Self> {
        let mut builder = GlobSetBuilder::new();
        for glob in globs {
            let glob = glob.trim_end_matches('/');
            let built = GlobBuilder::new(glob).literal_separator(true).build();
            builder
                .add(built.with_context(|| format!("'{glob}' in 'include' is not a valid glob"))?);
        }
        let set = builder.build().context("the globs in 'include' cannot be used")?;
        Ok(Self { globs: globs.to_vec(), used: vec![false; globs.len()], set, met: Vec::new() })
    }

    /// Whether there are globs at all.
    pub(super) fn is_given(&self) -> bool {
        !self.globs.is_empty()
    }

    /// Whether a glob matches this path or a folder above it.
    pub(super) fn wants(&mut self, path: &InnerPath) -> bool {
        if !self.is_given() {
            return true;
        }
        if self.met.len() < NAMED {
            self.met.push(path.shown());
        }
        let mut wanted = false;
        for part in path.ancestors().chain([path.as_str()]) {
            for index in self.set.matches(part) {
                wanted = true;
                if let Some(used) = self.used.get_mut(index) {
                    *used = true;
                }
            }
        }
        wanted
    }

    /// Checks that every glob matched. The error has some paths of the archive.
    pub(super) fn check_all_used(&self) -> anyhow::Result<()> {
        let unused = self.globs.iter().zip(&self.used).filter(|(_, used)| !**used);
        let unused: Vec<_> = unused.map(|(glob, _)| format!("'{glob}'")).collect();
        if unused.is_empty() {
            return Ok(());
        }
        let paths = if self.met.is_empty() { "nothing".to_owned() } else { self.met.join(", ") };
        bail!(
            "nothing in the archive matches {} of 'include'; found {paths}, ...",
            unused.join(", ")
        )
    }
}
