//! What a plan is based on: the records in the cache, and the files outside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::{Cache, Listing, Record, StatIndex, Unreadable};
use crate::diagnostic::{Mistake, Mistakes};
use crate::difference::{Difference, Differences, How};
use crate::digest::Digest;
use crate::key::{OutsideDigest, StageKey};
use crate::manifest::{Manifest, Stage};
use crate::outside::{CheckedFiles, Looked, Outside, OutsidePlaces, Unusable};
use crate::plan::{Blocked, Facts, NoResult};
use crate::remote::SharedCache;
use crate::stage_name::StageName;

/// The facts about the stages of one manifest.
pub(crate) struct CacheFacts<'a> {
    cache: &'a Cache,
    experiment: &'a str,
    index: Arc<StatIndex>,
    outside: BTreeMap<StageName, Result<Vec<OutsideDigest>, Blocked>>,
    /// What the digests in `outside` were made of.
    found: BTreeMap<Digest, Arc<Outside>>,
    checked: CheckedFiles,
    /// The stages that are to run again although they have results.
    forced: BTreeSet<StageName>,
    /// The keys of those that did.
    forced_done: BTreeSet<StageKey>,
    /// Whether only results count that no power cut takes back.
    must_last: bool,
    /// The cache that others share.
    shared: Option<&'a SharedCache>,
}

impl<'a> CacheFacts<'a> {
    /// Looks at the files outside the cache that these stages read.
    pub(crate) fn look(cache: &'a Cache, manifest: &'a Manifest, selected: &[StageName]) -> Self {
        let facts = Self::look_only(cache, manifest, selected);
        facts.remember();
        facts
    }

    /// The same, and writes nothing into the cache.
    pub(crate) fn look_only(
        cache: &'a Cache,
        manifest: &'a Manifest,
        selected: &[StageName],
    ) -> Self {
        let index = Arc::new(StatIndex::at(cache.layout().stat_index()));
        let mut facts = Self::of_results(cache, &manifest.experiment.name, index);
        let looked = Looked::default();
        for declaration in selected.iter().filter_map(|name| manifest.stage(name)) {
            if declaration.stage.outside_paths().is_empty() {
                continue;
            }
            let digests = facts.digests(declaration, manifest.folder_of(declaration), &looked);
            let digests = digests.map_err(|unusable| blocked(manifest, declaration, unusable));
            facts.outside.insert(declaration.name.clone(), digests);
        }
        facts
    }

    /// The facts about results alone, for whoever knows what the stages read outside the cache.
    pub(crate) fn of_results(cache: &'a Cache, experiment: &'a str, index: Arc<StatIndex>) -> Self {
        Self {
            cache,
            experiment,
            index,
            outside: BTreeMap::new(),
            found: BTreeMap::new(),
            checked: CheckedFiles::default(),
            forced: BTreeSet::new(),
            forced_done: BTreeSet::new(),
            must_last: false,
            shared: None,
        }
    }
}

impl<'a> CacheFacts<'a> {
    /// What a remote is known to have counts, too.
    pub(crate) fn shared_in(mut self, shared: Option<&'a SharedCache>) -> Self {
        self.shared = shared;
        self
    }
}

impl CacheFacts<'_> {
    /// Lets stages run again although they have results.
    pub(crate) fn force(mut self, stages: BTreeSet<StageName>) -> Self {
        self.forced = stages;
        self
    }

    /// Of results that another run did not flush to the disk, only those count that this one has checked and flushed.
    pub(crate) fn that_last(mut self) -> Self {
        self.must_last = true;
        self
    }

    /// A forced stage has run: so have all others with its key.
    pub(crate) fn has_run(&mut self, key: StageKey) {
        self.forced_done.insert(key);
    }

    /// Fails if something cannot be read.
    ///
    /// # Errors
    /// What is wrong, each at its place.
    pub(crate) fn refuse_blocked(&self, manifest: &Manifest) -> Result<(), Mistakes> {
        let blocked = self.outside.values().filter_map(|found| found.as_ref().err());
        let mistakes = blocked.map(|Blocked { message, help, span, .. }| {
            Mistake::at(span.clone(), message.clone()).help(help.clone())
        });
        let mistakes: Vec<_> = mistakes.collect();
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(Mistakes::new(manifest.sources.clone(), mistakes))
    }

    /// The files and folders outside the cache that these stages read: where they are, and what is in them, which is not for
    /// people.
    pub(crate) fn outside_contents<'f>(
        &'f self,
        manifest: &'f Manifest,
    ) -> impl Iterator<Item = (PathBuf, String)> + 'f {
        let known = self.outside.iter().filter_map(|(name, found)| {
            let declaration = manifest.stage(name)?;
            Some((declaration, manifest.folder_of(declaration), found))
        });
        known.flat_map(|(declaration, folder, found)| {
            let paths = declaration.stage.outside_paths().into_iter().map(|outside| outside.path);
            let contents = paths.enumerate().map(|(place, path)| match found {
                Ok(digests) => {
                    (path, digests.get(place).map_or(String::new(), |one| one.digest.to_string()))
                }
                Err(blocked) => (path, blocked.message.clone()),
            });
            contents.map(|(path, content)| (folder.join(path), content)).collect::<Vec<_>>()
        })
    }

    /// Rechecks the files outside the cache that a stage reads.
    pub(crate) fn recheck(&mut self, declaration: &Stage, folder: &Path) -> anyhow::Result<()> {
        if self.outside.contains_key(&declaration.name) {
            let digests = self.digests(declaration, folder, &Looked::default())?;
            self.outside.insert(declaration.name.clone(), Ok(digests));
        }
        Ok(())
    }

    /// The index of files that were read, for those who read them again.
    pub(crate) fn index(&self) -> &Arc<StatIndex> {
        &self.index
    }

    /// Writes the index of files that were read. It only saves time later: it is not an error if the cache cannot be written.
    pub(crate) fn remember(&self) {
        if self.cache.layout().root().is_dir() {
            let _ = self.index.write();
        }
    }

    fn digests(
        &mut self,
        declaration: &Stage,
        folder: &Path,
        looked: &Looked,
    ) -> Result<Vec<OutsideDigest>, Unusable> {
        let places = OutsidePlaces::of(declaration);
        let found = places.look_once(folder, self.cache, &self.index, looked)?;
        places.check_contents(folder, &found, &mut self.checked)?;
        let digests = found.into_iter().map(|outside| {
            let digest = outside.digest();
            let path = outside.path.clone();
            self.found.insert(digest, outside);
            OutsideDigest { path, digest }
        });
        Ok(digests.collect())
    }
}

