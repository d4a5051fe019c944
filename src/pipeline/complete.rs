//! What a shell offers when Tab is pressed: manifests, their stages and instances, kinds, and what `--set` can change.
//!
//! Reads a manifest as a command would. Where that has a mistake, nothing is offered.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use pipeline_stages::{KINDS, Port};
use serde_json::Value;

use crate::manifest::{self, Manifest, is_manifest};

/// Most instances, and most values of axes, that are offered: nobody reads more.
const MOST_OFFERED: usize = 500;

/// The first argument: a manifest, or a stage of the one that need not be named.
pub(crate) fn manifest_or_stage(current: &OsStr) -> Vec<CompletionCandidate> {
    let is_offered = |path: &Path| path.is_dir() || is_manifest(path);
    let mut found = PathCompleter::any().filter(is_offered).complete(current);
    found.extend(stages(current));
    found
}

/// The stages of the manifest on the command line; with `@`, their instances.
pub(crate) fn stages(current: &OsStr) -> Vec<CompletionCandidate> {
    let (Some(current), Some(manifest)) = (current.to_str(), manifest()) else {
        return Vec::new();
    };
    let Some((template, _)) = current.split_once('@') else {
        let kind = |stage: &manifest::Stage| stage.stage.info().name;
        let names: BTreeSet<_> =
            manifest.stages.iter().map(|stage| (stage.name.template(), kind(stage))).collect();
        let names = names.into_iter().filter(|(name, _)| name.starts_with(current));
        return names.map(|(name, kind)| candidate(name, kind)).collect();
    };
    let instances = manifest.stages.iter().filter(|stage| stage.name.template() == template);
    let is_offered = |name: &String| name.starts_with(current);
    // A part of a point means all instances that have it.
    let before = current.rfind(['@', ',']).map_or("", |place| &current[..=place]);
    let set = before[template.len() + 1..].split(',').filter_map(|part| part.split_once('='));
    let set: BTreeSet<&str> = set.map(|(axis, _)| axis).collect();
    let parts = instances.clone().flat_map(|stage| stage.name.point());
    let parts = parts.filter(|(axis, _)| !set.contains(axis));
    let parts = parts.map(|(axis, value)| format!("{before}{axis}={value}"));
    let parts: BTreeSet<String> = parts.filter(is_offered).collect();
    let mut names: BTreeSet<String> = parts.into_iter().take(MOST_OFFERED).collect();
    let instances = instances.map(|stage| stage.name.to_string()).filter(is_offered);
    names.extend(instances.take(MOST_OFFERED));
    names.iter().map(|name| candidate(name, "")).collect()
}

/// The values of the axes that an instance has: `rate=0.9`.
fn values_of(stage: &manifest::Stage) -> impl Iterator<Item = String> {
    stage.name.point().map(|(axis, value)| format!("{axis}={value}"))
}

/// The values of the manifest's axes.
pub(crate) fn axis_values(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(manifest) = manifest() else { return Vec::new() };
    let values: BTreeSet<String> = manifest.stages.iter().flat_map(values_of).collect();
    let values = values.iter().filter(|value| starts_with(value, current));
    values.take(MOST_OFFERED).map(|value| candidate(value, "")).collect()
}

/// What results can be sorted by: the axes and parameters of the manifest, and the metrics of its kinds.
pub(crate) fn columns(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(manifest) = manifest() else { return Vec::new() };
    let mut names = axes_and_parameters(&manifest);
    for stage in &manifest.stages {
        names.extend(stage.stage.info().headline.iter().map(|&name| name.to_owned()));
    }
    let names = names.iter().filter(|name| starts_with(name, current));
    names.map(|name| candidate(name, "")).collect()
}

/// What results can be chosen by: the axes and parameters of the manifest.
pub(crate) fn conditions(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(manifest) = manifest() else { return Vec::new() };
    let names = axes_and_parameters(&manifest).into_iter().map(|name| format!("{name}="));
    let names = names.filter(|name| starts_with(name, current));
    names.map(|name| candidate(&name, "")).chain(axis_values(current)).collect()
}

fn axes_and_parameters(manifest: &Manifest) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for stage in &manifest.stages {
        names.extend(stage.name.point().map(|(axis, _)| axis.to_owned()));
        for (name, value) in stage.stage.key_parameters() {
            match value {
                // Results have the entries of a table, each by its name.
                Value::Object(table) => names.extend(table.into_iter().map(|(entry, _)| entry)),
                Value::Null | Value::Array(_) => {}
                _ => drop(names.insert(name)),
            }
        }
    }
    names
}

/// The kinds of stages.
pub(crate) fn kinds(current: &OsStr) -> Vec<CompletionCandidate> {
    let kinds = KINDS.iter().filter(|kind| starts_with(kind.name, current));
    kinds.map(|kind| candidate(kind.name, &first_sentence((kind.about)()))).collect()
}

/// The values of the manifest that `--set` can change: `stages.train.epochs=`, `matrix.seed=`.
pub(crate) fn paths(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(manifest) = manifest() else { return Vec::new() };
    let mut paths = BTreeSet::new();
    for stage in &manifest.stages {
        let (name, kind) = (stage.name.template(), stage.stage.info());
        let ports = (kind.ports)().iter().map(|port: &Port| (port.name(), port.about));
        let fields = (kind.fields)().iter().map(|field| (field.name.clone(), field.about));
        for (key, about) in ports.chain(fields) {
            let about = first_sentence(about);
            paths.insert((format!("stages.{name}.{key}="), about.clone()));
            paths.insert((format!("defaults.{}.{key}=", kind.name), about));
        }
        for (axis, _) in stage.name.point() {
            paths.insert((format!("matrix.{axis}="), "The values of this axis".to_owned()));
        }
    }
    for (path, about) in [
        ("experiment.seed=", "The seed of the stages that do not have their own"),
        ("execution.device=", "auto, cpu or cuda:N"),
        ("execution.threads=", "Threads of a worker"),
        ("execution.cpus=", "The cores that all stages together may take"),
        ("execution.memory=", "The memory that all stages together may take"),
        ("execution.resources.", "What there is of resources that stages take by a name of yours"),
        ("execution.attempts=", "How often each stage is tried"),
    ] {
        paths.insert((path.to_owned(), about.to_owned()));
    }
    let paths = paths.iter().filter(|(path, _)| starts_with(path, current));
    paths.map(|(path, about)| candidate(path, about)).collect()
}

fn starts_with(text: &str, current: &OsStr) -> bool {
    current.to_str().is_some_and(|current| text.starts_with(current))
}

fn first_sentence(about: &str) -> String {
    let words = about.split_whitespace().collect::<Vec<_>>().join(" ");
    words.split_once(". ").map_or(words.clone(), |(first, _)| format!("{first}."))
}

fn candidate(value: &str, help: &str) -> CompletionCandidate {
    let help = (!help.is_empty()).then(|| help.to_owned().into());
    CompletionCandidate::new(value).help(help)
}

/// The manifest that is named on the command line, or the nearest `pipeline.toml`.
fn manifest() -> Option<Manifest> {
    // Before `--` is what the shell says, after it the words of the command line.
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").collect();
    let named = words.iter().map(PathBuf::from).find(|word| is_manifest(word) && word.is_file());
    let nearest = || {
        let folder = std::env::current_dir().ok()?;
        let paths = folder.ancestors().map(|above| above.join(manifest::DEFAULT_NAME));
        paths.into_iter().find(|path| path.is_file())
    };
    let (manifest, _) = manifest::read(&named.or_else(nearest)?, &[]).ok()?;
    Some(manifest)
}
