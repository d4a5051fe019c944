//! `pipeline run`: run what is not in the cache, and end with a table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use pipeline_stages::kind::KindInfo;

use super::errors::warn;
use super::output::{note, print_coloured};
use super::plan::{self, Shown};
use super::project::{Located, Project};
use super::run_part::{PartialRun, Whole, read_part, report_fresh};
use super::{gc, settings};
use crate::cache::{Cache, Durability, at_once};
use crate::cli::RunArguments;
use crate::events::{Outcome, RunEvent, WaitsFor};
use crate::execute::{self, Options, RunSupervisor, Summary};
use crate::format;
use crate::history::{self, Recorder};
use crate::instances::{self, Row, instances_in_words};
use crate::machine;
use crate::manifest::PushPolicy;
use crate::plan_index::{IndexAnswer, IndexKey, PlanIndex};
use crate::progress::{self, Reporters, RunningFiles, Style};
use crate::remote::LivePush;
use crate::signals::INTERRUPTED;
use crate::stage_name::StageName;
use crate::summaries::{self, MOST_ROWS, Tables};
use crate::table::Table;
use crate::{tracking, usage};

pub(crate) fn run(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    if arguments.dry_run {
        return plan::show(&Shown {
            manifest: &arguments.manifest,
            force: &arguments.force,
            machine: &arguments.machine,
            remote: false,
            all: arguments.all,
            json: arguments.progress == Style::Json,
            exit_code: false,
        });
    }
    run_whole(arguments, &mut RunSupervisor::new())
}

/// Runs what is not in the cache.
pub(super) fn run_whole(
    arguments: &RunArguments,
    supervisor: &mut RunSupervisor,
) -> anyhow::Result<ExitCode> {
    machine::limit_threads(arguments.machine.cpus);
    let config = settings::config()?;
    let located = Located::of(&arguments.manifest, &config)?;
    let index_key =
        located.index_key(&arguments.manifest.stages(), arguments.machine.executor.as_deref());
    let started = Instant::now();
    let cache = located.cache().ok();
    // What is just being removed is still there, although it is as good as gone.
    cache.iter().for_each(|cache| cache.wait_for_cleaning(note));
    let cache = cache.filter(|_| arguments.force.is_empty());
    let read = |index: &_, part: &_| read_part(&located, index, part);
    let found = cache
        .as_ref()
        .map_or(IndexAnswer::Nothing, |cache| PlanIndex::look(cache, &index_key, read));
    let part = match (found, &cache) {
        (IndexAnswer::Unchanged(index), Some(cache)) => {
            return nothing_to_do(cache, index, arguments, started);
        }
        (IndexAnswer::Part(index, part, project), _) => {
            Some(PartialRun { index, part }).zip(project)
        }
        _ => None,
    };
    let Some((part, project)) = part else {
        return run_stages(arguments, &located.read()?, None, &index_key, supervisor);
    };
    run_stages(arguments, &project, Some(part), &index_key, supervisor)
}

