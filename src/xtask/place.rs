//! `cargo xtask install`: puts the two programs and the libraries that they load where a user's PATH finds them.
//! Programs that run meanwhile keep the files that they have open.
//!
//! ```text
//! PREFIX/bin/pipeline
//! PREFIX/bin/pipeline-learn     looks for libraries in ../lib/pipeline, see src/learn/build.rs
//! PREFIX/lib/pipeline/          the shared libraries of libtorch, their licences and recipe.txt
//! PREFIX/share/man/man1/        the manual pages
//! ```

use crate::cargo::Programs;
use crate::checkout::Checkout;
use crate::libtorch::{Libtorch, RECIPE_FILE};
use crate::needs::{last_line, remove};
use crate::platform::Platform;
use anyhow::{Context, Result, anyhow, bail};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Readable by all, whatever the umask of the one who installs.
const FOLDER_MODE: u32 = 0o755;
const PROGRAM_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// The folder to install into if the user names none: `~/.local`.
///
/// # Errors
/// If there is no home folder.
pub fn default_prefix() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    Ok(Path::new(
        &home.ok_or_else(|| anyhow!("HOME is not set: say where to install with --prefix"))?,
    )
    .join(".local"))
}

/// Installs. Libraries come first, the orchestrator last: until then, the old version is what runs.
///
/// # Errors
/// If the prefix cannot be written, or the installed worker does not load its libraries.
pub fn install(
    prefix: &Path,
    checkout: &Checkout,
    programs: &Programs,
    libtorch: &Libtorch,
) -> Result<()> {
    let (bin, libraries) = (prefix.join("bin"), prefix.join("lib/pipeline"));
    create_folder(&bin)?;
    match libtorch {
        Libtorch::Checkout(platform) => {
            place_libraries(&checkout.libtorch(), platform, &libraries)?
        }
        // The worker finds the user's own where it is; an earlier copy would get in the way.
        Libtorch::Folder(_) | Libtorch::PyTorch => remove(&libraries)?,
    }
    place_file(&programs.learn, &bin.join("pipeline-learn"), PROGRAM_MODE)?;
    place_file(&programs.pipeline, &bin.join("pipeline"), PROGRAM_MODE)?;
    check_loads(&bin.join("pipeline-learn"))?;
    let manual = prefix.join("share/man/man1");
    create_folder(&manual)?;
    write_manual(&bin.join("pipeline"), &manual)?;
    eprintln!("installed {} and pipeline-learn", bin.join("pipeline").display());
    if let Some(hint) = path_hint(&bin, &std::env::var_os("PATH").unwrap_or_default()) {
        eprintln!("{hint}");
    }
    Ok(())
}

/// Lets the program write its manual pages.
fn write_manual(pipeline: &Path, folder: &Path) -> Result<()> {
    let output = Command::new(pipeline).arg("__man").arg(folder).output()?;
    if !output.status.success() {
        bail!(
            "installed, but without manual pages: {}",
            last_line(&output.stderr).unwrap_or_default()
        );
    }
    Ok(())
}

/// A folder, and those above it, readable by all.
fn create_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
    }
    fs::create_dir(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)))
        .with_context(|| {
            format!(
                "cannot create {}: say where to install with --prefix, a folder that you may write",
                folder.display()
            )
        })
}

/// Copies beside the target and renames: a program that runs keeps its file.
fn place_file(source: &Path, target: &Path, mode: u32) -> Result<()> {
    let partial = beside(target, "partial");
    let outcome = fs::copy(source, &partial)
        .and_then(|_| fs::set_permissions(&partial, Permissions::from_mode(mode)))
        .and_then(|()| fs::File::open(&partial)?.sync_all())
        .and_then(|()| fs::rename(&partial, target));
    if outcome.is_err() {
        // The error of the copy is the one to show.
        let _ = fs::remove_file(&partial);
    }
    outcome.with_context(|| format!("cannot install {}", target.display()))
}

/// A hidden name next to a path, of this process.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().display().to_string();
    path.with_file_name(format!(".{name}.{what}-{}", std::process::id()))
}

