//! An index of what a run found, so that the next one of the same manifest that finds it all unchanged need not read the
//! stages, the records and the heads again.
//!
//! Disposable: what is missing, damaged or of another build is made again. It says which keys the stages have; that their results
//! exist is asked of the cache each time ([`Cache::still_has`]), and files outside it are looked at each time.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pipeline_stages::kind::KindInfo;
use pipeline_stages::kind_info;
use pipeline_stages::kinds::FINGERPRINT;
use pipeline_stages::message::{Metrics, VERSION};
use serde::{Deserialize, Serialize};

use crate::cache::{
    self, Cache, ExpectedResult, ExpectedResults, KnownResult, Links, ResultFiles, Stamp,
    StatIndex, at_once, forget_file, on_threads,
};
use crate::digest::{Digest, FieldHasher};
use crate::events::Outcome;
use crate::graph::Graph;
use crate::key::{self, StageKey};
use crate::machine;
use crate::manifest::{self, Manifest};
use crate::outside::{Looked, OutsidePlaces};
use crate::stage_name::StageName;

/// How the file begins; the digest of the rest of it follows, and a line break.
const HEADER: &str = "pipeline plan index 4 ";

/// How many hexadecimal digits a digest has.
const DIGITS: usize = 64;

/// How much is before the content.
const BEFORE: usize = HEADER.len() + DIGITS + 1;

/// A thread that looks at the files of fewer stages would take longer than it saves.
const FEWEST_A_THREAD: usize = 500;

/// About how much of the file a stage takes, in bytes.
const STAGE: usize = 192;

/// What a run was asked to do: all that decides which stages there are, beside the text of the manifest.
#[derive(Debug, Clone)]
pub(crate) struct IndexKey {
    digest: Digest,
    /// The folder of the manifest.
    folder: PathBuf,
}

impl IndexKey {
    /// To run the stages that these words select and change, of the manifest in this folder.
    pub(crate) fn new<'w>(
        manifest: &Path,
        folder: &Path,
        words: impl IntoIterator<Item = &'w str>,
    ) -> Self {
        let mut hasher = FieldHasher::new("pipeline 2026-11 plan index");
        hasher.text(VERSION).text(FINGERPRINT).number(key::SCHEMA.into());
        // After another start of the machine, what was not flushed to the disk does not count before it is checked.
        hasher.text(cache::boot().unwrap_or_default());
        for path in [manifest, folder] {
            hasher.bytes(path.as_os_str().as_encoded_bytes());
        }
        // Another build may understand a manifest differently.
        let build = std::env::current_exe().and_then(fs::metadata);
        if let Ok(build) = build {
            hasher.number(build.dev()).number(build.ino()).number(build.size());
            hasher.number(build.mtime() as u64).number(build.mtime_nsec() as u64);
        }
        for word in words {
            hasher.text(word);
        }
        Self { digest: hasher.finish(), folder: folder.to_owned() }
    }
}

/// What the files about results are, each with the place of its stage.
type FilesNow = Vec<(usize, ResultFiles)>;

/// What a run found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlanIndex {
    asked: Digest,
    /// The manifest and the files that it includes, each with the digest of its text.
    texts: Vec<(PathBuf, Digest)>,
    pub(crate) experiment: String,
    /// Every stage that was selected, each after its inputs.
    pub(crate) stages: Vec<IndexedStage>,
    /// Whether the manifest has no others.
    are_all: bool,
    stamp: Stamp,
}

/// A stage and its result.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexedStage {
    pub(crate) name: StageName,
    kind: String,
    /// The places of the stages that it reads.
    pub(crate) inputs: Vec<usize>,
    pub(crate) key: StageKey,
    /// The artifact.
    pub(crate) digest: Digest,
    #[serde(with = "as_json")]
    pub(crate) metrics: Metrics,
    /// What the files about the result are, by their stat.
    files: ResultFiles,
    /// What it reads outside the cache.
    outside: OutsidePlaces,
    /// What was there, in the same order.
    content: Vec<Digest>,
    /// The folder of its file, where that is not the manifest's.
    folder: Option<PathBuf>,
}

/// Metrics say themselves what they are, which the form of an index does not allow.
mod as_json {
    use pipeline_stages::message::Metrics;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Most stages have none.
    const NONE: &str = "";

