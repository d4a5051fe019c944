//! The store: artifacts under the digest of their content, read-only, never changed.
//!
//! Does not depend on stages: a folder goes in, a digest comes out.
//!
//! Who may read what: a stored file is never more readable than the output was, and nobody may write it. In a
//! cache that is a group's (its folder has the setgid bit), the group may read everything, and may move a damaged
//! artifact out of the way.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rustix::fs::{FileType, Mode, fstat};

use super::disk::{self, At};
use super::durable;
use super::entry::{Entry, EntryKind};
use super::file_digest::Watch;
use super::folder::{self, Folder};
use super::layout::{Bucket, Layout};
use super::listing::Listing;
use super::lock::Lock;
use super::stamp;
use super::stored::Stored;
use super::work::WorkFolder;
use crate::digest::Digest;

/// With more files and folders than this, one sync of the whole filesystem is cheaper than one of each file.
const SYNC_EACH_AT_MOST: usize = 256;

/// Moves a finished output into the store: hash, make read-only, fsync, rename, fsync.
///
/// The output is gone afterwards. When the store has the same content already, that one stays. What is damaged in its place
/// moves to the quarantine after `withdraw`, while what that returns is held. `hashed` is called before anybody looks for that
/// content in the store, and `watch` ends the reading before that. Unless it `lasts`, nothing waits for the disk.
///
/// # Errors
/// When something cannot be read or written, or the output is no longer the folder that was made for it. The store
/// is as it was.
pub(super) fn commit<T>(
    layout: &Layout,
    work: &WorkFolder,
    watch: &Watch,
    lasts: bool,
    hashed: impl FnOnce(&Digest) -> anyhow::Result<()>,
    withdraw: impl FnOnce(&Digest) -> anyhow::Result<T>,
) -> anyhow::Result<Stored> {
    let output = work.open_output()?;
    let entries = output.entries().map_err(in_words)?;
    separate_hard_links(&output, &entries)?;
    let listing = Listing::of_entries(&output, entries.clone(), watch).map_err(in_words)?;
    let (digest, extent) = (listing.digest(), listing.extent());
    hashed(&digest)?;
    let place = layout.artifact(&digest);
    let shared = disk::is_shared(layout.root());
    // Where there is a listing there may be a record, which says that this is on the disk.
    let must_last = || lasts || layout.listing(&digest).exists();
    let make_read_only = |lasts| {
        make_read_only(&output, &entries, shared, lasts)
            .with_context(|| format!("cannot flush {} to disk", output.path().display()))
    };
    let is_free = || fs::symlink_metadata(&place).is_err();
    // In one step, which does not replace another artifact, but for an empty one.
    let new_lasts = must_last();
    let is_put = !entries.is_empty() && is_free() && {
        make_read_only(new_lasts)?;
        is_free() && work.rename_output(&place).is_ok()
    };
    let lasts = if is_put {
        // A record may have been written meanwhile.
        let lasts = must_last();
        if lasts && !new_lasts {
            sync_artifact(layout, &digest)?;
        }
        lasts
    } else {
        // Two stages that produce the same content must not take it for damaged while the other replaces it.
        let _lock = lock(layout, &digest)?;
        // By its bytes, not by its extent: a stage that runs again replaces what rotted.
        let is_there = || -> anyhow::Result<bool> {
            let is_sound = is_intact(layout, &digest).with_context(|| {
                let place = place.display();
                format!("cannot check {place}, which the output of the stage would replace")
            })?;
            if is_sound && lasts {
                // Whoever put it there may not have waited for the disk.
                sync_artifact(layout, &digest)?;
            }
            Ok(is_sound)
        };
        // Whoever finds the place free does not wait for the lock: what was not there at first is not damaged.
        let was_free = is_free();
        let is_new = !is_there()?;
        let new_lasts = must_last();
        if is_new {
            if !was_free {
                let _withdrawal = withdraw(&digest)?;
                quarantine(layout, &digest)?;
            }
            make_read_only(new_lasts)?;
            let moved = move_into_store(work, &output, &entries, &place, (shared, new_lasts))
                .with_context(|| format!("cannot move the artifact to {}", place.display()));
            // Somebody may have been faster.
            if moved.is_err() && !is_there()? {
                moved?;
            }
        }
        lasts || is_new && new_lasts
    };
    finish_top(layout, &place, shared, lasts)
        .with_context(|| format!("cannot flush {} to disk", place.display()))?;
    // Only `verify` asks for it, to report which files of a damaged artifact changed.
    let _ = listing.write(&layout.listing(&digest));
    Ok(Stored { digest, extent })
}

/// An error about the output of a stage. In words only: it is not a failure of the cache, whatever kind it is.
fn in_words(error: anyhow::Error) -> anyhow::Error {
    anyhow!("the output of the stage cannot be kept: {error:#}")
}

