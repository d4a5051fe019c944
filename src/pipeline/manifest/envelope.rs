//! The tables beside the stages: `[experiment]`, `[execution]`, `[executors]`, `[cache]`, `[tracking]`, `[lint]`; and the list of `[stages.NAME]`.
//!
//! Does not know what a stage is made of. `[matrix]` and `[defaults]` are read in `matrix`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

use pipeline_stages::url::{WebUrl, user_info};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::execution::{RunLimits, StageExecution, read_for_all};
use super::executors::{self, Executors};
use super::hint::nearest;
use super::lints::{self, Lint};
use super::matrix::has_seed_template;
use super::sharing::{self, Sharing};
use super::values::{
    Value, known_table, leaves, not_a_table, nul_mistake, text, whole_number, with_nul,
};
use crate::diagnostic::{Mistake, Span};
use crate::stage_name::check_experiment_name;

/// What a manifest has.
pub(super) const TABLES: [&str; 10] = [
    "include",
    "experiment",
    "execution",
    "executors",
    "cache",
    "tracking",
    "lint",
    "matrix",
    "defaults",
    "stages",
];
/// Those of them on which what is in others depends.
const OF_OTHERS: [&str; 4] = ["experiment", "matrix", "defaults", "stages"];
/// What is wrong with a file that other manifests include.
pub(super) const NO_EXPERIMENT: &str = "the manifest does not have [experiment]";

/// The keys of the table `[experiment]`.
pub(super) const EXPERIMENT_KEYS: [&str; 3] = ["name", "about", "seed"];
/// The keys of the table `[tracking]`.
pub(super) const TRACKERS: [&str; 2] = ["tensorboard", "mlflow"];
/// The table `[tracking]`: where else to show what a run measures. In no key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tracking {
    /// The folder for TensorBoard's event files, absolute.
    pub(crate) tensorboard: Option<PathBuf>,
    /// The address of an MLflow server, without a user name or a password.
    pub(crate) mlflow: Option<WebUrl>,
}

/// What the stages of a manifest are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Experiment {
    /// Its name. It is a valid file name.
    pub(crate) name: String,
    /// What it is about, in the user's words.
    pub(crate) about: Option<String>,
    /// The seed of the stages that do not have their own. 0 if the manifest does not set it.
    pub(crate) seed: u64,
}

