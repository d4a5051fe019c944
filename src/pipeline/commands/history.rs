//! `pipeline history`: the runs that did something, and what one of them did.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use serde_json::json;

use super::output::{note, print, print_coloured, print_json};
use super::project::open_cache;
use crate::cache::Cache;
use crate::cli::{HistoryArguments, HistoryCommand, HistoryShowArguments};
use crate::format;
use crate::history::{Ended, Run, RunStage};
use crate::manifest;
use crate::table::{self, Table};

/// How many runs are shown.
const MOST_RUNS: usize = 30;

/// How many stages of one run are shown.
const MOST_STAGES: usize = 50;

pub(crate) fn run(arguments: &HistoryArguments) -> anyhow::Result<ExitCode> {
    if let Some(HistoryCommand::Show(arguments)) = &arguments.command {
        return show(arguments);
    }
    let (cache, experiments) = match &arguments.manifest {
        Some(path) if !manifest::is_manifest(path) && !path.exists() => bail!(
            "'{0}' is not a manifest: history lists whole runs; `pipeline results {0}` lists what a stage measured",
            path.display()
        ),
        Some(path) => {
            let (manifest, _) = manifest::read(path, &[])?;
            let cache = open_cache(arguments.cache.as_deref(), &manifest.folder)?;
            (cache, vec![manifest.experiment.name])
        }
        None => {
            let cache = cache_here(arguments.cache.as_deref())?;
            let experiments = cache.experiments()?;
            (cache, experiments)
        }
    };
    let mut runs: Vec<(String, &str)> = Vec::new();
    let mut status = ExitCode::SUCCESS;
    for experiment in &experiments {
        match cache.runs(experiment) {
            Ok(ids) => runs.extend(ids.into_iter().map(|id| (id, experiment.as_str()))),
            // The runs of the others are known.
            Err(error) if arguments.manifest.is_none() => {
                note(&format!("warning: {error:#}"));
                status = ExitCode::FAILURE;
            }
            Err(error) => return Err(error),
        }
    }
    runs.sort_by(|one, other| other.cmp(one));
    let most = if arguments.all || arguments.json { usize::MAX } else { MOST_RUNS };
    let left_out = runs.len().saturating_sub(most);
    let read = runs.iter().take(most);
    let read = read.filter_map(|(id, experiment)| Run::read(&cache, experiment, id));
    let read: Vec<Run> = read.collect();
    if arguments.json {
        print_json(&json!(read))?;
        return Ok(status);
    }
    if read.is_empty() {
        note(&format!("no run is recorded in {}", cache.layout().root().display()));
        return Ok(status);
    }
    let mut text = table(&read, experiments.len() > 1);
    if left_out > 0 {
        text.push_str(&format!("\n{left_out} older ones: `--all` shows them\n"));
    }
    if let ([experiment], Some(newest)) = (experiments.as_slice(), read.first())
        && let Some(checked) =
            cache.checked(experiment).filter(|checked| newest.is_before(*checked))
    {
        text.push_str(&format!("\na run found nothing to do {}\n", format::ago(checked)));
    }
    print_coloured(&text)?;
    Ok(status)
}

fn cache_here(given: Option<&Path>) -> anyhow::Result<Cache> {
    open_cache(given, &std::env::current_dir().context("no current folder")?)
}

/// A line for each run.
fn table(runs: &[Run], names_experiments: bool) -> String {
    let header = ["run", "experiment", "began", "took", "result", "stages", "asked"];
    let row = |cells: [String; 7]| {
        let cells = cells.into_iter().enumerate();
        let cells = cells.filter(|(column, _)| *column != 1 || names_experiments);
        cells.map(|(_, cell)| cell).collect::<Vec<String>>()
    };
    let mut rows = vec![row(header.map(str::to_owned))];
    for run in runs {
        rows.push(row([
            run.run.clone(),
            run.header.experiment.clone(),
            format::ago(run.header.owner.since),
            run.seconds.map(format::seconds).unwrap_or_default(),
            run.state.name().to_owned(),
            counts(run),
            run.header.asked.join(" "),
        ]));
    }
    let (result, asked) = if names_experiments { (4, 6) } else { (3, 5) };
    // The name of a run is typed again: it stays whole.
    Table::new(&rows).names(asked).states(result).ends_in_words().for_output()
}

/// How many stages ended in which way: `3 ran, 1 failed`.
fn counts(run: &Run) -> String {
    let is = |wanted: fn(&Ended) -> bool| move |stage: &RunStage| stage.ended.iter().any(wanted);
    let counts = [
        (run.count(is(|ended| matches!(ended, Ended::Ran { .. }))), "ran"),
        (run.count(is(|ended| matches!(ended, Ended::Failed { .. }))), "failed"),
        (run.count(is(|ended| *ended == Ended::Stopped)), "stopped"),
        (run.count(is(|ended| *ended == Ended::Left)), "left"),
        (run.count(|stage| stage.ended.is_none()), "started"),
    ];
    let parts = counts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { "other results, nothing ran".to_owned() } else { parts.join(", ") }
}

