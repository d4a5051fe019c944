//! What a plan knows of the world: the records in the cache, and the files outside it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cache::{Cache, Record, StatIndex};
use crate::key::{OutsideDigest, StageKey};
use crate::manifest::{Manifest, StageDeclaration, StageName};
use crate::plan::{Facts, Obstacle};

/// The world as one manifest's stages see it.
pub struct World<'a> {
    cache: &'a Cache,
    experiment: &'a str,
    outside: BTreeMap<StageName, Result<Vec<OutsideDigest>, Obstacle>>,
}

impl<'a> World<'a> {
    /// Looks at the files outside the cache that these stages read.
    pub fn look(cache: &'a Cache, manifest: &'a Manifest, selected: &[StageName]) -> Self {
        let index_path = cache.layout().stat_index();
        let mut outside = BTreeMap::new();
        let mut index: Option<StatIndex> = None;
        for declaration in selected.iter().filter_map(|name| manifest.stage(name)) {
            if declaration.stage.outside_paths().is_empty() {
                continue;
            }
            let index = index.get_or_insert_with(|| StatIndex::read(&index_path));
            let digests = outside_digests(declaration, &manifest.folder, index);
            let digests = digests.map_err(|error| Obstacle {
                line: declaration.line,
                message: format!("{error:#}"),
            });
            outside.insert(declaration.name.clone(), digests);
        }
        // Only saves time the next time: a cache that can't be written is no reason to stop.
        if let Some(mut index) = index.filter(|_| cache.layout().root().is_dir()) {
            let _ = index.write(&index_path);
        }
        Self { cache, experiment: &manifest.experiment.name, outside }
    }
}

impl World<'_> {
    /// Refuses to begin where something can't be read.
    ///
    /// # Errors
    /// Every stage that is blocked, with its line.
    pub fn refuse_obstacles(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let path = manifest.path.display();
        let blocked =
            self.outside.iter().filter_map(|(name, found)| Some((name, found.as_ref().err()?)));
        let mut blocked: Vec<_> = blocked.collect();
        blocked.sort_by_key(|(_, obstacle)| obstacle.line);
        let lines = blocked.into_iter().map(|(name, Obstacle { line, message })| {
            format!("{path}:{line}: stage '{name}': {message}")
        });
        let lines: Vec<_> = lines.collect();
        if lines.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(lines.join("\n"))) }
    }

    /// Looks once more at the files outside the cache that a stage reads.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn look_again(
        &mut self,
        declaration: &StageDeclaration,
        folder: &Path,
    ) -> anyhow::Result<()> {
        if let Some(digests) = self.outside.get_mut(&declaration.name) {
            let mut index = StatIndex::read(&self.cache.layout().stat_index());
            *digests = Ok(outside_digests(declaration, folder, &mut index)?);
        }
        Ok(())
    }
}

/// The digests of the files outside the cache that a stage reads, as they are now.
///
/// # Errors
/// When one can't be read.
pub fn outside_digests(
    declaration: &StageDeclaration,
    folder: &Path,
    index: &mut StatIndex,
) -> anyhow::Result<Vec<OutsideDigest>> {
    let paths = declaration.stage.outside_paths().into_iter();
    paths
        .map(|path| index.digest(&folder.join(&path)).map(|digest| OutsideDigest { path, digest }))
        .collect()
}

impl Facts for World<'_> {
    fn usable(&self, key: &StageKey) -> Option<Record> {
        self.cache.usable(key)
    }

    fn last(&self, stage: &StageName) -> Option<Record> {
        self.cache.last_record(self.experiment, stage.as_str())
    }

    fn outside(&self, stage: &StageName) -> Result<&[OutsideDigest], &Obstacle> {
        match self.outside.get(stage) {
            None => Ok(&[]),
            Some(Ok(digests)) => Ok(digests),
            Some(Err(obstacle)) => Err(obstacle),
        }
    }
}
