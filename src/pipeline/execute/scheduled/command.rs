//! A scheduler that is asked by commands of the user: for PBS, LSF, Grid Engine and others.

use std::collections::HashMap;
use std::process::Command;
use std::slice::Chunks;
use std::time::Duration;

use super::scheduler::{
    Cause, Ended, JobState, SUBMISSION_LIMIT, Scheduler, Submission, Trouble, ask, ask_until,
    clock, cpus,
};
use crate::deadline::Stop;
use crate::manifest::{CommandTemplates, Failing, WHOLE_GPU};
use crate::shell;

/// How long the other commands may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How many jobs a command is about at most: all of its text is one argument of `sh`, and Linux takes none that is longer than 128 KiB.
const MOST_IDS: usize = 500;

/// The words with which schedulers say that a job has ended, that it waits, and that it does so until somebody lets it go. With any
/// other one, it runs.
const ENDED: [&str; 12] = [
    "C",
    "F",
    "X",
    "DONE",
    "EXIT",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "FINISHED",
    "ENDED",
    "GONE",
];
const QUEUED: [&str; 9] = ["Q", "W", "PD", "QW", "PEND", "PENDING", "QUEUED", "WAIT", "WAITING"];
const HELD: [&str; 5] = ["H", "HQW", "EQW", "PSUSP", "HELD"];

/// Asks by commands of a shell.
pub(super) struct CommandScheduler(pub(super) CommandTemplates);

impl Scheduler for CommandScheduler {
    fn submit(&self, job: &Submission<'_>) -> Result<String, Trouble> {
        let command = shell_command(&submission(&self.0.submit, job)?);
        let printed = ask_until(job.stop, command, SUBMISSION_LIMIT)?;
        // What is printed before the id may have a digit, too: the name of a node, say.
        id(&printed).filter(|id| !job.others.contains(id)).ok_or_else(|| {
            let printed = printed.trim();
            Trouble::Refused(format!("'submit' did not print the id of a new job, but '{printed}'"))
        })
    }

    fn states(&self, ids: &[String], stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        let mut all = HashMap::new();
        for ids in parts(&self.0.state, ids) {
            // Whoever fails to answer knows nothing of any job, and not that they are gone.
            let printed = ask_until(stop, shell_command(&with_ids(&self.0.state, ids)), LIMIT)
                .map_err(|trouble| Trouble::Away(trouble.words().to_owned()))?;
            let states: HashMap<&str, JobState> = printed.lines().filter_map(state).collect();
            let known = |id: &String| Some((id.clone(), states.get(number(id))?.clone()));
            all.extend(ids.iter().filter_map(known));
        }
        Ok(all)
    }

    fn cancel(&self, ids: &[String]) -> Result<(), Trouble> {
        let mut refused = Ok(());
        for ids in parts(&self.0.cancel, ids) {
            match ask(shell_command(&with_ids(&self.0.cancel, ids)), LIMIT) {
                Ok(_) => {}
                Err(trouble @ Trouble::Away(_)) => return Err(trouble),
                // One of them may have ended by itself: that is nothing against the others.
                Err(trouble) => refused = Err(trouble),
            }
        }
        refused
    }

    fn may_be_mute(&self) -> bool {
        true
    }
}

/// How a person cancels jobs in a shell, in one line.
pub(super) fn cancel_command(templates: &CommandTemplates, ids: &[String]) -> String {
    with_ids(&templates.cancel.trim().replace('\n', "; "), ids)
}

fn shell_command(text: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", text]);
    command
}

/// These ids, as many at once as a command takes: one that does not name any is about all.
fn parts<'a>(template: &str, ids: &'a [String]) -> Chunks<'a, String> {
    ids.chunks(if template.contains("{ids}") { MOST_IDS } else { ids.len().max(1) })
}

fn with_ids(template: &str, ids: &[String]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| shell::quoted(id)).collect();
    template.replace("{ids}", &ids.join(" "))
}

