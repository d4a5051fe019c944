//! `pipeline status --watch`: the states again and again, until nothing runs.
//!
//! The files outside the cache are read once. What is looked at again is what runs, and the plan when something began or
//! ended.

use std::process::ExitCode;
use std::time::Duration;

use super::output::{print_coloured, print_coloured_while_read};
use super::planner::Planner;
use super::project::Project;
use super::status_sheet::{self, LastRuns, Sheet, SheetRow, States};
use crate::activity::Activities;
use crate::screen::{self, Page, Size};
use crate::signals::{INTERRUPTED, StopFlag};
use crate::stage_name::StageName;
use crate::state_words::ShownState;
use crate::width;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks of which nothing may run before it ends: a run that has just been started is not the end.
const QUIET_LOOKS: u32 = 2;

pub(super) fn watch(
    project: &Project,
    chosen: &[&StageName],
    all: bool,
    usage: bool,
) -> anyhow::Result<ExitCode> {
    let stop = StopFlag::listen()?;
    let mut planner = Planner::new(project, chosen);
    let mut page = None;
    let mut shown = Vec::new();
    let mut quiet = 0;
    let mut last_runs = LastRuns::of(project, usage);
    loop {
        let activities = Activities::look(&project.cache);
        // What is shown last must be true.
        if planner.renew(&activities, quiet > 0) {
            last_runs = LastRuns::of(project, usage);
        }
        let states = States::look(project, chosen, &planner.plan, &activities);
        let is_over = !planner.has_run()
            && !states.known.iter().any(|(_, known)| {
                matches!(known.shown(), ShownState::Running | ShownState::Queued)
            });
        quiet = if is_over { quiet + 1 } else { 0 };
        let is_last = quiet >= QUIET_LOOKS;
        match screen::of_output().filter(|_| screen::output_can_be_drawn()) {
            Some(_) if is_last => break,
            Some(size) => {
                let sheet = Sheet::of(&last_runs, &states, all);
                if page.is_none() {
                    page = Some(Page::open()?);
                }
                let draw = |size| match &page {
                    Some(page) => page.draw(&lines(project, &sheet, size), size),
                    None => Ok(()),
                };
                draw(size)?;
                let mut drawn = size;
                // Another size is drawn at once.
                let stopped = stop.wait(INTERVAL, || {
                    if let Some(size) = screen::of_output().filter(|size| *size != drawn) {
                        drawn = size;
                        return draw(size).is_err();
                    }
                    false
                });
                if stopped {
                    return Ok(ExitCode::from(INTERRUPTED));
                }
            }
            None => {
                // Not with every step: only when a stage begins, ends, or goes on to its next epoch.
                let now = fingerprints(&states);
                if now != shown {
                    let gap = if shown.is_empty() { "" } else { "\n" };
                    if !print_coloured_while_read(&format!(
                        "{gap}{}",
                        text(&last_runs, &states, all)
                    ))? {
                        return Ok(ExitCode::SUCCESS);
                    }
                    shown = now;
                }
                if is_last {
                    return Ok(ExitCode::SUCCESS);
                }
                if stop.wait(INTERVAL, || false) {
                    return Ok(ExitCode::from(INTERRUPTED));
                }
            }
        }
    }
    drop(page);
    let activities = Activities::look(&project.cache);
    let states = States::look(project, chosen, &planner.plan, &activities);
    print_coloured(&text(&last_runs, &states, all))?;
    Ok(ExitCode::SUCCESS)
}

fn fingerprints(states: &States<'_>) -> Vec<String> {
    let known = states.known.iter().map(|(_, known)| match &known.activity {
        Some(activity) => activity.fingerprint(),
        None => known.shown().name().to_owned(),
    });
    let running = states.others.running.iter().map(|running| running.stage.to_string());
    let queued = states.others.queued.iter().map(|job| format!("queued {}", job.stage));
    known.chain(running).chain(queued).collect()
}