/// The same recipe is the same libraries: then there is nothing to do.
fn place_libraries(libtorch: &Path, platform: &Platform, target: &Path) -> Result<()> {
    let recipe = fs::read_to_string(libtorch.join(RECIPE_FILE))?;
    let whole = |library: &&str| {
        let size = |file: PathBuf| fs::metadata(file).ok().map(|data| data.len());
        size(target.join(library)) == size(libtorch.join("lib").join(library))
    };
    let same =
        fs::read_to_string(target.join(RECIPE_FILE)).is_ok_and(|installed| installed == recipe);
    if same && platform.libraries.iter().all(whole) {
        return Ok(());
    }
    let (partial, old) = (beside(target, "partial"), beside(target, "old"));
    let outcome = copy_libraries(libtorch, platform, &partial).and_then(|()| {
        if target.symlink_metadata().is_ok() {
            fs::rename(target, &old)?;
        }
        Ok(fs::rename(&partial, target)?)
    });
    if outcome.is_err() {
        // The error of the copy is the one to show.
        let _ = remove(&partial);
    }
    outcome.with_context(|| format!("cannot install libtorch into {}", target.display()))?;
    remove(&old)
}

fn copy_libraries(libtorch: &Path, platform: &Platform, partial: &Path) -> Result<()> {
    create_folder(partial)?;
    for library in platform.libraries {
        place_file(&libtorch.join("lib").join(library), &partial.join(library), FILE_MODE)?;
    }
    copy_folder(&libtorch.join("licenses"), &partial.join("licenses"))?;
    // Last: it marks a complete folder.
    place_file(&libtorch.join(RECIPE_FILE), &partial.join(RECIPE_FILE), FILE_MODE)
}

fn copy_folder(source: &Path, target: &Path) -> Result<()> {
    create_folder(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let target = target.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => place_file(&entry.path(), &target, FILE_MODE)?,
        }
    }
    Ok(())
}

/// The status of a shell or a loader that could not load a program's libraries.
const CANNOT_LOAD: i32 = 127;

/// Starts the worker without a request: regardless of its answer, its libraries have to load.
fn check_loads(worker: &Path) -> Result<()> {
    let output = Command::new(worker).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{} does not start", worker.display()))?;
    if output.status.code() == Some(CANNOT_LOAD) {
        let said = last_line(&output.stderr).unwrap_or_else(|| output.status.to_string());
        bail!("installed, but {} does not load its libraries: {said}", worker.display());
    }
    Ok(())
}