/// The command that submits a job.
fn submission(template: &str, job: &Submission<'_>) -> Result<String, Trouble> {
    let (takes, time) = (&job.stage.execution.takes, job.stage.execution.time);
    let number = |number: u64| number.to_string();
    let quoted = |value: &str| shell::quoted(value).into_owned();
    // Asked for only where it is used: what it is without a word of the stage, no scheduler knows.
    for (name, key, is_known) in [
        ("memory", "memory", takes.memory.is_some()),
        ("time", "time", time.is_some()),
        ("minutes", "time", time.is_some()),
    ] {
        if !is_known && template.contains(&format!("{{{name}}}")) {
            return Err(Trouble::Refused(format!(
                "it uses {{{name}}} in 'submit', and the stage does not say its '{key}' in 'execution'"
            )));
        }
    }
    let values = [
        ("script", shell::quoted_path(&job.folder.script()).into_owned()),
        ("name", quoted(job.stage.name.as_str())),
        ("key", quoted(&job.key)),
        ("cpus", number(cpus(job.stage).unwrap_or(1).into())),
        ("gpus", number(takes.gpus.unwrap_or(0).div_ceil(WHOLE_GPU).into())),
        ("memory", number(takes.memory.unwrap_or(0).div_ceil(1 << 20))),
        ("time", clock(time.unwrap_or(0))),
        ("minutes", number(time.unwrap_or(0).div_ceil(60))),
    ];
    Ok(filled(template, &values))
}

/// A template with these values, in which braces mean nothing.
fn filled(template: &str, values: &[(&str, String)]) -> String {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let value = values.iter().find_map(|(name, value)| {
            Some((value.as_str(), after.strip_prefix(name)?.strip_prefix('}')?))
        });
        let (found, left) = value.unwrap_or(("{", after));
        text.extend([before, found]);
        rest = left;
    }
    text + rest
}

/// The id of a job in what `submit` printed: the first word with a digit in it. `Job <12> is submitted`, `12.server`.
fn id(printed: &str) -> Option<String> {
    let words = printed.split_whitespace();
    let word =
        words.into_iter().find(|word| word.contains(|letter: char| letter.is_ascii_digit()))?;
    let is_around = |letter: char| !letter.is_ascii_alphanumeric();
    Some(word.trim_matches(is_around).to_owned())
}

/// What distinguishes ids: PBS shows `12.server` as `12.serv`.
fn number(id: &str) -> &str {
    let end = id.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(id.len());
    if end == 0 { id } else { &id[..end] }
}

