//! What a plan knows of the world: the records in the cache, and the files outside it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cache::{Cache, Record, StatIndex};
use crate::digest::Encoder;
use crate::key::{OutsideDigest, StageKey};
use crate::manifest::{Manifest, StageDeclaration, StageName};
use crate::plan::Facts;

/// The world as one manifest's stages see it.
pub struct World<'a> {
    cache: &'a Cache,
    experiment: &'a str,
    outside: BTreeMap<StageName, Vec<OutsideDigest>>,
}

impl<'a> World<'a> {
    /// Looks at the files outside the cache that these stages read.
    ///
    /// # Errors
    /// When some can't be read: every one of them, with its stage and line.
    pub fn look(
        cache: &'a Cache,
        manifest: &'a Manifest,
        selected: &[StageName],
    ) -> anyhow::Result<Self> {
        let index_path = cache.layout().stat_index();
        let mut outside = BTreeMap::new();
        let mut problems = Vec::new();
        let mut index: Option<StatIndex> = None;
        for declaration in selected.iter().filter_map(|name| manifest.stage(name)) {
            if declaration.stage.outside_paths().is_empty() {
                continue;
            }
            let index = index.get_or_insert_with(|| StatIndex::read(&index_path));
            match outside_digests(declaration, &manifest.folder, index) {
                Ok(digests) => {
                    outside.insert(declaration.name.clone(), digests);
                }
                Err(error) => problems.push(format!(
                    "{}:{}: stage '{}': {error:#}",
                    manifest.path.display(),
                    declaration.line,
                    declaration.name
                )),
            }
        }
        if !problems.is_empty() {
            anyhow::bail!(problems.join("\n"));
        }
        // Only saves time the next time: a cache that can't be written is no reason to stop.
        if let Some(mut index) = index.filter(|_| cache.layout().root().is_dir()) {
            let _ = index.write(&index_path);
        }
        Ok(Self { cache, experiment: &manifest.experiment.name, outside })
    }
}

impl World<'_> {
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
            *digests = outside_digests(declaration, folder, &mut index)?;
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
    let stage = &declaration.stage;
    let mut digest = |path: &Path| match path.try_exists() {
        Ok(false) if stage.outside_may_be_missing() => {
            Ok(Encoder::new("pipeline: a file outside the cache that is not there").finish())
        }
        _ => index.digest(path),
    };
    let paths = stage.outside_paths().into_iter();
    paths.map(|path| Ok(OutsideDigest { digest: digest(&folder.join(&path))?, path })).collect()
}

impl Facts for World<'_> {
    fn usable(&self, key: &StageKey) -> Option<Record> {
        self.cache.usable(key)
    }

    fn last(&self, stage: &StageName) -> Option<Record> {
        self.cache.last_record(self.experiment, stage.as_str())
    }

    fn outside(&self, stage: &StageName) -> &[OutsideDigest] {
        self.outside.get(stage).map_or(&[], Vec::as_slice)
    }
}
