//! The globs of `include`: which paths they want, and whether each of them was of use.

use anyhow::{Context as _, bail};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::path::InnerPath;

/// More paths than this are not named in an error.
const NAMED: usize = 8;

/// The globs, and what they met.
pub(super) struct Include {
    globs: Vec<String>,
    used: Vec<bool>,
    set: GlobSet,
    /// The first paths of the archive, to show what there is.
    met: Vec<String>,
}

impl Include {
    /// No globs want everything.
    ///
    /// # Errors
    /// When a glob is none.
    pub(super) fn new(globs: &[String]) -> anyhow::Result<Self> {
        let mut builder = GlobSetBuilder::new();
        for glob in globs {
            let glob = glob.trim_end_matches('/');
            let built = GlobBuilder::new(glob).literal_separator(true).build();
            builder.add(built.with_context(|| format!("'{glob}' in 'include' is no glob"))?);
        }
        let set = builder.build().context("the globs in 'include' can't be used")?;
        Ok(Self { globs: globs.to_vec(), used: vec![false; globs.len()], set, met: Vec::new() })
    }

    /// Whether there are globs at all.
    pub(super) fn is_given(&self) -> bool {
        !self.globs.is_empty()
    }

    /// Whether a glob matches this path or a folder that it is in.
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

    /// # Errors
    /// When a glob matched nothing: names it and some paths that are there.
    pub(super) fn check_all_used(&self) -> anyhow::Result<()> {
        let unused = self.globs.iter().zip(&self.used).filter(|(_, used)| !**used);
        let unused: Vec<_> = unused.map(|(glob, _)| format!("'{glob}'")).collect();
        if unused.is_empty() {
            return Ok(());
        }
        let paths = if self.met.is_empty() { "nothing".to_owned() } else { self.met.join(", ") };
        bail!(
            "nothing in the archive matches {} of 'include'; there is {paths}, ...",
            unused.join(", ")
        )
    }
}