/// A hint for a user whose shell would not find the program, or would find another one.
fn path_hint(bin: &Path, path: &OsStr) -> Option<String> {
    let same = |folder: &Path| {
        folder == bin
            || matches!((folder.canonicalize(), bin.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    let mut folders = std::env::split_paths(path);
    match folders.find(|folder| same(folder) || folder.join("pipeline").is_file()) {
        Some(folder) if same(&folder) => None,
        Some(folder) => Some(format!(
            "{} comes first on your PATH: remove it, or put {} before it",
            folder.join("pipeline").display(),
            bin.display()
        )),
        None => Some(format!(
            "{} is not on your PATH. Add it, in ~/.profile or ~/.zprofile:\n    export PATH=\"{}:$PATH\"",
            bin.display(),
            bin.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::PLATFORMS;
    use crate::testing;

    /// A checkout with a libtorch of empty libraries, and two programs that only print their version.
    fn built(folder: &Path, version: &str) -> (Checkout, Programs, Libtorch) {
        let (checkout, platform) = (Checkout::imitate(&folder.join("clone")), &PLATFORMS[0]);
        let libtorch = checkout.libtorch();
        fs::create_dir_all(libtorch.join("lib")).unwrap();
        fs::create_dir_all(libtorch.join("licenses/torch")).unwrap();
        fs::write(libtorch.join("licenses/torch/LICENSE"), "terms").unwrap();
        fs::write(libtorch.join(RECIPE_FILE), version).unwrap();
        for library in platform.libraries {
            fs::write(libtorch.join("lib").join(library), version).unwrap();
        }
        let program = |name: &str| {
            let file = folder.join(name);
            testing::program(&file, &format!("echo {version}"));
            file
        };
        let programs = Programs { pipeline: program("pipeline"), learn: program("pipeline-learn") };
        (checkout, programs, Libtorch::Checkout(platform))
    }

    fn said(program: &Path) -> String {
        String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap().trim().to_owned()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().display().to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_second_installation_replaces_the_first_and_leaves_no_traces() {
        let _alone = testing::alone();
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("prefix");
        for version in ["one", "two", "two"] {
            let (checkout, programs, libtorch) = built(folder.path(), version);
            install(&prefix, &checkout, &programs, &libtorch).unwrap();
            assert_eq!(said(&prefix.join("bin/pipeline")), version);
            assert_eq!(fs::read_to_string(prefix.join("lib/pipeline/libc10.so")).unwrap(), version);
            assert_eq!(names(&prefix.join("bin")), ["pipeline", "pipeline-learn"]);
            assert_eq!(names(&prefix.join("lib")), ["pipeline"]);
        }
        let mode =
            |file: &str| fs::metadata(prefix.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode("bin/pipeline"), mode("lib/pipeline/libc10.so"), mode("lib/pipeline")),
            (0o755, 0o644, 0o755)
        );
        assert!(prefix.join("lib/pipeline/licenses/torch/LICENSE").is_file());
    }

    #[test]
    fn the_libraries_stay_untouched_if_they_are_the_same_and_are_replaced_if_not() {
        let _alone = testing::alone();
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("prefix");
        let (checkout, programs, libtorch) = built(folder.path(), "one");
        install(&prefix, &checkout, &programs, &libtorch).unwrap();
        let mark = prefix.join("lib/pipeline/mark");
        fs::write(&mark, "").unwrap();
        install(&prefix, &checkout, &programs, &libtorch).unwrap();
        assert!(mark.exists());
        fs::remove_file(prefix.join("lib/pipeline/libc10.so")).unwrap();
        install(&prefix, &checkout, &programs, &libtorch).unwrap();
        assert!(prefix.join("lib/pipeline/libc10.so").exists() && !mark.exists());
    }

    #[test]
    fn a_libtorch_of_the_users_own_is_not_copied_and_no_older_copy_hides_it() {
        let _alone = testing::alone();
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("prefix");
        let (checkout, programs, libtorch) = built(folder.path(), "one");
        install(&prefix, &checkout, &programs, &libtorch).unwrap();
        install(&prefix, &checkout, &programs, &Libtorch::Folder("/opt/libtorch".into())).unwrap();
        assert!(!prefix.join("lib/pipeline").exists());
    }

    #[test]
    fn a_worker_that_does_not_load_is_an_error() {
        let _alone = testing::alone();
        let folder = tempfile::tempdir().unwrap();
        let (checkout, programs, libtorch) = built(folder.path(), "one");
        testing::program(
            &programs.learn,
            "echo 'libc10.so: cannot open shared object file' >&2; exit 127",
        );
        let message = install(&folder.path().join("prefix"), &checkout, &programs, &libtorch)
            .unwrap_err()
            .to_string();
        assert!(message.contains("libc10.so: cannot open"), "{message}");
    }

    #[test]
    fn the_hint_says_why_the_shell_does_not_find_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let (bin, other) = (folder.path().join("bin"), folder.path().join("other"));
        for place in [&bin, &other] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("pipeline"), "").unwrap();
        }
        let path = |folders: &[&Path]| std::env::join_paths(folders).unwrap();
        assert_eq!(path_hint(&bin, &path(&[&bin, &other])), None);
        assert!(
            path_hint(&bin, &path(&[&other, &bin])).unwrap().contains("comes first on your PATH")
        );
        assert!(path_hint(&bin, &path(&[])).unwrap().contains("is not on your PATH"));
    }
}
