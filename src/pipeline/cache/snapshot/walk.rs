//! The walk over a place: what is in it, by the stat of each entry. Opens no file.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use pipeline_stages::left_out::LeftOut;

use super::super::entry::path_bytes;
use super::super::file_system;
use super::super::stat::Stat;

/// Something in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlaceEntry {
    /// The path below the place; empty for the place itself.
    pub(super) path: PathBuf,
    /// The link that leads to it.
    pub(super) link: Option<Link>,
    pub(super) target: Target,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) text: PathBuf,
    pub(super) stat: Stat,
}

/// What an entry is, behind its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    File(Stat),
    /// Outside the cache, what is left out may come and go in it, and that changes its times.
    Folder(Stat),
    /// A folder that was met before, under this path. So loops end, and no folder counts over and over.
    MetBefore(PathBuf),
    /// The link leads to nothing, or is not followed.
    Nowhere,
    /// Neither file nor folder. Only in an artifact that somebody wrote to.
    Special(Stat),
}

/// The place of a folder on its disk, which no other has.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

type LazyIdentity<'a> = LazyCell<Option<(u64, u64)>, Box<dyn FnOnce() -> Option<(u64, u64)> + 'a>>;

/// One walk over a place.
pub(super) struct Walk<'a> {
    path: &'a Path,
    /// Outside the cache: what is left out, and the identity of the cache folder, once a folder is met.
    outside: Option<(LeftOut<'a>, LazyIdentity<'a>)>,
    /// The folders that were met, with the paths under which they were.
    met: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Walk<'a> {
    /// One over a place. Outside the cache: with what is left out, and the folder of the cache.
    pub(super) fn new(path: &'a Path, outside: Option<(LeftOut<'a>, &'a Path)>) -> Self {
        let outside = outside.map(|(left_out, cache)| {
            let find = move || fs::metadata(cache).ok().as_ref().map(identity);
            (left_out, LazyIdentity::new(Box::new(find)))
        });
        Self { path, outside, met: HashMap::new() }
    }

    /// What is there, sorted by path, and outside the cache, the folder that it is in.
    pub(super) fn take(mut self) -> anyhow::Result<(Vec<PlaceEntry>, Option<Stat>)> {
        let mut entries = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(relative) = pending.pop() {
            let Some(entry) = self.look(relative)? else { continue };
            if let Target::Folder(_) = entry.target {
                pending.extend(self.children(&entry.path)?);
                let through = |(left_out, _): &(LeftOut<'_>, LazyIdentity<'_>)| {
                    left_out.looks_through(&entry.path)
                };
                if self.outside.as_ref().is_some_and(through) {
                    continue;
                }
            }
            entries.push(entry);
        }
        entries.sort_by(|a, b| path_bytes(&a.path).cmp(path_bytes(&b.path)));
        let above = match (&self.outside, self.path.parent()) {
            (Some(_), Some(folder)) if folder.as_os_str().is_empty() => Some(Path::new(".")),
            (Some(_), folder) => Some(folder.unwrap_or(self.path)),
            (None, _) => None,
        };
        let above = above.and_then(|folder| fs::metadata(folder).ok());
        Ok((entries, above.as_ref().map(Stat::of)))
    }

    fn whole(&self, relative: &Path) -> PathBuf {
        // Joining nothing would add a slash, and no file has one behind its name.
        match relative.as_os_str().is_empty() {
            true => self.path.to_owned(),
            false => self.path.join(relative),
        }
    }

    /// What is in a folder and counts, the last name first.
    fn children(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let whole = self.whole(folder);
        let list = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&whole)?.map(|entry| Ok(folder.join(entry?.file_name()))).collect()
        };
        let mut paths = list().with_context(|| format!("cannot list {}", whole.display()))?;
        if let Some((left_out, _)) = &self.outside {
            paths.retain(|path| !left_out.leaves_out(path));
        }
        paths.sort_unstable_by(|a, b| path_bytes(b).cmp(path_bytes(a)));
        Ok(paths)
    }

    /// One entry. `None` for one that vanished since its folder was listed, and for the cache.
    fn look(&mut self, path: PathBuf) -> anyhow::Result<Option<PlaceEntry>> {
        let whole = self.whole(&path);
        let is_top = path.as_os_str().is_empty();
        let unreadable = || format!("cannot read {}", whole.display());
        let own = match fs::symlink_metadata(&whole) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_top => return Ok(None),
            other => other.with_context(unreadable)?,
        };
        if !own.is_symlink() {
            let target = self.target(&whole, &path, &own)?;
            return Ok(target.map(|target| PlaceEntry { path, link: None, target }));
        }
        let text = fs::read_link(&whole).with_context(unreadable)?;
        let link = Some(Link { text, stat: Stat::of(&own) });
        if self.outside.is_none() {
            return Ok(Some(PlaceEntry { path, link, target: Target::Nowhere }));
        }
        let target = match fs::metadata(&whole) {
            Ok(metadata) => match self.met.get(&identity(&metadata)) {
                Some(before) => Some(Target::MetBefore(before.clone())),
                None => self.target(&whole, &path, &metadata)?,
            },
            Err(error) if leads_nowhere(&error) && !is_top => Some(Target::Nowhere),
            Err(error) => return Err(error).with_context(unreadable),
        };
        Ok(target.map(|target| PlaceEntry { path, link, target }))
    }

    fn target(
        &mut self,
        whole: &Path,
        path: &Path,
        metadata: &Metadata,
    ) -> anyhow::Result<Option<Target>> {
        let kind = metadata.file_type();
        let Some((_, cache)) = &self.outside else {
            let stat = Stat::of(metadata);
            return Ok(Some(match () {
                () if kind.is_file() => Target::File(stat),
                () if kind.is_dir() => Target::Folder(stat),
                () => Target::Special(stat),
            }));
        };
        refuse_what_has_no_content(whole, kind, metadata)?;
        if kind.is_file() {
            return Ok(Some(Target::File(Stat::of(metadata))));
        }
        if !path.as_os_str().is_empty() && **cache == Some(identity(metadata)) {
            return Ok(None);
        }
        self.met.entry(identity(metadata)).or_insert_with(|| path.to_owned());
        Ok(Some(Target::Folder(Stat::of(metadata))))
    }
}

fn leads_nowhere(error: &io::Error) -> bool {
    let looped = rustix::io::Errno::LOOP.raw_os_error();
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(looped)
}

/// Refuses what cannot be compared with its earlier self, before anybody opens it and waits for ever.
fn refuse_what_has_no_content(
    path: &Path,
    kind: FileType,
    metadata: &Metadata,
) -> anyhow::Result<()> {
    // What is on a disk takes some there, but for what is empty or very small.
    let takes_no_blocks = metadata.blocks() == 0;
    let what = if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if takes_no_blocks && file_system::is_made_up(path) {
        "made up by the kernel whenever it is read"
    } else {
        return Ok(());
    };
    bail!(
        "{} is {what}: it does not have lasting content, and only files and folders on a disk can be read from outside the \
         cache; copy what the stage needs of it into a file",
        path.display()
    )
}