/// Runs the selected stages of a manifest, or of one of which an index vouches for the others.
fn run_stages(
    arguments: &RunArguments,
    project: &Project,
    part: Option<PartialRun>,
    index_key: &IndexKey,
    supervisor: &mut RunSupervisor,
) -> anyhow::Result<ExitCode> {
    let selected = match &part {
        Some(part) => part.selected(),
        None => project.select(&arguments.manifest.stages())?,
    };
    let info = |name: &StageName| project.manifest.stage(name).map(|stage| stage.stage.info());
    let kinds: HashMap<StageName, &'static KindInfo> = match &part {
        Some(PartialRun { index, .. }) => {
            let stages = index.stages.iter();
            stages.filter_map(|stage| Some((stage.name.clone(), stage.info()?))).collect()
        }
        None => selected.iter().filter_map(|name| Some((name.clone(), info(name)?))).collect(),
    };
    // Of the other stages there are no warnings, or there would not be an index.
    let has_warnings = part.is_none() && warn(project, &selected);
    let limits = project.limits(arguments.machine.limits());
    machine::limit_threads(limits.cpus);
    let options = Options {
        jobs: arguments.machine.jobs.or(project.jobs).map(usize::from),
        limits,
        keep_going: arguments.keep_going,
        force: project.forced(&arguments.force, &selected)?,
        executor: project.executor(arguments.machine.executor.as_deref())?,
        executors: project.executors.clone(),
        detach: arguments.detach,
        links: part.as_ref().map(|part| part.index.links(&project.manifest)),
        shared: project.shared.clone(),
    };
    project.ask_remote_and_keep(&selected);
    let planned: Vec<_> = match &part {
        Some(part) => part.index.stages.iter().map(|stage| &stage.name).collect(),
        None => selected.iter().collect(),
    };
    let planned =
        planned.into_iter().filter_map(|name| Some((name.clone(), kinds.get(name)?.name)));
    let cache = match arguments.durability {
        Durability::Full => Arc::clone(&project.cache),
        Durability::Lazy => match project.cache.lazily() {
            Some(cache) => Arc::new(cache),
            None => {
                note(
                    "warning: this system does not number its starts: --durability=lazy is ignored",
                );
                Arc::clone(&project.cache)
            }
        },
    };
    let running = RunningFiles::new(project.cache.layout().clone());
    let shown = progress::reporter(arguments.progress);
    let words = history::Asked::new(&project.manifest, planned.collect(), &arguments.selection());
    let recorder = Recorder::new(Arc::clone(&project.cache), words);
    let mut reporters = Reporters(vec![shown, Box::new(running), Box::new(recorder)]);
    let scene = project.tracking(&arguments.manifest);
    reporters.0.extend(tracking::reporters(&scene));
    let mut has_pushed: Box<dyn Fn() -> bool> = Box::new(|| true);
    if let Some(shared) = project.shared.clone().filter(|_| project.push != PushPolicy::Never) {
        let kinds = kinds.iter().map(|(name, info)| (name.clone(), info.name)).collect();
        let command = arguments.manifest.command("push", &[]);
        let (cache, policy) = (Arc::clone(&cache), project.push.clone());
        let push = LivePush::new(shared, cache, policy, kinds, command);
        has_pushed = Box::new(push.has_sent_all());
        reporters.0.push(Box::new(push));
    }
    // An index has its own.
    let before = part.is_none().then(|| project.cache.stamp(&project.manifest.experiment.name));
    let (summary, results) = execute::execute(
        &project.manifest,
        &project.graph,
        &cache,
        &selected,
        &options,
        &mut Whole { run: part.as_ref(), reporter: &mut reporters },
        supervisor,
    )?;
    // Also what became known in the run.
    project.shared.iter().for_each(|shared| shared.keep(&project.cache));
    if let Some(part) = &part
        && summary.complete()
        && !summary.stopped
        && part.is_outdated(&cache, &results)
    {
        PlanIndex::forget(&project.cache, index_key);
        drop(reporters);
        return run_whole(arguments, supervisor);
    }
    let summary = match &part {
        Some(part) => part.whole(summary),
        None => summary,
    };
    // A warning is shown again each time, and what is not on the remote is tried again; so the manifest is read each time.
    let is_kept = summary.complete() && !has_warnings && has_pushed();
    let keep = || match part {
        _ if !is_kept => {}
        Some(part) => part.index.renew(&project.cache, results),
        None => {
            let Project { manifest, graph, cache, .. } = project;
            PlanIndex::keep(cache, index_key, manifest, graph, results, before.unwrap_or_default());
        }
    };
    let is_shown = arguments.progress != Style::Json;
    let is_summary = |name: &StageName| kinds.get(name).is_some_and(|info| is_summary(info));
    let is_remote = |(name, outcome): &(StageName, Outcome)| {
        matches!(outcome, Outcome::Remote { .. }) && is_summary(name)
    };
    if is_shown && !summary.stopped && summary.stages.iter().any(is_remote) {
        // They are small, and what is shown of them is not in their records.
        project.plan_here(&selected, |name, _| is_summary(name))?;
    }
    let show = || {
        if !is_shown {
            return Ok(());
        }
        let stage = |name: &StageName| project.manifest.stage(name).map(|stage| &stage.stage);
        let ended = EndedRun {
            experiment: &project.manifest.experiment.name,
            summary: &summary,
            cache: &cache,
            kind: &|name| kinds.get(name).copied(),
            runs_without: &|name| stage(name).is_some_and(|stage| stage.allows_missing()),
        };
        print_coloured(&table(&ended, arguments))
    };
    at_once(keep, show).1?;
    let did_something =
        |outcome: &Outcome| !matches!(outcome, Outcome::Fresh { .. } | Outcome::Remote { .. });
    if !summary.stopped && summary.stages.iter().any(|(_, outcome)| did_something(outcome)) {
        gc::keep_limit(&project.cache, project.cache_limit);
    }
    Ok(match summary.complete() || summary.goes_on() {
        true => ExitCode::SUCCESS,
        false if summary.stopped => ExitCode::from(INTERRUPTED),
        false => ExitCode::FAILURE,
    })
}