/// A file with another name elsewhere would change with it, and making it read-only would change it there. So each such
/// file becomes a copy of itself (which shares its blocks where the file system can do that).
fn separate_hard_links(output: &Folder, entries: &[Entry]) -> anyhow::Result<()> {
    for Entry { path, .. } in entries.iter().filter(|entry| entry.has_other_names) {
        let separate = || -> io::Result<()> {
            let file = output.open_below(path)?;
            let stat = fstat(&file)?;
            let above = output.open_below(path.parent().unwrap_or(Path::new("")))?;
            let name = path.file_name().unwrap_or_default();
            let copy_name = format!("{}{}", durable::NEW, stat.st_ino);
            let copy_at = At::below(&above, Path::new(&copy_name));
            let copy = disk::create_file(copy_at, 0o600)?;
            disk::copy(&file, &copy)?;
            disk::set_mode(&copy, Mode::from_raw_mode(stat.st_mode & 0o777))?;
            disk::rename(copy_at, At::below(&above, Path::new(name)))
        };
        separate().with_context(|| {
            format!("cannot copy {}, which has another name elsewhere", path.display())
        })?;
    }
    Ok(())
}

/// Makes everything below a folder read-only, and durable where it `lasts`; the folder itself stays writable.
fn make_read_only(
    output: &Folder,
    entries: &[Entry],
    shared: bool,
    lasts: bool,
) -> anyhow::Result<()> {
    let sync_each = lasts && entries.len() <= SYNC_EACH_AT_MOST;
    // Folders last and from the inside out: in a read-only folder nothing else can be changed.
    for Entry { path, kind, .. } in entries.iter().rev() {
        if matches!(kind, EntryKind::Link { .. }) {
            continue;
        }
        let file = output.open_below(path)?;
        if sync_each {
            disk::sync(&file)?;
        }
        disk::set_mode(&file, read_only(fstat(&file)?.st_mode, shared))?;
    }
    let top = output.open_below(Path::new(""))?;
    if sync_each {
        disk::sync(&top)?;
    } else if lasts {
        disk::sync_file_system(&top)?;
    }
    Ok(())
}

/// Makes an artifact in the store last: its content, and that it is there.
pub(super) fn sync_artifact(layout: &Layout, digest: &Digest) -> anyhow::Result<()> {
    let place = layout.artifact(digest);
    let sync = || -> anyhow::Result<()> {
        let artifact = Folder::open(&place)?;
        let entries = artifact.entries()?;
        let top = artifact.open_below(Path::new(""))?;
        if entries.len() > SYNC_EACH_AT_MOST {
            return Ok(disk::sync_file_system(&top)?);
        }
        for Entry { path, kind, .. } in &entries {
            if !matches!(kind, EntryKind::Link { .. }) {
                disk::sync(&artifact.open_below(path)?)?;
            }
        }
        disk::sync(&top)?;
        Ok(durable::sync_folder(&layout.bucket(Bucket::Store))?)
    };
    sync().with_context(|| format!("cannot flush {} to disk", place.display()))
}

/// The mode of a stored file or folder that had this mode as output.
fn read_only(mode: u32, shared: bool) -> Mode {
    let is_folder = FileType::from_raw_mode(mode) == FileType::Directory;
    let runs = is_folder || mode & 0o100 != 0;
    let owner = if runs { 0o500 } else { 0o400 };
    let group = if shared { owner >> 3 } else { 0 };
    // An output that its owner made executable for nobody else stays so, and set-user-id bits go.
    Mode::from_raw_mode(mode & 0o555 | owner | group)
}

/// Gives a read-only output its place. Where the work is on another file system than the store, by a copy.
fn move_into_store(
    work: &WorkFolder,
    output: &Folder,
    entries: &[Entry],
    place: &Path,
    (shared, lasts): (bool, bool),
) -> anyhow::Result<()> {
    match work.rename_output(place) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        other => return Ok(other?),
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let copy = place.with_file_name(format!("{}{name}", durable::NEW));
    durable::remove_tree(&copy)?;
    copy_tree(output, entries, &copy)?;
    let copied = Folder::open(&copy)?;
    make_read_only(&copied, entries, shared, lasts)?;
    disk::rename(copy.as_path(), place).inspect_err(|_| {
        let _ = durable::remove_tree(&copy);
    })?;
    Ok(())
}

/// Moves an output as it is. Where the work is on another file system, by a copy.
pub(super) fn move_output(work: &WorkFolder, output: &Folder, place: &Path) -> anyhow::Result<()> {
    let moved = match work.rename_output(place) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_tree(output, &output.entries()?, place)
        }
        other => other.map_err(Into::into),
    };
    moved.with_context(|| format!("cannot move the output to {}", place.display()))
}

