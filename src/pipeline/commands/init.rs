//! `pipeline init`: a starter manifest, with the small data set that it needs.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::init_data::Images;
use super::print;
use crate::cli::InitArguments;
use crate::table;

/// What is written: the quickstart, under the paths that its manifest names.
const FILES: [(&str, &[u8]); 3] = [
    ("data/fashion-mnist-6k.zip", include_bytes!("../../../pipelines/data/fashion-mnist-6k.zip")),
    ("data/FASHION-MNIST-LICENSE", include_bytes!("../../../pipelines/data/FASHION-MNIST-LICENSE")),
    // Last: where it exists, the rest does too.
    ("pipeline.toml", include_bytes!("../../../pipelines/quickstart.toml")),
];

pub(crate) fn run(arguments: &InitArguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    let manifest = folder.join("pipeline.toml");
    if manifest.exists() {
        bail!(
            "{} already exists; `pipeline init FOLDER` writes to another folder",
            manifest.display()
        );
    }
    if let Some(data) = &arguments.data {
        return for_images(data, folder, &manifest);
    }
    for (name, content) in FILES {
        let path = folder.join(name);
        if path.exists() {
            continue;
        }
        let parent = path.parent().context("a file has a folder")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let manifest = manifest.display();
    let commands = [
        (format!("pipeline graph {manifest}"), "shows its stages"),
        (format!("pipeline run {manifest}"), "runs them (about two minutes on two cores)"),
        ("pipeline kinds".to_owned(), "lists what stages can do"),
    ];
    let rows = commands.map(|(command, what)| vec![format!("  {command}"), what.to_owned()]);
    let data = folder.join("data");
    let wrote = format!(
        "wrote {manifest}, and the 6,000 images that it trains on under {}",
        data.display()
    );
    print(&format!("{wrote}\n\n{}", table::plain(&rows)))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manifest for the images in `data`.
fn for_images(data: &Path, folder: &Path, manifest: &Path) -> anyhow::Result<ExitCode> {
    let images = Images::look(data, folder)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(manifest, images.manifest())
        .with_context(|| format!("cannot write {}", manifest.display()))?;
    let manifest = manifest.display();
    let rows = [
        (format!("pipeline run {manifest}"), "trains with 40 % of the labels drawn again"),
        ("pipeline kinds".to_owned(), "lists what stages can do"),
    ];
    let rows = rows.map(|(command, what)| vec![format!("  {command}"), what.to_owned()]);
    print(&format!("wrote {manifest}, for {}\n\n{}", images.in_words(), table::plain(&rows)))?;
    Ok(ExitCode::SUCCESS)
}
