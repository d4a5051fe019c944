//! The links for people to the artifacts of an experiment: rebuilt as a whole, and swapped in one step.
//!
//! Only links that this tool made are changed: in a folder where people have something of their own, the links are
//! replaced one by one. So they are where thousands stay as they are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::layout::{Bucket, Layout};
use super::lock::Lock;
use super::opened::Cache;
use super::{disk, durable};
use crate::digest::{Digest, FieldHasher};

/// The names of links, each with the artifact behind it.
pub(crate) type Links = BTreeMap<String, Digest>;

/// With more links than this, few changes are made one by one.
const MANY: usize = 1000;

/// What is in the folder of an experiment.
struct LinkFolder {
    links: Links,
    /// Whether everything in it is a link of this tool.
    is_ours: bool,
}

impl Cache {
    /// The links of an experiment.
    pub(crate) fn links(&self, experiment: &str) -> Links {
        LinkFolder::read(&self.layout().links(experiment)).links
    }

    /// Whether an experiment has these links and no others.
    pub(super) fn links_are_these(&self, experiment: &str, links: &Links) -> bool {
        let folder = self.layout().links(experiment);
        LinkFolder::read(&folder).links == *links && !folder.is_symlink()
    }

    /// The artifact that the link of a stage points at.
    pub(super) fn link(&self, experiment: &str, stage: &str) -> Option<Digest> {
        target(&self.layout().link(experiment, stage))
    }

    /// Points the link of a stage at an artifact.
    pub(crate) fn set_link(
        &self,
        experiment: &str,
        stage: &str,
        digest: &Digest,
    ) -> anyhow::Result<()> {
        let link = self.layout().link(experiment, stage);
        if target(&link).as_ref() == Some(digest) {
            return Ok(());
        }
        let _lock = self.lock_links(experiment)?;
        durable::create_own_folder(&self.layout().links(experiment))?;
        durable::write_link(&link, &Layout::link_target(digest))
    }

    /// Gives an experiment these links and no others.
    pub(crate) fn set_links(&self, experiment: &str, links: &Links) -> anyhow::Result<()> {
        let folder = self.layout().links(experiment);
        // Without the lock: most runs find them so, also in a cache that cannot be written.
        if self.links_are_these(experiment, links) {
            return Ok(());
        }
        let _lock = self.lock_links(experiment)?;
        let found = LinkFolder::read(&folder);
        if found.links == *links && !folder.is_symlink() {
            return Ok(());
        }
        if found.is_ours && !found.is_nearly(links) && self.swap_links(&folder, &found, links)? {
            return Ok(());
        }
        change_each(&folder, &found.links, links)
    }

    /// Gives an experiment these links, which has those of `old` until now.
    pub(crate) fn change_links(
        &self,
        experiment: &str,
        old: &Links,
        links: &Links,
    ) -> anyhow::Result<()> {
        if old == links {
            return Ok(());
        }
        let _lock = self.lock_links(experiment)?;
        change_each(&self.layout().links(experiment), old, links)
    }

    /// Removes the links that lead to artifacts that are gone.
    pub(super) fn remove_dangling_links(&self) {
        let folders = fs::read_dir(self.layout().bucket(Bucket::Latest)).into_iter().flatten();
        let names = folders.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        for experiment in names.filter(|name| !name.starts_with(durable::NEW)) {
            let dangling = || {
                let links = self.links(&experiment).into_iter();
                links.filter(|(_, digest)| !self.has_artifact(digest)).map(|(name, _)| name)
            };
            if dangling().next().is_none() {
                continue;
            }
            // A run may have replaced them meanwhile.
            let Ok(_lock) = self.lock_links(&experiment) else { continue };
            for name in dangling() {
                let _ = disk::remove_file(&self.layout().link(&experiment, &name));
            }
        }
    }

