//! The output folder: every rule on what may be written to it, and where.
//!
//! While an archive is unpacked, the folder has only plain files and folders: symbolic links are
//! made at the end, after a check that none of them leads out. So no write ever goes through a link.
//! Does not depend on archive formats.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use pipeline_stages::kinds::Unpack;
use pipeline_stages::links::{self, read_if_link};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::include::Include;
use super::path::{InnerPath, MOST_PATH_BYTES, points_inside};

/// Bytes that a path can have on average. Data sets have about 60; a small archive of long paths would take
/// gigabytes of memory.
const NAME_BYTES_PER_FILE: u64 = 256;
/// Bytes that all paths can have for any limit.
const FEW_NAME_BYTES: u64 = 1 << 20;

/// Bytes per read. A request to stop is noticed once per read.
const BUFFER: usize = 128 << 10;

/// What is left out, for messages about its files.
const FILE_MANAGERS: &str = "file managers (__MACOSX, ._*, .DS_Store, Thumbs.db, desktop.ini)";

/// The part of a file's mode that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// A file without the executable bit.
    ReadWrite,
    /// A program.
    Executable,
}

impl Permission {
    /// Set-user-id and all other bits are dropped on purpose.
    pub(super) fn of_mode(mode: u32) -> Self {
        if mode & 0o111 == 0 { Self::ReadWrite } else { Self::Executable }
    }
}

/// The output folder while an archive is unpacked.
pub(super) struct Destination<'a> {
    context: &'a Context,
    root: PathBuf,
    strip: usize,
    include: Include,
    max_bytes: u64,
    max_files: u64,
    bytes: u64,
    files: u64,
    /// Bytes of the paths of files, folders and links, and of the targets of links.
    name_bytes: u64,
    folders: HashSet<String>,
    links: BTreeMap<InnerPath, String>,
    stripped_away: u64,
    /// Files of file managers that were left out.
    of_file_managers: u64,
    /// Bytes of sparse files that were skipped.
    skipped_sparse: u64,
    buffer: Vec<u8>,
    /// [`std::fs::hard_link`]. Tests use one that fails.
    make_hard_link: fn(&Path, &Path) -> std::io::Result<()>,
}

impl<'a> Destination<'a> {
    /// The output folder of a stage.
    ///
    /// # Errors
    /// When a glob of the stage is invalid.
    pub(super) fn new(unpack: &Unpack, context: &'a Context) -> anyhow::Result<Self> {
        Ok(Self {
            context,
            root: context.output.clone(),
            strip: usize::try_from(unpack.strip).unwrap_or(usize::MAX),
            include: Include::new(&unpack.include)?,
            max_bytes: unpack.max_bytes,
            max_files: unpack.max_files,
            bytes: 0,
            files: 0,
            name_bytes: 0,
            folders: HashSet::new(),
            links: BTreeMap::new(),
            stripped_away: 0,
            of_file_managers: 0,
            skipped_sparse: 0,
            buffer: vec![0; BUFFER],
            make_hard_link: |existing, new| std::fs::hard_link(existing, new),
        })
    }

    /// How much was unpacked, for messages.
    pub(super) fn so_far(&self) -> String {
        let files = if self.files == 1 { "file" } else { "files" };
        let bytes = if self.bytes == 1 { "byte" } else { "bytes" };
        format!("{} {files} and {} {bytes}", self.files, self.bytes)
    }

    /// Refuses an archive that announces too much, before it is read.
    ///
    /// # Errors
    /// When it has more than `max-files` entries.
    pub(super) fn expect_entries(&self, count: usize) -> anyhow::Result<()> {
        ensure!(self.include.is_given() || count as u64 <= self.max_files, self.too_many_files());
        Ok(())
    }

    /// Writes a file.
    pub(super) fn file(
        &mut self,
        name: &[u8],
        permission: Permission,
        content: &mut impl Read,
    ) -> anyhow::Result<()> {
        let Some(path) = self.select(name)? else { return Ok(()) };
        self.make_parents(&path)?;
        self.count_file(&path)?;
        self.write(&path, permission, content)
    }

