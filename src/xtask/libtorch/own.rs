//! A libtorch of the user's own: whether there is one, and whether it is usable for a build. Downloads nothing.

use crate::checkout::Checkout;
use crate::needs::last_line;
use crate::platform::{LIBTORCH_VERSION, main_library};
use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which libtorch the environment asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// None in particular: the checkout's.
    Checkout,
    /// The one in this folder, absolute.
    Folder(PathBuf),
    /// The one inside the PyTorch of the Python on the PATH.
    PyTorch,
}

impl Choice {
    /// Reads the variables that torch-sys reads.
    ///
    /// # Errors
    /// If the current folder cannot be read.
    pub fn of_environment(checkout: &Checkout) -> Result<Self> {
        let here = env::current_dir().context("the current folder cannot be read")?;
        let use_pytorch = env::var_os("LIBTORCH_USE_PYTORCH").is_some();
        Ok(Self::of(use_pytorch, env::var_os("LIBTORCH"), &checkout.libtorch(), &here))
    }

    /// `LIBTORCH` also reaches us when the user has not set it: cargo takes it from .cargo/config.toml.
    fn of(use_pytorch: bool, libtorch: Option<OsString>, of_checkout: &Path, here: &Path) -> Self {
        // torch-sys checks this one first, and only whether it is set.
        if use_pytorch {
            return Self::PyTorch;
        }
        match libtorch.filter(|value| !value.is_empty()) {
            None => Self::Checkout,
            Some(value) => {
                let folder = here.join(value);
                if folder == of_checkout { Self::Checkout } else { Self::Folder(folder) }
            }
        }
    }
}

/// The version of a libtorch, if it can be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// As its files say: `2.11.0+cu130`.
    Known(String),
    /// It does not have a file with its version.
    Unchecked,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(version) => f.write_str(version),
            Self::Unchecked => f.write_str("of unknown version"),
        }
    }
}

/// Checks the folder that `LIBTORCH` names.
///
/// # Errors
/// If it is not a libtorch with headers, or has another version than the project needs.
pub fn check_folder(folder: &Path) -> Result<Version> {
    let shown = folder.display();
    if !folder.is_dir() {
        bail!(
            "LIBTORCH is set to {shown}, which is not a folder\n\
             Unset LIBTORCH to have one installed, or set it to a libtorch {LIBTORCH_VERSION}."
        );
    }
    // torch-sys takes these two from elsewhere if they are set.
    let libraries = elsewhere("LIBTORCH_LIB", folder).join("lib");
    let headers = elsewhere("LIBTORCH_INCLUDE", folder).join("include");
    for (what, file) in [
        ("library", libraries.join(main_library())),
        ("header", headers.join("torch/csrc/api/include")),
    ] {
        if !file.exists() {
            bail!(
                "LIBTORCH is set to {shown}, which is not a libtorch for builds: it lacks the {what} {}\n\
                 LIBTORCH names the folder that holds include/ and lib/. For the PyTorch of a virtual environment that is\n    \
                 $(python3 -c 'import torch, os; print(os.path.dirname(torch.__file__))')",
                file.display()
            );
        }
    }
    let version = version_of(folder);
    check_version(&version, &format!("LIBTORCH is set to {shown}"))?;
    Ok(version)
}

fn elsewhere(variable: &str, otherwise: &Path) -> PathBuf {
    env::var_os(variable).map_or_else(|| otherwise.to_path_buf(), PathBuf::from)
}

