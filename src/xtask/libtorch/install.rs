//! Makes the checkout's libtorch: installs the wheels, adds what they lack, tries the result, and only then renames it
//! into place. Wherever it is killed, the old libtorch or the new one is there, never half of one.

use crate::checkout::Checkout;
use crate::libtorch::pip;
use crate::libtorch::state::{LibtorchState, RECIPE_FILE, recipe};
use crate::needs::{Compiler, Python, check_glibc, check_space, last_line, megabytes, remove};
use crate::platform::{LIBTORCH_VERSION, Platform, Tried, Umbrella};
use anyhow::{Context, Result, bail};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Makes the checkout's libtorch complete. Two at once are safe: the second waits, and finds the work done.
///
/// # Errors
/// If the machine lacks something, a download fails for good, or the result does not load.
pub fn install(checkout: &Checkout, platform: &'static Platform) -> Result<()> {
    let _lock = lock(checkout)?;
    let folder = checkout.libtorch();
    let shown = folder.display();
    match LibtorchState::of(&folder, platform) {
        LibtorchState::Complete => {
            eprintln!("libtorch {LIBTORCH_VERSION}: ready in {shown}");
            return Ok(());
        }
        LibtorchState::Absent => {}
        LibtorchState::OtherRecipe => {
            eprintln!("libtorch: {shown} was made by another version of this project, replacing it")
        }
        LibtorchState::Damaged(library) => {
            eprintln!("libtorch: {shown} has lost {library}, replacing it")
        }
    }
    for leftover in checkout.leftovers() {
        remove(&leftover)?;
    }
    let (compiler, python) = check_machine(checkout, platform)?;
    let size = megabytes(platform.download_bytes());
    eprintln!("libtorch {LIBTORCH_VERSION} for {platform}: installing {size} through pip, once");
    put_together(checkout, platform, |partial| {
        pip::install(&python, checkout, platform, partial, Duration::from_secs(3))?;
        if platform.umbrella == Umbrella::Made {
            make_umbrella(&compiler, partial)?;
        }
        try_it(&compiler, partial)
    })?;
    eprintln!("libtorch {LIBTORCH_VERSION}: ready in {shown}");
    Ok(())
}

