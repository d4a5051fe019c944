//! What a program must have left in its output folder.

use std::path::Path;

use anyhow::{Context as _, bail};
use pipeline_stages::ArtifactType;
use pipeline_stages::kinds::Command;
use pipeline_stages::message::Metrics;
use pipeline_stages::text::in_short;
use serde_json::Value;

/// More names than this are not listed in an error.
const LISTED: usize = 20;

/// Checks that everything declared is there, and reads the numbers of a `metrics` artifact.
///
/// # Errors
/// When something is missing: says what, and what is there instead.
pub(super) fn check(command: &Command, folder: &Path) -> anyhow::Result<Metrics> {
    let needed = required_files(command.output);
    let declared = command.outputs.iter().map(String::as_str);
    let missing: Vec<_> =
        declared.chain(needed.iter().copied()).filter(|path| !folder.join(path).exists()).collect();
    if !missing.is_empty() {
        bail!(
            "the program ended well, but did not write {} to its output folder; there {}",
            missing.join(", "),
            listing(folder)?
        );
    }
    match command.output {
        ArtifactType::File if !holds_one_file(folder)? => {
            bail!("an artifact of type file holds exactly one file; there {}", listing(folder)?)
        }
        ArtifactType::Metrics => read_metrics(&folder.join("metrics.json")),
        _ => Ok(Metrics::new()),
    }
}

/// The files without which nothing can read an artifact of this type.
fn required_files(output: ArtifactType) -> &'static [&'static str] {
    match output {
        ArtifactType::File | ArtifactType::Directory => &[],
        ArtifactType::Dataset => &["train.safetensors", "test.safetensors", "dataset.json"],
        ArtifactType::Split => &["split.safetensors"],
        ArtifactType::Labels => &["labels.safetensors", "noise.json"],
        ArtifactType::Weights | ArtifactType::Model => &["weights.safetensors", "model.json"],
        ArtifactType::Metrics => &["metrics.json"],
    }
}

fn holds_one_file(folder: &Path) -> anyhow::Result<bool> {
    let mut entries =
        folder.read_dir().with_context(|| format!("can't list {}", folder.display()))?;
    let first = entries.next().transpose()?;
    Ok(first.is_some_and(|entry| entry.path().is_file()) && entries.next().is_none())
}

fn listing(folder: &Path) -> anyhow::Result<String> {
    let entries = folder.read_dir().with_context(|| format!("can't list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy().escape_debug()));
    }
    names.sort_unstable();
    Ok(format!("is {}", in_short(&names, LISTED)))
}

fn read_metrics(path: &Path) -> anyhow::Result<Metrics> {
    let name = path.display();
    let text = std::fs::read(path).with_context(|| format!("can't read {name}"))?;
    let value = serde_json::from_slice(&text).with_context(|| format!("{name} is no JSON"))?;
    let Value::Object(entries) = value else {
        bail!("{name} must hold an object of names and numbers: {{\"accuracy\": 0.9}}");
    };
    let number =
        |(metric, value): (String, Value)| match value.as_f64().filter(|number| number.is_finite())
        {
            Some(number) => Ok((metric, number)),
            None => bail!("in {name}, '{metric}' is {value}: metrics are flat names with numbers"),
        };
    entries.into_iter().map(number).collect()
}