    pub(super) fn serialize<S: Serializer>(metrics: &Metrics, to: S) -> Result<S::Ok, S::Error> {
        match metrics.is_empty() {
            true => NONE.serialize(to),
            false => serde_json::to_string(metrics).map_err(S::Error::custom)?.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Metrics, D::Error> {
        match <&str>::deserialize(from)? {
            NONE => Ok(Metrics::new()),
            text => serde_json::from_str(text).map_err(D::Error::custom),
        }
    }
}

impl IndexedStage {
    fn expected(&self, has_record: bool) -> ExpectedResult<'_> {
        let Self { name, key, digest, metrics, files, .. } = self;
        ExpectedResult { stage: name, key, digest, metrics, files: *files, has_record }
    }

    /// That it has this result.
    pub(crate) fn fresh(&self) -> Outcome {
        Outcome::Fresh { digest: self.digest, metrics: self.metrics.clone(), same_as: None }
    }

    /// What its kind is.
    pub(crate) fn info(&self) -> Option<&'static KindInfo> {
        kind_info(&self.kind)
    }
}

/// What an index says of a run that is to come.
pub(crate) enum IndexAnswer<R> {
    /// It would find everything as the last one did.
    Unchanged(PlanIndex),
    /// It would, but for a part of its stages, which was read.
    Part(PlanIndex, AffectedStages, R),
    /// Nothing is known.
    Nothing,
}

/// The stages that read something else outside the cache than before, with all that needs them or is needed by these.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AffectedStages {
    /// By the place of a stage, whether it is one of them.
    has: Vec<bool>,
}

impl AffectedStages {
    /// The part of stages with these inputs, each after those, of which these have `changed`.
    fn of(inputs: &[&[usize]], changed: impl IntoIterator<Item = usize>) -> Self {
        let mut has = vec![false; inputs.len()];
        changed.into_iter().for_each(|place| has[place] = true);
        for place in 0..inputs.len() {
            has[place] |= inputs[place].iter().any(|&input| has[input]);
        }
        for place in (0..inputs.len()).rev() {
            if has[place] {
                inputs[place].iter().for_each(|&input| has[input] = true);
            }
        }
        Self { has }
    }

    /// Whether reading all stages would not take much longer.
    fn is_most(&self) -> bool {
        self.has.iter().filter(|has| **has).count() * 2 > self.has.len()
    }

    /// Whether the stage at a place is one of them.
    pub(crate) fn has(&self, place: usize) -> bool {
        self.has[place]
    }
}

impl PlanIndex {
    /// What the last run that was asked the same says of this one: where the texts are the same, and the cache has all results,
    /// heads and links, at most what is outside the cache has changed. `read` reads a part while the cache is still looked at.
    pub(crate) fn look<R>(
        cache: &Cache,
        index_key: &IndexKey,
        read: impl FnOnce(&Self, &AffectedStages) -> R,
    ) -> IndexAnswer<R> {
        let is_same = |(path, text): &(PathBuf, Digest)| digest_of_file(path) == Some(*text);
        let index = Self::read(cache, index_key).filter(|index| index.texts.iter().all(is_same));
        let Some(mut index) = index else { return IndexAnswer::Nothing };
        let outside = || {
            let changed = index.changed_outside(cache, index_key);
            let part = (!changed.is_empty()).then(|| index.part(changed));
            part.map(|part| part.map(|part| (read(&index, &part), part)))
        };
        let (inside, outside) = at_once(|| index.look_inside(cache), outside);
        let Some(other) = inside else { return IndexAnswer::Nothing };
        // Something else changed the cache, and all is there nevertheless: the next run need not find that out again.
        if let Some((files, now)) = other {
            index.set_files(files);
            index.stamp = now;
            let _ = index.write(cache);
        }
        match outside {
            None => IndexAnswer::Unchanged(index),
            Some(Some((read, part))) => IndexAnswer::Part(index, part, read),
            Some(None) => IndexAnswer::Nothing,
        }
    }

    /// Whether the cache has all that this says; and, where something has changed it, what the files about results are now.
    fn look_inside(&self, cache: &Cache) -> Option<Option<(FilesNow, Stamp)>> {
        let mut now = cache.stamp(&self.experiment);
        // Before the folders are looked at: what replaces them later is not taken for them.
        let files = (self.stamp != now).then(|| self.files_now(cache, |_| true));
        if files.is_some() {
            now = cache.stamp(&self.experiment);
        }
        let is_true = cache.still_has(&self.expected(|_| false), &self.stamp, &now);
        is_true.then(|| files.map(|files| (files, now)))
    }