/// Checks the PyTorch that torch-sys will use: `python` in a virtual environment, else `python3`.
///
/// # Errors
/// If there is none, or it has another version.
pub fn check_pytorch() -> Result<Version> {
    let python = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let output = Command::new(python)
        .args(["-c", "import torch; print(torch.__version__)"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("LIBTORCH_USE_PYTORCH is set, but {python} does not start"))?;
    let Some(version) = last_line(&output.stdout).filter(|_| output.status.success()) else {
        bail!(
            "LIBTORCH_USE_PYTORCH is set, but {python} cannot import torch: {}\n\
             Activate the virtual environment that has PyTorch {LIBTORCH_VERSION}, or unset LIBTORCH_USE_PYTORCH.",
            last_line(&output.stderr).unwrap_or_else(|| output.status.to_string())
        );
    };
    let version = Version::Known(version);
    check_version(&version, &format!("LIBTORCH_USE_PYTORCH is set, and {python} has PyTorch"))?;
    Ok(version)
}

fn check_version(version: &Version, subject: &str) -> Result<()> {
    let Version::Known(found) = version else { return Ok(()) };
    // `2.11.0+cu130`: the part after the plus names the build.
    let release = found.split('+').next().unwrap_or_default();
    if release == LIBTORCH_VERSION || env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some() {
        return Ok(());
    }
    bail!(
        "{subject}: version {found}, and this project needs {LIBTORCH_VERSION}\n\
         Unset it to have the right one installed, or set it to a libtorch {LIBTORCH_VERSION}."
    )
}

/// From `build-version`, which a libtorch has, or from `version.py`, which the `torch` folder of a PyTorch has.
fn version_of(folder: &Path) -> Version {
    if let Ok(text) = std::fs::read_to_string(folder.join("build-version")) {
        return Version::Known(text.trim().to_owned());
    }
    let python = std::fs::read_to_string(folder.join("version.py")).unwrap_or_default();
    let value =
        python.lines().find_map(|line| line.strip_prefix("__version__")?.split('\'').nth(1));
    value.map_or(Version::Unchecked, |version| Version::Known(version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libtorch_of_the_users_own_wins_and_cargos_default_does_not_count() {
        let (checkout, here) = (Path::new("/clone/.libtorch"), Path::new("/clone/src"));
        for (use_pytorch, libtorch, expected) in [
            (false, None, Choice::Checkout),
            (false, Some(""), Choice::Checkout),
            (false, Some("/clone/.libtorch"), Choice::Checkout),
            (false, Some("/opt/libtorch"), Choice::Folder("/opt/libtorch".into())),
            (false, Some("../own"), Choice::Folder("/clone/src/../own".into())),
            (true, Some("/opt/libtorch"), Choice::PyTorch),
        ] {
            assert_eq!(
                Choice::of(use_pytorch, libtorch.map(OsString::from), checkout, here),
                expected
            );
        }
    }

    fn libtorch(folder: &Path) {
        std::fs::create_dir_all(folder.join("lib")).unwrap();
        std::fs::create_dir_all(folder.join("include/torch/csrc/api/include")).unwrap();
        std::fs::write(folder.join("lib").join(main_library()), "").unwrap();
    }

    #[test]
    fn the_version_is_read_from_a_libtorch_and_from_a_pytorch() {
        let folder = tempfile::tempdir().unwrap();
        libtorch(folder.path());
        assert_eq!(check_folder(folder.path()).unwrap(), Version::Unchecked);
        std::fs::write(
            folder.path().join("version.py"),
            "from typing import Optional\n__version__ = '2.11.0+cu130'\n",
        )
        .unwrap();
        assert_eq!(check_folder(folder.path()).unwrap(), Version::Known("2.11.0+cu130".into()));
        std::fs::write(folder.path().join("build-version"), "2.9.1+cpu\n").unwrap();
        let message = check_folder(folder.path()).unwrap_err().to_string();
        assert!(message.contains("version 2.9.1+cpu, and this project needs 2.11.0"), "{message}");
    }

    #[test]
    fn the_error_of_a_folder_that_is_not_a_libtorch_says_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let message = check_folder(&folder.path().join("absent")).unwrap_err().to_string();
        assert!(message.contains("which is not a folder"), "{message}");
        let message = check_folder(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("lacks the library") && message.contains(main_library()),
            "{message}"
        );
        libtorch(folder.path());
        std::fs::remove_dir_all(folder.path().join("include")).unwrap();
        let message = check_folder(folder.path()).unwrap_err().to_string();
        assert!(message.contains("lacks the header"), "{message}");
    }
}
