//! Faults between the changes of a cache, for tests: a change that fails, a disk that is full, the death of the process, a power
//! cut, and what only a file system does that another machine serves.
//!
//! A process that has died changes nothing any more: all its changes fail, those of its destructors, too. A power cut also undoes
//! what was not synced: [`Cut::write_image`] makes a cache as it may be found afterwards. Each name that changed since its folder was
//! synced leads to what it led to then, or to what it leads to now; the names of a rename change together. A file whose content was
//! not synced has the synced content, or the new one, or a part of it, or zeros. Permissions are not modelled.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fcntl_getfl, fstat, linkat, openat, readlinkat, statat,
};
use rustix::io::Errno;

use super::change::{At, Change};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Fault {
    /// One change fails.
    Failure,
    /// From one change on nothing can be made or written.
    Full,
    /// The process dies before a change, or within it.
    Death,
    /// The same, and what was not synced may be lost.
    PowerCut,
    /// The answer to one change of names is lost, and the server is asked again: it was done, and is said to be impossible.
    AskedTwice,
    /// The same, and all that is said is that the server does not answer.
    NoAnswer,
    /// A file that is removed is open still: until it is closed, its folder has it under another name, which cannot be removed.
    Open,
    /// Once, what is to be opened was replaced on the server meanwhile.
    Stale,
}

/// How the names begin of removed files that are open still.
const SILLY: &[u8] = b".nfs";

/// What a fault leaves.
pub(in crate::cache) struct Cut {
    /// How many changes there were that it can befall, refused ones included.
    pub(in crate::cache) changes: u64,
    disk: Option<Disk>,
}

struct Faults {
    fault: Fault,
    /// How many changes there are before it.
    after: u64,
    changes: u64,
    disk: Option<Disk>,
}

thread_local! {
    static FAULTS: RefCell<Option<Faults>> = const { RefCell::new(None) };
    static KNOWS_FLAGS: Cell<bool> = const { Cell::new(true) };
}

/// Acts as on a file system that can neither rename without replacing nor exchange names.
pub(in crate::cache) fn without_flags<T>(act: impl FnOnce() -> T) -> T {
    KNOWS_FLAGS.set(false);
    let result = act();
    KNOWS_FLAGS.set(true);
    result
}

/// Whether names can be changed in ways that only some file systems know.
pub(super) fn knows_flags() -> bool {
    KNOWS_FLAGS.get()
}

/// Always as on NFS, where a file is locked alone only by who has opened it to write (flock(2)).
pub(super) fn may_lock_alone(file: &File) -> io::Result<()> {
    match fcntl_getfl(file)?.intersects(OFlags::WRONLY | OFlags::RDWR) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EBADF)),
    }
}

/// Acts, with a fault after so many changes. What is below `root` by now counts as synced.
pub(in crate::cache) fn with_fault<T>(
    root: &Path,
    fault: Fault,
    after: u64,
    act: impl FnOnce() -> T,
) -> (T, Cut) {
    /// Also when a test fails.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            FAULTS.take();
        }
    }
    let _over = Over;
    let disk = (fault == Fault::PowerCut).then(|| Disk::synced(root).expect("a folder"));
    FAULTS.set(Some(Faults { fault, after, changes: 0, disk }));
    let result = act();
    let Faults { changes, disk, .. } = FAULTS.take().expect("nobody else takes it");
    (result, Cut { changes, disk })
}

/// Whether there is a fault to come, or there was one.
pub(super) fn are_on() -> bool {
    FAULTS.with_borrow(Option::is_some)
}

/// Acts on a change, as far as the fault lets it.
pub(super) fn perform<T>(
    change: &Change<'_>,
    act: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let met = FAULTS.with_borrow_mut(|faults| faults.as_mut().map(|faults| faults.meet(change)));
    let Met { refused, answer } = met.unwrap_or_default();
    if let Some(error) = refused {
        return Err(error);
    }
    let done = act()?;
    FAULTS.with_borrow_mut(|faults| {
        let disk = faults.as_mut().and_then(|faults| faults.disk.as_mut());
        disk.map_or(Ok(()), |disk| disk.note(change))
    })?;
    answer.map_or(Ok(done), Err)
}

