//! Plain lines on standard error: for logs, and for terminals that cannot draw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::course::Course;
use super::reporter::Reporter;
use crate::events::{Outcome, RunEvent};
use crate::format;
use crate::stage_name::StageName;
use crate::usage;
use crate::visible::note;

/// A stage's progress is shown this often.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes a line when something begins or ends, and from time to time between.
#[derive(Default)]
pub(crate) struct Plain {
    running: BTreeMap<StageName, (Instant, Course)>,
}

impl Plain {
    /// When a line of a stage was written last, and how far it is.
    fn course(&mut self, stage: &StageName) -> &mut (Instant, Course) {
        let new = || (Instant::now(), Course::default());
        self.running.entry(stage.clone()).or_insert_with(new)
    }
}

impl Reporter for Plain {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Progress { stage, progress } => {
                let (last, course) = self.course(stage);
                course.progress(progress);
                if last.elapsed() < INTERVAL {
                    return;
                }
                *last = Instant::now();
                let parts = [course.percent(), course.values(), course.speed()];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                note(&format!("      {stage}: {}", parts.join(", ")));
            }
            RunEvent::Measured { stage, measured } => self.course(stage).1.measured(measured),
            RunEvent::End { stage, .. } | RunEvent::Attempt { stage, .. } => {
                self.running.remove(stage);
                print_line(event);
            }
            _ => print_line(event),
        }
    }
}

/// Prints the line of an event, if it has one.
pub(crate) fn print_line(event: &RunEvent) {
    if let Some(line) = line(event) {
        note(&line);
    }
}

/// The line of an event, for all but progress; bars print the same.
pub(crate) fn line(event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::Start { stage, kind, why, resumes, owner, .. } => {
            let verb = if *resumes { "continues from its checkpoint" } else { "runs" };
            let host = owner.as_ref().map_or(String::new(), |owner| format!(" on {}", owner.host));
            Some(format!("      {stage} ({kind}) {verb}{host}: {why}"))
        }
        RunEvent::Again { stage, kind } => {
            Some(format!("      {stage} ({kind}) runs again in a scratch folder"))
        }
        RunEvent::Attempt { stage, attempt, of, why, log, alone, own_gpu } => {
            let how = match (alone, own_gpu) {
                (true, _) => ", with nothing beside it",
                (false, true) => ", with a GPU of its own",
                (false, false) => "",
            };
            let why = indent(why);
            Some(format!("      {stage}: attempt {attempt} of {of}{how}: {why}{}", last_lines(log)))
        }
        RunEvent::Same { stage, same_as } => {
            Some(format!("      {stage} waits for {same_as}, which does the same"))
        }
        RunEvent::Queued { stage, executor, job } => {
            Some(format!("      {stage} is job {job} of {executor}"))
        }
        RunEvent::Wait { stage } => {
            Some(format!("      {stage} waits: another process does the same work"))
        }
        RunEvent::Note { stage, text } => Some(format!("      {stage}: {}", indent(text))),
        RunEvent::Remark { text } => Some(indent(text)),
        RunEvent::End { stage, outcome, .. } => ending(stage, outcome),
        RunEvent::Stopping { jobs: 0, submission: None } => Some(
            "      stopping: running stages write a checkpoint and leave (again to end them at once)".to_owned(),
        ),
        RunEvent::Stopping { jobs, submission } => {
            let left = match jobs {
                0 => String::new(),
                1 => "1 job goes on elsewhere, and the same command comes back; ".to_owned(),
                jobs => format!("{jobs} jobs go on elsewhere, and the same command comes back; "),
            };
            let (wait, shorter) = submission.map_or_else(Default::default, |wait| {
                let most = format!("a submission is waited for, at most {} s; ", wait.most);
                (most, format!("to wait for it at most {} s, ", wait.again))
            });
            let cancel = if *jobs == 0 { "" } else { "within 3 s to cancel jobs, " };
            Some(format!(
                "      stopping: {left}{wait}what runs here writes a checkpoint and leaves \
                 (again {cancel}{shorter}and to end the rest at once)"
            ))
        }
        RunEvent::Begin { .. }
        | RunEvent::Progress { .. }
        | RunEvent::Measured { .. }
        | RunEvent::Done { .. } => None,
    }
}

fn ending(stage: &StageName, outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Ran { seconds, part, unchanged, forced, .. } => {
            let same = match (unchanged, forced) {
                (true, true) => ", with the same bytes as before",
                (true, false) => ", with the same output as before",
                (false, true) => ", with other bytes than before",
                (false, false) => "",
            };
            Some(format!("done  {stage} in {}{same}", usage::time_in_words(*seconds, *part)))
        }
        Outcome::Failed { message, log, seconds } => {
            let (after, why) = (format::seconds(*seconds), indent(message));
            Some(format!("FAIL  {stage} after {after}: {why}{}", last_lines(log)))
        }
        Outcome::Stopped => Some(format!("stop  {stage}")),
        Outcome::Left => Some(format!("left  {stage}, which goes on elsewhere")),
        Outcome::Fresh { .. }
        | Outcome::Remote { .. }
        | Outcome::Following { .. }
        | Outcome::Waiting(_)
        | Outcome::Skipped { .. } => None,
    }
}

/// The last lines of a log, below a message.
fn last_lines(log: &[String]) -> String {
    let mut text = String::new();
    if !log.is_empty() {
        text.push_str("\n      the last lines of its log:");
    }
    for line in log {
        text.push_str("\n      | ");
        text.push_str(line);
    }
    text
}

fn indent(message: &str) -> String {
    message.replace('\n', "\n      ")
}
