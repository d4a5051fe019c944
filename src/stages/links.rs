//! Links on the way to a file.

use std::path::Path;

/// The last link on the way to a folder that was found to contain itself; where there is none (a folder that is mounted in itself), the
/// folder.
pub fn last_link(path: &Path) -> &Path {
    path.ancestors().find(|above| above.is_symlink()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_link_is_named_and_not_what_is_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let class = folder.path().join("train/cat");
        std::fs::create_dir_all(&class).expect("a folder");
        symlink("..", class.join("up")).expect("a link");
        assert_eq!(last_link(&class.join("up/cat")), class.join("up"));
        assert_eq!(last_link(&class), class);
    }
}
