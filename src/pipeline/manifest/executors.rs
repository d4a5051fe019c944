//! `[executors.NAME]` of a manifest or of the user: where stages run that do not run in this process. In no key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::hint::{did_you_mean, listed};
use super::values::{
    Value, found, known_table, not_a_table, nul_mistake, text, whole_number, with_nul,
};
use crate::diagnostic::Mistake;
use crate::stage_name::check_name;

/// What runs a stage in this process, where something else would run it otherwise.
pub(crate) const LOCAL: &str = "local";

/// The executors that there are, by name.
pub(crate) type Executors = BTreeMap<String, ExecutorSettings>;

/// Where jobs run, and how they get there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecutorSettings {
    /// How many of its jobs there are at once, of one run.
    pub(crate) max_jobs: Option<u32>,
    /// The folder that has both programs where jobs run. By default it is where they are here.
    pub(crate) path: Option<PathBuf>,
    /// Lines of a shell that each job begins with.
    pub(crate) setup: Option<String>,
    pub(crate) scheduler: SchedulerSettings,
}

/// What is asked to run jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SchedulerSettings {
    /// Commands of the user.
    Command(CommandTemplates),
    Slurm(SlurmSettings),
}

/// What `sbatch` is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlurmSettings {
    pub(crate) partition: Option<String>,
    /// How much time a job has, in Slurm's own words.
    pub(crate) time: Option<String>,
    /// More options. They come last, and win.
    pub(crate) options: Vec<String>,
}

/// Commands of a shell with `{...}` in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandTemplates {
    /// Submits a job, and prints its id.
    pub(crate) submit: String,
    /// Prints a line for each job that is known: its id, and its state.
    pub(crate) state: String,
    /// Ends jobs.
    pub(crate) cancel: String,
}

/// The kinds of executors, each with its own keys.
pub(super) const EXECUTOR_KINDS: [(&str, &[&str]); 2] =
    [("slurm", &["partition", "time", "options"]), (COMMAND, &["submit", "state", "cancel"])];
/// The kind that needs all of its own keys.
pub(super) const COMMAND: &str = "command";
/// The keys that every executor can have.
pub(super) const EXECUTOR_KEYS: [&str; 4] = ["kind", "max-jobs", "path", "setup"];

/// The options of `sbatch` that jobs are submitted, found and followed with: long, short, and what to do instead.
const OWN_OPTIONS: [(&str, &str, &str); 7] = [
    ("array", "a", "instances of a stage that are ready together are one array by themselves"),
    ("clusters", "M", "SLURM_CLUSTERS of the environment is for all commands of Slurm"),
    ("comment", "", "a job is found by its comment; --job-name or --wckey can say what it is for"),
    ("output", "o", "what a job prints is in its folder in the cache, and `pipeline log` shows it"),
    ("parsable", "", "it is given for each job"),
    ("wait", "W", "`pipeline run` waits for its jobs"),
    ("wrap", "", "lines that each job begins with are in 'setup'"),
];

/// The words in braces that stand for something in `submit`, and in `state` and `cancel`.
const SUBMIT_WORDS: [&str; 8] =
    ["script", "name", "key", "cpus", "gpus", "memory", "time", "minutes"];
const IDS: &str = "ids";
/// Words in braces that are programs of awk.
const AWK_WORDS: [&str; 3] = ["print", "next", "exit"];

/// Reads the table of executors of a manifest or of the user.
pub(super) fn read(value: &Value<'_>, mistakes: &mut Vec<Mistake>) -> Executors {
    let DeValue::Table(table) = value.get_ref() else {
        let help = "an executor is a table: [executors.NAME] and, below it, kind = \"...\"";
        mistakes.push(not_a_table("executors", value).help(help));
        return Executors::new();
    };
    let executors = table.iter().filter_map(|(key, value)| {
        let name: &str = key.as_ref();
        let reason = match name {
            LOCAL => Err("it means that a stage runs in the process of `pipeline run`".to_owned()),
            name => check_name(name),
        };
        if let Err(reason) = reason {
            let title = format!("{name:?} cannot be the name of an executor: {reason}");
            mistakes.push(Mistake::at(key.span(), title));
        }
        Some((name.to_owned(), read_one(name, value, mistakes)?))
    });
    executors.collect()
}