    /// What the files about the results of these stages are now, each with the place of its stage.
    fn files_now(&self, cache: &Cache, of: impl Fn(&IndexedStage) -> bool) -> FilesNow {
        let stages = || self.stages.iter().enumerate().filter(|(_, stage)| of(stage));
        let results = stages().map(|(_, stage)| (stage.name.as_str(), &stage.key));
        let files = cache.result_files(&self.experiment, results);
        stages().map(|(place, _)| place).zip(files).collect()
    }

    fn set_files(&mut self, files: FilesNow) {
        files.into_iter().for_each(|(place, files)| self.stages[place].files = files);
    }

    /// The part of its stages that is to be looked at once these have `changed`. `None` where that is no less than a whole run.
    fn part(&self, changed: Vec<usize>) -> Option<AffectedStages> {
        let inputs: Vec<&[usize]> = self.stages.iter().map(|stage| &*stage.inputs).collect();
        let part = AffectedStages::of(&inputs, changed);
        // Of some stages, the links of others would have to follow.
        (self.are_all && !part.is_most()).then_some(part)
    }

    /// Keeps what a run found that is complete: these results. `before` is the stamp of the moment before it looked at the
    /// cache. Nothing is kept where something else changed the cache meanwhile, or where it cannot be written.
    pub(crate) fn keep(
        cache: &Cache,
        index_key: &IndexKey,
        manifest: &Manifest,
        graph: &Graph,
        results: Vec<(StageName, KnownResult)>,
        before: Stamp,
    ) {
        let experiment = manifest.experiment.name.clone();
        let texts = texts_of(manifest);
        let are_all = results.len() == manifest.stages.len();
        let names = results.iter().map(|(name, _)| name.clone());
        let places: HashMap<_, _> = names.enumerate().map(|(place, name)| (name, place)).collect();
        // They were read in this run.
        let records = cache.record_files(results.iter().map(|(_, result)| &result.key));
        let stages = results.into_iter().zip(records).filter_map(|((name, result), files)| {
            let declaration = manifest.stage(&name)?;
            let inputs = graph.inputs(&name).into_iter().filter_map(|input| places.get(input));
            let inputs = inputs.copied().collect();
            let outside = OutsidePlaces::of(declaration);
            let folder = declaration.file.as_ref().map(|file| file.folder.clone());
            let kind = declaration.stage.info().name.to_owned();
            let KnownResult { key, output, metrics, outside: content, .. } = result;
            let digest = output.digest;
            Some(IndexedStage {
                name,
                kind,
                inputs,
                key,
                digest,
                metrics,
                files,
                outside,
                content,
                folder,
            })
        });
        let stages = stages.collect();
        let index = Self {
            asked: index_key.digest,
            texts,
            experiment,
            stages,
            are_all,
            stamp: Stamp::default(),
        };
        // Another path to one of its files may lead elsewhere tomorrow.
        let is_known = manifest.folder == index_key.folder
            && index.texts.len() == manifest.files.len()
            && manifest.aliases.is_empty();
        if is_known {
            index.write_if_true(cache, before);
        }
    }

    /// Keeps it for the next run, after a part of its stages has run, with these results.
    pub(crate) fn renew(mut self, cache: &Cache, results: Vec<(StageName, KnownResult)>) {
        let mut results: HashMap<_, _> = results.into_iter().collect();
        for stage in &mut self.stages {
            if let Some(result) = results.remove(&stage.name) {
                stage.files = ResultFiles::default();
                (stage.key, stage.digest) = (result.key, result.output.digest);
                (stage.metrics, stage.content) = (result.metrics, result.outside);
            }
        }
        let before = std::mem::take(&mut self.stamp);
        self.write_if_true(cache, before);
    }

    /// Writes it, where the cache has all that it says. It had what was in the folders of `before`.
    fn write_if_true(mut self, cache: &Cache, before: Stamp) {
        // Whether the heads could be set is not known from before.
        let before = before.without_heads();
        let files = self.files_now(cache, |stage| !stage.files.are_known());
        self.stamp = cache.settled_stamp(&self.experiment);
        // All files of a result are known where they were looked at when this run began.
        let expected = self.expected(|stage| stage.files.are_known());
        if cache.still_has(&expected, &before, &self.stamp) {
            self.set_files(files);
            let _ = self.write(cache);
        }
    }