/// Holds the lock until it is dropped, or the process ends in whatever way.
fn lock(checkout: &Checkout) -> Result<File> {
    let path = checkout.lock();
    let file = File::options().create(true).write(true).truncate(false).open(&path);
    let file = file.with_context(|| {
        format!("cannot write {}: libtorch belongs in the checkout, and you need the right to write there", path.display())
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("libtorch: another `cargo xtask` is installing it, waiting for that one");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    Ok(file)
}

/// Checks everything that the machine must have, before anything is downloaded.
fn check_machine(checkout: &Checkout, platform: &Platform) -> Result<(Compiler, Python)> {
    check_glibc(platform.oldest_glibc)?;
    let compiler = Compiler::find()?;
    compiler.check()?;
    let python = Python::find()?;
    let download = match pip::wheels_of_user(checkout, platform) {
        Some(_) => 0,
        None => platform.download_bytes(),
    };
    check_space(checkout.root(), download + platform.installed_bytes)?;
    if platform.tried == Tried::No {
        eprintln!("libtorch: nobody has tried this on {platform} yet; please report how it goes");
    }
    Ok((compiler, python))
}

/// Lets `fill` make a libtorch in a folder of this process, completes it, and renames it into place.
fn put_together(
    checkout: &Checkout,
    platform: &Platform,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let partial = checkout.partial();
    let outcome = fs::create_dir_all(partial.join("lib"))
        .map_err(Into::into)
        .and_then(|()| fill(&partial))
        .and_then(|()| complete(&partial, platform))
        .and_then(|()| swap(&partial, &checkout.libtorch(), &checkout.replaced()));
    if outcome.is_err() {
        // The first error is the one to show; the next run removes what cannot be removed now.
        let _ = remove(&partial);
    }
    outcome
}

/// An empty shared library called libtorch that needs libtorch_cpu: torch-sys links that name.
fn make_umbrella(compiler: &Compiler, partial: &Path) -> Result<()> {
    let library = partial.join("lib/libtorch.so");
    let mut command = compiler.command();
    // What libtorch_cpu itself needs is found when it is loaded; the linker does not have to look for it.
    command
        .args(["-shared", "-x", "c++", "/dev/null", "-o"])
        .arg(&library)
        .args(["-Wl,-soname,libtorch.so", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"])
        .args(["-Wl,-rpath,$ORIGIN", "-L"])
        .arg(partial.join("lib"))
        .arg("-ltorch_cpu");
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` could not link {}:\n{}", compiler.name(), library.display(), said.trim_end());
    }
    Ok(())
}

/// Links a program that does nothing with it and runs that: it must load on this machine.
fn try_it(compiler: &Compiler, partial: &Path) -> Result<()> {
    let (source, program) = (partial.join("try.cpp"), partial.join("try"));
    fs::write(&source, "int main() { return 0; }\n")?;
    let mut command = compiler.command();
    command.arg(&source).arg("-o").arg(&program);
    if cfg!(target_os = "linux") {
        command.args(["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]);
    }
    command.arg("-L").arg(partial.join("lib")).args(["-ltorch", "-ltorch_cpu", "-lc10"]);
    command.args(["-Xlinker", "-rpath", "-Xlinker"]).arg(partial.join("lib"));
    for mut step in [command, std::process::Command::new(&program)] {
        let output = step
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{step:?} does not start"))?;
        if !output.status.success() {
            let said = last_line(&output.stderr).unwrap_or_else(|| output.status.to_string());
            bail!(
                "libtorch is installed, but does not work on this machine: {said}\n\
                 If that names a GLIBC or GLIBCXX version, this system is too old for it."
            );
        }
    }
    fs::remove_file(source)?;
    fs::remove_file(program)?;
    Ok(())
}

/// Adds the links and, last, the recipe, and flushes all to disk: a folder with a recipe is whole, also after a power
/// cut.
fn complete(partial: &Path, platform: &Platform) -> Result<()> {
    for (name, target) in platform.links {
        std::os::unix::fs::symlink(target, partial.join("lib").join(name))?;
    }
    // torch-sys reads this one.
    fs::write(partial.join("build-version"), format!("{LIBTORCH_VERSION}\n"))?;
    for library in platform.libraries {
        let path = partial.join("lib").join(library);
        if !path.is_file() {
            bail!("{} is missing after the installation; please report this", path.display());
        }
    }
    fs::write(partial.join(RECIPE_FILE), recipe(platform))?;
    // One call for ten thousand headers: an fsync of each would take minutes on a slow disk.
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(partial)?)?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    Ok(())
}

fn swap(partial: &Path, folder: &Path, replaced: &Path) -> Result<()> {
    if folder.symlink_metadata().is_ok() {
        fs::rename(folder, replaced)
            .with_context(|| format!("cannot move the old {} away", folder.display()))?;
    }
    fs::rename(partial, folder)
        .with_context(|| format!("cannot rename to {}", folder.display()))?;
    if let Some(parent) = folder.parent() {
        File::open(parent)?.sync_all()?;
    }
    remove(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::pip::tests::{INSTALLS, TINY, imitation};
    use crate::testing::alone;

    struct Story {
        folder: tempfile::TempDir,
        checkout: Checkout,
    }

    fn story() -> Story {
        let folder = tempfile::tempdir().unwrap();
        let checkout = Checkout::imitate(&folder.path().join("clone"));
        Story { folder, checkout }
    }

    impl Story {
        /// Installs with a pip that runs this script.
        fn put_together(&self, script: &str) -> Result<()> {
            let _alone = alone();
            let python = imitation(self.folder.path(), script);
            put_together(&self.checkout, TINY, |partial| {
                pip::install(&python, &self.checkout, TINY, partial, Duration::ZERO)
            })
        }

        /// Names in the checkout that begin like libtorch.
        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.folder.path().join("clone")).unwrap().flatten();
            let names = entries.map(|entry| entry.file_name().display().to_string());
            names.filter(|name| name.starts_with(".libtorch")).collect()
        }
    }

    #[test]
    fn a_finished_libtorch_is_complete_and_alone() {
        let story = story();
        story.put_together(INSTALLS).unwrap();
        let libtorch = story.checkout.libtorch();
        assert_eq!(LibtorchState::of(&libtorch, TINY), LibtorchState::Complete);
        assert_eq!(fs::read_to_string(libtorch.join("lib/libtiny.so")).unwrap(), "library");
        assert_eq!(fs::read_to_string(libtorch.join("build-version")).unwrap(), "2.11.0\n");
        assert_eq!(story.names(), [".libtorch"]);
    }

    #[test]
    fn a_failure_leaves_what_was_there_before() {
        let story = story();
        story.put_together(&format!("{INSTALLS}; exit 1")).unwrap_err();
        assert!(story.names().is_empty());
        story.put_together(INSTALLS).unwrap();
        fs::write(story.checkout.libtorch().join("mine"), "old").unwrap();
        story.put_together(&format!("{INSTALLS}; exit 1")).unwrap_err();
        assert_eq!(story.names(), [".libtorch"]);
        assert_eq!(fs::read_to_string(story.checkout.libtorch().join("mine")).unwrap(), "old");
        story.put_together(INSTALLS).unwrap();
        assert!(!story.checkout.libtorch().join("mine").exists());
    }

    #[test]
    fn a_link_in_the_place_of_libtorch_is_replaced_and_its_target_kept() {
        let story = story();
        let target = story.folder.path().join("elsewhere");
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, story.checkout.libtorch()).unwrap();
        story.put_together(INSTALLS).unwrap();
        assert_eq!(LibtorchState::of(&story.checkout.libtorch(), TINY), LibtorchState::Complete);
        assert!(target.is_dir());
    }

    #[test]
    fn one_process_holds_the_lock_at_a_time() {
        let story = story();
        let held = lock(&story.checkout).unwrap();
        let other = File::options().write(true).open(story.checkout.lock()).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        // Not at once: a child that another test has just forked holds the lock, too, until it is another program.
        other.lock().unwrap();
    }
}