/// Shows that everything is as an earlier run found it, as that one did. Trackers and the history have nothing to add.
fn nothing_to_do(
    cache: &Cache,
    index: PlanIndex,
    arguments: &RunArguments,
    started: Instant,
) -> anyhow::Result<ExitCode> {
    let PlanIndex { experiment, stages, .. } = index;
    let mut reporter = progress::reporter(arguments.progress);
    reporter.event(&RunEvent::Begin { experiment: experiment.clone(), stages: stages.len() });
    report_fresh(stages.iter(), &mut *reporter);
    let mut kinds: HashMap<StageName, &'static KindInfo> = HashMap::new();
    let ended = stages.into_iter().map(|stage| {
        kinds.extend(stage.info().map(|info| (stage.name.clone(), info)));
        let outcome =
            Outcome::Fresh { digest: stage.digest, metrics: stage.metrics, same_as: None };
        (stage.name, outcome)
    });
    let stages = ended.collect();
    let seconds = started.elapsed().as_secs_f64();
    let summary = Summary { stages, seconds, stopped: false, without_log: BTreeSet::new() };
    reporter.event(&RunEvent::Done { seconds, complete: true, detached: false });
    cache.set_checked(&experiment);
    if arguments.progress != Style::Json {
        let ended = EndedRun {
            experiment: &experiment,
            summary: &summary,
            cache,
            kind: &|name| kinds.get(name).copied(),
            runs_without: &|_| false,
        };
        print_coloured(&table(&ended, arguments))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the table at the end is made of.
struct EndedRun<'a> {
    experiment: &'a str,
    summary: &'a Summary,
    cache: &'a Cache,
    kind: &'a dyn Fn(&StageName) -> Option<&'static KindInfo>,
    /// Whether a stage runs without inputs that have failed.
    runs_without: &'a dyn Fn(&StageName) -> bool,
}

/// A line for each stage. A stage of many instances has one with their counts, and one for each that failed, unless
/// `all` are shown. Below, the tables of summaries.
fn table(run: &EndedRun<'_>, arguments: &RunArguments) -> String {
    let mut rows = vec![["stage", "result", "time", "metrics"].map(str::to_owned).to_vec()];
    let mut measured = None;
    let why_not_begun = why_not_begun(run.summary, arguments.keep_going);
    let stages = run.summary.stages.iter().map(|(name, outcome)| (name, outcome));
    for line in instances::rows(stages, instances::most(arguments.all)) {
        match line {
            Row::One(name, outcome) => rows.push(row(run, why_not_begun, name, outcome)),
            Row::Many(template, instances) => {
                let outcomes = instances.iter().map(|(_, outcome)| *outcome);
                if outcomes.clone().any(has_metrics) {
                    measured = Some(template);
                }
                rows.push(vec![template.to_owned(), instances_in_words(counts(outcomes))]);
                let shown = instances.into_iter().filter(|(_, outcome)| is_always_shown(outcome));
                rows.extend(shown.map(|(name, outcome)| row(run, why_not_begun, name, outcome)));
            }
        }
    }
    let table = Table::new(&rows).states(1).ends_in_words().for_output();
    let summaries = summary_tables(run, arguments);
    let hint = match measured.filter(|_| summaries.is_empty() && run.summary.complete()) {
        Some(stage) => {
            let metrics = arguments.manifest.command("metrics", &[stage]);
            format!("`{metrics}` shows what was measured\n")
        }
        None => String::new(),
    };
    format!("\n{table}\n{summaries}{}\n{hint}", closing(run, arguments))
}

/// The tables of those stages that have one now, with an empty line after each, and how to see the rest of them.
fn summary_tables(run: &EndedRun<'_>, arguments: &RunArguments) -> String {
    let stages = run.summary.stages.iter().filter_map(|(name, outcome)| match outcome {
        Outcome::Fresh { digest, .. }
        | Outcome::Remote { digest, .. }
        | Outcome::Ran { digest, .. } => Some((name, *digest)),
        _ => None,
    });
    let is_summary = |name: &StageName| (run.kind)(name).is_some_and(is_summary);
    let most = if arguments.all { usize::MAX } else { MOST_ROWS };
    let tables = Tables::read(run.cache, stages.filter(|(name, _)| is_summary(name)), most);
    let shortened = Vec::from_iter(tables.shortened.iter().copied());
    let mut text = tables.into_text();
    if !text.is_empty() {
        text.push('\n');
    }
    if !shortened.is_empty() {
        let metrics = arguments.manifest.command("metrics", &shortened);
        text.push_str(&format!("`{metrics} --all` shows all rows\n\n"));
    }
    text
}

fn is_summary(info: &KindInfo) -> bool {
    summaries::is_summary(info.name)
}

fn has_metrics(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Fresh { metrics, .. }
        | Outcome::Remote { metrics, .. }
        | Outcome::Ran { metrics, .. } => !metrics.is_empty(),
        _ => false,
    }
}

