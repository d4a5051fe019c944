//! `pipeline init`: a starter manifest, with the small data set that it needs.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::image_manifest::ImageFolder;
use super::print;
use crate::cli::InitArguments;
use crate::format;

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
        return for_images(arguments, data);
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
    print(&format!("{wrote}\n\n{}", format::table(&rows)))?;
    Ok(ExitCode::SUCCESS)
}

/// A manifest for images that exist already.
fn for_images(arguments: &InitArguments, data: &Path) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    let images = ImageFolder::read(data)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let text = images.manifest(&from_folder(folder, data)?);
    let manifest = folder.join("pipeline.toml");
    fs::write(&manifest, text).with_context(|| format!("cannot write {}", manifest.display()))?;
    let manifest = manifest.display();
    let commands = [
        (format!("pipeline plan {manifest}"), "shows its stages, and what would run"),
        (format!("pipeline run {manifest}"), "runs them"),
        ("pipeline kinds train".to_owned(), "lists what else a training can do"),
    ];
    let rows = commands.map(|(command, what)| vec![format!("  {command}"), what.to_owned()]);
    let wrote = format!("wrote {manifest}, for {}", images.in_words());
    print(&format!("{wrote}\n\n{}", format::table(&rows)))?;
    Ok(ExitCode::SUCCESS)
}

/// The path of the images as the manifest names it: relative if they are below its folder, otherwise absolute.
fn from_folder(folder: &Path, data: &Path) -> anyhow::Result<String> {
    let whole = |path: &Path| {
        path.canonicalize().with_context(|| format!("cannot read {}", path.display()))
    };
    let (folder, data) = (whole(folder)?, whole(data)?);
    let path = data.strip_prefix(&folder).unwrap_or(&data);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let text = path.to_str();
    Ok(text.with_context(|| format!("the path {} is not UTF-8", path.display()))?.to_owned())
}
