//! A cache that was opened. What is done with it is in the files beside this one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::disk;
use super::layout::{self, Layout};
use super::lazy_run::LazyRun;
use super::own_pin::OwnPin;

/// A cache folder.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    pub(super) layout: Layout,
    /// What this process uses. Copies share it.
    pub(super) pin: Arc<OwnPin>,
    /// Set where results are recorded without waiting for the disk.
    pub(super) lazy: Option<Arc<LazyRun>>,
    /// As if the machine had started again.
    #[cfg(test)]
    pub(super) other_boot: Option<Arc<str>>,
}

impl Cache {
    /// Opens a cache to look into it. It may not exist yet; nothing is written.
    ///
    /// # Errors
    /// When another version of this program made it, with another layout, or it is a link that leads nowhere.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let layout = Layout::new(root.to_owned());
        match disk::read(&layout.version(), disk::LARGEST_TEXT) {
            Ok(text) => check_version(root, &String::from_utf8_lossy(&text))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // With a slash at its end, a path is what a link leads to.
                let link: std::path::PathBuf = root.components().collect();
                let target = link.read_link().ok().filter(|_| !root.exists());
                if let Some(target) = target {
                    bail!(
                        "the cache {} is a link to {}, which does not exist: is its disk mounted?",
                        root.display(),
                        target.display()
                    );
                }
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read the cache {}", root.display()));
            }
        }
        Ok(Self {
            layout,
            pin: Arc::default(),
            lazy: None,
            #[cfg(test)]
            other_boot: None,
        })
    }

    /// The paths of the cache.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn check_version(root: &Path, text: &str) -> anyhow::Result<()> {
    let folder = root.display();
    match text.trim().parse::<u32>() {
        Ok(layout::VERSION) => Ok(()),
        Ok(version) if version > layout::VERSION => bail!(
            "the cache {folder} has layout version {version}; this version of pipeline knows {}: \
             use a newer pipeline, or another cache with --cache",
            layout::VERSION,
        ),
        Ok(version) => bail!(
            "the cache {folder} has layout version {version}, of an earlier pipeline; this one needs {}: \
             use another cache with --cache, or remove this one (chmod -R u+w {folder} && rm -rf {folder})",
            layout::VERSION,
        ),
        Err(_) => bail!(
            "{folder}/VERSION contains '{}', which is not a version: is this a cache of pipeline?",
            text.trim()
        ),
    }
}