fn is_failure(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { .. })
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
fn counts<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> [(usize, &'static str); 10] {
    let count =
        |wanted: fn(&Outcome) -> bool| outcomes.clone().filter(|outcome| wanted(outcome)).count();
    [
        (count(|outcome| matches!(outcome, Outcome::Fresh { same_as: None, .. })), "fresh"),
        (count(|outcome| matches!(outcome, Outcome::Remote { .. })), "remote"),
        (count(|outcome| matches!(outcome, Outcome::Ran { .. })), "ran"),
        (count(|outcome| matches!(outcome, Outcome::Fresh { same_as: Some(_), .. })), "shared"),
        (count(|outcome| matches!(outcome, Outcome::Failed { .. })), "failed"),
        (count(|outcome| matches!(outcome, Outcome::Stopped)), "stopped"),
        (count(|outcome| matches!(outcome, Outcome::Left)), "left"),
        (count(|outcome| matches!(outcome, Outcome::Following { .. })), "following"),
        (count(|outcome| matches!(outcome, Outcome::Waiting(_))), "waiting"),
        (count(|outcome| matches!(outcome, Outcome::Skipped { .. })), "skipped"),
    ]
}

/// Why a stage did not begin all of whose inputs have results.
fn why_not_begun(summary: &Summary, keep_going: bool) -> &'static str {
    match summary.stages.iter().any(|(_, outcome)| is_failure(outcome)) {
        _ if summary.stopped => "the run was stopped",
        true if !keep_going => "a stage failed; --keep-going goes on",
        _ => "",
    }
}

