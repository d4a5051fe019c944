//! What `pipeline status` shows, once or again and again: a table of stages, and lines below it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::project::Project;
use crate::activity::{Activities, Activity, OtherJob, Others};
use crate::cache::Record;
use crate::digest::Digest;
use crate::execute::cancel_command;
use crate::format;
use crate::instances::{self, Row};
use crate::plan::{Plan, PlanState};
use crate::stage_name::StageName;
use crate::state_words::{ShownState, state_reason};
use crate::table::Table;
use crate::usage::{self, Usage};

/// What is done under another key than that of a stage.
const OTHERWISE: &str = "with other values or inputs";

/// What is known of a stage: its plan, and what goes on beyond it.
#[derive(Clone)]
pub(super) struct Known<'a> {
    pub(super) state: &'a PlanState,
    pub(super) activity: Option<Activity>,
}

impl Known<'_> {
    pub(super) fn shown(&self) -> ShownState {
        ShownState::of(self.state, self.activity.as_ref())
    }

    /// What goes on, after the name of the stage.
    fn line(&self) -> String {
        self.activity.as_ref().map_or_else(String::new, Activity::line)
    }
}

/// The states of some stages.
pub(super) struct States<'a> {
    pub(super) known: Vec<(&'a StageName, Known<'a>)>,
    /// What is done for these stages with other values or inputs.
    pub(super) others: Others,
    /// How the jobs of those that wait are cancelled, in words: a line for each executor.
    cancels: Vec<String>,
}

impl<'a> States<'a> {
    pub(super) fn look(
        project: &Project,
        chosen: &[&'a StageName],
        plan: &'a Plan,
        activities: &Activities<'_>,
    ) -> Self {
        let known = chosen.iter().filter_map(|name| {
            let state = plan.state(name)?;
            Some((*name, Known { state, activity: activities.of(state) }))
        });
        let templates: HashSet<&str> = chosen.iter().map(|name| name.template()).collect();
        let own: HashSet<_> = plan.iter().filter_map(|(_, state)| PlanState::key(state)).collect();
        let is_meant = |stage: &StageName| match project.manifest.stage(stage) {
            Some(_) => chosen.contains(&stage),
            None => templates.contains(stage.template()),
        };
        let others = activities.others(&project.manifest.experiment.name, &own, is_meant);
        // Of a stage whose key is not known, this may be the job. What others have submitted is for them to cancel.
        let is_left = |other: &&OtherJob| {
            other.is_own && plan.state(&other.stage).is_none_or(|state| state.key().is_some())
        };
        let cancels = cancels(project, others.queued.iter().filter(is_left));
        Self { known: known.collect(), others, cancels }
    }
}

/// How jobs are cancelled that wait for stages with other values or inputs: no run of this manifest comes back to them as it is, and one
/// with other values may.
fn cancels<'j>(project: &Project, jobs: impl Iterator<Item = &'j OtherJob>) -> Vec<String> {
    let mut ids: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for OtherJob { job, .. } in jobs {
        ids.entry(&job.executor).or_default().push(job.job.clone());
    }
    let lines = ids.into_iter().map(|(executor, ids)| {
        let it = if ids.len() == 1 { "it" } else { "them" };
        let cancel = format!("if nobody wants {it}, to cancel {it}");
        match project.executors.get(executor) {
            Some(settings) => format!("{cancel}: {}", cancel_command(settings, &ids)),
            None => format!("{cancel}, in the scheduler of {executor}: {}", ids.join(" ")),
        }
    });
    lines.collect()
}

/// A state of all stages as it is shown: a table, and lines below it.
pub(super) struct Sheet {
    /// The first one is the heading.
    pub(super) rows: Vec<SheetRow>,
    pub(super) lines: Vec<SheetLine>,
}

pub(super) struct SheetRow {
    pub(super) cells: Vec<String>,
    pub(super) shown: ShownState,
    /// How many stages it is about.
    pub(super) stages: usize,
}

pub(super) struct SheetLine {
    /// The stage that it is about. Empty where it is about many.
    pub(super) name: String,
    /// What follows on the name.
    pub(super) text: String,
    pub(super) shown: ShownState,
}

impl fmt::Display for SheetLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.text)
    }
}

