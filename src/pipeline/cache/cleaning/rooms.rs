//! How much room files and folders take on the disk. What did not change since it was measured is not measured again.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::{disk, store};

/// What distinguishes a file or folder from another one of its name: its number, and when it changed, in nanoseconds.
pub(super) type Identity = (u64, i128);

/// How much room something takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// As allocated on the disk.
    pub(super) bytes: u64,
    /// When something of it changed last: seconds since 1970, UTC.
    pub(super) newest: u64,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    known: HashMap<PathBuf, (Identity, Room)>,
    /// Files with several names that have been counted.
    counted: HashSet<(u64, u64)>,
    /// Whether something could not be listed or measured.
    pub(super) is_partial: bool,
}

/// What a file or folder is distinguished by.
pub(super) fn identity(metadata: &fs::Metadata) -> Identity {
    let changed = i128::from(metadata.ctime()) << 32 | i128::from(metadata.ctime_nsec());
    (metadata.ino(), changed)
}

impl Rooms {
    /// How much room something takes; nothing where it is missing.
    pub(super) fn room(&mut self, path: &Path) -> Option<Room> {
        let metadata = self.known_metadata(fs::symlink_metadata(path))?;
        let identity = identity(&metadata);
        if let Some((known, room)) = self.known.get(path)
            && *known == identity
        {
            return Some(*room);
        }
        let room = self.measure(path, &metadata, &HashSet::new());
        self.known.insert(path.to_owned(), (identity, room));
        Some(room)
    }

    /// How much room something takes without these parts of it.
    pub(super) fn measure(
        &mut self,
        path: &Path,
        metadata: &fs::Metadata,
        without: &HashSet<&Path>,
    ) -> Room {
        let mut room = Room::default();
        self.add(&mut room, metadata);
        let mut open = Vec::from_iter(metadata.is_dir().then(|| path.to_owned()));
        while let Some(folder) = open.pop() {
            let entries = disk::entries(&folder);
            self.is_partial |= entries.is_err();
            for entry in entries.unwrap_or_default() {
                if !without.is_empty() && without.contains(&*entry.path()) {
                    continue;
                }
                // Of a link itself.
                let Some(metadata) = self.known_metadata(entry.metadata()) else { continue };
                self.add(&mut room, &metadata);
                if metadata.is_dir() {
                    open.push(entry.path());
                }
            }
        }
        room
    }

    /// What is there. `None` where nothing is, or where that cannot be seen.
    pub(super) fn known_metadata(
        &mut self,
        found: io::Result<fs::Metadata>,
    ) -> Option<fs::Metadata> {
        self.is_partial |= found.as_ref().is_err_and(|error| !store::is_absence(error));
        found.ok()
    }

    /// Adds a file or a folder without what is in it.
    pub(super) fn add(&mut self, room: &mut Room, metadata: &fs::Metadata) {
        /// What `st_blocks` counts, whatever the blocks of the file system are.
        const BLOCK: u64 = 512;
        let has_other_names = !metadata.is_dir() && metadata.nlink() > 1;
        if !has_other_names || self.counted.insert((metadata.dev(), metadata.ino())) {
            room.bytes += metadata.blocks() * BLOCK;
        }
        room.newest = room.newest.max(metadata.ctime().try_into().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_is_allocated_each_file_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("ours");
        fs::write(at("a/one"), vec![1; 100_000]).expect("ours");
        fs::hard_link(at("a/one"), at("other")).expect("ours");
        fs::File::create(at("a/hole")).expect("ours").set_len(1 << 40).expect("a hole");
        std::os::unix::fs::symlink("one", at("a/link")).expect("ours");
        let mut rooms = Rooms::default();
        let room = rooms.room(&at("a")).expect("it exists");
        assert!((100_000..1 << 20).contains(&room.bytes), "{room:?}");
        assert_eq!(rooms.room(&at("other")).expect("it exists").bytes, 0, "it is counted");
        assert_eq!(rooms.room(&at("a")), Some(room), "it is known");
        assert_eq!(rooms.room(&at("missing")), None);
        // Another folder of the same name is measured.
        fs::rename(at("a"), at("b")).expect("ours");
        fs::create_dir(at("a")).expect("ours");
        assert!(rooms.room(&at("a")).expect("it exists").bytes < 100_000);
        // Without a part of it.
        let metadata = fs::metadata(at("b")).expect("it exists");
        let one = at("b/hole");
        let without = HashSet::from([one.as_path()]);
        assert!(!rooms.is_partial && rooms.measure(&at("b"), &metadata, &without).bytes < 100_000);
    }
}