fn copy_tree(from: &Folder, entries: &[Entry], to: &Path) -> anyhow::Result<()> {
    durable::create_folder(to)?;
    // Folders come before what is in them.
    for Entry { path, kind, .. } in entries {
        let target = to.join(path);
        match kind {
            EntryKind::Folder => disk::create_folder(&target)?,
            EntryKind::Link { target: text } => disk::create_link(text, &target)?,
            EntryKind::File { .. } => {
                let file = from.open_below(path)?;
                let copy = disk::create_file(target.as_path(), 0o600)?;
                disk::copy(&file, &copy)?;
                disk::set_mode(&copy, Mode::from_raw_mode(fstat(&file)?.st_mode & 0o777))?;
            }
        }
    }
    Ok(())
}

/// Makes the folder of an artifact read-only, and its place durable. Only where it is: moving a folder to
/// another parent needs write permission on the folder itself. Also for one that existed already: the
/// process that moved it may have been killed before it came to this.
fn finish_top(layout: &Layout, place: &Path, shared: bool, lasts: bool) -> io::Result<()> {
    let top = Folder::open(place)?;
    let stat = top.stat()?;
    let mut mode = read_only(stat.st_mode, shared);
    if shared {
        // So that any member of the group can move a damaged artifact away.
        mode |= Mode::WGRP | Mode::from_raw_mode(stat.st_mode & 0o2000);
    }
    // What another user of the same cache made cannot be changed, and need not be.
    if stat.st_uid == rustix::process::geteuid().as_raw()
        && Mode::from_raw_mode(stat.st_mode & 0o7777) != mode
    {
        disk::set_mode(&top, mode)?;
    }
    match lasts {
        true => durable::sync_folder(&layout.bucket(Bucket::Store)),
        false => Ok(()),
    }
}

/// Whether an artifact exists, at the cost of one stat, whatever its size. One that cannot be looked at does: whoever reads it says
/// why it cannot, and nobody makes it again for that.
pub(crate) fn exists(layout: &Layout, digest: &Digest) -> bool {
    match fs::symlink_metadata(layout.artifact(digest)) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) => !is_absence(&error),
    }
}

/// Whether an error says that there is nothing, rather than that nobody can look.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether an artifact exists and its extent is the recorded one. Reads no file, but lists its folders.
pub(crate) fn holds(layout: &Layout, stored: &Stored) -> bool {
    folder::extent(&layout.artifact(&stored.digest)).is_ok_and(|extent| extent == stored.extent)
}

/// Whether an artifact exists and holds the bytes of its digest. Reads all its files.
pub(crate) fn is_intact(layout: &Layout, digest: &Digest) -> anyhow::Result<bool> {
    let look = || Ok(Listing::of(&layout.artifact(digest))?.digest() == *digest);
    match look() {
        // It may just have been put there.
        Err(_) if exists(layout, digest) => look(),
        Err(_) => Ok(false),
        is_intact => is_intact,
    }
}

/// Moves a damaged artifact out of the way, and reports where to. Nothing happens when there is none. For
/// whoever has the lock of the artifact.
pub(super) fn quarantine(layout: &Layout, digest: &Digest) -> anyhow::Result<Option<PathBuf>> {
    let place = layout.artifact(digest);
    let Ok(metadata) = fs::symlink_metadata(&place) else { return Ok(None) };
    let target = durable::free_name(&layout.bucket(Bucket::Quarantine), &digest.to_string())?;
    stamp::begin_removal(layout)?;
    let move_away = || -> io::Result<()> {
        // A folder moves to another parent only if it is writable. A link in its place moves as it is.
        let mode = metadata.permissions().mode();
        if metadata.is_dir() && mode & 0o222 == 0 {
            let writable = Mode::from_raw_mode(mode & 0o777) | Mode::WUSR;
            disk::set_mode(Folder::open(&place)?, writable)?;
        }
        match disk::rename(place.as_path(), target.as_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    };
    move_away().with_context(|| format!("cannot move the damaged {} away", place.display()))?;
    Ok(Some(target))
}

/// Takes the lock of an artifact: who has it may move what is in its place.
pub(super) fn lock(layout: &Layout, digest: &Digest) -> anyhow::Result<Lock> {
    Lock::take(&layout.lock(&format!("store-{digest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_file_is_never_more_readable_than_the_output_was() {
        const FILE: u32 = 0o100_000;
        const FOLDER: u32 = 0o040_000;
        for (mode, private, shared) in [
            (FILE | 0o644, 0o444, 0o444),
            (FILE | 0o600, 0o400, 0o440),
            (FILE | 0o755, 0o555, 0o555),
            (FILE | 0o700, 0o500, 0o550),
            (FILE | 0o664, 0o444, 0o444),
            (FILE, 0o400, 0o440),
            (FILE | 0o6755, 0o555, 0o555),
            (FILE | 0o611, 0o411, 0o451),
            (FOLDER | 0o755, 0o555, 0o555),
            (FOLDER | 0o700, 0o500, 0o550),
            (FOLDER | 0o2770, 0o550, 0o550),
        ] {
            assert_eq!(read_only(mode, false).as_raw_mode(), private, "{mode:o}");
            assert_eq!(read_only(mode, true).as_raw_mode(), shared, "{mode:o}");
        }
    }
}
