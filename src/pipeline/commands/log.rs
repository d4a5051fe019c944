//! `pipeline log`: what stages wrote to their logs when they ran last.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};

use super::log_follow;
use super::log_lines::{BLOCK, Unfinished};
use super::newest_log::{LastOfKeys, note_earlier, places};
use super::output::{note, print, print_log_while_read};
use super::project::Project;
use super::status_sheet::{States, queued_lines};
use crate::activity::Activities;
use crate::cache::Record;
use crate::cli::LogArguments;
use crate::format;
use crate::instances::{MOST_INSTANCES, names_in_words};
use crate::key::StageKey;
use crate::plan::Plan;
use crate::regular_file;
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
    file: File,
    /// How much it has. What is added meanwhile is not shown.
    length: u64,
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
            let (file, length) = regular_file::open(&path).ok()?;
            Some(Self { path, file, length, key, is_earlier, record: project.cache.record(&key) })
        })
    }

    fn show(self, plan: &Plan, name: &StageName, is_one_of_several: bool) -> anyhow::Result<()> {
        if self.is_earlier {
            note_earlier(plan, name);
        }
        // Of several, the heading shows it.
        if self.length == 0 && !is_one_of_several {
            note(&format!("{name} wrote nothing to its log ({})", self.path.display()));
        }
        let mut file = self.file.take(self.length);
        let (mut rest, mut is_within_line) = (Unfinished::default(), false);
        loop {
            let mut block = Vec::new();
            let read = file.by_ref().take(BLOCK).read_to_end(&mut block);
            read.with_context(|| format!("cannot read {}", self.path.display()))?;
            let shown = match block.is_empty() {
                true => rest.take(),
                false => rest.add(&block, Instant::now()),
            };
            let goes_on = is_within_line;
            is_within_line = shown.last().map_or(goes_on, |last| *last != b'\n');
            if !print_log_while_read(&shown, goes_on)? || block.is_empty() {
                break;
            }
        }
        // The next heading begins a line.
        if is_one_of_several && is_within_line {
            print("\n")?;
        }
        if let Some(Record { seconds, usage, output, .. }) = &self.record {
            let (took, written) = (format::seconds(*seconds), format::bytes(output.extent.bytes));
            note(&format!("{name} took {took}{}, written {written}", usage.in_words()));
        }
        Ok(())
    }
}