fn read_one(
    name: &str,
    value: &Value<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<ExecutorSettings> {
    let DeValue::Table(table) = value.get_ref() else {
        mistakes.push(not_a_table(&format!("executors.{name}"), value));
        return None;
    };
    let kinds = || EXECUTOR_KINDS.into_iter().map(|(kind, _)| kind);
    let help = format!("the kinds of executors: {}", listed(kinds(), "and"));
    let Some(kind) = table.get("kind") else {
        let title = format!("the executor '{name}' does not have a kind");
        mistakes.push(Mistake::at(value.span(), title).help(help));
        return None;
    };
    let given = text("kind", kind).map_err(|mistake| mistakes.push(mistake)).ok()?;
    let Some((kind, own)) = EXECUTOR_KINDS.into_iter().find(|(kind, _)| *kind == given) else {
        let hint = did_you_mean(given, kinds()).map_or(String::new(), |hint| format!(", {hint}"));
        let title = format!("unknown kind of executor '{given}'{hint}");
        mistakes.push(Mistake::at(kind.span(), title).help(help));
        return None;
    };
    let keys: Vec<&'static str> = EXECUTOR_KEYS.into_iter().chain(own.iter().copied()).collect();
    let table = known_table(&format!("executors.{name}"), value, &keys, mistakes)?;
    let mut reader = Reader { name, value, table, mistakes };
    let scheduler = match kind {
        "slurm" => Some(SchedulerSettings::Slurm(reader.slurm())),
        _ => reader.command().map(SchedulerSettings::Command),
    };
    let (max_jobs, path) = (reader.number("max-jobs"), reader.folder("path"));
    let setup = reader.optional("setup");
    Some(ExecutorSettings { max_jobs, path, setup, scheduler: scheduler? })
}

/// Reads the keys of one executor.
struct Reader<'r, 'i> {
    name: &'r str,
    value: &'r Value<'i>,
    table: &'r DeTable<'i>,
    mistakes: &'r mut Vec<Mistake>,
}

impl Reader<'_, '_> {
    fn checked<T>(&mut self, read: Result<T, Mistake>) -> Option<T> {
        read.map_err(|mistake| self.mistakes.push(mistake)).ok()
    }

    fn optional(&mut self, key: &'static str) -> Option<String> {
        let value = self.table.get(key)?;
        if with_nul(value).is_some() {
            self.mistakes.push(nul_mistake(key, value.span()));
            return None;
        }
        self.checked(text(key, value).map(str::to_owned))
    }

    fn number(&mut self, key: &'static str) -> Option<u32> {
        let value = self.table.get(key)?;
        let number = whole_number(key, value, 1, u32::MAX.into());
        self.checked(number)?.try_into().ok()
    }

    fn slurm(&mut self) -> SlurmSettings {
        let (partition, time) = (self.optional("partition"), self.optional("time"));
        let options = self.list("options");
        self.check_options();
        SlurmSettings { partition, time, options }
    }

    /// Refuses the options without which jobs could not be found, and words that `sbatch` would take for a script.
    fn check_options(&mut self) {
        let Some(DeValue::Array(items)) = self.table.get("options").map(Spanned::get_ref) else {
            return;
        };
        let mut takes_value = false;
        for item in items {
            let DeValue::String(word) = item.get_ref() else { continue };
            let is_option = word.starts_with('-') && !matches!(&**word, "-" | "--");
            let own = OWN_OPTIONS.iter().find(|(long, short, _)| is_this(word, long, short));
            if let Some((long, _, instead)) = own.filter(|_| is_option) {
                let title = format!("'{word}' of 'options': --{long} is for this program alone");
                self.mistakes.push(Mistake::at(item.span(), title).help(*instead));
            } else if !is_option && !takes_value {
                let title = format!("'{word}' of 'options' is not an option of sbatch");
                let help = "options = [\"--gres=gpu:1\"], or [\"--gres\", \"gpu:1\"]";
                self.mistakes.push(Mistake::at(item.span(), title).help(help));
            }
            let is_whole = !word.starts_with("--") && word.len() > 2 || word.contains('=');
            takes_value = is_option && !is_whole;
        }
    }

    fn command(&mut self) -> Option<CommandTemplates> {
        // Each is read, so that all mistakes are shown.
        let submit = self.template("submit", Some("script"), &SUBMIT_WORDS);
        let state = self.template("state", None, &[IDS]);
        let cancel = self.template("cancel", Some(IDS), &[IDS]);
        Some(CommandTemplates { submit: submit?, state: state?, cancel: cancel? })
    }

    /// Texts.
    fn list(&mut self, key: &'static str) -> Vec<String> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let title = format!("'{key}' must be a list, but is {}", found(value.get_ref()));
            let help = format!("{key} = [\"--gres=gpu:1\"]");
            self.mistakes.push(Mistake::at(value.span(), title).help(help));
            return Vec::new();
        };
        if let Some(value) = with_nul(value) {
            self.mistakes.push(nul_mistake(key, value.span()));
        }
        let texts = items.iter().map(|item| text(key, item).map(str::to_owned));
        texts.filter_map(|read| self.checked(read)).collect()
    }

    /// The absolute path of a folder.
    fn folder(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.optional(key)?);
        if path.is_absolute() {
            return Some(path);
        }
        let title = format!("'{key}' must be an absolute path, but is '{}'", path.display());
        self.mistakes.push(Mistake::at(self.table.get(key)?.span(), title));
        None
    }

    /// A command with this placeholder in it, and no others than these.
    fn template(
        &mut self,
        key: &'static str,
        needed: Option<&str>,
        known: &[&str],
    ) -> Option<String> {
        if self.table.get(key).is_none() {
            let title = format!("the executor '{}' does not have '{key}'", self.name);
            let help = "an executor of the kind command has submit, state and cancel";
            self.mistakes.push(Mistake::at(self.value.span(), title).help(help));
            return None;
        }
        let template = self.optional(key)?;
        let span = self.table.get(key)?.span();
        // Others are words of the scheduler's own: `flux jobs -no '{id} {status}'`.
        let meant = |word: &&str| {
            !known.contains(word) && did_you_mean(word, known.iter().copied()).is_some()
        };
        if let Some(unknown) = placeholders(&template).find(meant) {
            let title = format!(
                "'{key}' of the executor '{}' uses {{{unknown}}}, which is not known here",
                self.name
            );
            let all: Vec<String> = known.iter().map(|word| format!("{{{word}}}")).collect();
            let help = format!("there is {}", listed(all.iter().map(String::as_str), "and"));
            self.mistakes.push(Mistake::at(span, title).help(help));
            return None;
        }
        let is_missing = |needed: &&str| !template.contains(&format!("{{{needed}}}"));
        if let Some(missing) = needed.filter(is_missing) {
            let title =
                format!("'{key}' of the executor '{}' does not use {{{missing}}}", self.name);
            self.mistakes.push(Mistake::at(span, title));
            return None;
        }
        Some(template)
    }
}