/// What a fault does to a change.
#[derive(Default)]
struct Met {
    /// It does not happen.
    refused: Option<io::Error>,
    /// It happens, and this is what is said of it.
    answer: Option<io::Error>,
}

/// Looks for what is to be opened.
pub(super) fn look_up() -> io::Result<()> {
    let is_stale = FAULTS.with_borrow_mut(|faults| {
        faults.as_mut().is_some_and(|faults| faults.fault == Fault::Stale && faults.is_now())
    });
    if is_stale { Err(io::Error::from_raw_os_error(libc::ESTALE)) } else { Ok(()) }
}

impl Faults {
    /// Whether it befalls this change, the next one.
    fn is_now(&mut self) -> bool {
        self.changes += 1;
        self.changes - 1 == self.after
    }

    fn meet(&mut self, change: &Change<'_>) -> Met {
        let error = |number| Some(io::Error::from_raw_os_error(number));
        match self.fault {
            Fault::AskedTwice | Fault::NoAnswer if matches!(change, Change::Names(_)) => {
                let answer = match self.fault {
                    Fault::NoAnswer => libc::EIO,
                    _ if change.makes() => libc::EEXIST,
                    _ => libc::ENOENT,
                };
                Met { answer: error(answer).filter(|_| self.is_now()), refused: None }
            }
            Fault::Open => {
                let Some((at, name)) = change.removed_file() else { return Met::default() };
                let is_silly = name.as_bytes().starts_with(SILLY);
                if !is_silly && self.is_now() {
                    let silly = at.path.with_file_name(OsStr::from_bytes(SILLY));
                    match linkat(at.folder, at.path, at.folder, silly, AtFlags::empty()) {
                        // The folder is read-only to this user, who cannot remove the file either: it befalls the next one.
                        Err(Errno::ACCESS) => self.after = self.changes,
                        kept => kept.expect("a name that nothing has"),
                    }
                }
                Met { refused: error(libc::EBUSY).filter(|_| is_silly), answer: None }
            }
            Fault::Failure | Fault::Full | Fault::Death | Fault::PowerCut => {
                Met { refused: self.refuse(change), answer: None }
            }
            _ => Met::default(),
        }
    }

    fn refuse(&mut self, change: &Change<'_>) -> Option<io::Error> {
        let error = |number| Some(io::Error::from_raw_os_error(number));
        let died = || Some(io::Error::other("the process has died"));
        let is_now = self.is_now();
        let happened = self.changes > self.after;
        if let (true, Change::Bytes(file, bytes)) = (is_now, change) {
            let mut file: &File = file;
            let _ = file.write_all(&bytes[..bytes.len() / 2]);
        }
        match self.fault {
            Fault::Failure if is_now => error(libc::EIO),
            Fault::Full if happened && change.takes_room() => error(libc::ENOSPC),
            Fault::Death | Fault::PowerCut if happened => died(),
            _ => None,
        }
    }
}

impl Change<'_> {
    fn takes_room(&self) -> bool {
        match self {
            Self::Bytes(..) | Self::Content => true,
            Self::Names(_) => self.makes(),
            Self::Properties | Self::Over | Self::Sync(_) | Self::SyncAll => false,
        }
    }

    /// Whether there is a name afterwards that nothing has now, and none goes.
    fn makes(&self) -> bool {
        let Self::Names([at, ..]) = self else { return false };
        statat(at.folder, at.path, AtFlags::SYMLINK_NOFOLLOW).is_err()
    }

    /// The file that it removes, with its name.
    fn removed_file(&self) -> Option<(At<'_>, &OsStr)> {
        let Self::Names([at]) = self else { return None };
        let stat = statat(at.folder, at.path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Some((*at, at.path.file_name()?)).filter(|_| is_file)
    }
}

/// Which file, folder or link it is.
type Inode = u64;

/// A name in a folder.
type Name = (Inode, OsString);

