//! What a plan knows of the world: the records in the cache, and the files outside it.

use std::collections::BTreeMap;
use std::path::Path;

use pipeline_stages::kind::OutsidePath;

use crate::cache::{Cache, Record, StatIndex, Unreadable};
use crate::digest::{Digest, Encoder};
use crate::key::{OutsideDigest, StageKey};
use crate::manifest::{Manifest, StageDeclaration};
use crate::plan::{Facts, NoResult, Obstacle};
use crate::stage_name::StageName;

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
/// When one can't be read, or is missing and not optional.
pub fn outside_digests(
    declaration: &StageDeclaration,
    folder: &Path,
    index: &mut StatIndex,
) -> anyhow::Result<Vec<OutsideDigest>> {
    let paths = declaration.stage.outside_paths().into_iter();
    let digest = |OutsidePath { path, optional }: OutsidePath| {
        let place = folder.join(&path);
        let missing = || matches!(place.try_exists(), Ok(false));
        let digest = if optional && missing() { missing_file() } else { index.digest(&place)? };
        Ok(OutsideDigest { path, digest })
    };
    paths.map(digest).collect()
}

/// What stands in a key for the content of an optional file that is not there.
fn missing_file() -> Digest {
    Encoder::new("pipeline 2026-11 missing outside file").finish()
}

impl Facts for World<'_> {
    fn result(&self, key: &StageKey) -> Result<Record, NoResult> {
        match self.cache.read_record(key) {
            Ok(record) if self.cache.has_artifact(&record.output.digest) => Ok(record),
            Ok(record) => Err(NoResult::ArtifactGone(record.output.digest)),
            Err(Unreadable::Damaged) => Err(NoResult::RecordDamaged),
            Err(Unreadable::Missing) => Err(match self.cache.withdrawn(key) {
                Some(withdrawn) => NoResult::Withdrawn(withdrawn.reason),
                None => NoResult::NoRecord,
            }),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of the mirrors of an unverified download, in a folder with these files.
    fn digests(urls: &str, files: &[(&str, &str)]) -> anyhow::Result<Vec<Digest>> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("a file");
        }
        let text = format!(
            "[experiment]\nname = \"a\"\n[stages.get]\nkind = \"download\"\nurl = {urls}\nunverified = true\n"
        );
        let (manifest, _) =
            crate::manifest::parse(Path::new("test.toml"), &text, &[]).expect("a manifest");
        let found = outside_digests(&manifest.stages[0], folder.path(), &mut StatIndex::default())?;
        Ok(found.into_iter().map(|found| found.digest).collect())
    }

    #[test]
    fn a_mirror_that_is_missing_comes_and_changes_is_told_apart() {
        let mirrors = r#"["file:a", "https://example.org/a"]"#;
        let of = |files: &[(&str, &str)]| digests(mirrors, files).expect("a mirror may be missing");
        let (missing, empty, full) = (of(&[]), of(&[("a", "")]), of(&[("a", "1")]));
        assert_eq!(missing.len(), 1, "only what is outside the cache and on this machine");
        assert_eq!(missing, of(&[]));
        assert!(missing != empty && empty != full && missing != full);
    }

    #[test]
    fn one_of_two_local_mirrors_may_be_missing_and_an_only_one_may_not() {
        let both = r#"["file:a", "file:b"]"#;
        assert_eq!(digests(both, &[("b", "1")]).expect("the other is there").len(), 2);
        let error = digests(r#""file:a""#, &[]).expect_err("there is nothing to get");
        assert!(error.to_string().contains("can't read"), "{error:#}");
    }
}