/// That a stage cannot run, with the place of the value that names what it cannot use.
fn blocked(manifest: &Manifest, declaration: &Stage, unusable: Unusable) -> Blocked {
    let Unusable { parameter, path, message, help } = unusable;
    let sources = &manifest.sources;
    let span = declaration.places.find_text(parameter, &path, sources);
    let (line, file) = match sources.file_of(&span) {
        Some(file) => (sources.line(&span), Some(file.to_owned())),
        None => (declaration.line, declaration.file.as_ref().map(|file| file.name.clone())),
    };
    let file = file.filter(|file| Path::new(file) != manifest.path);
    Blocked { line, file, message, help, span }
}

impl Facts for CacheFacts<'_> {
    fn result(&self, key: &StageKey) -> Result<Record, NoResult> {
        match self.cache.read_record(key) {
            Ok(record) if !self.cache.has_artifact(&record.output.digest) => {
                Err(NoResult::ArtifactGone(record.output.digest))
            }
            Ok(record) if !self.cache.is_certain(&record) => Err(NoResult::Uncertain),
            Ok(record) if self.must_last && !self.cache.lasts(&record) => Err(NoResult::Uncertain),
            Ok(record) => Ok(record),
            Err(Unreadable::Damaged) => Err(NoResult::RecordDamaged),
            Err(Unreadable::OtherVersion) => Err(NoResult::RecordOfOtherVersion),
            Err(Unreadable::Inaccessible) => Err(NoResult::RecordInaccessible),
            Err(Unreadable::Missing) => Err(match self.cache.why_withdrawn(key) {
                Ok(Some(reason)) => NoResult::Withdrawn(reason),
                // Then none from elsewhere counts either.
                Err(error) => {
                    let folder = self.cache.layout().withdrawn_records();
                    NoResult::WithdrawalUnknown(format!(
                        "cannot look into {}: {error}",
                        folder.display()
                    ))
                }
                Ok(None) if self.shared.is_some_and(|shared| shared.is_out_of_reach(key)) => {
                    NoResult::OutOfReach
                }
                Ok(None) => NoResult::NoRecord,
            }),
        }
    }

    fn remote(&self, key: &StageKey) -> Option<Record> {
        self.shared?.known(self.cache, key).map(|record| (*record).clone())
    }

    fn last(&self, stage: &StageName) -> Option<Record> {
        let key = self.cache.head(self.experiment, stage.as_str())?;
        self.cache.record_once(&key).or_else(|| self.remote(&key))
    }

    fn is_forced(&self, stage: &StageName, key: &StageKey) -> bool {
        self.forced.contains(stage) && !self.forced_done.contains(key)
    }

    fn outside(&self, stage: &StageName) -> Result<&[OutsideDigest], &Blocked> {
        match self.outside.get(stage) {
            None => Ok(&[]),
            Some(Ok(digests)) => Ok(digests),
            Some(Err(blocked)) => Err(blocked),
        }
    }

    fn differences(&self, old: &Digest, new: &Digest) -> Option<Differences> {
        let was = Listing::read(&self.cache.layout().listing(old), old)?;
        let differences = was.differences(self.found.get(new)?.listing()?);
        // Of a single file there is no more to show than that its bytes changed.
        let plain = |one: &Difference| {
            one.path.as_os_str().is_empty() && matches!(one.how, How::Changed { .. })
        };
        Differences::of(differences).filter(|all| !all.first.iter().all(plain))
    }
}