/// What would be left after a power cut.
struct Disk {
    root: PathBuf,
    /// What the names in a folder lead to on disk.
    folders: HashMap<Inode, BTreeMap<OsString, Inode>>,
    /// The bytes of files on disk.
    files: HashMap<Inode, Vec<u8>>,
    /// Names that change together, since they were synced.
    renamed: Vec<Vec<Name>>,
    /// Everything that is known, held open: no number is given to something else.
    held: HashMap<Inode, OwnedFd>,
}

impl Disk {
    /// What is there now is on disk.
    fn synced(root: &Path) -> io::Result<Self> {
        let mut disk = Self {
            root: root.to_owned(),
            folders: HashMap::new(),
            files: HashMap::new(),
            renamed: Vec::new(),
            held: HashMap::new(),
        };
        disk.sync_tree(CWD, root)?;
        Ok(disk)
    }

    fn note(&mut self, change: &Change<'_>) -> io::Result<()> {
        match change {
            Change::Names(names) if names.len() > 1 => {
                let names = names.iter().map(|at| self.name(at)).collect::<io::Result<_>>()?;
                self.renamed.push(names);
                Ok(())
            }
            Change::Names(_)
            | Change::Bytes(..)
            | Change::Properties
            | Change::Content
            | Change::Over => Ok(()),
            Change::Sync(what) => self.sync(*what),
            Change::SyncAll => {
                self.renamed.clear();
                let root = self.root.clone();
                self.sync_tree(CWD, &root)
            }
        }
    }

    fn name(&mut self, at: &At<'_>) -> io::Result<Name> {
        let above = at.path.parent().filter(|above| !above.as_os_str().is_empty());
        let folder =
            openat(at.folder, above.unwrap_or(Path::new(".")), OFlags::PATH, Mode::empty())?;
        let inode = self.hold(folder)?;
        Ok((inode, at.path.file_name().unwrap_or_default().to_owned()))
    }

    /// The number of what is open, which is held open from now on.
    fn hold(&mut self, opened: OwnedFd) -> io::Result<Inode> {
        let inode = fstat(&opened)?.st_ino;
        self.held.entry(inode).or_insert(opened);
        Ok(inode)
    }

    fn sync(&mut self, what: BorrowedFd<'_>) -> io::Result<()> {
        let is_folder = FileType::from_raw_mode(fstat(what)?.st_mode) == FileType::Directory;
        let place = format!("/proc/self/fd/{}", what.as_raw_fd());
        // Opened again: a copy of the descriptor would keep its lock.
        let inode = self.hold(openat(CWD, &place, OFlags::PATH, Mode::empty())?)?;
        if !is_folder {
            self.files.insert(inode, fs::read(place)?);
            return Ok(());
        }
        let listing = self.listing(Path::new(&place))?;
        self.folders.insert(inode, listing);
        // The other name of a rename, too.
        let (synced, left) = std::mem::take(&mut self.renamed)
            .into_iter()
            .partition(|names: &Vec<Name>| names.iter().any(|(folder, _)| *folder == inode));
        self.renamed = left;
        for (folder, name) in Vec::into_iter(synced).flatten() {
            let now = self.held.get(&folder).and_then(|folder| inode_of(folder.as_fd(), &name));
            let on_disk = self.folders.entry(folder).or_default();
            match now {
                Some(now) => drop(on_disk.insert(name, now)),
                None => drop(on_disk.remove(&name)),
            }
        }
        Ok(())
    }