fn row(
    run: &EndedRun<'_>,
    why_not_begun: &str,
    name: &StageName,
    outcome: &Outcome,
) -> Vec<String> {
    let headline = (run.kind)(name).map_or(&[][..], |info| info.headline);
    let (result, time, remark) = match outcome {
        Outcome::Fresh { metrics, same_as, .. } => {
            let result = if same_as.is_some() { "shared" } else { "fresh" };
            (result, String::new(), format::headline(metrics, headline))
        }
        Outcome::Remote { metrics, .. } => {
            ("remote", String::new(), format::headline(metrics, headline))
        }
        Outcome::Ran { seconds, part, metrics, forced, unchanged, .. } => {
            let result = match (forced, unchanged) {
                (true, true) => "ran, same bytes",
                (true, false) => "ran, other bytes",
                (false, _) => "ran",
            };
            (result, usage::time_cell(*seconds, *part), format::headline(metrics, headline))
        }
        Outcome::Failed { seconds, .. } => ("failed", format::seconds(*seconds), String::new()),
        Outcome::Stopped => ("stopped", String::new(), String::new()),
        Outcome::Left => ("left", String::new(), "goes on elsewhere".to_owned()),
        Outcome::Following { after } => ("following", String::new(), format!("after {after}")),
        Outcome::Waiting(what) => ("waiting", String::new(), what.to_string()),
        Outcome::Skipped { because: Some(input) } => {
            ("skipped", String::new(), format!("needs {input}"))
        }
        Outcome::Skipped { because: None } => ("skipped", String::new(), why_not_begun.to_owned()),
    };
    vec![name.to_string(), result.to_owned(), time, remark]
}

fn closing(run: &EndedRun<'_>, arguments: &RunArguments) -> String {
    let summary = run.summary;
    let counts = counts(summary.stages.iter().map(|(_, outcome)| outcome));
    let parts = counts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    let mut text =
        format!("{}: {} in {}", run.experiment, parts.join(", "), format::seconds(summary.seconds));
    let is_left = |(_, outcome): &(StageName, Outcome)| matches!(outcome, Outcome::Left);
    let has_failed = |(_, outcome): &(StageName, Outcome)| is_failure(outcome);
    if summary.stages.iter().any(is_left) {
        text.push_str("; what was left goes on elsewhere, and the same command comes back to it");
    } else if summary.stopped && !summary.complete() {
        text.push_str("; the same command continues from here");
    } else if summary.stages.iter().any(has_failed) {
        let with_log = |(name, _): &&(StageName, Outcome)| !summary.without_log.contains(name);
        let mut failed = summary.stages.iter().filter(|stage| has_failed(stage));
        if let Some((failed, _)) = failed.find(with_log) {
            let log = arguments.manifest.command("log", &[failed.as_str()]);
            text.push_str(&format!("; `{log}` shows the whole log"));
        }
        // What would have run next to it, or without it.
        let could_run = |(name, outcome): &(StageName, Outcome)| match outcome {
            Outcome::Skipped { because: None } => true,
            Outcome::Skipped { .. } => (run.runs_without)(name),
            _ => false,
        };
        if !arguments.keep_going && summary.stages.iter().any(could_run) {
            text.push_str("; --keep-going runs what does not need it");
        }
    }
    text + &without_place(summary)
}

/// A line for each executor that did not take all that is ready, and for each resource of which there was not enough for all.
fn without_place(summary: &Summary) -> String {
    let mut waiting: BTreeMap<&WaitsFor, usize> = BTreeMap::new();
    for (_, outcome) in &summary.stages {
        if let Outcome::Waiting(what) = outcome {
            *waiting.entry(what).or_default() += 1;
        }
    }
    let lines = waiting.into_iter().map(|(what, count)| {
        let (waits, them) = if count == 1 { ("waits", "it") } else { ("wait", "them") };
        // What runs here waits for a resource, too.
        let (colon, begins) = match what {
            WaitsFor::Place { .. } => (":", "submits"),
            WaitsFor::Resource { .. } => ("", "begins"),
        };
        format!(
            "\n{count} {waits}{colon} {what}, and no job {begins} {them}; the same command does when others have \
             ended, and without --detach it stays until all have"
        )
    });
    lines.collect()
}
