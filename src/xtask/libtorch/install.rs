//! Puts the checkout's libtorch together: fetch, unpack, add what the wheels lack, try it, and only then rename it into
//! place. Killed anywhere, the old state or the new one is there, never half of one.

use crate::checkout::Checkout;
use crate::libtorch::fetch::Fetcher;
use crate::libtorch::state::{RECIPE_FILE, State, recipe};
use crate::libtorch::wheel;
use crate::needs::{Compiler, Python, check_glibc, check_space, last_line, megabytes};
use crate::platform::{LIBTORCH_VERSION, Platform, Tried, Umbrella};
use crate::progress::{Progress, seconds};
use anyhow::{Context, Result, bail};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Makes the checkout's libtorch complete. Two at once are safe: the second waits, and finds the work done.
///
/// # Errors
/// If the machine lacks something, a download fails for good, or the result does not load.
pub fn install(checkout: &Checkout, platform: &'static Platform) -> Result<()> {
    let _lock = lock(checkout)?;
    let folder = checkout.libtorch();
    let shown = folder.display();
    match State::of(&folder, platform) {
        State::Complete => {
            eprintln!("libtorch {LIBTORCH_VERSION}: ready in {shown}");
            return Ok(());
        }
        State::Absent => {}
        State::OtherRecipe => eprintln!("libtorch: {shown} was made in another way, replacing it"),
        State::Damaged(library) => eprintln!("libtorch: {shown} has lost {library}, replacing it"),
    }
    for leftover in checkout.leftovers() {
        remove(&leftover)?;
    }
    let (compiler, python) = check_machine(checkout, platform)?;
    let size = megabytes(platform.download_bytes());
    eprintln!("libtorch {LIBTORCH_VERSION} for {platform}: getting {size}, once");
    let started = Instant::now();
    fs::create_dir_all(checkout.downloads())?;
    let fetcher =
        Fetcher { python: &python, downloads: checkout.downloads(), pause: Duration::from_secs(3) };
    let wheels =
        platform.wheels.iter().map(|wheel| fetcher.fetch(wheel)).collect::<Result<Vec<_>>>()?;
    put_together(checkout, platform, &wheels, |partial| {
        if platform.umbrella == Umbrella::Made {
            make_umbrella(&compiler, partial)?;
        }
        try_it(&compiler, partial)
    })?;
    remove(&checkout.downloads())?;
    eprintln!("libtorch {LIBTORCH_VERSION}: ready in {shown} after {}", seconds(started.elapsed()));
    Ok(())
}

/// Holds the lock until it is dropped, or the process ends in whatever way.
fn lock(checkout: &Checkout) -> Result<File> {
    let path = checkout.lock();
    let file = File::options().create(true).write(true).truncate(false).open(&path);
    let file = file.with_context(|| {
        format!("can't write {}: libtorch belongs into the checkout, and you need the right to write there", path.display())
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("libtorch: another `cargo xtask` is getting it, waiting for that one");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("can't lock {}", path.display()));
        }
    }
    Ok(file)
}

/// All that must be there is asked for before anything is downloaded.
fn check_machine(checkout: &Checkout, platform: &Platform) -> Result<(Compiler, Python)> {
    check_glibc(platform.oldest_glibc)?;
    let compiler = Compiler::find()?;
    compiler.check()?;
    let python = Python::find()?;
    let there = |file: &&str| checkout.downloads().join(file).is_file();
    let have: u64 =
        platform.wheels.iter().filter(|wheel| there(&wheel.file)).map(|wheel| wheel.bytes).sum();
    check_space(checkout.root(), platform.peak_bytes().saturating_sub(have))?;
    if platform.tried == Tried::No {
        eprintln!("libtorch: nobody has tried this on {platform} yet; please report how it goes");
    }
    Ok((compiler, python))
}

/// Unpacks the wheels into a folder of this process, lets `finish` add to it, and renames it into place.
fn put_together(
    checkout: &Checkout,
    platform: &Platform,
    wheels: &[PathBuf],
    finish: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let partial = checkout.partial();
    let outcome = fill(&partial, platform, wheels)
        .and_then(|()| finish(&partial))
        .and_then(|()| seal(&partial, platform))
        .and_then(|()| swap(&partial, &checkout.libtorch(), &checkout.replaced()));
    if outcome.is_err() {
        // The error is what the user has to see; the next run removes what can't be removed now.
        let _ = remove(&partial);
    }
    outcome
}

fn fill(partial: &Path, platform: &Platform, wheels: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(partial.join("lib"))?;
    let mut progress = Progress::new("unpacking", platform.unpacked_bytes);
    let mut bytes = 0;
    for (wheel, file) in platform.wheels.iter().zip(wheels) {
        wheel::unpack(file, wheel, partial, |wrote| {
            bytes += wrote;
            progress.set(bytes);
        })?;
    }
    for (name, target) in platform.links {
        std::os::unix::fs::symlink(target, partial.join("lib").join(name))?;
    }
    // torch-sys reads this one.
    fs::write(partial.join("build-version"), format!("{LIBTORCH_VERSION}\n"))?;
    Ok(())
}

