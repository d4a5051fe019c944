//! What the tests of the command line need beside the program itself.

use std::path::Path;

use anyhow::{Context, bail};

use crate::cache::{Cache, Listing};
use crate::execute::{JobSpec, Work};
use crate::facts::CacheFacts;
use crate::manifest;
use crate::plan::{Plan, PlanState};

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