    fn expected(&self, has_record: impl Fn(&IndexedStage) -> bool) -> ExpectedResults<'_> {
        let results = self.stages.iter().map(|stage| stage.expected(has_record(stage)));
        ExpectedResults {
            experiment: &self.experiment,
            results: results.collect(),
            are_all: self.are_all,
        }
    }

    /// The places of the stages that read something else outside the cache than before, or cannot read it.
    fn changed_outside(&self, cache: &Cache, index_key: &IndexKey) -> Vec<usize> {
        let index = StatIndex::at(cache.layout().stat_index());
        let looked = Looked::default();
        let is_same = |stage: &IndexedStage| {
            let folder = stage.folder.as_ref().unwrap_or(&index_key.folder);
            let now = stage.outside.look_once(folder, cache, &index, &looked);
            let digests = now.map(|now| now.iter().map(|one| one.digest()).collect::<Vec<_>>());
            digests.is_ok_and(|digests| digests == stage.content)
        };
        let places = 0..self.stages.len();
        let places = places.filter(|&place| !self.stages[place].outside.is_empty());
        let places: Vec<usize> = places.collect();
        let threads = places.len().div_ceil(FEWEST_A_THREAD).min(machine::threads());
        let same = on_threads(&places, threads, |&place| is_same(&self.stages[place]));
        let _ = index.write();
        let changed = places.into_iter().zip(same).filter(|(_, same)| !same);
        changed.map(|(place, _)| place).collect()
    }

    /// Its stages that are in a part, or those that are not.
    pub(crate) fn part_of(
        &self,
        part: &AffectedStages,
        in_part: bool,
    ) -> impl Iterator<Item = &IndexedStage> {
        let stages = self.stages.iter().enumerate();
        stages.filter(move |(place, _)| part.has(*place) == in_part).map(|(_, stage)| stage)
    }

    /// The links for people to its results, of those of its stages that a part of the manifest has.
    pub(crate) fn links(&self, part: &Manifest) -> Links {
        let stages = self.stages.iter().filter(|stage| part.stage(&stage.name).is_some());
        stages.map(|stage| (stage.name.to_string(), stage.digest)).collect()
    }

    /// Whether it is about these texts.
    pub(crate) fn is_of(&self, manifest: &Manifest) -> bool {
        self.texts == texts_of(manifest)
    }

    /// Whether the results of these of its stages are not in the cache any more, as something was removed since it was looked at.
    pub(crate) fn lacks(&self, cache: &Cache, stages: impl Iterator<Item = usize>) -> bool {
        let is_gone = |place: usize| {
            let IndexedStage { key, digest, .. } = &self.stages[place];
            cache.usable(key).is_none_or(|record| record.output.digest != *digest)
        };
        cache.generation() != self.stamp.generation() && stages.into_iter().any(is_gone)
    }

    /// Removes what was kept for this question.
    pub(crate) fn forget(cache: &Cache, index_key: &IndexKey) {
        forget_file(&cache.layout().index(&index_key.digest));
    }

    fn read(cache: &Cache, index_key: &IndexKey) -> Option<Self> {
        let index = Self::parse(&cache.kept_index(&index_key.digest)?)?;
        (index.asked == index_key.digest).then_some(index)
    }

    /// Reads one from its bytes. `None` where they are damaged.
    fn parse(file: &[u8]) -> Option<Self> {
        let (checksum, rest) = file.strip_prefix(HEADER.as_bytes())?.split_at_checked(DIGITS)?;
        let rest = rest.strip_prefix(b"\n")?;
        let checksum: Digest = std::str::from_utf8(checksum).ok()?.parse().ok()?;
        let is_whole = Digest::from(blake3::hash(rest)) == checksum;
        let index: Self = is_whole.then(|| postcard::from_bytes(rest).ok())??;
        let mut stages = index.stages.iter().enumerate();
        let are_in_order =
            stages.all(|(place, stage)| stage.inputs.iter().all(|&input| input < place));
        are_in_order.then_some(index)
    }

    fn write(&self, cache: &Cache) -> anyhow::Result<()> {
        cache.keep_index(&self.asked, &self.encode()?)
    }

    /// Its bytes.
    fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let mut file = Vec::with_capacity(BEFORE + self.stages.len() * STAGE);
        file.resize(BEFORE, 0);
        let mut file = postcard::to_extend(self, file)?;
        set_checksum(&mut file);
        Ok(file)
    }
}