/// What a line of `state` says: of which job, and where that is.
fn state(line: &str) -> Option<(&str, JobState)> {
    let mut words = line.split_whitespace();
    let id = words.next()?;
    let word = words.next()?;
    let upper = word.to_ascii_uppercase();
    let state = if ENDED.contains(&upper.as_str()) {
        let (failing, cause) = match &*upper {
            "CANCELLED" => (Some(Failing::Failure), Cause::Person),
            "TIMEOUT" => (Some(Failing::Timeout), Cause::Machine),
            // With most of them, also of a job that was killed.
            _ => (None, Cause::Job),
        };
        JobState::Ended(Ended::with_word(word, failing, cause))
    } else if QUEUED.contains(&upper.as_str()) {
        JobState::Queued(None)
    } else if HELD.contains(&upper.as_str()) {
        JobState::Held(word.to_owned())
    } else {
        JobState::Running
    };
    Some((number(id), state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in_one_pass() {
        let values = [("script", "/x/{key}/s".to_owned()), ("key", "{script}".to_owned())];
        for (template, expected) in [
            ("qsub {script} {key}", "qsub /x/{key}/s {script}"),
            ("{key}{key}", "{script}{script}"),
            ("{{key}} ${key} {key", "{{script}} ${script} {key"),
            ("{other} {} größe{key}", "{other} {} größe{script}"),
            ("", ""),
        ] {
            assert_eq!(filled(template, &values), expected, "{template}");
        }
    }

    #[test]
    fn thousands_of_jobs_are_asked_for_and_cancelled() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| shell::quoted_path(&folder.path().join(name)).into_owned();
        let (asked, cancelled) = (file("asked"), file("cancelled"));
        let scheduler = |state: &str, cancel: &str| {
            let (state, cancel) = (state.to_owned(), cancel.to_owned());
            CommandScheduler(CommandTemplates { submit: String::new(), state, cancel })
        };
        // As LSF may number them, and more than one argument can hold.
        let ids: Vec<String> =
            (0..14_000).map(|number| format!("{}", 900_000_000 + number)).collect();
        let lines = |name: &str| {
            std::fs::read_to_string(folder.path().join(name)).map_or(0, |text| text.lines().count())
        };
        let state = format!("echo >> {asked}; printf '%s RUN\\n' {{ids}}");
        // It refuses a part, as some have ended by themselves.
        let cancel =
            format!("printf '%s\\n' {{ids}} >> {cancelled}; test $(wc -l < {cancelled}) != 500");
        let by_ids = scheduler(&state, &cancel);
        let states = by_ids.states(&ids, &Stop::default()).expect("an answer");
        assert!(
            ids.iter().all(|id| states.get(id) == Some(&JobState::Running)),
            "{}",
            states.len()
        );
        assert!(matches!(by_ids.cancel(&ids), Err(Trouble::Refused(_))));
        assert_eq!(lines("cancelled"), 14_000, "whatever it has said of the first ones");
        assert_eq!(lines("asked"), 28);

        let all =
            scheduler(&format!("echo >> {asked}; seq 900000000 900013999 | sed 's/$/ Q/'"), "");
        let states = all.states(&ids, &Stop::default()).expect("an answer");
        assert_eq!((states.len(), lines("asked")), (14_000, 29), "asked once");

        // One that does not answer is not asked for the others.
        let away = scheduler("", &format!("printf '%s\\n' {{ids}} >> {cancelled}; exit 75"));
        assert!(matches!(away.cancel(&ids), Err(Trouble::Away(_))));
        assert_eq!(lines("cancelled"), 14_500);
    }

    #[test]
    fn ids_are_found_in_what_schedulers_print() {
        for (printed, expected) in [
            ("12\n", Some("12")),
            ("12.server.example.org\n", Some("12.server.example.org")),
            ("Job <12> is submitted to default queue <q1>.\n", Some("12")),
            ("Your job 12 (\"train\") has been submitted\n", Some("12")),
            ("Submitted batch job 12\n", Some("12")),
            ("no\n", None),
            ("", None),
        ] {
            assert_eq!(id(printed).as_deref(), expected, "{printed}");
        }
        assert_eq!((number("12.serv"), number("12.server"), number("a12")), ("12", "12", "a12"));
    }

    #[test]
    fn the_words_of_schedulers_are_known() {
        let ended = |word: &str| JobState::Ended(Ended::with_word(word, None, Cause::Job));
        let exact = |word: &str, failing, cause| {
            JobState::Ended(Ended::with_word(word, Some(failing), cause))
        };
        for (line, expected) in [
            ("12.serv Q", Some(("12", JobState::Queued(None)))),
            ("12 qw user", Some(("12", JobState::Queued(None)))),
            ("12 PEND", Some(("12", JobState::Queued(None)))),
            ("12 Eqw", Some(("12", JobState::Held("Eqw".to_owned())))),
            ("12 RUN", Some(("12", JobState::Running))),
            ("12 r", Some(("12", JobState::Running))),
            ("12 E", Some(("12", JobState::Running))),
            ("12 DONE", Some(("12", ended("DONE")))),
            ("12 F", Some(("12", ended("F")))),
            ("12 EXIT", Some(("12", ended("EXIT")))),
            ("12 CANCELLED", Some(("12", exact("CANCELLED", Failing::Failure, Cause::Person)))),
            ("12 Timeout", Some(("12", exact("Timeout", Failing::Timeout, Cause::Machine)))),
            ("12", None),
            ("", None),
        ] {
            assert_eq!(state(line), expected, "{line}");
        }
    }
}
