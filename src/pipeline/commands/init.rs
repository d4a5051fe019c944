//! `pipeline init`: a starter manifest, with the small data set that it needs.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::print;
use crate::cli::InitArguments;

/// What is written: the quickstart, under the paths that its manifest names.
const FILES: [(&str, &[u8]); 3] = [
    ("pipeline.toml", include_bytes!("../../../pipelines/quickstart.toml")),
    ("data/fashion-mnist-6k.zip", include_bytes!("../../../pipelines/data/fashion-mnist-6k.zip")),
    ("data/FASHION-MNIST-LICENSE", include_bytes!("../../../pipelines/data/FASHION-MNIST-LICENSE")),
];

/// Runs the command.
pub fn run(arguments: &InitArguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    let manifest = folder.join("pipeline.toml");
    if manifest.exists() {
        bail!(
            "{} is there already; `pipeline init FOLDER` writes to another folder",
            manifest.display()
        );
    }
    for (name, content) in FILES {
        let path = folder.join(name);
        if path.exists() {
            continue;
        }
        let parent = path.parent().context("a file has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
    }
    print(&format!(
        "wrote {}, and the 6,000 images that it trains on under {}\n\n  \
         pipeline graph {0}   shows its stages\n  \
         pipeline run {0}     runs them (about two minutes on two cores)\n  \
         pipeline kinds       lists what stages can do\n",
        manifest.display(),
        folder.join("data").display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}