/// The content of a manifest beside its stages, and where these are.
pub(super) struct Envelope<'t, 'i> {
    /// `None` if it is missing or wrong.
    pub(super) experiment: Option<Experiment>,
    /// How stages are run, unless they set it themselves.
    pub(super) execution: StageExecution,
    /// What all of them together may take of the machine.
    pub(super) limits: RunLimits,
    /// Where they can run, beside here.
    pub(super) executors: Executors,
    /// The cache that others share.
    pub(super) sharing: Sharing,
    /// The trackers, with paths as they are written.
    pub(super) tracking: Tracking,
    /// The warnings that are silenced.
    pub(super) allowed: BTreeSet<Lint>,
    /// Name, place of the name, and value of every stage, in the file's order.
    pub(super) stages: Vec<(&'t str, Span, &'t Value<'i>)>,
}

/// Reads the tables of a manifest. What `[execution]` does not set is as in `execution`.
pub(super) fn read<'t, 'i>(
    root: &'t DeTable<'i>,
    execution: &StageExecution,
    mistakes: &mut Vec<Mistake>,
) -> Envelope<'t, 'i> {
    let experiment = match root.get("experiment") {
        Some(value) => read_experiment(value, has_seed_template(root), mistakes),
        None => {
            mistakes.push(
                Mistake::at(0..0, NO_EXPERIMENT)
                    .help("start it with: [experiment] and, below it, name = \"...\""),
            );
            None
        }
    };
    let (execution, limits) = match root.get("execution") {
        Some(value) => read_for_all(value, execution, mistakes),
        None => (execution.clone(), RunLimits::default()),
    };
    let executors = root.get("executors").map(|value| executors::read(value, mistakes));
    let executors = executors.unwrap_or_default();
    let sharing = root.get("cache").map(|value| sharing::read(value, mistakes)).unwrap_or_default();
    let tracking = root.get("tracking").map(|value| read_tracking(value, mistakes));
    let tracking = tracking.unwrap_or_default();
    let allowed = root.get("lint").map(|value| lints::read(value, mistakes)).unwrap_or_default();
    let stages = match root.get("stages") {
        Some(value) => stage_tables(value, mistakes),
        None => {
            mistakes.push(no_stages(0..0));
            Vec::new()
        }
    };
    Envelope { experiment, execution, limits, executors, sharing, tracking, allowed, stages }
}

/// Reports the unknown tables, and puts each where it was probably meant to be, as far as other tables depend on it: what would be wrong
/// without it is not another mistake.
pub(super) fn correct_tables(root: &mut DeTable<'_>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let unknown = root.keys().filter(|key| !TABLES.contains(&key.get_ref().as_ref()));
    for key in unknown.cloned().collect::<Vec<_>>() {
        let name: &str = key.as_ref();
        let Some(value) = root.get(name).cloned() else { continue };
        let is_stage = value.get_ref().as_table().is_some_and(|table| table.contains_key("kind"));
        // What has a kind is a stage, also where its name is near that of a table.
        let hint = nearest(name, TABLES).filter(|_| !is_stage);
        let mistake = if let Some(table) = hint {
            let title = format!("unknown table '{name}', did you mean '{table}'?");
            let mistake = Mistake::at(key.span(), title);
            if OF_OTHERS.contains(&table) && value.get_ref().is_table() {
                put(root, table, key, value);
            }
            mistake
        } else if is_stage {
            let title = format!("unknown table '{name}', did you mean 'stages.{name}'?");
            let help = format!("a stage starts with [stages.{name}]");
            let mistake = Mistake::at(key.span(), title).help(help);
            let stage = DeTable::from_iter([(key.clone(), value.clone())]);
            put(root, "stages", key, Spanned::new(value.span(), DeValue::Table(stage)));
            mistake
        } else {
            let what = if value.get_ref().is_table() { "table" } else { "key" };
            Mistake::at(key.span(), format!("unknown {what} '{name}'")).help(
                "a manifest has [experiment], [execution], [executors.NAME], [cache], [tracking], [lint], [matrix], [defaults.KIND] and one [stages.NAME] for each stage",
            )
        };
        mistakes.push(mistake);
    }
    mistakes
}

/// Puts what is in a table into the one of this name, which has what it had.
fn put<'i>(
    root: &mut DeTable<'i>,
    name: &'static str,
    key: Spanned<Cow<'i, str>>,
    value: Value<'i>,
) {
    match (root.get_mut(name).map(Spanned::get_mut), value.get_ref()) {
        (Some(DeValue::Table(there)), DeValue::Table(more)) => {
            for (key, value) in more {
                if !there.contains_key(key.get_ref().as_ref()) {
                    there.insert(key.clone(), value.clone());
                }
            }
        }
        (Some(_), _) => {}
        (None, _) => drop(root.insert(Spanned::new(key.span(), Cow::Borrowed(name)), value)),
    }
}

fn no_stages(place: Span) -> Mistake {
    Mistake::at(place, "the manifest does not have stages")
        .help("a stage starts with [stages.NAME], and its first line is kind = \"...\"")
        .help("`pipeline kinds` lists the kinds")
}

