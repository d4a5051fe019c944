//! The body of `unpack`: finds the archive, detects its format, and lets a reader of that format
//! fill the output folder.
//!
//! [`destination`] decides what a reader can write, and where: no reader writes to the disk itself.

#[cfg(test)]
mod archive_builder;
#[cfg(test)]
mod corruption;
mod destination;
mod format;
mod include;
mod path;
mod tar_archive;
#[cfg(test)]
mod tests;
mod zip_archive;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pipeline_stages::kinds::{ArchiveFormat, Unpack};
use pipeline_stages::message::Metrics;
use pipeline_stages::text::in_short;
use pipeline_stages::worker::{Context, Stopped};

use crate::body::Body;
use destination::{Destination, Permission};
use format::{ArchiveFile, UnpackFormat};

impl Body for Unpack {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let path = only_file(context.input("archive")?)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut destination = Destination::new(self, context)?;
        let archive = ArchiveFile::open(&path, context)?;
        let gauge = archive.gauge();
        let size = archive.size();
        unpack(self.format, archive, &name, &mut destination).map_err(|error| {
            if error.is::<Stopped>() {
                return error;
            }
            let so_far =
                format!("byte {} of {size}, after {}", gauge.position(), destination.so_far());
            error.context(format!("cannot unpack '{}' (at {so_far})", name.escape_debug()))
        })?;
        destination.finish().with_context(|| format!("cannot unpack '{}'", name.escape_debug()))
    }
}

fn unpack(
    format: ArchiveFormat,
    mut archive: ArchiveFile,
    name: &str,
    destination: &mut Destination,
) -> anyhow::Result<()> {
    match UnpackFormat::of(format, &mut archive)? {
        UnpackFormat::Zip => zip_archive::unpack(archive, destination),
        UnpackFormat::Tar => tar_archive::unpack(archive, destination),
        UnpackFormat::TarGz => tar_archive::unpack(format::gzip(archive), destination),
        UnpackFormat::TarXz => tar_archive::unpack(format::xz(archive)?, destination),
        UnpackFormat::TarZst => tar_archive::unpack(format::zstd(archive)?, destination),
        UnpackFormat::Gz => {
            let inner = name_without_gz(name);
            destination.file(inner.as_bytes(), Permission::ReadWrite, &mut format::gzip(archive))
        }
    }
}

/// `train-images.gz` contains `train-images`, `data.tgz` contains `data.tar`.
fn name_without_gz(name: &str) -> String {
    let ending = |ending: &str| {
        let at = name
            .len()
            .checked_sub(ending.len())
            .filter(|&at| at > 0 && name.is_char_boundary(at))?;
        let (stem, end) = name.split_at(at);
        end.eq_ignore_ascii_case(ending).then_some(stem)
    };
    if let Some(stem) = ending(".gz") {
        return stem.to_owned();
    }
    ending(".tgz").map_or_else(|| name.to_owned(), |stem| format!("{stem}.tar"))
}

/// The only file of an artifact of type file.
fn only_file(artifact: &Path) -> anyhow::Result<PathBuf> {
    let entries =
        artifact.read_dir().with_context(|| format!("cannot list {}", artifact.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    match paths.as_slice() {
        [path] if path.is_file() => Ok(path.clone()),
        _ => {
            let name = |path: &PathBuf| {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            };
            let names: Vec<_> = paths.iter().map(name).collect();
            bail!(
                "the artifact at 'archive' must have exactly one file, the archive, but {} has {} entries: {}",
                artifact.display(),
                paths.len(),
                in_short(&names, 8)
            )
        }
    }
}
