//! The manifest: text into [`Manifest`] and [`Graph`], or into all mistakes of the text at once.
//!
//! The text, with the files that it includes (`include`) and the values of `--set` put into it, becomes a tree with spans (`document`, `overrides`). From
//! it come the tables beside the stages (`envelope`), the instances of the stages at the points of a matrix (`matrix`),
//! each of them by itself (`stage`, `ports`, `values`), and the edges between them (`connect`); `clean_labels` follows what is known of labels along them. Every step reports what is wrong and continues, but never reports
//! what only follows from another mistake.
//!
//! Does not depend on keys, caches or workers. Of files, it reads those of the manifest ([`read`], [`files`], `include`), the
//! settings of the user ([`Config::read`]), and matrices that must have a row for each class (`fit`); `include` and `stage` resolve links, to
//! compare places.

mod brackets;
mod checked;
mod clean_labels;
mod config;
mod connect;
mod declaration;
mod document;
mod envelope;
mod execution;
mod executors;
mod file;
mod fit;
mod follow_on;
mod hint;
mod include;
mod lints;
mod matrix;
mod overrides;
mod part;
mod places;
mod ports;
mod resources;
mod schema;
mod secrets;
mod seeds;
mod settings;
mod sharing;
mod stage;
mod stages;
mod syntax;
mod unquoted;
mod values;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::diagnostic::{Mistake, Mistakes, Origin, Sources};
use crate::graph::Graph;

pub(crate) use checked::Manifest;
pub(crate) use config::Config;
pub(crate) use declaration::{Connection, Stage};
pub(crate) use envelope::Tracking;
pub(crate) use execution::{Failing, MOST_CORES, RunLimits, StageExecution, Takes, WHOLE_GPU};
pub(crate) use executors::{
    CommandTemplates, ExecutorSettings, Executors, LOCAL, SchedulerSettings, SlurmSettings,
    unknown_executor,
};
pub(crate) use file::read as read_bytes;
pub(crate) use fit::{Fit, Misfit};
pub(crate) use hint::{did_you_mean, nearest};
pub(crate) use lints::Lint;
pub(crate) use overrides::Override;
pub(crate) use resources::{Resources, read_resource};
pub(crate) use schema::json_schema;
pub(crate) use sharing::{PushPolicy, Sharing};
pub(crate) use stages::Stages;

use include::Included;
use matrix::{Axes, Expanded, Instance};
use settings::Settings;
use values::{WITHOUT_QUOTES, is_template};

/// The file where none is named.
pub(crate) const DEFAULT_NAME: &str = "pipeline.toml";

/// Whether an argument names a manifest.
pub(crate) fn is_manifest(argument: &Path) -> bool {
    argument.extension().is_some_and(|extension| extension == "toml")
}

/// The files of a manifest, absolute, with their bytes: itself, and what it includes, also what cannot be read.
pub(crate) fn files(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let bytes = file::read(path).ok();
    let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default());
    let included = include::named(path, text.trim_start_matches('\u{feff}')).into_iter();
    let included: Vec<_> = included.map(|path| (file::read(&path).ok(), path)).collect();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let own = [(absolute, bytes)].into_iter();
    own.chain(included.into_iter().map(|(bytes, path)| (path, bytes))).collect()
}

/// Reads a manifest from a file. Each of `overrides` replaces one value of it. Reports all mistakes at once, also
/// that the file cannot be read.
pub(crate) fn read(path: &Path, overrides: &[Override]) -> Result<(Manifest, Graph), Mistakes> {
    read_on(path, overrides, &StageExecution::default())
}

/// The same; how stages are run is as in `execution`, where the manifest does not say.
pub(crate) fn read_on(
    path: &Path,
    overrides: &[Override],
    execution: &StageExecution,
) -> Result<(Manifest, Graph), Mistakes> {
    read_with(path, overrides, Settings::new(execution))
}

/// A part of a manifest that was read as a whole before, from the same texts: the stages that come from these `templates`. They
/// need no others. `None` where it cannot be read like this.
pub(crate) fn read_part(
    path: &Path,
    overrides: &[Override],
    execution: &StageExecution,
    templates: &HashSet<&str>,
) -> Option<(Manifest, Graph)> {
    let settings = Settings { part: Some(templates), ..Settings::new(execution) };
    read_with(path, overrides, settings).ok()
}

