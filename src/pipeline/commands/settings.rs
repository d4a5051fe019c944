//! What the environment and the user's `config.toml` set. The command line is before them, and the manifest's `[execution]`
//! is between the two.

use std::env::{self, VarError};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};

use crate::manifest::{Config, Override, Sharing};
use crate::remote_address::Address;

/// The environment variable that sets the cache, unless an option does.
const CACHE: &str = "PIPELINE_CACHE";

/// The environment variable that sets the cache that others share: its address, or `none`.
const REMOTE: &str = "PIPELINE_REMOTE";

/// That there is nowhere to look for the files of this user.
pub(super) const NO_HOME: &str =
    "neither HOME nor XDG_CONFIG_HOME names a folder, and the system knows none of this user";

/// The environment variables that set how stages are run, each with the key of `[execution]` that it replaces.
const EXECUTION: [(&str, &str); 2] =
    [("PIPELINE_DEVICE", "device"), ("PIPELINE_THREADS", "threads")];

/// Reads the user's `config.toml`.
pub(super) fn config() -> anyhow::Result<Config> {
    let Some(path) = config_path() else { return Ok(Config::default()) };
    Ok(Config::read(&path, home().as_deref().unwrap_or(Path::new("/")))?)
}

/// Where that is: in `pipeline` in the folder of `XDG_CONFIG_HOME`, or else of `~/.config`.
pub(super) fn config_path() -> Option<PathBuf> {
    let configs = folder("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))?;
    Some(configs.join("pipeline/config.toml"))
}

/// Where the key is that this user signs with: beside it.
pub(super) fn key_path() -> Option<PathBuf> {
    Some(config_path()?.with_file_name("key"))
}

/// The home of this user: that of `HOME`, or else the one that the system knows.
fn home() -> Option<PathBuf> {
    env::home_dir().filter(|path| path.is_absolute())
}

/// The folder that a variable names.
fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// What the environment changes about a manifest.
pub(super) fn variables() -> anyhow::Result<Vec<Override>> {
    let mut overrides = Vec::new();
    for (name, key) in EXECUTION {
        match env::var(name) {
            Ok(value) if value.is_empty() => {}
            Ok(value) => overrides.push(Override::variable(name, &["execution", key], &value)),
            Err(VarError::NotPresent) => {}
            Err(VarError::NotUnicode(_)) => {
                bail!("the environment variable {name} is not text in UTF-8")
            }
        }
    }
    Ok(overrides)
}

/// The cache that others share: that of the environment, or else this one.
pub(super) fn sharing(sharing: Sharing) -> anyhow::Result<Sharing> {
    let sharing = of_environment(sharing)?;
    ensure!(
        sharing.remote.is_none() || config_path().is_some(),
        "{NO_HOME}: your config.toml says whose results of a remote count. Set one of them, or {REMOTE}=none"
    );
    Ok(sharing)
}

/// What the environment says of the cache that others share.
pub(super) fn remote_of_environment() -> Option<OsString> {
    env::var_os(REMOTE).filter(|value| !value.is_empty())
}

fn of_environment(sharing: Sharing) -> anyhow::Result<Sharing> {
    let Some(value) = remote_of_environment() else { return Ok(sharing) };
    let remote = match value.to_str() {
        Some("none") => None,
        Some(text) => match Address::read(text) {
            Ok(address) => Some(address),
            Err(reason) => bail!("{REMOTE} is not the address of a remote: {reason}"),
        },
        None => bail!("the environment variable {REMOTE} is not text in UTF-8"),
    };
    Ok(Sharing { remote, ..sharing })
}

/// The cache that the environment or else the user's settings name.
pub(super) fn cache(config: &Config) -> Option<PathBuf> {
    let named = env::var_os(CACHE).filter(|value| !value.is_empty());
    named.map(PathBuf::from).or_else(|| config.cache.clone())
}