    /// Writes a file that was counted, in an existing folder.
    fn write(
        &mut self,
        path: &InnerPath,
        permission: Permission,
        content: &mut impl Read,
    ) -> anyhow::Result<()> {
        let mode = if permission == Permission::Executable { 0o777 } else { 0o666 };
        let file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(self.on_disk(path));
        let mut file = match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return self.expect_the_same(path, content);
            }
            file => file.map_err(|error| self.describe_write(path, error))?,
        };
        loop {
            let read = self.read_some(path, content)?;
            if read == 0 {
                return Ok(());
            }
            let bytes = self.buffer.get(..read).unwrap_or_default();
            file.write_all(bytes).map_err(|error| self.describe_write(path, error))?;
        }
    }

    /// Reads a file that has been written already: the same bytes again are not a conflict.
    fn expect_the_same(&mut self, path: &InnerPath, content: &mut impl Read) -> anyhow::Result<()> {
        let written = File::options()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.on_disk(path));
        let mut written = written.map_err(|_| anyhow!(self.twice(path)))?;
        let mut expected = Vec::new();
        loop {
            let read = self.read_some(path, content)?;
            expected.clear();
            (&mut written)
                .take(read.max(1) as u64)
                .read_to_end(&mut expected)
                .map_err(|_| anyhow!(self.twice(path)))?;
            ensure!(self.buffer.get(..read) == Some(&expected), self.twice(path));
            if read == 0 {
                self.files -= 1;
                return Ok(());
            }
        }
    }

    /// Reads the next bytes of a file of the archive into the buffer, and counts them.
    fn read_some(&mut self, path: &InnerPath, content: &mut impl Read) -> anyhow::Result<usize> {
        self.context.stop_point()?;
        let read = read(content, &mut self.buffer)
            .with_context(|| format!("{} is damaged or cut off in the archive", path.shown()))?;
        self.bytes = self.bytes.saturating_add(read as u64);
        ensure!(
            self.bytes <= self.max_bytes,
            "it unpacks to more than {} bytes: if that is right, raise max-bytes",
            self.max_bytes
        );
        Ok(read)
    }

    /// Notes something about the archive.
    pub(super) fn note(&self, text: &str) {
        self.context.note(text);
    }

    /// Skips the rest of an unwanted entry.
    pub(super) fn skip(&mut self, content: &mut impl Read) -> anyhow::Result<()> {
        while self.skip_some(content)? > 0 {}
        Ok(())
    }

    /// As [`Destination::skip`], for a sparse file: its holes do not take space in the archive, so a small
    /// one can claim more zeros than can be read in a reasonable time.
    ///
    /// # Errors
    /// When the archive cannot be read, or has more of these bytes than it can unpack to.
    pub(super) fn skip_sparse(&mut self, content: &mut impl Read) -> anyhow::Result<()> {
        loop {
            let skipped = self.skip_some(content)?;
            self.skipped_sparse = self.skipped_sparse.saturating_add(skipped as u64);
            ensure!(
                self.skipped_sparse <= self.max_bytes,
                "the sparse files that are left out have more than {} bytes, which must be skipped one by one: \
                 if that is right, raise max-bytes",
                self.max_bytes
            );
            if skipped == 0 {
                return Ok(());
            }
        }
    }

    fn skip_some(&mut self, content: &mut impl Read) -> anyhow::Result<usize> {
        self.context.stop_point()?;
        read(content, &mut self.buffer).context("the archive is damaged or cut off")
    }

    /// Makes a folder, which can exist already.
    ///
    /// # Errors
    /// When its name is refused or is that of a file, or there are too many.
    pub(super) fn folder(&mut self, name: &[u8]) -> anyhow::Result<()> {
        let Some(path) = self.select(name)? else { return Ok(()) };
        self.make_parents(&path)?;
        self.make_folder(path.as_str())
    }

    /// Records a symbolic link. [`Destination::finish`] makes it.
    ///
    /// # Errors
    /// When its name is refused or taken, or it leads out of the folder by its own target.
    pub(super) fn symbolic_link(&mut self, name: &[u8], target: &[u8]) -> anyhow::Result<()> {
        let Some(path) = self.select(name)? else { return Ok(()) };
        check_length(&path, target)?;
        let shown = String::from_utf8_lossy(target);
        let target = std::str::from_utf8(target).with_context(|| {
            format!("the link {} leads to '{shown}', which is not UTF-8", path.shown())
        })?;
        ensure!(points_inside(&path, target), leads_out(&path, target));
        self.count_file(&path)?;
        self.count_name(target)?;
        ensure!(!self.links.contains_key(&path), self.twice(&path));
        self.links.insert(path, target.to_owned());
        Ok(())
    }

    /// Makes a second name for a file that has been unpacked.
    ///
    /// # Errors
    /// When either name is refused, or the file does not exist.
    pub(super) fn hard_link(&mut self, name: &[u8], target: &[u8]) -> anyhow::Result<()> {
        let Some(path) = self.select(name)? else { return Ok(()) };
        check_length(&path, target)?;
        let target = InnerPath::new(target, self.strip)
            .with_context(|| format!("the hard link {} leads out of the archive", path.shown()))?;
        let Some(target) = target else {
            bail!("{} is a hard link to a file that 'strip' leaves out", path.shown());
        };
        if let Some(text) = self.links.get(&target).cloned() {
            ensure!(points_inside(&path, &text), leads_out(&path, &text));
            self.count_file(&path)?;
            self.count_name(&text)?;
            ensure!(self.links.insert(path.clone(), text).is_none(), self.twice(&path));
            return Ok(());
        }
        let existing = self.on_disk(&target);
        if !existing.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            let hint =
                if self.include.is_given() { ": let 'include' match that file, too" } else { "" };
            bail!(
                "{} is a hard link to {}, which is not a file that was unpacked before it{hint}",
                path.shown(),
                target.shown()
            );
        }
        self.make_parents(&path)?;
        self.count_file(&path)?;
        match (self.make_hard_link)(&existing, &self.on_disk(&path)) {
            Ok(()) => Ok(()),
            Err(error) if is_no_hard_link_here(&error) => self.copy_within(&existing, &path),
            Err(error) => Err(self.describe_write(&path, error)),
        }
    }

    /// Makes the links, checks that a file was unpacked and that every glob matched.
    ///
    /// # Errors
    /// When that is not so, or a link leads out of the folder.
    pub(super) fn finish(mut self) -> anyhow::Result<Metrics> {
        let links = std::mem::take(&mut self.links);
        for (path, target) in &links {
            self.context.stop_point()?;
            ensure!(stays_inside(path, target, &links), leads_out(path, target));
            self.make_parents(path)?;
        }
        for (path, target) in &links {
            self.context.stop_point()?;
            if self.folders.contains(path.as_str()) {
                bail!("{} is a folder and a link at once", path.shown());
            }
            std::os::unix::fs::symlink(target, self.on_disk(path))
                .map_err(|error| self.describe_write(path, error))?;
        }
        let root = self.root.canonicalize().context("cannot find the output folder")?;
        for (path, target) in &links {
            self.context.stop_point()?;
            ensure!(really_stays_inside(&root, path, target)?, leads_out(path, target));
        }
        self.include.check_all_used()?;
        if self.files == 0 {
            match (self.stripped_away, self.of_file_managers) {
                (0, 0) => bail!("it does not contain a file"),
                (0, _) => bail!("it does not contain a file but those of {FILE_MANAGERS}"),
                (left_out, _) => {
                    bail!("strip = {} leaves nothing of its {left_out} paths", self.strip)
                }
            }
        }
        if self.stripped_away > 0 {
            let left_out = self.stripped_away;
            self.context.note(format!(
                "left out {left_out} entries above the {} stripped folders",
                self.strip
            ));
        }
        if self.of_file_managers > 0 {
            let left_out = self.of_file_managers;
            self.context.note(format!("left out {left_out} files of {FILE_MANAGERS}"));
        }
        let mut metrics = Metrics::new();
        metrics.insert_count("files", self.files);
        metrics.insert_count("bytes", self.bytes);
        Ok(metrics)
    }

    /// The same, on a filesystem where a hard link has this result.
    #[cfg(test)]
    pub(super) fn with_hard_links(self, make: fn(&Path, &Path) -> std::io::Result<()>) -> Self {
        Self { make_hard_link: make, ..self }
    }

    /// The path of an entry of the archive, if it is to be unpacked.
    fn select(&mut self, name: &[u8]) -> anyhow::Result<Option<InnerPath>> {
        self.context.stop_point()?;
        let Some(whole) = InnerPath::new(name, 0)? else { return Ok(None) };
        let is_file = !name.ends_with(b"/");
        // Before 'strip' removes the folder that identifies it.
        if whole.is_of_a_file_manager() {
            self.of_file_managers += u64::from(is_file);
            return Ok(None);
        }
        let path = InnerPath::new(name, self.strip)?;
        if path.is_none() && is_file {
            self.stripped_away += 1;
        }
        Ok(path.filter(|path| self.include.wants(path)))
    }

    fn make_parents(&mut self, path: &InnerPath) -> anyhow::Result<()> {
        path.ancestors().try_for_each(|folder| self.make_folder(folder))
    }

    fn make_folder(&mut self, folder: &str) -> anyhow::Result<()> {
        if self.folders.contains(folder) {
            return Ok(());
        }
        self.context.stop_point()?;
        self.folders.insert(folder.to_owned());
        self.count_name(folder)?;
        self.check_count()?;
        match std::fs::create_dir(self.root.join(folder)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("'{}' is a folder and a file at once", folder.escape_debug())
            }
            made => {
                made.with_context(|| format!("cannot make the folder '{}'", folder.escape_debug()))
            }
        }
    }

    /// Copies a file in place of a hard link, for filesystems without hard links.
    fn copy_within(&mut self, existing: &Path, path: &InnerPath) -> anyhow::Result<()> {
        let reading = || format!("cannot read {}", existing.display());
        let mut file = File::open(existing).with_context(reading)?;
        let mode = file.metadata().with_context(reading)?.permissions().mode();
        self.write(path, Permission::of_mode(mode), &mut file)
    }

    fn count_file(&mut self, path: &InnerPath) -> anyhow::Result<()> {
        self.files += 1;
        self.count_name(path.as_str())?;
        self.check_count()
    }

    /// Counts the bytes of paths and targets: they are kept in memory, here or when the artifact is listed.
    fn count_name(&mut self, name: &str) -> anyhow::Result<()> {
        self.name_bytes = self.name_bytes.saturating_add(name.len() as u64);
        let most = self.max_files.saturating_mul(NAME_BYTES_PER_FILE).max(FEW_NAME_BYTES);
        ensure!(
            self.name_bytes <= most,
            "the paths in it have more than {most} bytes together, {NAME_BYTES_PER_FILE} for each file of max-files: \
             if that is right, raise max-files"
        );
        Ok(())
    }

    fn check_count(&self) -> anyhow::Result<()> {
        ensure!(self.files + self.folders.len() as u64 <= self.max_files, self.too_many_files());
        Ok(())
    }

    fn too_many_files(&self) -> String {
        format!(
            "it has more than {} files and folders: if that is right, raise max-files",
            self.max_files
        )
    }

    fn on_disk(&self, path: &InnerPath) -> PathBuf {
        self.root.join(path.as_str())
    }

    fn twice(&self, path: &InnerPath) -> String {
        if self.folders.contains(path.as_str()) {
            return format!("{} is a folder and a file at once", path.shown());
        }
        let hint = if self.strip > 0 { " (after 'strip')" } else { "" };
        format!("{} occurs twice in the archive{hint}, with different content", path.shown())
    }

    fn describe_write(&self, path: &InnerPath, error: std::io::Error) -> anyhow::Error {
        match error.kind() {
            ErrorKind::AlreadyExists => anyhow::Error::msg(self.twice(path)),
            _ => anyhow::Error::new(error)
                .context(format!("cannot write {}", self.on_disk(path).display())),
        }
    }
}

