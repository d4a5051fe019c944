//! `pipeline why`: what changed since the last record of a stage, from what to what.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::rc::Rc;

use super::nearest::{Near, Nearest};
use super::output::print;
use super::project::Project;
use crate::activity::{Activities, Activity, FailedRun};
use crate::cache::Record;
use crate::cli::WhyArguments;
use crate::instances::{MOST_NAMES, names_in_words};
use crate::key::change::Change;
use crate::plan::{Plan, PlanState};
use crate::reason::Reason;
use crate::stage_name::StageName;
use crate::state_words::ShownState;
use crate::state_words::state_reason;

pub(crate) fn run(arguments: &WhyArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let chosen = project.choose(&arguments.manifest.stages())?;
    let plan = project.plan(&project.with_inputs(&chosen));
    let mut nearest = Nearest::new(&project);
    let roots = roots(&plan);
    let activities = Activities::look(&project.cache);
    let explained = chosen.into_iter().filter_map(|name| {
        let activity = plan.state(name).and_then(|state| activities.of(state));
        let mut explanation = explain(&project, &plan, &mut nearest, &roots, &activities, name)?;
        if let Some(activity) = activity {
            explanation.add(name, &activity);
        }
        Some((name, explanation))
    });
    let texts = together(explained, arguments.all).into_iter().map(|(text, others)| {
        match others.as_slice() {
            [] => text,
            [first, .., last] if others.len() > MOST_NAMES => {
                format!(
                    "{text}the same is true for {} others, from {first} to {last}\n",
                    others.len()
                )
            }
            _ => format!("{text}the same is true for {}\n", names_in_words(others)),
        }
    });
    print(&texts.collect::<Vec<_>>().join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Why a stage is in its state.
struct Explanation {
    text: String,
    /// What two instances of a stage have in common that are shown together.
    common: String,
}

impl Explanation {
    fn new(head: String, body: String) -> Self {
        let text = format!("{head}\n{body}");
        Self { common: without_points(&text), text }
    }

    /// Adds what happened to a stage, or what it does now. Instances have in common how that ended: not when it was, how far it came, or
    /// what is different about them.
    fn add(&mut self, name: &StageName, activity: &Activity) {
        let line = activity.line();
        match activity {
            Activity::Running(_) | Activity::Queued(_) => {
                self.text.insert_str(0, &format!("{name} {line}\n"));
            }
            _ => self.text.push_str(&format!("  it {line}\n")),
        }
        self.common.push_str(match activity {
            Activity::Running(_) => "running",
            Activity::Queued(_) => "queued",
            Activity::Interrupted(_) => "interrupted",
            // After the command, which may have values of the instance.
            Activity::Failed(FailedRun { message, .. }) => {
                message.rsplit_once("' ").map_or(message, |(_, end)| end)
            }
        });
    }
}

/// Explanations, each with the other instances of the stage that have the same one, unless `all` are wanted.
fn together<'p>(
    explained: impl Iterator<Item = (&'p StageName, Explanation)>,
    all: bool,
) -> Vec<(String, Vec<&'p StageName>)> {
    let mut texts: Vec<(String, Vec<&StageName>)> = Vec::new();
    let mut places = HashMap::new();
    for (name, explanation) in explained {
        let same = (name.template(), explanation.common);
        match places.get(&same).filter(|_| !all) {
            Some(&place) => {
                let (_, others): &mut (_, Vec<_>) = &mut texts[place];
                others.push(name);
            }
            None => {
                places.insert(same, texts.len());
                texts.push((explanation.text, Vec::new()));
            }
        }
    }
    texts
}

/// The text without the points in names: `train@rate=0.9` becomes `train`.
fn without_points(text: &str) -> String {
    let mut parts = text.split('@');
    let first = parts.next().unwrap_or_default().to_owned();
    let is_in_point = |letter: char| letter.is_ascii_alphanumeric() || "_.+-=,".contains(letter);
    parts.fold(first, |text, part| text + part.trim_start_matches(is_in_point))
}

fn explain(
    project: &Project,
    plan: &Plan,
    nearest: &mut Nearest<'_>,
    roots: &Roots<'_>,
    activities: &Activities<'_>,
    name: &StageName,
) -> Option<Explanation> {
    let state = plan.state(name)?;
    Some(match state {
        PlanState::Fresh(record) | PlanState::Remote(record) => {
            let digest = record.output.digest.short();
            let made = crate::format::ago(record.finished);
            let head = match activities.runs(&record.key) {
                true => "its last result is".to_owned(),
                false => format!("{name} is {}:", ShownState::planned(state).name()),
            };
            let body = format!("it ran then because:\n{}", reason_lines(project, &record.reason));
            // Each has another artifact, made at another time.
            let common = without_points(&body);
            Explanation { text: format!("{head} artifact {digest}, made {made}\n{body}"), common }
        }
        PlanState::Dirty { reason, key, parts } => {
            let head = match activities.runs(key) {
                true => "it runs because:".to_owned(),
                false => format!("{name} will run because:"),
            };
            let mut explanation = Explanation::new(head, reason_lines(project, reason));
            // Its own last result is what the reason compares with already.
            let near = match reason {
                Reason::NeverRan | Reason::Changed { .. } => nearest.of(name, key, parts),
                _ => None,
            };
            if let Some(Near { changes, what, .. }) = near.filter(|near| !near.is_last) {
                let lines = reason_lines(project, &Reason::Changed { changes });
                let more = format!("  the nearest result is {what}:\n{}", indented(&lines));
                explanation.text.push_str(&more);
            }
            explanation
        }
        PlanState::Waiting { on, reason, partial } => {
            let names = names_in_words(on);
            let mut body = String::new();
            let head = match reason {
                Some(reason) => {
                    body.push_str(&reason_lines(project, reason));
                    format!("{name} will run after {names}, because:")
                }
                None if partial.is_some() => {
                    format!("{name} has a result without {names}, and will run if they succeed")
                }
                None => format!("{name} will run if the output of {names} changes"),
            };
            let roots = roots.get(name).map_or(&[][..], |roots| roots);
            let mut shown: Vec<Together<'_>> = Vec::new();
            let (mut later, mut running, mut blocked) = (Vec::new(), Vec::new(), Vec::new());
            for &input in roots {
                let Some(state) = plan.state(input) else { continue };
                let is_running = state.key().is_some_and(|key| activities.runs(&key));
                let has_room = shown.len() < MOST_NAMES;
                match shown.iter_mut().find(|together| together.takes(input, state, is_running)) {
                    Some(together) => together.names.push(input),
                    None if has_room => {
                        shown.push(Together { state, is_running, names: vec![input] });
                    }
                    None if is_running => running.push(input),
                    None if matches!(state, PlanState::Blocked(_)) => blocked.push(input),
                    None => later.push(input),
                }
            }
            for Together { state, is_running, names } in shown {
                let names = names_in_words(names);
                match state {
                    PlanState::Dirty { reason, .. } => {
                        let verb = if is_running { "runs" } else { "will run" };
                        let lines = reason_lines(project, reason);
                        body.push_str(&format!("{names} {verb} because:\n{lines}"));
                    }
                    state => {
                        body.push_str(&format!("{names} cannot run:\n  {}\n", state_reason(state)))
                    }
                }
            }
            for (what, names) in
                [("will run too", later), ("running now", running), ("cannot run", blocked)]
            {
                if !names.is_empty() {
                    body.push_str(&format!("{what}: {}\n", names_in_words(names)));
                }
            }
            Explanation::new(head, body)
        }
        PlanState::Blocked(_) => {
            Explanation::new(format!("{name} cannot run:"), format!("  {}\n", state_reason(state)))
        }
    })
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

/// Instances of a stage that are in the same state for the same reason.
struct Together<'p> {
    state: &'p PlanState,
    is_running: bool,
    names: Vec<&'p StageName>,
}

impl Together<'_> {
    /// Whether a stage is another one of them.
    fn takes(&self, name: &StageName, state: &PlanState, is_running: bool) -> bool {
        let has_same_reason = match (self.state, state) {
            (PlanState::Dirty { reason, .. }, PlanState::Dirty { reason: other, .. }) => {
                reason == other
            }
            (PlanState::Blocked(why), PlanState::Blocked(other)) => why == other,
            _ => false,
        };
        let template = self.names.first().map(|first| first.template());
        has_same_reason && is_running == self.is_running && template == Some(name.template())
    }
}

/// The dirty and the blocked stages behind each waiting one, directly or not.
type Roots<'p> = HashMap<&'p StageName, Rc<Vec<&'p StageName>>>;

fn roots(plan: &Plan) -> Roots<'_> {
    let mut found = Roots::new();
    // Every stage comes after its inputs. One that waits for one other has what that has.
    for (name, state) in plan.iter() {
        let roots = match state {
            PlanState::Fresh(_) | PlanState::Remote(_) => continue,
            PlanState::Dirty { .. } | PlanState::Blocked(_) => Rc::new(vec![name]),
            PlanState::Waiting { on, .. } => match on.as_slice() {
                [only] => found.get(only).cloned().unwrap_or_default(),
                several => {
                    let mut seen = HashSet::new();
                    let all = several.iter().filter_map(|input| found.get(input));
                    let all = all.flat_map(|roots| roots.iter().copied());
                    Rc::new(all.filter(|root| seen.insert(*root)).collect())
                }
            },
        };
        found.insert(name, roots);
    }
    found
}

fn reason_lines(project: &Project, reason: &Reason) -> String {
    let Reason::Changed { changes } = reason else { return format!("  {reason}\n") };
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("  {change}\n"));
        text.push_str(&through(project, change));
    }
    text
}

/// Why the content of an input changed: the reason that the stage behind it ran for.
fn through(project: &Project, change: &Change) -> String {
    let Change::Input { from, new: Some(digest), .. } = change else { return String::new() };
    let experiment = &project.manifest.experiment.name;
    match project.cache.last_record(experiment, from.as_str()) {
        Some(Record { output, reason, .. }) if output.digest == *digest => {
            format!("    {from} ran because: {reason}\n")
        }
        _ => String::new(),
    }
}
