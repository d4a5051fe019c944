//! Writes a crate, or an artifact: beside its place, and moved there when it is whole.

#![allow(clippy::disallowed_methods, reason = "it writes outside of the cache")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pipeline_prepare::state_dict_file::{STATE_DICT_FILE, write_state_dict};
use pipeline_stages::formats::WEIGHTS_FILE;
use pipeline_stages::links::{read_if_link, stays_inside};

use super::ro_crate::{Crate, METADATA};
use crate::cache::{Cache, Listing};
use crate::digest::Digest;
use crate::stage_name::StageName;

/// Writes the crate to a folder that does not exist, or is empty.
///
/// Returns the links that were left out, because they lead out of their artifact: paths in the crate.
///
/// # Errors
/// When something cannot be written, or an artifact does not match its record. The folder is as it was, then.
pub(crate) fn write(
    described: &Crate,
    cache: &Cache,
    folder: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    beside(folder, |top| {
        for (path, text) in described.manifest_files() {
            write_file(&top.join(path), text.as_bytes())?;
        }
        let mut left_out = Vec::new();
        for (result, path) in described.copied() {
            let digest = &result.record.output.digest;
            let links = copy_checked(cache, &result.stage, digest, &top.join(&path))?;
            left_out.extend(links.into_iter().map(|link| Path::new(&path).join(link)));
        }
        left_out.sort();
        write_file(&top.join(METADATA), described.metadata().as_bytes())?;
        Ok(left_out)
    })
}

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    /// As in the artifact.
    AsTheyAre,
    /// As a state dict of PyTorch.
    StateDict,
}

/// Writes the files of an artifact to a folder that does not exist, or is empty.
///
/// Returns the links that were left out, because they lead out of it.
///
/// # Errors
/// When something cannot be written, or the artifact does not match its record. The folder is as it was, then.
pub(crate) fn write_artifact(
    cache: &Cache,
    stage: &StageName,
    digest: &Digest,
    folder: &Path,
    weights_as: Weights,
) -> anyhow::Result<Vec<PathBuf>> {
    beside(folder, |top| {
        let left_out = copy_checked(cache, stage, digest, top)?;
        if weights_as == Weights::StateDict {
            write_state_dict(top, &top.join(STATE_DICT_FILE))?;
            let written = top.join(WEIGHTS_FILE);
            fs::remove_file(&written)
                .with_context(|| format!("cannot remove {}", written.display()))?;
        }
        Ok(left_out)
    })
}

/// Makes a folder that does not exist, or is empty: beside its place, where `fill` fills it, and moved there when it is whole.
fn beside<T>(folder: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let absolute = std::path::absolute(folder).context("no current folder")?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        bail!("{} cannot be a new folder", folder.display());
    };
    // Without a slash at its end, after which a link would be what it leads to.
    let absolute = parent.join(name);
    check_is_free(&absolute, folder)?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let prefix = format!(".{}.", name.to_string_lossy());
    let new = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent);
    let new = new.with_context(|| format!("cannot write to {}", parent.display()))?;
    // Of a folder for others, as other new folders.
    let top = new.path().join("new");
    make_folder(&top)?;
    let filled = fill(&top)?;
    fs::rename(&top, &absolute)
        .with_context(|| format!("cannot move the finished folder to {}", folder.display()))?;
    Ok(filled)
}

/// Copies an artifact, which must match its record. Links that lead out of it are left out, and returned.
fn copy_checked(
    cache: &Cache,
    stage: &StageName,
    digest: &Digest,
    place: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let links = copy(&cache.artifact(digest), place)?;
    let is_same = Listing::of(place)?.digest() == *digest;
    ensure!(
        is_same,
        "the artifact of {stage} does not match its record; `pipeline verify` shows what is damaged"
    );
    // Only now: without them, the copy is not what the record is of.
    for link in &links {
        fs::remove_file(place.join(link))
            .with_context(|| format!("cannot remove {}", place.join(link).display()))?;
    }
    Ok(links)
}

/// `shown` is how the user calls it.
///
/// # Errors
/// When the folder exists and is not empty, or is a link.
fn check_is_free(folder: &Path, shown: &Path) -> anyhow::Result<()> {
    let is_link = folder.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    ensure!(
        !is_link,
        "{} is a link: name a new folder, or the one that it leads to",
        shown.display()
    );
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            ensure!(entries.next().is_none(), "{} is not empty: name a new folder", shown.display())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => bail!("{} cannot be a new folder: {error}", shown.display()),
    }
    Ok(())
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    path.parent().map_or(Ok(()), make_folder)?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a folder with all that is in it. Links stay links. Returns those that lead out of the folder.
fn copy(top: &Path, to: &Path) -> anyhow::Result<Vec<PathBuf>> {
    make_folder(to)?;
    let link_at = |place: &Path| read_if_link(&top.join(place));
    let mut outside = Vec::new();
    let mut open: Vec<(PathBuf, PathBuf)> = vec![(top.to_owned(), to.to_owned())];
    while let Some((from, to)) = open.pop() {
        let entries =
            fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let what = || format!("cannot copy {}", source.display());
            let kind = entry.file_type().with_context(what)?;
            if kind.is_dir() {
                make_folder(&target)?;
                open.push((source, target));
            } else if kind.is_symlink() {
                let leads = fs::read_link(&source).with_context(what)?;
                let path = source.strip_prefix(top).unwrap_or(&source);
                if !stays_inside(path, &leads, link_at).with_context(what)? {
                    outside.push(path.to_owned());
                }
                std::os::unix::fs::symlink(leads, &target).with_context(what)?;
            } else {
                copy_file(&source, &target).with_context(what)?;
                make_writable(&target).with_context(what)?;
            }
        }
    }
    Ok(outside)
}

/// Copies a file to a new one. Where the file system can, they share their bytes until one of them is written to.
fn copy_file(source: &Path, target: &Path) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let (from, to) = (fs::File::open(source)?, fs::File::create_new(target)?);
        if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
            return to.set_permissions(from.metadata()?.permissions());
        }
    }
    fs::copy(source, target).map(drop)
}

/// Artifacts are read-only; copies are the user's own.
fn make_writable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o200))
}
