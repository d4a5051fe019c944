//! `pipeline plan`: what would run, and why, without running it.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::errors::{show_warnings, warn};
use super::output::{print_coloured, print_json};
use super::project::Project;
use super::time_left::{TimeLeft, plan_with_time};
use crate::activity::Activities;
use crate::cli::{MachineArguments, ManifestArguments, PlanArguments};
use crate::diagnostic::{Mistake, Warnings};
use crate::execute::{Places, Share};
use crate::gpus;
use crate::instances::{self, MOST_INSTANCES, Row};
use crate::machine;
use crate::manifest::{Misfit, Stage};
use crate::plan::{Plan, PlanState};
use crate::programs;
use crate::stage_name::StageName;
use crate::state_words::{ShownState, state_reason};
use crate::table::Table;

pub(crate) fn run(arguments: &PlanArguments) -> anyhow::Result<ExitCode> {
    let PlanArguments { manifest, force, machine, remote, all, json, exit_code } = arguments;
    let (remote, all, json, exit_code) = (*remote, *all, *json, *exit_code);
    show(&Shown { manifest, force, machine, remote, all, json, exit_code })
}

/// What is planned, and how it is shown: for `plan` and for `run --dry-run`.
pub(super) struct Shown<'a> {
    pub(super) manifest: &'a ManifestArguments,
    /// The patterns of the stages that run although they have results.
    pub(super) force: &'a [String],
    pub(super) machine: &'a MachineArguments,
    /// Whether the remote is asked for results.
    pub(super) remote: bool,
    /// Whether every instance has a line.
    pub(super) all: bool,
    pub(super) json: bool,
    /// Whether the exit status is 1 if anything would run.
    pub(super) exit_code: bool,
}