fn show(arguments: &HistoryShowArguments) -> anyhow::Result<ExitCode> {
    let cache = cache_here(arguments.cache.as_deref())?;
    let run = find(&cache, &arguments.run)?;
    let texts = run.texts(&cache);
    if arguments.json {
        let mut value = json!(run);
        let files = texts.into_iter().flatten();
        let files = files.map(|(file, text)| json!({ "file": file, "text": text }));
        value["texts"] = files.collect();
        value["planned"] = json!(run.planned(&cache));
        print_json(&value)?;
    } else if arguments.manifest {
        let texts = texts.with_context(|| {
            format!("the manifest of run {} was deleted, or is damaged", run.run)
        })?;
        let is_one = texts.len() == 1;
        for (file, text) in &texts {
            let head = if is_one { String::new() } else { format!("==> {file} <==\n") };
            print(&format!("{head}{text}"))?;
        }
    } else {
        print_coloured(&to_text(&cache, &run))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The run whose name begins so.
fn find(cache: &Cache, name: &str) -> anyhow::Result<Run> {
    let (mut found, mut trouble) = (Vec::new(), None);
    for experiment in cache.experiments()? {
        match cache.runs(&experiment) {
            Ok(runs) => {
                let runs = runs.into_iter().filter(|id| id.starts_with(name));
                found.extend(runs.map(|id| (id, experiment.clone())));
            }
            Err(error) => trouble = Some(error),
        }
    }
    let exact: Vec<_> = found.iter().filter(|(id, _)| id == name).cloned().collect();
    let chosen = if exact.is_empty() { found } else { exact };
    match chosen.as_slice() {
        [] => match trouble {
            Some(error) => Err(error),
            None => bail!("there is no run '{name}'; `pipeline history` lists all"),
        },
        [(id, experiment)] => Run::read(cache, experiment, id)
            .ok_or_else(|| anyhow!("the record of run {id} is damaged")),
        several => {
            let names = several.iter().take(MOST_STAGES);
            let names = names.map(|(id, experiment)| format!("{id} ({experiment})"));
            bail!("'{name}' is several runs: {}", names.collect::<Vec<_>>().join(", "))
        }
    }
}

fn to_text(cache: &Cache, run: &Run) -> String {
    let header = &run.header;
    let mut lines = vec![
        ("run", format!("{}, {}", run.run, run.state.name())),
        ("experiment", header.experiment.clone()),
        ("manifest", header.manifest.display().to_string()),
        ("folder", header.folder.display().to_string()),
    ];
    if !header.asked.is_empty() {
        lines.push(("asked for", header.asked.join(" ")));
    }
    let since = header.owner.since;
    lines.push(("began", format!("{}, {}", format::moment(since), format::ago(since))));
    lines.extend(run.seconds.map(|seconds| ("took", format::seconds(seconds))));
    lines.push(("by", format!("{}, pipeline {}", header.owner, header.by.version)));
    lines.extend(header.visible_devices.clone().map(|devices| ("devices", devices)));
    lines.extend(run.git.as_ref().map(|git| {
        let dirty = match git.dirty {
            Some(true) => ", with changes that are not committed",
            Some(false) => "",
            None => ", changes not known",
        };
        ("commit", format!("{}{dirty}", git.commit))
    }));
    let planned = run.planned(cache).map_or(String::new(), |all| format!(" of {all}"));
    lines.push(("stages", format!("{}{planned}", counts(run))));
    let lines = lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    let mut text = table::plain(&lines.collect::<Vec<_>>());
    let is_shown = |stage: &&RunStage| stage.ended != Some(Ended::Fresh);
    let shown: Vec<_> = run.stages.iter().filter(is_shown).collect();
    let rows = shown.iter().take(MOST_STAGES).map(|stage| row(stage));
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n{}", Table::new(&rows).states(1).ends_in_words().for_output()));
    }
    if shown.len() > MOST_STAGES {
        let others = shown.len() - MOST_STAGES;
        text.push_str(&format!("and {others} others, which `--json` shows\n"));
    }
    text
}

fn row(stage: &RunStage) -> Vec<String> {
    let (result, time, remark) = match &stage.ended {
        None => ("started", String::new(), String::new()),
        Some(Ended::Fresh) => ("fresh", String::new(), String::new()),
        Some(Ended::Stopped) => ("stopped", String::new(), String::new()),
        Some(Ended::Left) => ("left", String::new(), "went on elsewhere".to_owned()),
        Some(Ended::Failed { seconds, message }) => {
            let first = message.lines().next().unwrap_or_default();
            ("failed", format::seconds(*seconds), first.to_owned())
        }
        Some(Ended::Ran { seconds, ran_on }) => {
            let on = ran_on.as_ref().map(|on| {
                let threads = on.threads.map(|threads| format!(", {threads} threads"));
                let device = on.name.clone().unwrap_or_else(|| on.device.to_string());
                format!("on {device}{}", threads.unwrap_or_default())
            });
            ("ran", format::seconds(*seconds), on.unwrap_or_default())
        }
    };
    let key = stage.key.map(|key| key.short()).unwrap_or_default();
    let remark = match stage.failed_attempts.as_slice() {
        [] => remark,
        failed @ [.., last] => {
            let first = last.lines().next().unwrap_or_default();
            let remark = if remark.is_empty() { remark } else { format!("{remark}; ") };
            format!("{remark}attempt {}, after: {first}", failed.len() + 1)
        }
    };
    vec![stage.stage.to_string(), result.to_owned(), time, key, remark]
}