/// All of it, for standard output that is not a terminal, and at the end.
fn text(last_runs: &LastRuns<'_>, states: &States<'_>, all: bool) -> String {
    let (table, lines) = Sheet::of(last_runs, states, all).into_text();
    let gap = if lines.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{lines}")
}

/// As much of it as a terminal can show: what is finished is left out first.
fn lines(project: &Project, sheet: &Sheet, size: Size) -> Vec<String> {
    let experiment = &project.manifest.experiment.name;
    let title = format!("{experiment}   (Ctrl-C ends this view, not the run)");
    let ranks: Vec<ShownState> = sheet.rows.iter().skip(1).map(|row| row.shown).collect();
    let ranks_of_notes: Vec<ShownState> = sheet.lines.iter().map(|line| line.shown).collect();
    // The title, a gap, the heading, a gap.
    let room = size.height.saturating_sub(4);
    let room_of_notes = room.div_ceil(2).max(room.saturating_sub(ranks.len()));
    let (kept_notes, all_notes) = most_important(&ranks_of_notes, room_of_notes);
    let room_of_rows = room.saturating_sub(kept_notes.len() + usize::from(!all_notes));
    let (kept_rows, all_rows) = most_important(&ranks, room_of_rows);
    let mut cells: Vec<_> = sheet.rows.iter().take(1).map(|row| row.cells.clone()).collect();
    cells.extend(kept_rows.iter().filter_map(|&row| Some(sheet.rows.get(row + 1)?.cells.clone())));
    // Only the table has colours; everything else is cut as it is.
    let plain = |line: &str| screen::cut(line, size);
    let mut lines = vec![plain(&title), String::new()];
    lines.extend(status_sheet::table(&cells).for_page(size.width));
    if !all_rows {
        let left_out = (0..ranks.len()).filter(|row| !kept_rows.contains(row));
        let left_out = left_out.filter_map(|row| sheet.rows.get(row + 1));
        let (finished, others): (Vec<_>, Vec<_>) =
            left_out.partition(|row| row.shown == ShownState::Fresh);
        let count = |rows: &[&SheetRow]| rows.iter().map(|row| row.stages).sum();
        let counts: [(usize, &str); 2] = [
            (count(&finished), "fresh"),
            (count(&others), if count(&others) == 1 { "other" } else { "others" }),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        lines.push(plain(&format!("… and {}", counts.join(", "))));
    }
    lines.push(String::new());
    let kept: Vec<_> = kept_notes.iter().filter_map(|&note| sheet.lines.get(note)).collect();
    let names: Vec<&str> = kept.iter().map(|line| line.name.as_str()).collect();
    let names = width::names(&names, (size.width / 3).max(16));
    let notes = names.iter().zip(&kept);
    lines.extend(notes.map(|(name, line)| plain(&format!("{name}{}", line.text))));
    if !all_notes {
        lines.push(plain(&format!("… and {} more", ranks_of_notes.len() - kept_notes.len())));
    }
    lines.truncate(size.height);
    lines
}

/// The places of the most important ones, in their order, and whether that is all of them. Where it is not, a line is left
/// that counts the others.
fn most_important(ranks: &[ShownState], most: usize) -> (Vec<usize>, bool) {
    let mut places: Vec<usize> = (0..ranks.len()).collect();
    if places.len() <= most {
        return (places, true);
    }
    places.sort_by_key(|&place| std::cmp::Reverse(ranks.get(place).copied()));
    places.truncate(most.saturating_sub(1));
    places.sort_unstable();
    (places, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_is_left_out_first() {
        use ShownState::{Dirty, Fresh, Running, Waiting};
        let ranks = [Fresh, Running, Waiting, Fresh, Dirty, Running];
        for (most, kept) in
            [(9, vec![0, 1, 2, 3, 4, 5]), (5, vec![1, 2, 4, 5]), (3, vec![1, 5]), (0, vec![])]
        {
            assert_eq!(most_important(&ranks, most), (kept, most > 5), "{most}");
        }
    }
}