/// Writes what is before the content of a file.
fn set_checksum(file: &mut [u8]) {
    let checksum = Digest::from(blake3::hash(&file[BEFORE..]));
    file[..BEFORE].copy_from_slice(format!("{HEADER}{checksum}\n").as_bytes());
}

/// Whether an index has this content. No fuzzer can guess its checksum: it is put right here. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_plan_index(content: &[u8]) -> bool {
    let mut file = [&[0; BEFORE][..], content].concat();
    set_checksum(&mut file);
    let index = PlanIndex::parse(&file);
    if let Some(byte) = file.get_mut(BEFORE + content.len() / 2) {
        *byte ^= 1;
        assert!(PlanIndex::parse(&file).is_none(), "a bit is wrong");
    }
    let Some(index) = index else { return false };
    let bytes = index.encode().expect("it was read");
    let again = PlanIndex::parse(&bytes).expect("it was written");
    assert_eq!(again.encode().expect("it was read"), bytes);
    for (place, stage) in index.stages.iter().enumerate() {
        let _ = (stage.info(), stage.fresh());
        let part = index.part(vec![place]);
        assert!(part.is_none_or(|part| part.has(place)));
    }
    true
}

/// The files of a manifest, each with the digest of its text.
fn texts_of(manifest: &Manifest) -> Vec<(PathBuf, Digest)> {
    manifest.files.iter().cloned().zip(manifest.sources.texts().map(digest_of)).collect()
}

fn digest_of(text: &str) -> Digest {
    blake3::hash(text.as_bytes()).into()
}

fn digest_of_file(path: &Path) -> Option<Digest> {
    Some(blake3::hash(&manifest::read_bytes(path).ok()?).into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let digest = FieldHasher::new("test").finish();
        let mut metrics: Metrics = [("loss".to_owned(), f64::NAN)].into();
        metrics.insert_count("images", 3);
        let stage = |name: &str, metrics| IndexedStage {
            name: name.parse().expect("a name"),
            kind: "command".to_owned(),
            inputs: vec![0, 2],
            key: StageKey::of(&[]),
            digest,
            metrics,
            files: ResultFiles::default(),
            outside: OutsidePlaces::default(),
            content: vec![digest],
            folder: Some("/a".into()),
        };
        let index = PlanIndex {
            asked: digest,
            texts: vec![("/a/b.toml".into(), digest)],
            experiment: "x".to_owned(),
            stages: vec![stage("a", Metrics::new()), stage("b@c=1", metrics)],
            are_all: true,
            stamp: Stamp::default(),
        };
        let bytes = postcard::to_stdvec(&index).expect("what has a form");
        let again: PlanIndex = postcard::from_bytes(&bytes).expect("the same form");
        assert_eq!(format!("{again:?}"), format!("{index:?}"));
        // Its eight digests are bytes, and not digits.
        assert!(bytes.len() < 8 * 64, "{} bytes", bytes.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Each stage reads some of those before it.
        #[test]
        fn a_part_is_what_changed_and_all_that_it_takes(
            edges in proptest::collection::vec((0_usize..12, 0_usize..12), 0..20),
            changed in proptest::collection::btree_set(0_usize..12, 0..4),
        ) {
            let inputs_of = |stage| edges.iter().filter(move |(from, to)| *to == stage && from < to);
            let inputs: Vec<Vec<usize>> =
                (0..12).map(|stage| inputs_of(stage).map(|(from, _)| *from).collect()).collect();
            let closure = |start: &BTreeSet<usize>, next: &dyn Fn(usize) -> Vec<usize>| {
                let (mut seen, mut open) = (start.clone(), start.iter().copied().collect::<Vec<_>>());
                while let Some(stage) = open.pop() {
                    open.extend(next(stage).into_iter().filter(|&stage| seen.insert(stage)));
                }
                seen
            };
            let readers = |stage| (0..12).filter(|&reader| inputs[reader].contains(&stage)).collect();
            let may_run = closure(&changed, &readers);
            let expected = closure(&may_run, &|stage| inputs[stage].clone());
            let slices: Vec<&[usize]> = inputs.iter().map(Vec::as_slice).collect();
            let part = AffectedStages::of(&slices, changed);
            let found: BTreeSet<usize> = (0..12).filter(|&place| part.has(place)).collect();
            prop_assert_eq!(part.is_most(), expected.len() > 6);
            prop_assert_eq!(found, expected);
        }
    }
}
