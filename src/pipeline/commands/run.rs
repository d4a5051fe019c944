//! `pipeline run`: run what is not in the cache, and end with a table.

use std::process::ExitCode;
use std::sync::Arc;

use super::plan::{self, Shown};
use super::{INTERRUPTED, Project, print_coloured, warn};
use crate::cli::RunArguments;
use crate::events::Outcome;
use crate::execute::{self, Options, Summary};
use crate::format;
use crate::history::{Asked, Recorder};
use crate::instances::{self, Row, instances_in_words};
use crate::manifest::Manifest;
use crate::progress::{self, Reporters, RunningFiles, Style};
use crate::stage_name::StageName;
use crate::table::Table;
use crate::tracking;

pub(crate) fn run(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    if arguments.dry_run {
        return plan::show(&Shown {
            manifest: &arguments.manifest,
            force: &arguments.force,
            all: arguments.all,
            json: arguments.progress == Style::Json,
            exit_code: false,
        });
    }
    let project = Project::open(&arguments.manifest)?;
    let selected = project.select(&arguments.manifest.stages())?;
    warn(&project, &selected);
    let options = Options {
        jobs: arguments.jobs.or(project.jobs).map(usize::from),
        keep_going: arguments.keep_going,
        force: project.forced(&arguments.force, &selected)?,
    };
    let running = RunningFiles::new(project.cache.layout().clone());
    let shown = progress::reporter(arguments.progress);
    let asked = Asked::new(&project.manifest, &selected, &arguments.selection());
    let recorder = Recorder::new(Arc::clone(&project.cache), asked);
    let mut reporters = Reporters(vec![shown, Box::new(running), Box::new(recorder)]);
    let scene = project.tracking(&arguments.manifest);
    reporters.0.extend(tracking::reporters(&scene));
    let summary = execute::execute(
        &project.manifest,
        &project.graph,
        &project.cache,
        &selected,
        &options,
        &mut reporters,
    )?;
    if arguments.progress != Style::Json {
        print_coloured(&table(&project.manifest, &summary, arguments))?;
    }
    Ok(match summary.complete() {
        true => ExitCode::SUCCESS,
        false if summary.stopped => ExitCode::from(INTERRUPTED),
        false => ExitCode::FAILURE,
    })
}

/// A line for each stage. A stage of many instances has one with their counts, and one for each that failed, unless
/// `all` are shown.
fn table(manifest: &Manifest, summary: &Summary, arguments: &RunArguments) -> String {
    let mut rows = vec![["stage", "result", "time", "metrics"].map(str::to_owned).to_vec()];
    let stages = summary.stages.iter().map(|(name, outcome)| (name, outcome));
    for line in instances::rows(stages, instances::most(arguments.all)) {
        match line {
            Row::One(name, outcome) => rows.push(row(manifest, name, outcome)),
            Row::Many(template, instances) => {
                let outcomes = instances.iter().map(|(_, outcome)| *outcome);
                rows.push(vec![template.to_owned(), instances_in_words(counts(outcomes))]);
                let shown = instances.into_iter().filter(|(_, outcome)| is_always_shown(outcome));
                rows.extend(shown.map(|(name, outcome)| row(manifest, name, outcome)));
            }
        }
    }
    let table = Table::new(&rows).states(1).ends_in_words().for_output();
    format!("\n{table}\n{}\n", closing(manifest, summary, arguments))
}

/// Whether the outcome of one of many instances has a line: a failure, and a run that did not reproduce its result.
fn is_always_shown(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed { .. } => true,
        Outcome::Ran { forced, unchanged, .. } => *forced && !unchanged,
        _ => false,
    }
}

/// How many stages ended in which way.
fn counts<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> [(usize, &'static str); 5] {
    let count =
        |wanted: fn(&Outcome) -> bool| outcomes.clone().filter(|outcome| wanted(outcome)).count();
    [
        (count(|outcome| matches!(outcome, Outcome::Fresh { .. })), "fresh"),
        (count(|outcome| matches!(outcome, Outcome::Ran { .. })), "ran"),
        (count(|outcome| matches!(outcome, Outcome::Failed { .. })), "failed"),
        (count(|outcome| matches!(outcome, Outcome::Stopped)), "stopped"),
        (count(|outcome| matches!(outcome, Outcome::Skipped { .. })), "skipped"),
    ]
}

fn row(manifest: &Manifest, name: &StageName, outcome: &Outcome) -> Vec<String> {
    let headline = manifest.stage(name).map_or(&[][..], |stage| stage.stage.info().headline);
    let (result, time, remark) = match outcome {
        Outcome::Fresh { metrics, .. } => {
            ("fresh", String::new(), format::headline(metrics, headline))
        }
        Outcome::Ran { seconds, metrics, forced, unchanged, .. } => {
            let result = match (forced, unchanged) {
                (true, true) => "ran, same bytes",
                (true, false) => "ran, other bytes",
                (false, _) => "ran",
            };
            (result, format::seconds(*seconds), format::headline(metrics, headline))
        }
        Outcome::Failed { seconds, .. } => ("failed", format::seconds(*seconds), String::new()),
        Outcome::Stopped => ("stopped", String::new(), String::new()),
        Outcome::Skipped { because: Some(input) } => {
            ("skipped", String::new(), format!("needs {input}"))
        }
        Outcome::Skipped { because: None } => ("skipped", String::new(), String::new()),
    };
    vec![name.to_string(), result.to_owned(), time, remark]
}

fn closing(manifest: &Manifest, summary: &Summary, arguments: &RunArguments) -> String {
    let counts = counts(summary.stages.iter().map(|(_, outcome)| outcome));
    let parts = counts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    let name = &manifest.experiment.name;
    let mut text = format!("{name}: {} in {}", parts.join(", "), format::seconds(summary.seconds));
    if summary.stopped && !summary.complete() {
        text.push_str("; the same command continues from here");
    } else if let Some((failed, _)) =
        summary.stages.iter().find(|(_, outcome)| matches!(outcome, Outcome::Failed { .. }))
    {
        let log = arguments.manifest.command("log", &[failed.as_str()]);
        text.push_str(&format!("; `{log}` shows the whole log"));
        // What would have run next to it, or without it.
        let could_run = |(name, outcome): &(StageName, Outcome)| match outcome {
            Outcome::Skipped { because: None } => true,
            Outcome::Skipped { .. } => {
                manifest.stage(name).is_some_and(|stage| stage.stage.allows_missing())
            }
            _ => false,
        };
        if !arguments.keep_going && summary.stages.iter().any(could_run) {
            text.push_str("; --keep-going runs what does not need it");
        }
    }
    text
}