    fn sync_tree(&mut self, above: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
        let opened = openat(above, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let place = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        match FileType::from_raw_mode(fstat(&opened)?.st_mode) {
            FileType::Directory => {
                let listing = self.listing(&place)?;
                for name in listing.keys() {
                    self.sync_tree(opened.as_fd(), Path::new(name))?;
                }
                let inode = self.hold(opened)?;
                self.folders.insert(inode, listing);
            }
            FileType::RegularFile => {
                let bytes = fs::read(place)?;
                let inode = self.hold(opened)?;
                self.files.insert(inode, bytes);
            }
            _ => drop(self.hold(opened)?),
        }
        Ok(())
    }

    /// What the names in a folder lead to now.
    fn listing(&mut self, place: &Path) -> io::Result<BTreeMap<OsString, Inode>> {
        let mut listing = BTreeMap::new();
        for entry in fs::read_dir(place)? {
            let name = entry?.file_name();
            let path = place.join(&name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            listing.insert(name, self.hold(openat(CWD, &path, flags, Mode::empty())?)?);
        }
        Ok(listing)
    }
}

fn inode_of(folder: BorrowedFd<'_>, name: &OsString) -> Option<Inode> {
    Some(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_ino)
}

impl Cut {
    /// Makes a folder as the root may be found after the power cut, as the dice fall.
    pub(in crate::cache) fn write_image(&mut self, into: &Path, dice: Dice) -> io::Result<()> {
        let disk = self.disk.as_mut().expect("the power was cut");
        let mut image = Image { disk, dice, is_new: HashMap::new() };
        let root = openat(CWD, &image.disk.root, OFlags::PATH, Mode::empty())?;
        let root = image.disk.hold(root)?;
        image.write(root, into)
    }
}

struct Image<'a> {
    disk: &'a mut Disk,
    dice: Dice,
    /// Whether a name leads to what it led to at last.
    is_new: HashMap<Name, bool>,
}

impl Image<'_> {
    fn write(&mut self, inode: Inode, to: &Path) -> io::Result<()> {
        let held = &self.disk.held[&inode];
        let place = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        match FileType::from_raw_mode(fstat(held)?.st_mode) {
            FileType::Directory => {
                fs::create_dir(to).or_else(|error| match to.is_dir() {
                    true => Ok(()),
                    false => Err(error),
                })?;
                let old = self.disk.folders.get(&inode).cloned().unwrap_or_default();
                let new = self.disk.listing(&place)?;
                for name in BTreeSet::from_iter(old.keys().chain(new.keys())) {
                    let (was, is) = (old.get(name), new.get(name));
                    let leads_to = match was == is || self.is_new(&(inode, name.clone())) {
                        true => is,
                        false => was,
                    };
                    if let Some(inode) = leads_to {
                        self.write(*inode, &to.join(name))?;
                    }
                }
                Ok(())
            }
            FileType::RegularFile => {
                let new = fs::read(&place)?;
                let old = self.disk.files.get(&inode).cloned().unwrap_or_default();
                // What was added to is not lost with what was added.
                let kept = if new.starts_with(&old) { old.len() } else { 0 };
                let bytes = match self.dice.throw(5) {
                    _ if old == new => new,
                    0 => old,
                    2 => new[..kept.midpoint(new.len())].to_vec(),
                    3 => [&new[..kept], &vec![0; new.len() - kept]].concat(),
                    _ => new,
                };
                fs::write(to, bytes)
            }
            FileType::Symlink => {
                let target = readlinkat(held, "", Vec::new())?;
                std::os::unix::fs::symlink(target.to_string_lossy().as_ref(), to)
            }
            other => panic!("{other:?} in a cache"),
        }
    }

    fn is_new(&mut self, name: &Name) -> bool {
        if let Some(known) = self.is_new.get(name) {
            return *known;
        }
        let is_new = self.dice.throw(2) == 1;
        // All that was renamed to or from it, and so on.
        let mut open = vec![name.clone()];
        while let Some(name) = open.pop() {
            if self.is_new.insert(name.clone(), is_new).is_none() {
                let together = self.disk.renamed.iter().filter(|names| names.contains(&name));
                open.extend(together.flatten().cloned());
            }
        }
        is_new
    }
}

/// Chance that can be repeated.
#[derive(Debug, Clone, Copy)]
pub(in crate::cache) enum Dice {
    Fair(u64),
    Loaded(u64),
}

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub(in crate::cache) fn new(seed: u64) -> Self {
        Self::Fair(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Dice that always fall on this side.
    pub(in crate::cache) fn always(side: u64) -> Self {
        Self::Loaded(side)
    }

    /// A number below `sides`.
    pub(in crate::cache) fn throw(&mut self, sides: u64) -> u64 {
        match self {
            Self::Loaded(side) => *side,
            Self::Fair(state) => {
                // Marsaglia 2003, "Xorshift RNGs".
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                (*state >> 16) % sides
            }
        }
    }
}
