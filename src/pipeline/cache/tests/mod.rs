//! Faults at any change of a cache: the walk through every step of every operation, and chance.

mod chance;
mod cleaning;
mod lazy;
mod lost;
mod walk;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use pipeline_stages::ArtifactType;
use pipeline_stages::message::Metrics;

use super::disk::faults::{Fault, with_fault};
use super::*;
use crate::key::KeyPart;
use crate::reason::Reason;
use crate::usage::Usage;

/// A folder for a cache, which is removed although artifacts are read-only.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        // In memory, where there is such a place: there, thousands of caches take seconds.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        Self(in_memory.or_else(|_| tempfile::tempdir()).expect("a folder"))
    }

    /// Where the cache is, or after a power cut will be.
    fn path(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    /// The cache, with its folders.
    fn cache(&self) -> Cache {
        let cache = Cache::open(&self.path()).expect("a cache");
        cache.prepare().expect("writable");
        cache
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = durable::remove_tree(&self.path());
    }
}

/// Acts without a fault, and without waiting for the disk.
fn without_fault<T>(act: impl FnOnce() -> T) -> T {
    with_fault(Path::new(""), Fault::Failure, u64::MAX, act).0
}

/// A file of the output of a stage: its path, and what is in it.
type Content<'a> = (&'a str, &'a str);

/// What the key of a stage is made of.
fn parts(stage: &str, inputs: &[Digest]) -> Vec<KeyPart> {
    let kind = KeyPart::Kind { name: stage.to_owned(), version: 1 };
    let inputs = inputs.iter().enumerate().map(|(place, digest)| KeyPart::Input {
        port: place.to_string(),
        from: "input".parse().expect("a name"),
        digest: *digest,
    });
    std::iter::once(kind).chain(inputs).collect()
}

fn claimed(cache: &Cache, key: &StageKey) -> anyhow::Result<Claim> {
    match cache.claim(key)? {
        Lookup::Claim(claim) => Ok(claim),
        Lookup::Hit(_) => bail!("there is a result"),
        Lookup::Busy => bail!("somebody works on it"),
    }
}

/// Commits what `write` puts into the output folder.
fn commit(
    cache: &Cache,
    claim: Claim,
    stage: &str,
    inputs: &[Digest],
    write: impl FnOnce(&Path, &[PathBuf]) -> anyhow::Result<()>,
) -> anyhow::Result<Record> {
    let committed = try_commit(cache, claim, stage, inputs, write, &|| ())?;
    Ok(committed.map_err(|failed| failed.error)?.record)
}

/// The same, with what happens when the output is hashed.
fn try_commit(
    cache: &Cache,
    claim: Claim,
    stage: &str,
    inputs: &[Digest],
    write: impl FnOnce(&Path, &[PathBuf]) -> anyhow::Result<()>,
    hashed: &dyn Fn(),
) -> anyhow::Result<Result<Committed, Box<NotCommitted>>> {
    let folders = inputs.iter().map(|digest| cache.artifact(digest)).collect::<Vec<_>>();
    let tops = inputs.iter().zip(&folders).map(|(digest, folder)| {
        let top = Snapshot::of_artifact(folder)?.top().context("a folder")?;
        Ok(InputFolder { digest: *digest, top })
    });
    let tops = tops.collect::<anyhow::Result<Vec<_>>>()?;
    write(&claim.output(), &folders)?;
    let execution = ExecutionFacts {
        parts: parts(stage, inputs),
        stage: stage.to_owned(),
        experiment: "test".to_owned(),
        reason: Reason::NeverRan,
        artifact: ArtifactType::Directory,
        metrics: Metrics::new(),
        ran_on: None,
        usage: Usage::default(),
    };
    Ok(claim.commit(execution, &tops, &Watch::default(), hashed))
}

/// Runs a stage that writes these files.
fn make(
    cache: &Cache,
    stage: &str,
    inputs: &[Digest],
    files: &[Content<'_>],
) -> anyhow::Result<Record> {
    let claim = claimed(cache, &StageKey::of(&parts(stage, inputs)))?;
    commit(cache, claim, stage, inputs, |output, _| write_files(output, files))
}

fn write_files(output: &Path, files: &[Content<'_>]) -> anyhow::Result<()> {
    for (path, text) in files {
        let path = output.join(path);
        fs::create_dir_all(path.parent().context("it is in the output")?)?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Changes the bytes of a file in the store.
fn damage(cache: &Cache, digest: &Digest, path: &str, text: &str) {
    let path = cache.artifact(digest).join(path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
    fs::write(&path, text).expect("writable");
}

/// Checks everything in the store, as `verify --all`.
fn verify(cache: &Cache) -> anyhow::Result<()> {
    let (_, unreadable) = cache.records();
    for (file, _) in unreadable.into_iter().filter(|(_, why)| *why == Unreadable::Damaged) {
        cache.quarantine_record(&file)?;
    }
    let checked = Check::new(cache, cache.artifacts()?).run(&Watch::default());
    checked.withdrawn?;
    for (digest, verdict) in checked.verdicts {
        match verdict {
            Verdict::Intact(_) | Verdict::Gone => {}
            Verdict::Damaged(Damage { moved: Ok(_), .. }) => {}
            Verdict::Damaged(Damage { moved: Err(why), .. }) | Verdict::Unreadable(why) => {
                bail!("{}: {why}", digest.short())
            }
        }
    }
    Ok(())
}
