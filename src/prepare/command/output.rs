//! What a program must write to its output folder.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use pipeline_stages::ArtifactType;
use pipeline_stages::formats::check_dataset;
use pipeline_stages::kinds::Command;
use pipeline_stages::message::Metrics;
use pipeline_stages::metrics::MetricsFile;
use pipeline_stages::text::in_short;
use pipeline_stages::worker::Context;

/// The most names that a message names.
const LISTED: usize = 20;

/// A longer `metrics.json` is an error: its numbers would be in a record, which every plan reads.
const MOST_METRICS_BYTES: u64 = 1 << 20;

/// Checks that everything declared exists and can be read, and reads the numbers of a `metrics` artifact.
///
/// # Errors
/// When something is missing, with what exists instead.
pub(super) fn check(command: &Command, context: &Context) -> anyhow::Result<Metrics> {
    let folder = context.output.as_path();
    let unreadable = unreadable_entries(folder);
    if !unreadable.is_empty() {
        bail!(
            "the program succeeded, but its output cannot be read: {}; it must make its output readable for \
             the user who runs it",
            in_short(unreadable, LISTED)
        );
    }
    let needed = required_files(command.output);
    let declared = command.outputs.iter().map(String::as_str);
    let missing: Vec<_> =
        declared.chain(needed.iter().copied()).filter(|path| !folder.join(path).exists()).collect();
    if !missing.is_empty() {
        bail!(
            "the program succeeded, but did not write {} to its output folder, which contains {}",
            missing.join(", "),
            listing(folder)?
        );
    }
    match command.output {
        ArtifactType::File if !holds_one_file(folder)? => {
            bail!(
                "an artifact of type file has exactly one file, but the output folder contains {}",
                listing(folder)?
            )
        }
        ArtifactType::Dataset => check_dataset(folder).map(|()| Metrics::new()).map_err(|error| {
            // The output folder is moved before anybody can open it: its path would not help.
            let wrong = format!("{error:#}").replace(&format!("{}/", folder.display()), "");
            anyhow!("the program succeeded, but did not write a data set: {wrong}")
        }),
        ArtifactType::Metrics => read_metrics(&folder.join("metrics.json"), context),
        _ => Ok(Metrics::new()),
    }
}

/// The entries below a folder that cannot be read, each with its mode. Links are not followed.
fn unreadable_entries(folder: &Path) -> Vec<String> {
    let mut unreadable = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(open) = folders.pop() {
        let mut found = |path: &Path, error: &std::io::Error| {
            if error.kind() == ErrorKind::PermissionDenied {
                let name = match path.strip_prefix(folder) {
                    Ok(name) if !name.as_os_str().is_empty() => name.to_string_lossy(),
                    _ => "the output folder itself".into(),
                };
                // The modes of entries in a folder that cannot be entered are not available.
                let mode = path.symlink_metadata().map_or_else(
                    |_| String::new(),
                    |metadata| format!(" (mode {:03o})", metadata.mode() & 0o7777),
                );
                unreadable.push(format!("{}{mode}", name.escape_debug()));
            }
        };
        let entries = match open.read_dir() {
            Ok(entries) => entries.flatten(),
            Err(error) => {
                found(&open, &error);
                continue;
            }
        };
        for entry in entries {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    if let Err(error) = File::open(&path) {
                        found(&path, &error);
                    }
                }
                Ok(_) => {}
                // A folder that can be listed, but not entered.
                Err(error) => found(&path, &error),
            }
        }
    }
    unreadable.sort_unstable();
    unreadable
}

/// The files that readers of an artifact of this type need.
fn required_files(output: ArtifactType) -> &'static [&'static str] {
    match output {
        ArtifactType::File | ArtifactType::Directory => &[],
        ArtifactType::Dataset => &["train.safetensors", "test.safetensors", "dataset.json"],
        ArtifactType::Split => &["split.safetensors"],
        ArtifactType::Labels => &["labels.safetensors", "noise.json"],
        ArtifactType::Weights | ArtifactType::Model => &["weights.safetensors", "model.json"],
        ArtifactType::Features => &["features.safetensors", "features.json"],
        ArtifactType::Metrics => &["metrics.json"],
    }
}

fn holds_one_file(folder: &Path) -> anyhow::Result<bool> {
    let mut entries =
        folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    let first = entries.next().transpose()?;
    Ok(first.is_some_and(|entry| entry.path().is_file()) && entries.next().is_none())
}

fn listing(folder: &Path) -> anyhow::Result<String> {
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy().escape_debug()));
    }
    names.sort_unstable();
    Ok(in_short(&names, LISTED))
}

/// The numbers in a file. Other values are only a note, so that hours of work are not lost.
fn read_metrics(path: &Path, context: &Context) -> anyhow::Result<Metrics> {
    let name = path.display();
    let size = path.metadata().with_context(|| format!("cannot read {name}"))?.len();
    if size > MOST_METRICS_BYTES {
        context.note(format!(
            "metrics.json has {size} bytes: metrics are read from at most {MOST_METRICS_BYTES}"
        ));
        return Ok(Metrics::new());
    }
    let text = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    // The output folder is moved before anybody can open it: its path would not help.
    let file = MetricsFile::read(&text).map_err(|problem| anyhow!("metrics.json {problem}"))?;
    if let Some(instead) = file.instead {
        context.note(format!(
            "metrics.json is {instead}, so it has no metrics: they are numbers under names, in an object"
        ));
    }
    if !file.left_out.is_empty() {
        let left_out = in_short(&file.left_out, LISTED);
        context.note(format!("metrics.json: left out {left_out}; a metric is a number"));
    }
    Ok(file.metrics)
}
