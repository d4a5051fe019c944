//! Finds or installs the libtorch that the project is built with. A libtorch of the user's own wins; the checkout's
//! is installed once, when it is missing or was made by another recipe.

mod install;
mod own;
mod pip;
mod state;

use crate::checkout::Checkout;
use crate::platform::{LIBTORCH_VERSION, Platform};
use anyhow::Result;
use own::Choice;
use state::LibtorchState;
use std::path::PathBuf;
use std::process::Command;

pub use state::RECIPE_FILE;

/// A libtorch that exists and has the right version.
#[derive(Debug)]
pub enum Libtorch {
    /// The checkout's `.libtorch`.
    Checkout(&'static Platform),
    /// A folder that the user's `LIBTORCH` names.
    Folder(PathBuf),
    /// The PyTorch of the user's Python: `LIBTORCH_USE_PYTORCH` is set.
    PyTorch,
}

/// How much to report about a libtorch that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// Where it is: the user asked for the set-up.
    Everything,
    /// Nothing: the user asked for something else.
    OnlyNews,
}

impl Libtorch {
    /// Makes sure that there is a libtorch to build with.
    ///
    /// # Errors
    /// If the user's own is not usable, or the checkout's cannot be installed.
    pub fn ensure(checkout: &Checkout, say: Say) -> Result<Self> {
        let (libtorch, found) = match Choice::of_environment(checkout)? {
            Choice::Checkout => {
                let platform = Platform::here()?;
                let folder = checkout.libtorch();
                if LibtorchState::of(&folder, platform) != LibtorchState::Complete {
                    install::install(checkout, platform)?;
                    return Ok(Self::Checkout(platform));
                }
                let found = format!("libtorch {LIBTORCH_VERSION}: already in {}", folder.display());
                (Self::Checkout(platform), found)
            }
            Choice::Folder(folder) => {
                let version = own::check_folder(&folder)?;
                let found = format!("libtorch {version}: your own, LIBTORCH={}", folder.display());
                (Self::Folder(folder), found)
            }
            Choice::PyTorch => {
                let pytorch = own::check_pytorch()?;
                (
                    Self::PyTorch,
                    format!("libtorch {pytorch}: your Python's (LIBTORCH_USE_PYTORCH is set)"),
                )
            }
        };
        if say == Say::Everything {
            eprintln!("{found}");
        }
        Ok(libtorch)
    }

    /// Sets the variables of a cargo that will build torch-sys with this libtorch.
    pub fn tell(&self, cargo: &mut Command) {
        match self {
            // .cargo/config.toml sets it, unless the variable exists, even if it is empty.
            Self::Checkout(_)
                if std::env::var_os("LIBTORCH").is_some_and(|value| value.is_empty()) =>
            {
                cargo.env_remove("LIBTORCH");
            }
            // Absolute: build scripts run in other folders.
            Self::Folder(folder) => {
                cargo.env("LIBTORCH", folder);
            }
            Self::Checkout(_) | Self::PyTorch => {}
        }
    }
}
