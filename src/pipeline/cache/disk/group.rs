//! Folders of a group, and what is made in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;

use rustix::fs::Mode;
use rustix::process::umask;

/// The bit of a folder that hands its group on.
const SETGID: u32 = 0o2000;

/// Whether a folder is a group's: whatever is made in it belongs to the group of the folder, and the group may
/// change it. The setgid bit says so, and new folders inherit it.
pub(in crate::cache) fn is_shared(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & SETGID != 0)
}

/// Where a folder is a group's, what this process and its children make from now on is the group's too, whatever the umask was.
pub(in crate::cache) fn share_new_files(folder: &Path) {
    static SET: Once = Once::new();
    if !SET.is_completed() && is_shared(folder) {
        // One thread: another one would read what is there in between.
        SET.call_once(|| {
            let old = umask(Mode::RWXO);
            umask(old - Mode::RWXG);
        });
    }
}

/// The same for the folder that this is about to be made in.
pub(super) fn share_new(path: &Path) {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    share_new_files(above.unwrap_or(Path::new(".")));
}