fn read(content: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a hard link failed because the filesystem does not support it: not at all, not between these folders, or
/// not this many of one file.
fn is_no_hard_link_here(error: &std::io::Error) -> bool {
    let refusals = [Errno::MLINK, Errno::PERM, Errno::OPNOTSUPP, Errno::XDEV];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

fn check_length(link: &InnerPath, target: &[u8]) -> anyhow::Result<()> {
    ensure!(
        target.len() <= MOST_PATH_BYTES,
        "the link {} leads to a path of more than {MOST_PATH_BYTES} bytes, which is too long",
        link.shown()
    );
    Ok(())
}

fn leads_out(path: &InnerPath, target: &str) -> String {
    format!(
        "refused the link {} to '{}': it leads out of the output folder, or in a loop",
        path.shown(),
        target.escape_debug()
    )
}

/// Whether a link stays in the folder, by what the archive says of all links.
fn stays_inside(path: &InnerPath, target: &str, links: &BTreeMap<InnerPath, String>) -> bool {
    let link_at = |place: &Path| {
        let here = InnerPath::new(place.as_os_str().as_bytes(), 0).ok().flatten();
        Ok(here.and_then(|here| links.get(&here)).map(PathBuf::from))
    };
    links::stays_inside(path.as_str().as_ref(), target.as_ref(), link_at).unwrap_or(false)
}

/// Whether a link stays in the folder, by what is on the disk. The names were checked already, but a filesystem can treat different
/// names as the same: `LINK` and `link`.
fn really_stays_inside(root: &Path, path: &InnerPath, target: &str) -> anyhow::Result<bool> {
    let link_at = |place: &Path| read_if_link(&root.join(place));
    links::stays_inside(path.as_str().as_ref(), target.as_ref(), link_at)
        .with_context(|| format!("cannot follow the link {}", path.shown()))
}
