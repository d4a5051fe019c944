//! `pipeline log --follow`: what stages wrote to their logs, and what they add, until they have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;

use super::log_lines::{BLOCK, Unfinished};
use super::newest_log::{LastOfKeys, note_earlier, places};
use super::output::{note, print_log_while_read, print_while_read};
use super::planner::Planner;
use super::project::Project;
use super::status_sheet::{Known, queued_lines, running_lines};
use crate::activity::{Activities, Activity};
use crate::cache::Owner;
use crate::execute::QueuedJob;
use crate::instances::{MOST_INSTANCES, names_in_words};
use crate::key::StageKey;
use crate::plan::{Plan, PlanState};
use crate::regular_file;
use crate::signals::{INTERRUPTED, StopFlag};
use crate::stage_name::StageName;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks of which nothing may be to be followed before it ends: a run that has just been started is not the end.
const QUIET_LOOKS: u32 = 4;

/// What was said of the job of a stage.
#[derive(Clone, PartialEq, Eq)]
enum Said {
    Queued(QueuedJob),
    Runs(Owner),
}

pub(super) fn follow(project: &Project, chosen: &[&StageName]) -> anyhow::Result<ExitCode> {
    let stop = StopFlag::listen()?;
    let mut planner = Planner::new(project, chosen);
    let mut output = Output { has_headings: chosen.len() > 1, ..Output::default() };
    let mut logs: BTreeMap<&StageName, FollowedLog> = BTreeMap::new();
    let (mut quiet, mut waits_for, mut has_said) = (0, Vec::new(), false);
    let (mut is_first, mut runs_since) = (true, planner.runs_since());
    let mut said: BTreeMap<&StageName, Said> = BTreeMap::new();
    // Those that will not do anything more in the runs that are in progress.
    let mut over: BTreeSet<&StageName> = BTreeSet::new();
    loop {
        let activities = Activities::look(&project.cache);
        let is_news = planner.renew(&activities, quiet > 0);
        if is_news {
            runs_since = planner.runs_since();
        }
        let plan = &planner.plan;
        let runs = |name: &StageName| {
            plan.state(name).and_then(PlanState::key).is_some_and(|key| activities.runs(&key))
        };
        let last = is_first.then(|| LastOfKeys::look(project));
        for name in chosen {
            let runs = runs(name);
            // Nothing is added to the others.
            let is_open = logs.get(name).is_some_and(|log| log.is_growing);
            if !is_first && !is_news && !runs && !is_open {
                continue;
            }
            let log = logs.entry(name).or_default();
            log.is_growing = runs;
            if let Some((path, key, is_earlier)) = path(project, plan, name) {
                if let Some(last) = &last {
                    last.note_other(project, name, &key);
                    if is_earlier {
                        note_earlier(plan, name);
                    }
                }
                if !log.show(&path, name, &mut output)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        if is_first || is_news {
            let is_over = |name: &&StageName| match plan.state(name) {
                Some(PlanState::Fresh(_) | PlanState::Remote(_)) => true,
                Some(state) => match activities.of(state) {
                    Some(Activity::Failed(failure)) => Some(failure.at) >= runs_since,
                    _ => false,
                },
                None => false,
            };
            over = chosen.iter().copied().filter(is_over).collect();
        }
        is_first = false;
        let open = chosen.iter().copied();
        let queued =
            |name: &StageName| activities.queued(&plan.state(name).and_then(PlanState::key)?);
        let open = open.filter(|name| {
            runs(name) || queued(name).is_some() || (planner.has_run() && !over.contains(name))
        });
        let open: Vec<&StageName> = open.collect();
        let job = |name: &StageName| {
            let runs = |key| activities.running_job(&key).map(|job| Said::Runs(job.owner.clone()));
            let queued = queued(name).cloned().map(Said::Queued);
            queued.or_else(|| plan.state(name).and_then(PlanState::key).and_then(runs))
        };
        said.retain(|name, _| job(name).is_some());
        // Also one that was put back, or is held now.
        let news = open.iter().filter_map(|name| {
            let (state, job) = (plan.state(name)?, job(name)?);
            let is_news = said.insert(name, job.clone()).as_ref() != Some(&job);
            is_news.then(|| (*name, Known { state, activity: activities.of(state) }))
        });
        let news: Vec<_> = news.collect();
        let lines = [queued_lines, running_lines].map(|lines| lines(&news, MOST_INSTANCES));
        lines.iter().flatten().for_each(|line| note(&line.to_string()));
        quiet = if open.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET_LOOKS {
            break;
        }
        // Not at once: between two stages of a run there is a moment in which none runs.
        let waits = open.iter().filter(|name| {
            queued(name).is_none() && logs.get(*name).is_some_and(|log| !log.is_growing)
        });
        let waits: Vec<&StageName> = waits.copied().collect();
        if !waits.is_empty() && waits == waits_for && !has_said {
            note(&format!("waits for {} to start", names_in_words(waits.iter().copied())));
            has_said = true;
        }
        waits_for = waits;
        if stop.wait(INTERVAL, || false) {
            output.finish(&mut logs)?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    output.finish(&mut logs)?;
    match chosen {
        [only] if output.shown.is_none() && path(project, &planner.plan, only).is_none() => {
            bail!("'{only}' does not have a log: it has not run yet, and no run is in progress")
        }
        _ if output.shown.is_none()
            && chosen.iter().all(|name| path(project, &planner.plan, name).is_none()) =>
        {
            bail!("none of these has a log: they have not run yet, and no run is in progress")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The newest log of a stage, the key that it is of, and whether it is one of an earlier run.
fn path(project: &Project, plan: &Plan, name: &StageName) -> Option<(PathBuf, StageKey, bool)> {
    places(project, plan, name).find(|(path, _, _)| path.exists())
}

/// A log, as far as it was shown.
#[derive(Default)]
struct FollowedLog {
    /// Which file it is. A stage that runs again writes another one.
    file: Option<Identity>,
    read: u64,
    rest: Unfinished,
    is_growing: bool,
    /// Whether it is another file than before, of which nothing was shown yet.
    runs_again: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Identity {
    path: PathBuf,
    device: u64,
    number: u64,
    /// A number of a file is used again when the file is gone.
    made: Option<SystemTime>,
}

impl Identity {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        let (device, number) = (metadata.dev(), metadata.ino());
        Self { path: path.to_owned(), device, number, made: metadata.created().ok() }
    }
}

impl FollowedLog {
    /// Shows what is new. Returns whether somebody still reads it.
    fn show(&mut self, path: &Path, name: &StageName, output: &mut Output) -> anyhow::Result<bool> {
        // It can be removed at any time, when its stage runs again.
        let Ok(metadata) = fs::metadata(path) else { return Ok(true) };
        let identity = Identity::of(path, &metadata);
        if self.file.as_ref() != Some(&identity) || metadata.len() < self.read {
            if self.file.is_some() {
                output.write(name, &self.rest.take())?;
            }
            let runs_again = self.file.is_some();
            let (file, is_growing) = (Some(identity), self.is_growing);
            *self = Self { file, is_growing, runs_again, ..Self::default() };
        }
        while self.read < metadata.len() {
            let Ok(block) = regular_file::read_part(path, self.read, BLOCK) else {
                return Ok(true);
            };
            if block.is_empty() {
                break;
            }
            if std::mem::take(&mut self.runs_again) {
                note(&format!("{name} runs again: this is its new log"));
            }
            self.read += block.len() as u64;
            if !output.write(name, &self.rest.add(&block, Instant::now()))? {
                return Ok(false);
            }
        }
        if self.rest.is_late(Instant::now()) || !self.is_growing {
            return output.write(name, &self.rest.take());
        }
        Ok(true)
    }
}

/// What was shown so far.
#[derive(Default)]
struct Output {
    /// Whether there are several stages, so that it must be shown whose lines follow.
    has_headings: bool,
    /// Whose lines were shown last.
    shown: Option<StageName>,
    is_within_line: bool,
}

impl Output {
    /// Writes lines of a stage, below a heading where they are not of the one before. Returns whether somebody reads it.
    fn write(&mut self, name: &StageName, lines: &[u8]) -> anyhow::Result<bool> {
        if lines.is_empty() {
            return Ok(true);
        }
        if self.shown.as_ref() != Some(name) {
            if self.has_headings {
                let end = if self.is_within_line { "\n" } else { "" };
                let gap = if self.shown.is_some() { "\n" } else { "" };
                let heading = format!("{end}{gap}==> {name} <==\n");
                if !print_while_read(&heading)? {
                    return Ok(false);
                }
                self.is_within_line = false;
            }
            self.shown = Some(name.clone());
        }
        let goes_on = std::mem::replace(&mut self.is_within_line, lines.last() != Some(&b'\n'));
        print_log_while_read(lines, goes_on)
    }

    /// Writes lines that did not come to their end.
    fn finish(&mut self, logs: &mut BTreeMap<&StageName, FollowedLog>) -> anyhow::Result<()> {
        for (name, log) in logs {
            self.write(name, &log.rest.take())?;
        }
        Ok(())
    }
}