/// The words in braces of a command that are meant to stand for something: `{cpus}`, and not `${HOME}`, `{ print $1 }` or `{a,b}`.
fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    let parts = template.match_indices('{').filter_map(|(at, _)| {
        let (word, _) = template[at + 1..].split_once('}')?;
        let is_word = !word.is_empty()
            && word.bytes().all(|letter| letter.is_ascii_lowercase() || b"-_".contains(&letter));
        (is_word && !template[..at].ends_with('$')).then_some(word)
    });
    parts.filter(|word| !AWK_WORDS.contains(word))
}

/// Whether a word says this option: by its long name, of which `sbatch` takes the beginning, too, or its short one.
fn is_this(word: &str, long: &str, short: &str) -> bool {
    match word.strip_prefix("--") {
        Some(name) => long.starts_with(name.split('=').next().unwrap_or(name)),
        None => {
            !short.is_empty() && word.strip_prefix('-').is_some_and(|name| name.starts_with(short))
        }
    }
}

/// The mistake of a stage whose executor nobody has declared.
pub(crate) fn unknown_executor(name: &str, known: &Executors) -> (String, String) {
    let title = format!("there is no executor '{name}'");
    let help = match did_you_mean(name, known.keys().map(String::as_str)) {
        Some(hint) => hint,
        None if known.is_empty() => {
            "an executor is a table [executors.NAME] of the manifest, or of your config.toml"
                .to_owned()
        }
        None => format!("there are: {}", listed(known.keys().map(String::as_str), "and")),
    };
    (title, help)
}

/// The name of an executor in `execution` of a stage: one that an executor can have, whether there is one or not.
pub(super) fn read_name(value: &Value<'_>) -> Result<String, Mistake> {
    let title = match value.get_ref() {
        DeValue::String(name) => match check_name(name) {
            Ok(()) => return Ok(name.to_string()),
            Err(reason) => format!("{name:?} cannot be the name of an executor: {reason}"),
        },
        other => format!("'executor' must be the name of an executor, but is {}", found(other)),
    };
    Err(Mistake::at(value.span(), title).help("executor = \"gpu\", or \"local\""))
}
