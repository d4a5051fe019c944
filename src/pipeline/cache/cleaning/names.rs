//! The names in the folders of a cache. Files of people may be behind a folder that is a link: their names are other ones.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;

use super::super::durable;
use super::super::layout::{Bucket, Layout};

/// The names in a folder; none where it is missing.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    listing.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The same where a name that is not seen would be taken for one that is not there.
pub(super) fn certain_names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    match list() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        other => other.with_context(|| format!("cannot read {}", folder.display())),
    }
}

/// What a name says that ends so.
pub(super) fn stem<T: FromStr>(name: &str, extension: &str) -> Option<T> {
    name.strip_suffix(extension)?.parse().ok()
}

/// The files in the folders of a bucket, each with its name.
pub(super) fn sharded(folder: &Path) -> Vec<(PathBuf, String)> {
    let shards = names(folder).into_iter().map(|shard| folder.join(shard));
    let files = shards.flat_map(|shard| {
        names(&shard).into_iter().map(move |name| (shard.join(&name), name)).collect::<Vec<_>>()
    });
    files.collect()
}

/// The digest or the key in a name that has a number after it.
pub(super) fn numbered<T: FromStr>(name: &str) -> Option<T> {
    let (stem, number) = name.rsplit_once('-')?;
    number.parse::<u32>().ok().and(stem.parse().ok())
}

/// The keys that stages of experiments had last.
pub(super) fn heads(layout: &Layout) -> Vec<(String, String)> {
    let folder = layout.bucket(Bucket::Heads);
    let heads = names(&folder).into_iter().flat_map(|experiment| {
        let stages = names(&folder.join(&experiment)).into_iter();
        let stages = stages.filter(|name| !name.starts_with(durable::NEW));
        stages.map(|stage| (experiment.clone(), stage)).collect::<Vec<_>>()
    });
    heads.collect()
}
