//! An index of what a run found, so that the next one of the same manifest that finds it all unchanged need not read the
//! stages, the records and the heads again.
//!
//! Disposable: what is missing, damaged or of another build is made again. It says which keys the stages have; that their results
//! exist is asked of the cache each time ([`Cache::still_has`]), and files outside it are looked at each time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pipeline_stages::kind_info;
use pipeline_stages::kinds::FINGERPRINT;
use pipeline_stages::message::{Metrics, VERSION};
use serde::{Deserialize, Serialize};

use crate::cache::{
    Cache, Expected, ExpectedResult, KnownResult, RecordStat, Stamp, StatIndex, all_in_parallel,
};
use crate::digest::{Digest, Encoder};
use crate::key::{self, StageKey};
use crate::manifest::{self, Manifest};
use crate::outside::OutsidePlaces;
use crate::stage_name::StageName;

/// How the file begins; the digest of the rest of it follows, and a line break.
const HEADER: &str = "pipeline plan index 1 ";

/// What a run was asked to do: all that decides which stages there are, beside the text of the manifest.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    digest: Digest,
    /// The folder of the manifest.
    folder: PathBuf,
}

impl Asked {
    /// To run the stages that these words select and change, of the manifest in this folder.
    pub(crate) fn new<'w>(
        manifest: &Path,
        folder: &Path,
        words: impl IntoIterator<Item = &'w str>,
    ) -> Self {
        let mut encoder = Encoder::new("pipeline 2026-11 plan index");
        encoder.text(VERSION).text(FINGERPRINT).number(key::SCHEMA.into());
        for path in [manifest, folder] {
            encoder.bytes(path.as_os_str().as_encoded_bytes());
        }
        // Another build may understand a manifest differently.
        let build = std::env::current_exe().and_then(fs::metadata);
        if let Ok(build) = build {
            encoder.number(build.dev()).number(build.ino()).number(build.size());
            encoder.number(build.mtime() as u64).number(build.mtime_nsec() as u64);
        }
        for word in words {
            encoder.text(word);
        }
        Self { digest: encoder.finish(), folder: folder.to_owned() }
    }
}

/// What a run found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlanIndex {
    asked: Digest,
    /// The manifest and the files that it includes, each with the digest of its text.
    files: Vec<(PathBuf, Digest)>,
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
    pub(crate) key: StageKey,
    /// The artifact.
    pub(crate) digest: Digest,
    #[serde(default, skip_serializing_if = "is_none_measured")]
    pub(crate) metrics: Metrics,
    /// What the record of the result is by its stat.
    record: Option<RecordStat>,
    /// What it reads outside the cache.
    #[serde(default, skip_serializing_if = "OutsidePlaces::is_empty")]
    outside: OutsidePlaces,
    /// What was there, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    content: Vec<Digest>,
    /// The folder of its file, where that is not the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

fn is_none_measured(metrics: &Metrics) -> bool {
    metrics.keys().next().is_none()
}

impl IndexedStage {
    fn expected(&self) -> ExpectedResult<'_> {
        let Self { name, key, digest, metrics, record, .. } = self;
        ExpectedResult { stage: name, key, digest, metrics, record: *record }
    }

    /// The metrics of its kind that matter most.
    pub(crate) fn headline(&self) -> &'static [&'static str] {
        kind_info(&self.kind).map_or(&[], |info| info.headline)
    }
}

impl PlanIndex {
    /// What the last run found that was asked the same, if a run would find it again: the texts are the same, everything outside
    /// the cache has the same content, and the cache has all results, heads and links.
    pub(crate) fn unchanged(cache: &Cache, asked: &Asked) -> Option<Self> {
        let mut index = Self::read(cache, asked)?;
        let is_same = |(path, text): &(PathBuf, Digest)| digest_of_file(path) == Some(*text);
        if !index.files.iter().all(is_same) {
            return None;
        }
        let now = cache.stamp(&index.experiment);
        let is_there = cache.still_has(&index.expected(), &index.stamp, &now);
        if !is_there || !index.finds_the_same_outside(cache, asked) {
            return None;
        }
        // Something else changed the cache, and all is there nevertheless: the next run need not find that out again.
        if index.stamp != now {
            for stage in &mut index.stages {
                stage.record = cache.record_stat(&stage.key);
            }
            index.stamp = now;
            let _ = index.write(cache);
        }
        Some(index)
    }