impl Sheet {
    /// A line for each stage; one for a stage of many instances, unless `all` of them are shown.
    pub(super) fn of(
        last_runs: &LastRuns<'_>,
        States { known, others, cancels }: &States<'_>,
        all: bool,
    ) -> Self {
        let most = instances::most(all);
        let header = ["stage", "kind", "state", "last run", "took"].into_iter();
        let usage = usage::HEADS.into_iter().filter(|_| last_runs.with_usage);
        let header = header.chain(usage).chain(["artifact", "size"]);
        let header = header.map(str::to_owned).collect();
        let mut rows = vec![SheetRow { cells: header, shown: ShownState::Running, stages: 0 }];
        let queued = queued_lines(known, most);
        // Each: there are not many, and they are what somebody looks for.
        let running = running_lines(known, usize::MAX);
        let known = || known.iter().map(|(name, known)| (*name, known));
        for row in instances::rows(known(), most) {
            rows.push(match row {
                Row::One(name, known) => {
                    let cells = line_of_one(last_runs, name, known);
                    SheetRow { cells, shown: known.shown(), stages: 1 }
                }
                Row::Many(template, instances) => {
                    let shown = instances.iter().map(|(_, known)| known.shown()).max();
                    let cells = line_of_many(last_runs, template, &instances);
                    let shown = shown.unwrap_or(ShownState::Fresh);
                    SheetRow { cells, shown, stages: instances.len() }
                }
            });
        }
        let are = |shown| known().filter(move |(_, known)| known.shown() == shown);
        let blocked = are(ShownState::Blocked);
        let mut lines: Vec<_> =
            folded(blocked, most, "is blocked,", "are blocked", |known| state_reason(known.state));
        let line = |known: &Known<'_>| known.line();
        lines.extend(folded(are(ShownState::Failed), most, "", "failed", line));
        lines.extend(folded(are(ShownState::Interrupted), most, "", "were interrupted", line));
        lines.extend(queued);
        lines.extend(running);
        lines.extend(others.running.iter().map(|running| SheetLine {
            name: running.stage.to_string(),
            text: format!(" {OTHERWISE} {}", running.line()),
            shown: ShownState::Running,
        }));
        let jobs = others.queued.iter().map(|other| (&other.stage, &other.job));
        let jobs = instances::rows(jobs, most).into_iter().filter_map(|row| match row {
            Row::One(name, job) => Some((name.to_string(), format!(" {OTHERWISE} {}", job.line()))),
            Row::Many(template, jobs) => {
                let ((name, first), count) = (jobs.first()?, jobs.len());
                let are = format!("{count} of {template} {OTHERWISE} are queued");
                Some((String::new(), format!("{are}; the first, {name} {}", first.line())))
            }
        });
        let cancels = cancels.iter().map(|line| (String::new(), format!("  {line}")));
        lines.extend(jobs.chain(cancels).map(|(name, text)| SheetLine {
            name,
            text,
            shown: ShownState::Queued,
        }));
        Self { rows, lines }
    }

    /// The table as it is printed, and the lines below it.
    pub(super) fn into_text(self) -> (String, String) {
        let rows: Vec<_> = self.rows.into_iter().map(|row| row.cells).collect();
        let lines = self.lines.iter().map(|line| format!("{line}\n")).collect();
        (table(&rows).for_output(), lines)
    }
}

/// A table of such rows. In a narrow one, the kinds go first, and then what is at the end: all but names and states.
pub(super) fn table(rows: &[Vec<String>]) -> Table {
    let columns = rows.first().map_or(0, Vec::len);
    Table::new(rows).states(2).optional([1].into_iter().chain((3..columns).rev()))
}