fn read_with(
    path: &Path,
    overrides: &[Override],
    settings: Settings<'_>,
) -> Result<(Manifest, Graph), Mistakes> {
    let mut sources = Sources::new(path.display().to_string());
    let bytes = match file::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let title = format!("cannot read {}: {error}", path.display());
            let mistake = Mistake::general(title).help(match error.kind() {
                std::io::ErrorKind::NotFound => "`pipeline init` writes a manifest to start from",
                std::io::ErrorKind::IsADirectory => "name the manifest's file, not its folder",
                _ => "",
            });
            return Err(Mistakes::new(sources, vec![mistake]));
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => parse_on(path, &text, overrides, settings),
        Err(error) => {
            let position = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let hidden = secrets::hidden(&text);
            sources.add(Origin::File(path.display().to_string()), text);
            sources.hide(hidden);
            let mistake = Mistake::at(position..position + 1, "this file is not UTF-8 text")
                .help("save it as UTF-8");
            Err(Mistakes::new(sources, vec![mistake]))
        }
    }
}

/// Reads a manifest from its text.
#[cfg(test)]
pub(crate) fn parse(
    path: &Path,
    text: &str,
    overrides: &[Override],
) -> Result<(Manifest, Graph), Mistakes> {
    parse_on(path, text, overrides, Settings::new(&StageExecution::default()))
}

/// Reads a manifest from its text. Of the file system it asks for the files that this includes, and for the current
/// folder, to make that of `path` absolute. Reports all mistakes at once.
fn parse_on(
    path: &Path,
    text: &str,
    overrides: &[Override],
    settings: Settings<'_>,
) -> Result<(Manifest, Graph), Mistakes> {
    let mut sources = Sources::new(path.display().to_string());
    let mut mistakes = Vec::new();
    match read_text(path, text, overrides, settings, &mut sources, &mut mistakes) {
        Some(read) if mistakes.is_empty() => Ok(read),
        _ => {
            if mistakes.is_empty() {
                let title = "this manifest cannot be read, for an unknown reason";
                mistakes.push(
                    Mistake::general(title).help("please report it: it is a bug in `pipeline`"),
                );
            }
            Err(Mistakes::new(sources, mistakes))
        }
    }
}

fn read_text(
    path: &Path,
    text: &str,
    overrides: &[Override],
    settings: Settings<'_>,
    sources: &mut Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Manifest, Graph)> {
    // Windows' editors write a byte order mark. Without it, columns are what an editor shows.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    sources.add(Origin::File(path.display().to_string()), text);
    sources.hide(secrets::hidden(text));
    let before = mistakes.len();
    let (mut included, aliases) = include::read(path, text, sources, mistakes);
    let is_complete = mistakes.len() == before;
    let part = settings.part.map(|templates| {
        included.iter_mut().for_each(|one| one.text = part::only(&one.text, templates));
        part::only(text, templates)
    });
    let text = part.as_deref().unwrap_or(text);
    let mut document = document::parse(text, &included, overrides, sources, mistakes)?;
    // What is missing may be in a file that could not be read.
    if !is_complete {
        return None;
    }
    let swept: Vec<&str> = overrides.iter().filter_map(Override::swept_axis).collect();
    let settings = Settings { swept: &swept, replaced: &document.replaced, ..settings };
    let mut found = envelope::correct_tables(&mut document.root);
    let read = read_document(path, &document.root, &included, settings, sources, &mut found);
    let read = read.map(|(manifest, graph)| (Manifest { aliases, ..manifest }, graph));
    found.retain(|mistake| !document.is_guess(mistake));
    if document.root.contains_key("stages") {
        mistakes.extend(part_of_others(&mut found));
    }
    mistakes.extend(found);
    read
}

/// The one mistake of a file that is a part of other manifests: what it lacks is in these.
fn part_of_others(found: &mut Vec<Mistake>) -> Option<Mistake> {
    let place = found.iter().position(|mistake| mistake.title() == envelope::NO_EXPERIMENT)?;
    if found.len() == 1 {
        return None;
    }
    if found.iter().any(|mistake| mistake.title().ends_with("did you mean 'experiment'?")) {
        found.remove(place);
        return None;
    }
    let mistake = found.swap_remove(place);
    found.clear();
    Some(mistake.help("if other manifests include this file, name one of them; more mistakes of it are shown when it has [experiment]"))
}