/// Shows a plan.
pub(super) fn show(arguments: &Shown<'_>) -> anyhow::Result<ExitCode> {
    let project = Project::open(arguments.manifest)?;
    let typed = arguments.machine;
    let jobs = typed.jobs.or(project.jobs).map(usize::from);
    let limits = project.limits(typed.limits());
    machine::limit_threads(limits.cpus);
    let executor = project.executor(typed.executor.as_deref())?;
    // A plan starts no program, not even to find a GPU.
    let share = Share::of_this_machine(jobs, &limits, gpus::glance());
    let executor = executor.as_deref();
    let run_on = Places { share: &share, executors: &project.executors, executor };
    let selected = project.select(&arguments.manifest.stages())?;
    warn(&project, &selected);
    let forced = project.forced(arguments.force, &selected)?;
    if arguments.remote {
        project.required_remote(arguments.manifest)?;
        project.ask_remote_to_show(&selected, arguments.manifest);
    }
    let (plan, time) = plan_with_time(&project, &selected, forced, &run_on);
    project.check_fit(&plan)?;
    warn_of_machine(&project, &plan, &time, &run_on);
    if arguments.json {
        print_json(&to_json(&project, &plan, &time))?;
    } else {
        print_coloured(&to_text(&project, &plan, &time, arguments.all))?;
    }
    let would_run = arguments.exit_code && !plan.is_all_fresh();
    // The process ends: the memory of many stages goes with it at once, and not piece by piece.
    std::mem::forget((project.manifest, plan));
    Ok(if would_run { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Says which stages take more than a run here may use, whether it may use GPUs only that do not exist, and which programs are missing. On
/// another machine there may be enough: only a run refuses them. Of stages that run on an executor, only what the user counts is checked.
fn warn_of_machine(project: &Project, plan: &Plan, time: &TimeLeft, run_on: &Places<'_>) {
    let manifest = &project.manifest;
    let would_run = plan.iter().filter(|(name, _)| time.has(name));
    let stages = would_run.filter_map(|(name, _)| manifest.stage(name));
    let is_here = |stage: &Stage| stage.executor_or(run_on.executor).is_none();
    let (mut here, mut misfits) = (Vec::new(), Vec::new());
    for stage in stages {
        let mistake = if is_here(stage) {
            here.push(stage);
            run_on.share.mistake(stage)
        } else {
            run_on.share.resource_mistake(stage)
        };
        misfits.extend(mistake.map(|mistake| Misfit { stage: stage.name.clone(), mistake }));
    }
    let mut mistakes = Misfit::mistakes(misfits);
    if let Err(error) = run_on.share.check()
        && here.iter().any(|stage| Share::may_use_gpus(stage))
    {
        mistakes.push(Mistake::general(error.to_string()));
    }
    mistakes.extend(programs::missing(manifest, here).into_iter().map(|misfit| misfit.mistake));
    show_warnings(&Warnings::new(manifest.sources.clone(), mistakes));
}

pub(crate) fn state_json(state: &PlanState) -> Value {
    match state {
        PlanState::Fresh(record) => {
            json!({ "state": "fresh", "key": record.key, "artifact": record.output.digest })
        }
        PlanState::Remote(record) => {
            json!({ "state": "remote", "key": record.key, "artifact": record.output.digest })
        }
        PlanState::Dirty { reason, key, .. } => {
            json!({ "state": "dirty", "key": key, "why": reason })
        }
        PlanState::Waiting { on, reason, .. } => {
            json!({ "state": "waiting", "on": on, "why": reason })
        }
        PlanState::Blocked(why) => json!({ "state": "blocked", "because": why }),
    }
}

/// A line for each stage; one with the counts for a stage of many instances, unless `all` of them are shown.
fn to_text(project: &Project, plan: &Plan, time: &TimeLeft, all: bool) -> String {
    let activities = LazyCell::new(|| Activities::look(&project.cache));
    let rows =
        instances::rows(plan.iter(), instances::most(all)).into_iter().map(|row| match row {
            Row::One(name, state) => {
                let word = ShownState::planned(state).name().to_owned();
                let goes_on = match state {
                    PlanState::Dirty { key, .. } => activities.checkpoint_in_words(key),
                    _ => None,
                };
                let goes_on = goes_on.map_or(String::new(), |goes_on| format!("; {goes_on}"));
                vec![name.to_string(), word, state_reason(state) + &goes_on]
            }
            Row::Many(template, states) => {
                let left = time.in_words(states.iter().map(|(name, _)| *name), ", ");
                let planned = states.iter().map(|(_, state)| ShownState::planned(state));
                vec![template.to_owned(), ShownState::in_words(planned) + &left]
            }
        });
    let table = Table::new(&rows.collect::<Vec<_>>()).states(1).ends_in_words().for_output();
    let left = time.all_in_words("; ") + &time.memory_in_words("; ");
    format!(
        "{table}\n{}: {}{left}\n",
        project.manifest.experiment.name,
        closing(plan, &time.sharing)
    )
}

fn closing(plan: &Plan, sharing: &HashSet<StageName>) -> String {
    let held_up = plan.held_up();
    let (mut fresh, mut remote, mut runs, mut open, mut shared) = (0, 0, 0, 0, 0);
    let mut blocked = Vec::new();
    for (name, state) in plan.iter() {
        match state {
            PlanState::Fresh(_) => fresh += 1,
            PlanState::Remote(_) => (fresh, remote) = (fresh + 1, remote + 1),
            PlanState::Blocked(_) => blocked.push(name.as_str()),
            PlanState::Waiting { .. } if held_up.contains(name) => {}
            PlanState::Waiting { reason: None, .. } => open += 1,
            PlanState::Dirty { .. } | PlanState::Waiting { .. } if sharing.contains(name) => {
                shared += 1;
            }
            PlanState::Dirty { .. } | PlanState::Waiting { .. } => runs += 1,
        }
    }
    let there =
        if remote == 0 { String::new() } else { format!(" ({remote} of them on the remote)") };
    let shared = match shared {
        0 => String::new(),
        shared => format!(", {shared} would share a result with them"),
    };
    let are = if fresh == 1 { "is" } else { "are" };
    let mut text = match open {
        0 if runs == 0 && blocked.is_empty() => {
            let all = match fresh {
                1 => "the only stage is fresh".to_owned(),
                _ => format!("all {fresh} stages are fresh"),
            };
            return format!("{all}{there}; nothing would run");
        }
        0 => format!("{runs} would run{shared}, {fresh} {are} fresh{there}"),
        _ => format!(
            "{runs} would run, {open} more if what they read changes{shared}, {fresh} {are} fresh{there}"
        ),
    };
    if !blocked.is_empty() {
        let stuck = blocked.len() + held_up.len();
        let more = blocked.split_off(blocked.len().min(MOST_INSTANCES)).len();
        let others = if more == 0 { String::new() } else { format!(" and {more} others") };
        text.push_str(&format!(", {stuck} cannot run (blocked: {}{others})", blocked.join(", ")));
    }
    text
}

fn to_json(project: &Project, plan: &Plan, time: &TimeLeft) -> Value {
    let stages: Vec<Value> = plan
        .iter()
        .map(|(name, state)| {
            let mut stage = state_json(state);
            stage["stage"] = json!(name);
            stage["kind"] =
                json!(project.manifest.stage(name).map(|stage| stage.stage.info().name));
            if let Some(seconds) = time.of(name) {
                stage["expected-seconds"] = json!(seconds);
            }
            stage
        })
        .collect();
    let mut json = json!({
        "experiment": project.manifest.experiment.name,
        "stages": stages,
        "fresh": plan.is_all_fresh(),
    });
    if time.together > 0.0 {
        json["expected-seconds"] = json!(time.together);
    }
    for (most, name) in time.largest.iter().zip(["expected-memory", "expected-gpu-memory"]) {
        if let Some((bytes, stage)) = most {
            json[name] = json!({ "bytes": bytes, "stage": stage });
        }
    }
    json
}