/// The lines about those of these stages that wait in the queue of a scheduler.
pub(super) fn queued_lines(known: &[(&StageName, Known<'_>)], most: usize) -> Vec<SheetLine> {
    lines_of(known, ShownState::Queued, most, "are queued")
}

/// The lines about those of these stages that run.
pub(super) fn running_lines(known: &[(&StageName, Known<'_>)], most: usize) -> Vec<SheetLine> {
    lines_of(known, ShownState::Running, most, "are running")
}

fn lines_of(
    known: &[(&StageName, Known<'_>)],
    shown: ShownState,
    most: usize,
    are: &str,
) -> Vec<SheetLine> {
    let of_it = known.iter().filter(|(_, known)| known.shown() == shown);
    folded(of_it.map(|(name, known)| (*name, known)), most, "", are, |known| known.line())
}

/// A line for each of these stages; one for many instances, which shows the first one's.
fn folded<'a, 'k: 'a>(
    stages: impl Iterator<Item = (&'a StageName, &'a Known<'k>)>,
    most: usize,
    is: &str,
    are: &str,
    line: impl Fn(&Known<'_>) -> String,
) -> Vec<SheetLine> {
    let is = if is.is_empty() { String::new() } else { format!("{is} ") };
    let lines = instances::rows(stages, most).into_iter().filter_map(|row| {
        Some(match row {
            Row::One(name, known) => SheetLine {
                name: name.to_string(),
                text: format!(" {is}{}", line(known)),
                shown: known.shown(),
            },
            // What they have to say is mostly the same for all of them.
            Row::Many(template, instances) => {
                let (name, known) = instances.first()?;
                let (count, first) = (instances.len(), line(known));
                let name = if is.is_empty() { format!("{name} ") } else { String::new() };
                let text = format!("{count} of {template} {are}; the first, {name}{first}");
                SheetLine { name: String::new(), text, shown: known.shown() }
            }
        })
    });
    lines.collect()
}

/// The record of a stage's last run: its own, or an older one that no longer counts.
pub(super) fn last_run(project: &Project, name: &StageName, state: &PlanState) -> Option<Record> {
    match state.finished() {
        Some(record) => Some(record.clone()),
        None => project.cache.last_record(&project.manifest.experiment.name, name.as_str()),
    }
}

/// What a table shows of the last runs of stages. Each is read once: it is another one only when the plan is.
pub(super) struct LastRuns<'a> {
    project: &'a Project,
    /// Whether what they took is shown.
    with_usage: bool,
    known: RefCell<HashMap<StageName, Option<LastRun>>>,
}

/// What a table shows of a last run.
#[derive(Clone, Copy)]
struct LastRun {
    finished: u64,
    seconds: f64,
    usage: Usage,
    artifact: Digest,
    bytes: u64,
}

impl<'a> LastRuns<'a> {
    pub(super) fn of(project: &'a Project, with_usage: bool) -> Self {
        Self { project, with_usage, known: RefCell::default() }
    }

    fn get(&self, name: &StageName, known: &Known<'_>) -> Option<LastRun> {
        let mut runs = self.known.borrow_mut();
        if let Some(run) = runs.get(name) {
            return *run;
        }
        let record = last_run(self.project, name, known.state);
        let run = record.map(|record| LastRun {
            finished: record.finished,
            seconds: record.seconds,
            usage: record.usage,
            artifact: record.output.digest,
            bytes: record.output.extent.bytes,
        });
        runs.insert(name.clone(), run);
        run
    }
}

pub(super) fn kind(project: &Project, name: &StageName) -> String {
    let declaration = project.manifest.stage(name);
    declaration.map_or("", |stage| stage.stage.info().name).to_owned()
}

fn line_of_one(last_runs: &LastRuns<'_>, name: &StageName, known: &Known<'_>) -> Vec<String> {
    let kind = kind(last_runs.project, name);
    let mut row = vec![name.to_string(), kind, known.shown().name().to_owned()];
    match last_runs.get(name, known) {
        Some(run) => {
            row.extend([format::ago(run.finished), usage::time_cell(run.seconds, run.usage.part)]);
            row.extend(run.usage.cells().into_iter().filter(|_| last_runs.with_usage));
            row.extend([run.artifact.short(), format::bytes(run.bytes)]);
        }
        None => row.push("never".to_owned()),
    }
    row
}

/// How many instances are in which state; and of all their last runs, when the newest was, how long they took
/// together, how large their artifacts are together, and, where that is shown, what else they took.
fn line_of_many(
    last_runs: &LastRuns<'_>,
    template: &str,
    instances: &[(&StageName, &Known<'_>)],
) -> Vec<String> {
    let first = instances.first();
    let kind = first.map(|(name, _)| kind(last_runs.project, name)).unwrap_or_default();
    let runs = instances.iter().filter_map(|(name, known)| last_runs.get(name, known));
    let (mut newest, mut seconds, mut usage) = (None, 0.0, Usage::default());
    let mut artifacts = HashMap::new();
    for run in runs {
        newest = newest.max(Some(run.finished));
        seconds += run.seconds;
        usage = usage.with(&run.usage);
        artifacts.insert(run.artifact, run.bytes);
    }
    let last = match newest {
        None => "never ran".to_owned(),
        Some(newest) => format!(
            "last run {}, {} in all, {}{}",
            format::ago(newest),
            format::seconds(seconds),
            format::bytes(artifacts.values().sum()),
            if last_runs.with_usage { usage.in_words() } else { String::new() }
        ),
    };
    let states = ShownState::in_words(instances.iter().map(|(_, known)| known.shown()));
    vec![template.to_owned(), kind, format!("{states}; {last}")]
}
