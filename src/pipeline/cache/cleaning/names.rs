//! The names in the folders of a cache. Files of people may be behind a folder that is a link: their names are other ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::super::layout::{Bucket, Layout};
use super::super::{disk, durable};

/// The names in a folder; none where it is missing.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    listing.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The same where a name that is not seen would be taken for one that is not there.
pub(super) fn certain_names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = disk::certain_entries(folder)?.into_iter();
    Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The names of the folders in a folder.
pub(super) fn certain_folders(folder: &Path) -> anyhow::Result<Vec<String>> {
    Ok(disk::folder_names(disk::certain_entries(folder)?))
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

/// The stages of experiments that had a key: what they used may be needed.
pub(super) fn heads(layout: &Layout) -> anyhow::Result<Vec<(String, String)>> {
    let folder = layout.bucket(Bucket::Heads);
    let mut heads = Vec::new();
    for experiment in certain_folders(&folder)? {
        let stages = certain_names(&folder.join(&experiment))?.into_iter();
        let stages = stages.filter(|name| !name.starts_with(durable::NEW));
        heads.extend(stages.map(|stage| (experiment.clone(), stage)));
    }
    Ok(heads)
}