    /// Keeps what a run found that is complete: these results. `before` is the stamp of the moment before it looked at the
    /// cache. Nothing is kept where something else changed the cache meanwhile, or where it cannot be written.
    pub(crate) fn keep(
        cache: &Cache,
        asked: &Asked,
        manifest: &Manifest,
        results: Vec<(StageName, KnownResult)>,
        before: &Stamp,
    ) {
        let experiment = manifest.experiment.name.clone();
        let files = manifest.files.iter().cloned();
        let files: Vec<_> = files.zip(manifest.sources.texts().map(digest_of)).collect();
        let are_all = results.len() == manifest.stages.len();
        let stamp = cache.settled_stamp(&experiment);
        let stages = results.into_iter().filter_map(|(name, result)| {
            let declaration = manifest.stage(&name)?;
            let outside = OutsidePlaces::of(declaration);
            let folder = declaration.file.as_ref().map(|file| file.folder.clone());
            let kind = declaration.stage.info().name.to_owned();
            let record = cache.record_stat(&result.key);
            let KnownResult { key, output, metrics, outside: content, .. } = result;
            let digest = output.digest;
            Some(IndexedStage {
                name,
                kind,
                key,
                digest,
                metrics,
                record,
                outside,
                content,
                folder,
            })
        });
        let stages = stages.collect();
        let index = Self { asked: asked.digest, files, experiment, stages, are_all, stamp };
        // Another path to one of its files may lead elsewhere tomorrow.
        let is_known = manifest.folder == asked.folder
            && index.files.len() == manifest.files.len()
            && manifest.aliases.is_empty();
        // Whether the heads could be set is not known from before.
        let before = before.without_heads(&index.experiment);
        if is_known && cache.still_has(&index.expected(), &before, &index.stamp) {
            let _ = index.write(cache);
        }
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            experiment: &self.experiment,
            results: self.stages.iter().map(IndexedStage::expected).collect(),
            are_all: self.are_all,
        }
    }

    fn finds_the_same_outside(&self, cache: &Cache, asked: &Asked) -> bool {
        let index = StatIndex::at(cache.layout().stat_index());
        let is_same = |stage: &IndexedStage| {
            let folder = stage.folder.as_ref().unwrap_or(&asked.folder);
            let now = stage.outside.look(folder, cache, &index);
            let digests = now.map(|now| now.iter().map(|one| one.digest()).collect::<Vec<_>>());
            digests.is_ok_and(|digests| digests == stage.content)
        };
        let are_same = all_in_parallel(&self.stages, is_same);
        let _ = index.write();
        are_same
    }

    fn read(cache: &Cache, asked: &Asked) -> Option<Self> {
        let text = fs::read(cache.layout().index(&asked.digest)).ok()?;
        let (checksum, rest) = text.strip_prefix(HEADER.as_bytes())?.split_at_checked(64)?;
        let rest = rest.strip_prefix(b"\n")?;
        let checksum: Digest = std::str::from_utf8(checksum).ok()?.parse().ok()?;
        let is_whole = Digest::from(blake3::hash(rest)) == checksum;
        let index: Self = is_whole.then(|| serde_json::from_slice(rest).ok())??;
        (index.asked == asked.digest).then_some(index)
    }

    fn write(&self, cache: &Cache) -> anyhow::Result<()> {
        let text = serde_json::to_vec(self)?;
        let mut file = format!("{HEADER}{}\n", Digest::from(blake3::hash(&text))).into_bytes();
        file.extend(text);
        cache.keep_index(&self.asked, &file)
    }
}

fn digest_of(text: &str) -> Digest {
    blake3::hash(text.as_bytes()).into()
}

fn digest_of_file(path: &Path) -> Option<Digest> {
    Some(blake3::hash(&manifest::read_bytes(path).ok()?).into())
}