fn stage_tables<'t, 'i>(
    value: &'t Value<'i>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<(&'t str, Span, &'t Value<'i>)> {
    let Some(table) = value.get_ref().as_table() else {
        mistakes.push(not_a_table("stages", value).help("a stage starts with [stages.NAME]"));
        return Vec::new();
    };
    if table.is_empty() {
        mistakes.push(no_stages(value.span()));
    }
    let stages = table.iter().map(|(key, value)| (&**key.get_ref(), key.span(), value));
    let mut stages: Vec<_> = stages.collect();
    stages.sort_by_key(|(_, span, _)| span.start);
    stages
}

fn read_experiment(
    value: &Value<'_>,
    has_seed_template: bool,
    mistakes: &mut Vec<Mistake>,
) -> Option<Experiment> {
    let table = known_table("experiment", value, &EXPERIMENT_KEYS, mistakes)?;
    let mut checked = |result: Result<String, Mistake>| result.map_err(|it| mistakes.push(it)).ok();
    let name = match table.get("name") {
        Some(value) => checked(experiment_name(value)),
        None if has_misspelt(table, "name", &EXPERIMENT_KEYS) => None,
        None => checked(Err(Mistake::at(value.span(), "the experiment does not have a name")
            .help("add the line: name = \"...\""))),
    };
    let about = table.get("about").map(|value| checked(text("about", value).map(str::to_owned)));
    let seed = table
        .get("seed")
        .filter(|_| !has_seed_template)
        .map(|value| whole_number("seed", value, 0, u64::MAX).map_err(|it| mistakes.push(it)).ok());
    Some(Experiment { name: name?, about: about.flatten(), seed: seed.flatten().unwrap_or(0) })
}

fn experiment_name(value: &Value<'_>) -> Result<String, Mistake> {
    let name = text("name", value)?;
    check_experiment_name(name).map_err(|reason| {
        Mistake::at(value.span(), format!("{name:?} cannot be the name of an experiment: {reason}"))
            .help("a folder is named after it, so it must be a valid file name")
    })?;
    Ok(name.to_owned())
}

/// Reads `[tracking]`.
fn read_tracking(value: &Value<'_>, mistakes: &mut Vec<Mistake>) -> Tracking {
    let before = mistakes.len();
    let table = known_table("tracking", value, &TRACKERS, mistakes);
    // What was written in the wrong place may be an address with a password.
    let misplaced: Vec<Span> = match table {
        Some(table) => {
            let unknown =
                table.iter().filter(|(key, _)| !TRACKERS.contains(&key.get_ref().as_ref()));
            unknown.flat_map(|(_, value)| leaves(value)).collect()
        }
        None => leaves(value),
    };
    for mistake in mistakes.get_mut(before..).unwrap_or_default() {
        *mistake = misplaced.iter().cloned().fold(mistake.clone(), Mistake::hiding);
    }
    let Some(table) = table else { return Tracking::default() };
    let mut checked = |mistake| mistakes.push(mistake);
    let tensorboard = table.get("tensorboard").map(event_folder);
    let mlflow = table.get("mlflow").map(server);
    Tracking {
        tensorboard: tensorboard.and_then(|folder| folder.map_err(&mut checked).ok()),
        mlflow: mlflow.and_then(|server| server.map_err(&mut checked).ok()),
    }
}

fn event_folder(value: &Value<'_>) -> Result<PathBuf, Mistake> {
    let folder = text("tensorboard", value)?;
    if folder.is_empty() {
        let title = "'tensorboard' is the folder for event files, and cannot be empty";
        return Err(Mistake::at(value.span(), title).help("write tensorboard = \"runs\""));
    }
    if with_nul(value).is_some() {
        return Err(nul_mistake("tensorboard", value.span()));
    }
    Ok(folder.into())
}

/// What [`server`] accepts has this form.
pub(super) const SERVER_PATTERN: &str = "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@ ]+(/[^?# ]*)?$";

/// The address of a server. A mistake does not repeat it: a password may be anywhere in it.
fn server(value: &Value<'_>) -> Result<WebUrl, Mistake> {
    let hiding = |mistake| leaves(value).into_iter().fold(mistake, Mistake::hiding);
    let server = text("mlflow", value).map_err(hiding)?;
    let mistake = |title: String| hiding(Mistake::at(value.span(), title));
    if user_info(server).is_some() {
        let title = "a URL in a manifest cannot have a user name or a password";
        return Err(mistake(title.to_owned()).help(
            "put them into the environment: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        ));
    }
    let read = match server.find(|letter: char| letter.is_control() || " ?#".contains(letter)) {
        Some(_) => Err("it has a query, a fragment, a space or a control character".to_owned()),
        None => WebUrl::read(server),
    };
    read.map_err(|reason| {
        mistake(format!("this is not the address of a server: {reason}")).help(
            "write the address that shows MLflow in a browser: mlflow = \"http://localhost:5000\"",
        )
    })
}

/// Whether a key of the table is unknown and was probably meant to be `name`.
fn has_misspelt(table: &DeTable<'_>, name: &str, keys: &[&str]) -> bool {
    table.keys().any(|key| {
        let given: &str = key.as_ref();
        !keys.contains(&given) && nearest(given, keys.iter().copied()) == Some(name)
    })
}
