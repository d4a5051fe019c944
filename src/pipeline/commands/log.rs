//! `pipeline log`: what stages wrote to their logs when they ran last.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::log_follow;
use super::newest_log::{LastOfKeys, note_earlier, places};
use super::output::{note, print, print_raw};
use super::project::Project;
use super::status_sheet::{States, queued_lines};
use crate::activity::Activities;
use crate::cache::Record;
use crate::cli::LogArguments;
use crate::format;
use crate::instances::{MOST_INSTANCES, names_in_words};
use crate::key::StageKey;
use crate::plan::Plan;
use crate::stage_name::StageName;

pub(crate) fn run(arguments: &LogArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let chosen = project.choose(&arguments.manifest.stages())?;
    if arguments.follow {
        return log_follow::follow(&project, &chosen);
    }
    // In this order, as `status` looks.
    let activities = Activities::look(&project.cache);
    let plan = project.plan(&project.with_inputs(&chosen));
    let last = LastOfKeys::look(&project);
    let (mut shown, mut without) = (0, Vec::new());
    for name in &chosen {
        let Some(log) = Log::find(&project, &plan, name) else {
            without.push(*name);
            continue;
        };
        // As `head` and `tail` do it.
        if chosen.len() > 1 {
            let gap = if shown == 0 { "" } else { "\n" };
            print(&format!("{gap}==> {name} <==\n"))?;
        }
        last.note_other(&project, name, &log.key);
        log.show(&plan, name, chosen.len() > 1)?;
        shown += 1;
    }
    let states = States::look(&project, &chosen, &plan, &activities);
    let queued = queued_lines(&states.known, MOST_INSTANCES);
    queued.iter().for_each(|line| note(&line.to_string()));
    match (shown, without.as_slice()) {
        (_, []) => {}
        (0, [only]) => bail!("'{only}' does not have a log: it has not run yet"),
        (0, _) => bail!("none of these has a log: they have not run yet"),
        _ => note(&format!("without a log, as they have not run yet: {}", names_in_words(without))),
    }
    Ok(ExitCode::SUCCESS)
}

/// The log of a stage.
struct Log {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The key that it is of.
    key: StageKey,
    /// Whether it is of an earlier run, with another key.
    is_earlier: bool,
    /// The result of its key.
    record: Option<Record>,
}

impl Log {
    /// The newest log of a stage.
    fn find(project: &Project, plan: &Plan, name: &StageName) -> Option<Self> {
        places(project, plan, name).find_map(|(path, key, is_earlier)| {
            let bytes = fs::read(&path).ok()?;
            Some(Self { path, bytes, key, is_earlier, record: project.cache.record(&key) })
        })
    }

    fn show(&self, plan: &Plan, name: &StageName, is_one_of_several: bool) -> anyhow::Result<()> {
        if self.is_earlier {
            note_earlier(plan, name);
        }
        // Of several, the heading shows it.
        if self.bytes.is_empty() && !is_one_of_several {
            note(&format!("{name} wrote nothing to its log ({})", self.path.display()));
        }
        print_raw(&self.bytes)?;
        // The next heading begins a line.
        if is_one_of_several && self.bytes.last().is_some_and(|last| *last != b'\n') {
            print("\n")?;
        }
        if let Some(Record { seconds, usage, output, .. }) = &self.record {
            let (took, written) = (format::seconds(*seconds), format::bytes(output.extent.bytes));
            note(&format!("{name} took {took}{}, written {written}", usage.in_words()));
        }
        Ok(())
    }
}
