//! What the tests of the command line and fuzzing need beside the program itself.

use std::path::Path;

use anyhow::{Context, bail};

use crate::cache::{Cache, Listing, Record};
use crate::diagnostic::Colour;
use crate::execute::{JobSpec, Work};
use crate::facts::CacheFacts;
use crate::history::Run;
use crate::key::StageKey;
use crate::manifest;
use crate::plan::{Plan, PlanState};
use crate::remote::{is_answer, is_for_s3, is_index};

/// The digest of a folder's content, as the cache makes it.
pub fn digest(folder: &Path) -> anyhow::Result<String> {
    Ok(Listing::of(folder)?.digest().to_string())
}

/// The job of a stage without inputs, as a run would start it.
pub fn job(manifest: &Path, cache: &Path, stage: &str) -> anyhow::Result<serde_json::Value> {
    let (manifest, graph) = manifest::read(manifest, &[])?;
    let cache = Cache::open(cache)?;
    let selected: Vec<_> = graph.order().cloned().collect();
    let facts = CacheFacts::look(&cache, &manifest, &selected);
    let plan = Plan::of(&manifest, &graph, &selected, &facts);
    let name = stage.parse().map_err(anyhow::Error::msg)?;
    let Some(PlanState::Dirty { reason, key, parts }) = plan.state(&name) else {
        bail!("'{stage}' does not have to run")
    };
    let work = Work { reason: reason.clone(), key: *key, parts: parts.clone() };
    let declaration = manifest.stage(&name).context("it is in the plan")?.clone();
    let spec = JobSpec::of(&manifest, declaration, work, &cache, |_| None)?;
    Ok(serde_json::to_value(spec)?)
}

/// Reads a manifest and what it includes.
///
/// # Errors
/// With its mistakes, as they are shown.
pub fn read_manifest(path: &Path) -> Result<(), String> {
    manifest::read(path, &[]).map(drop).map_err(|mistakes| mistakes.render(Colour::Always))
}

/// Reads the bytes of a record; whether it is a whole one of its key.
pub fn read_record(bytes: &[u8]) -> bool {
    Record::parse(bytes).is_some_and(|record| StageKey::of(&record.parts) == record.key)
}

/// Reads the bytes of the record of a run; whether it has a beginning.
pub fn read_run(bytes: &[u8]) -> bool {
    Run::parse("20261127-120000", bytes, false).is_some()
}

/// Reads the bytes of a listing, and compares it with itself and with an empty one; whether it is one.
pub fn read_listing(bytes: &[u8]) -> bool {
    let Ok(listing) = serde_json::from_slice::<Listing>(bytes) else { return false };
    let _ = (listing.digest(), listing.extent());
    assert!(listing.differences(&listing).is_empty());
    let empty = Listing::with_digests(Vec::new(), |_| bail!("there is no file"));
    empty.is_ok_and(|empty| {
        listing.differences(&empty).len() + empty.differences(&listing).len() > 0
    })
}

/// Reads what a remote says of an artifact, uncompressed; whether it is that of one.
pub fn read_remote_listing(bytes: &[u8]) -> bool {
    is_index(bytes)
}

/// Reads an answer of an object store, as each that it can be; whether it is one of them.
pub fn read_store_answer(bytes: &[u8]) -> bool {
    is_answer(&String::from_utf8_lossy(bytes))
}

/// Reads a file of profiles, and the same as what a program has printed; whether it has credentials or settings.
pub fn read_store_profiles(bytes: &[u8]) -> bool {
    is_for_s3(bytes)
}