/// A mistake in an instance: where a value of the matrix is at its place, it shows that, too.
fn in_matrix(
    mistake: Mistake,
    axes: &Axes<'_, '_>,
    instance: &Instance<'_, '_>,
    sources: &Sources,
) -> Mistake {
    let text = mistake.span().map_or("", |span| sources.text(span));
    if !is_template(text) {
        return mistake;
    }
    let point = instance.name.split_once('@').map_or("", |(_, point)| point);
    let places = axes.places_of(text, point).into_iter();
    // Without the quotes, it would be one value for all points.
    let mistake = mistake.without_help(WITHOUT_QUOTES);
    places.fold(mistake, |mistake, place| mistake.related(place, "its value here"))
}

fn read_document(
    path: &Path,
    root: &DeTable<'_>,
    included: &[Included],
    settings: Settings<'_>,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Manifest, Graph)> {
    let mut envelope = envelope::read(root, settings.execution, mistakes);
    match settings.part {
        Some(part) => envelope.stages.retain(|(name, ..)| part.contains(name)),
        None => {
            let stages: Vec<&str> = envelope.stages.iter().map(|(name, ..)| *name).collect();
            sharing::check_names(root, &stages, mistakes);
        }
    }
    let settings = Settings { execution: &envelope.execution, ..settings };
    let Expanded { instances, mut once, unused, placeholders, axes } =
        matrix::expand(root, envelope.stages, settings, sources, mistakes)?;
    let names = axes.as_ref().map(Axes::names).unwrap_or_default();
    let replaces_axes = axes.is_some() && !placeholders.only_swept;
    let settings = Settings { replaces_axes, axes: &names, ..settings };
    let drafts = instances.iter().enumerate().map(|(place, instance)| {
        let Some(axes) = &axes else { return stage::read(instance, settings, mistakes) };
        let mut found = Vec::new();
        let draft = stage::read(instance, settings, &mut found);
        let found = found.into_iter().map(|mistake| in_matrix(mistake, axes, instance, sources));
        once.add(place, found, mistakes);
        draft
    });
    let mut drafts: Vec<_> = drafts.collect();
    let connect::Checked { faults, graph } = connect::check(&drafts);
    for (place, mistake) in faults {
        once.add(place, [mistake], mistakes);
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    for (place, draft) in drafts.iter().enumerate() {
        once.add(place, draft.foreign_paths(&folder, included), mistakes);
    }
    let graph = graph.map_err(|cycles| mistakes.extend(cycles)).ok();
    for (place, found) in follow_on::about_points(&mut drafts, mistakes) {
        once.add(place, found, mistakes);
    }
    let graph = match graph.filter(|_| mistakes.is_empty()) {
        Some(graph) => graph,
        None => {
            once.finish(&instances, mistakes);
            return None;
        }
    };
    let experiment = envelope.experiment?;
    let stages = drafts.into_iter().map(|draft| draft.finish(experiment.seed, included, sources));
    let mut stages = stages.collect::<Option<Vec<_>>>()?;
    clean_labels::mark(&mut stages, &graph);
    let stages = Stages::new(stages);
    let mut tracking = envelope.tracking;
    tracking.tensorboard = tracking.tensorboard.map(|path| folder.join(path));
    let (allowed, sources) = (envelope.allowed, sources.clone());
    let others = included.iter().map(|included| included.path.clone());
    let files = std::iter::once(absolute).chain(others).collect();
    let manifest = Manifest {
        path: path.to_owned(),
        folder,
        files,
        aliases: Vec::new(),
        experiment,
        stages,
        limits: envelope.limits,
        executors: envelope.executors,
        unused_axes: unused,
        placeholders,
        sharing: envelope.sharing,
        tracking,
        allowed,
        sources,
    };
    for (place, stage) in manifest.stages.iter().enumerate() {
        if let Some(mistake) = seeds::too_large(stage, root) {
            let shown = axes.as_ref().zip(instances.get(place));
            let mistake = match shown {
                Some((axes, instance)) => in_matrix(mistake, axes, instance, &manifest.sources),
                None => mistake,
            };
            once.add(place, [mistake], mistakes);
        }
    }
    // Last: what is known of a stage follows from its parameters, so a mistake there would be reported here again.
    let (_, misfits) = Fit::check(&manifest, &graph, |_| None, |_| false);
    for Misfit { stage, mistake } in misfits {
        once.add(manifest.stages.position(&stage).unwrap_or(0), [mistake], mistakes);
    }
    once.finish(&instances, mistakes);
    mistakes.is_empty().then_some((manifest, graph))
}
