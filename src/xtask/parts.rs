//! `cargo xtask parts`: the Debian packages that some tests need.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{remotes, slurm};

/// Installs the packages.
///
/// # Errors
/// When apt fails: for whoever is not root, and where it is missing.
pub fn install() -> Result<()> {
    let options = ["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"];
    let mut command = Command::new("apt-get");
    command.args(options).args(slurm::PACKAGES).args(remotes::PACKAGES);
    let status = command.env("DEBIAN_FRONTEND", "noninteractive").status();
    let status = status.context("apt-get does not start")?;
    ensure!(status.success(), "apt-get failed ({status})");
    Ok(())
}