/// An empty shared library called libtorch that needs libtorch_cpu: torch-sys links that name.
fn make_umbrella(compiler: &Compiler, partial: &Path) -> Result<()> {
    let library = partial.join("lib/libtorch.so");
    let mut command = compiler.command();
    // The transitive needs of libtorch_cpu are met when it is loaded; the linker need not look for them.
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
                "libtorch is unpacked, but does not work on this machine: {said}\n\
                 If that names a GLIBC or GLIBCXX version, this system is too old for it."
            );
        }
    }
    fs::remove_file(source)?;
    fs::remove_file(program)?;
    Ok(())
}

/// Writes the recipe and makes everything durable: after a power cut, too, a folder with a recipe is whole.
fn seal(partial: &Path, platform: &Platform) -> Result<()> {
    for library in platform.libraries {
        let path = partial.join("lib").join(library);
        if !path.is_file() {
            bail!("{} is missing after unpacking; please report this", path.display());
        }
    }
    fs::write(partial.join(RECIPE_FILE), recipe(platform))?;
    // One call for ten thousand headers, where fsync of each would take minutes on a slow disk.
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(partial)?)?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    Ok(())
}

fn swap(partial: &Path, folder: &Path, replaced: &Path) -> Result<()> {
    if folder.symlink_metadata().is_ok() {
        fs::rename(folder, replaced)
            .with_context(|| format!("can't move the old {} away", folder.display()))?;
    }
    fs::rename(partial, folder).with_context(|| format!("can't rename to {}", folder.display()))?;
    if let Some(parent) = folder.parent() {
        File::open(parent)?.sync_all()?;
    }
    remove(replaced)
}

/// Removes a file, a link or a folder with all that is in it, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("can't remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::wheel::tests::{TINY, tiny, write_zip};
    use crate::platform::Wheel;

    fn tiny_platform(wheel: Wheel) -> &'static Platform {
        Box::leak(Box::new(Platform {
            os: "linux",
            arch: "tiny",
            tried: Tried::Yes,
            oldest_glibc: None,
            wheels: Vec::leak(vec![wheel]),
            unpacked_bytes: 1000,
            libraries: &["libtiny.so.1"],
            links: &[("libtiny.so", "libtiny.so.1")],
            umbrella: Umbrella::FromWheel,
        }))
    }

    struct Story {
        folder: tempfile::TempDir,
        checkout: Checkout,
        platform: &'static Platform,
        wheel: PathBuf,
    }

    fn story() -> Story {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("wheel");
        let platform = tiny_platform(tiny(write_zip(&wheel, TINY)));
        let checkout = Checkout::imitate(&folder.path().join("clone"));
        Story { folder, checkout, platform, wheel }
    }

    impl Story {
        fn put_together(&self, finish: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
            put_together(&self.checkout, self.platform, std::slice::from_ref(&self.wheel), finish)
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
        story.put_together(|_| Ok(())).unwrap();
        let libtorch = story.checkout.libtorch();
        assert_eq!(State::of(&libtorch, story.platform), State::Complete);
        assert_eq!(fs::read_to_string(libtorch.join("lib/libtiny.so")).unwrap(), "library");
        assert_eq!(fs::read_to_string(libtorch.join("build-version")).unwrap(), "2.11.0\n");
        assert_eq!(story.names(), [".libtorch"]);
    }

    #[test]
    fn a_failure_leaves_what_was_there_before() {
        let story = story();
        story.put_together(|_| bail!("the linker failed")).unwrap_err();
        assert!(story.names().is_empty());
        story.put_together(|_| Ok(())).unwrap();
        fs::write(story.checkout.libtorch().join("mine"), "old").unwrap();
        story.put_together(|_| bail!("the linker failed")).unwrap_err();
        assert_eq!(story.names(), [".libtorch"]);
        assert_eq!(fs::read_to_string(story.checkout.libtorch().join("mine")).unwrap(), "old");
        story.put_together(|_| Ok(())).unwrap();
        assert!(!story.checkout.libtorch().join("mine").exists());
    }

    #[test]
    fn a_damaged_wheel_leaves_nothing() {
        let story = story();
        let whole = fs::read(&story.wheel).unwrap();
        for length in [0, 10, whole.len() / 2, whole.len() - 1] {
            fs::write(&story.wheel, &whole[..length]).unwrap();
            story.put_together(|_| Ok(())).unwrap_err();
            assert!(story.names().is_empty(), "cut at {length}: {:?}", story.names());
        }
    }

    #[test]
    fn a_link_in_the_place_of_libtorch_is_replaced_and_its_target_kept() {
        let story = story();
        let target = story.folder.path().join("elsewhere");
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, story.checkout.libtorch()).unwrap();
        story.put_together(|_| Ok(())).unwrap();
        assert_eq!(State::of(&story.checkout.libtorch(), story.platform), State::Complete);
        assert!(target.is_dir());
    }

    #[test]
    fn one_process_holds_the_lock_at_a_time() {
        let story = story();
        let held = lock(&story.checkout).unwrap();
        let other = File::options().write(true).open(story.checkout.lock()).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.try_lock().unwrap();
    }
}
