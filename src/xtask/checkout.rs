//! Where things are in a checkout. Does not create or change any of them.

use anyhow::{Context, Result, anyhow};
use std::env;
use std::path::{Path, PathBuf};

/// A clone of the project.
///
/// ```text
/// .libtorch/               the libtorch that everything is built with, complete or absent
/// .libtorch.partial-<pid>/ one that is being installed; pip works in pip/ inside
/// .libtorch.old-<pid>/     one that was replaced and is being removed
/// .libtorch.download/      wheels that the user has put there, for a set-up without the web
/// .libtorch.lock           held while any of these change
/// ```
#[derive(Debug, Clone)]
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout that cargo runs this from, else the one around the current folder.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self> {
        let here = env::current_dir().context("the current folder cannot be read")?;
        // At run time, not with `env!`: a checkout may have been moved since it was compiled.
        let from_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let start = from_cargo.unwrap_or_else(|| here.clone());
        Self::around(&start).or_else(|| Self::around(&here)).ok_or_else(|| {
            anyhow!(
                "{} is not inside a checkout of pipeline: go to your clone and run it there",
                here.display()
            )
        })
    }

    fn around(start: &Path) -> Option<Self> {
        let is_root = |folder: &&Path| folder.join("src/xtask/Cargo.toml").is_file();
        start.ancestors().find(is_root).map(|root| Self { root: root.to_path_buf() })
    }

    /// The folder of the workspace.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The finished libtorch.
    pub fn libtorch(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// A libtorch that this process is installing.
    pub fn partial(&self) -> PathBuf {
        self.root.join(format!("{PARTIAL}{}", std::process::id()))
    }

    /// A libtorch that this process has replaced.
    pub fn replaced(&self) -> PathBuf {
        self.root.join(format!("{REPLACED}{}", std::process::id()))
    }

    /// Wheels that the user has put there.
    pub fn wheels(&self) -> PathBuf {
        self.root.join(".libtorch.download")
    }

    /// The lock around all of these.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".libtorch.lock")
    }

    /// Folders that killed processes have left. Only valid while holding the lock.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let is_left = |name: &str| name.starts_with(PARTIAL) || name.starts_with(REPLACED);
        entries
            .filter(|entry| is_left(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect()
    }
}

/// How the name of the folder of an installing process starts; its id follows.
const PARTIAL: &str = ".libtorch.partial-";
/// How the name of the folder that was replaced starts; the id of the replacing process follows.
const REPLACED: &str = ".libtorch.old-";

#[cfg(test)]
impl Checkout {
    /// A checkout with nothing in it but what [`Checkout::find`] looks for.
    pub fn imitate(root: &Path) -> Self {
        std::fs::create_dir_all(root.join("src/xtask")).unwrap();
        std::fs::write(root.join("src/xtask/Cargo.toml"), "").unwrap();
        Self { root: root.to_path_buf() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_from_any_folder_inside() {
        let folder = tempfile::tempdir().unwrap();
        Checkout::imitate(folder.path());
        let inside = folder.path().join("src/xtask");
        assert_eq!(Checkout::around(&inside).unwrap().root(), folder.path());
        assert!(Checkout::around(Path::new("/")).is_none());
    }

    #[test]
    fn leftovers_are_what_killed_processes_leave_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let checkout = Checkout::imitate(folder.path());
        for kept in [".libtorch", ".libtorch.download/some.whl"] {
            std::fs::create_dir_all(folder.path().join(kept)).unwrap();
        }
        let left = [".libtorch.partial-1", ".libtorch.old-22"];
        for name in left {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let mut found = checkout.leftovers();
        found.sort();
        let mut expected: Vec<_> = left.iter().map(|name| folder.path().join(name)).collect();
        expected.sort();
        assert_eq!(found, expected);
    }
}