    /// Builds the folder beside the old one, and swaps them. `false` where the file system cannot swap.
    fn swap_links(&self, folder: &Path, old: &LinkFolder, links: &Links) -> anyhow::Result<bool> {
        let parent = self.layout().bucket(Bucket::Latest);
        durable::create_folder(&parent)?;
        let stem = format!("{}{}", durable::NEW, std::process::id());
        let new = durable::free_name(&parent, &stem)?;
        disk::create_folder(&new).with_context(|| format!("cannot make {}", new.display()))?;
        let swap = || -> anyhow::Result<bool> {
            for (name, digest) in links {
                let link = new.join(name);
                // Another name of the old link is made much faster than a new one.
                if old.links.get(name) == Some(digest)
                    && disk::add_name(&folder.join(name), &link).is_ok()
                {
                    continue;
                }
                disk::create_link(&Layout::link_target(digest), &link)
                    .with_context(|| format!("cannot write the link {}", link.display()))?;
            }
            let swapped = match fs::symlink_metadata(folder) {
                Err(_) => disk::rename(new.as_path(), folder).map_err(|error| (error, false)),
                Ok(_) => disk::exchange(&new, folder).map_err(|error| (error, true)),
            };
            match swapped {
                Ok(()) => Ok(true),
                Err((_, true)) => Ok(false),
                Err((error, false)) => {
                    Err(error).with_context(|| format!("cannot write {}", folder.display()))
                }
            }
        };
        let swapped = swap();
        // The old one, or the new one that could not take its place.
        remove_links(&new);
        swapped
    }

    fn lock_links(&self, experiment: &str) -> anyhow::Result<Lock> {
        // A name of an experiment may be too long for that of a lock.
        let name = FieldHasher::new("pipeline 2026-11 links").text(experiment).finish().short();
        Lock::take(&self.layout().lock(&format!("latest-{name}")))
    }
}

impl LinkFolder {
    /// Whether there are very many, of which very few differ, so that building all of them would take too long.
    fn is_nearly(&self, links: &Links) -> bool {
        let is_same = |(name, digest): &(&String, &Digest)| self.links.get(*name) == Some(digest);
        let same = links.iter().filter(is_same).count();
        let changes = links.len().max(self.links.len()) - same;
        links.len() > MANY && changes < links.len() / 10
    }

    fn read(folder: &Path) -> Self {
        let mut found = Self { links: Links::new(), is_ours: true };
        if folder.is_symlink() {
            return found;
        }
        let entries = disk::entries(folder);
        // What cannot be seen may be something of people.
        found.is_ours = entries.is_ok();
        for entry in entries.unwrap_or_default() {
            let name = entry.file_name().into_string();
            match (name, target(&entry.path())) {
                (Ok(name), Some(_)) if name.starts_with(durable::NEW) => {}
                (Ok(name), Some(digest)) => drop(found.links.insert(name, digest)),
                _ => found.is_ours = false,
            }
        }
        found
    }
}

/// Gives a folder with the links of `old` these links, one by one.
fn change_each(folder: &Path, old: &Links, links: &Links) -> anyhow::Result<()> {
    durable::create_own_folder(folder)?;
    let gone = old.keys().filter(|name| !links.contains_key(*name)).map(|name| folder.join(name));
    // What somebody has put in the place of a link meanwhile stays.
    for link in gone.filter(|link| target(link).is_some()) {
        remove_link(&link)?;
    }
    for (name, digest) in links.iter().filter(|(name, digest)| old.get(*name) != Some(digest)) {
        durable::write_link(&folder.join(name), &Layout::link_target(digest))?;
    }
    Ok(())
}

/// The artifact that a link of this tool points at. `None` for everything else.
fn target(link: &Path) -> Option<Digest> {
    let target = fs::read_link(link).ok()?;
    let digest: Digest = target.file_name()?.to_str()?.parse().ok()?;
    (target == Layout::link_target(&digest)).then_some(digest)
}

fn remove_link(link: &Path) -> anyhow::Result<()> {
    match disk::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the link {}", link.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a folder of links of this tool, or a link. Anything else stays.
pub(super) fn remove_links(folder: &Path) {
    if folder.is_symlink() {
        let _ = disk::remove_file(folder);
        return;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let links: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| target(path).is_some()).collect();
    for link in links {
        let _ = disk::remove_file(&link);
    }
    let _ = disk::remove_folder(folder);
}
