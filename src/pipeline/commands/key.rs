//! `pipeline key`: the key that signs what this user pushes.

use std::process::ExitCode;

use anyhow::{Context, bail};

use super::output::{note, print};
use super::settings;
use crate::cli::{KeyArguments, KeyCommand};
use crate::signing::Signer;

pub(crate) fn run(arguments: &KeyArguments) -> anyhow::Result<ExitCode> {
    let path = settings::key_path().context(settings::NO_HOME)?;
    let signer = match arguments.command {
        KeyCommand::New => {
            let signer = Signer::create(&path)?;
            note(&format!(
                "the key is in {}, which only you can read. Whoever trusts it writes this line into [cache] of their config.toml, \
                 trust = \"signed\" and keys = [\"LINE\"]:",
                path.display()
            ));
            signer
        }
        KeyCommand::Show => match Signer::read(&path)? {
            Some(signer) => signer,
            None => bail!("there is no key in {}: `pipeline key new` makes one", path.display()),
        },
    };
    print(&format!("{}\n", signer.public()))?;
    Ok(ExitCode::SUCCESS)
}
