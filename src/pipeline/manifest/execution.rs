//! How stages are run, and what they may take of a machine: `[execution]` of a manifest or of the user, and `execution` of a
//! stage. None of it can change a result.

use std::collections::BTreeSet;

use pipeline_stages::message::{Device, Execution};
use pipeline_stages::{KindInfo, WorkerProgram};
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use super::executors;
use super::hint::{did_you_mean, listed};
use super::resources::{self, Resources};
use super::values::{Value, found, known_table, text, whole_number};
use crate::diagnostic::Mistake;
use crate::format;

/// The keys of the table `[execution]`: the first ones of a stage. The others only say something of one stage.
pub(super) const EXECUTION_KEYS: [&str; 10] = match STAGE_EXECUTION_KEYS.first_chunk() {
    Some(keys) => *keys,
    None => panic!("a stage has more keys"),
};
/// The keys of `execution = { ... }` in a stage.
pub(super) const STAGE_EXECUTION_KEYS: [&str; 12] = [
    "device",
    "threads",
    "checkpoint-seconds",
    "timeout-seconds",
    "time",
    "attempts",
    "cpus",
    "gpus",
    "memory",
    "resources",
    "priority",
    "executor",
];
/// The keys of `attempts = { ... }`.
pub(super) const ATTEMPTS_KEYS: [&str; 2] = ["count", "on"];
/// The most attempts.
pub(super) const MOST_ATTEMPTS: u32 = 100;
/// The largest priority; its opposite is the smallest one.
pub(super) const LARGEST_PRIORITY: i32 = 1_000_000;
/// A whole GPU, in the parts in which it is shared.
pub(crate) const WHOLE_GPU: u32 = 1000;
/// The most hours, or days, in the time of a job: what is longer is a slip.
const MOST_HOURS: u64 = 100_000;
/// The most GPUs that a stage can take.
pub(super) const MOST_GPUS: u32 = 1024;
/// The most cores that a stage, or a run, can take, and threads of a worker: what is more is a slip, and as many threads as
/// somebody can write bring a machine down.
pub(crate) const MOST_CORES: u32 = 1024;

/// How a stage is run: none of this can change a result.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct StageExecution {
    /// The settings for the worker.
    pub(crate) execution: Execution,
    /// Seconds after which the worker is stopped and the stage has failed. `None` for no limit.
    pub(crate) timeout_seconds: Option<u64>,
    /// Seconds that it asks an executor for, as a job. `None` for what the executor asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<u64>,
    /// What it takes of the machine.
    #[serde(default)]
    pub(crate) takes: Takes,
    /// Stages with a higher one start first.
    #[serde(default)]
    pub(crate) priority: i32,
    #[serde(default)]
    pub(crate) attempts: Attempts,
    /// Where it runs, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) executor: Option<String>,
}

impl StageExecution {
    /// A stage that does not use many cores by itself takes a core for each of the threads that it says it has.
    pub(super) fn take_for_threads(&mut self, value: &Value<'_>) {
        let says = value.get_ref().as_table().is_some_and(|table| table.contains_key("threads"));
        if says && self.takes.cpus.is_none() {
            self.takes.cpus = self.execution.threads;
        }
    }
}

/// What a stage takes of the machine while it runs, as far as it says so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Takes {
    pub(crate) cpus: Option<u32>,
    /// In parts of [`WHOLE_GPU`].
    pub(crate) gpus: Option<u32>,
    /// In bytes.
    pub(crate) memory: Option<u64>,
    /// Of what the user counts.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub(crate) resources: Resources,
}

/// What all stages of a run together may take, as far as somebody says so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RunLimits {
    pub(crate) cpus: Option<u32>,
    /// The numbers of the GPUs.
    pub(crate) gpus: Option<Vec<u32>>,
    /// In bytes.
    pub(crate) memory: Option<u64>,
    /// Of what the user counts.
    pub(crate) resources: Resources,
}

impl RunLimits {
    /// These; what they do not say is as in the others.
    pub(crate) fn or(self, others: &Self) -> Self {
        Self {
            cpus: self.cpus.or(others.cpus),
            gpus: self.gpus.or_else(|| others.gpus.clone()),
            memory: self.memory.or(others.memory),
            resources: others.resources.clone().into_iter().chain(self.resources).collect(),
        }
    }

    /// These, but no more cores and no more memory than a machine has.
    pub(crate) fn at_most(self, cores: usize, memory: Option<u64>) -> Self {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        let least = |limit: u64| memory.map_or(limit, |memory| limit.min(memory));
        Self { cpus: self.cpus.map(|cpus| cpus.min(cores)), memory: self.memory.map(least), ..self }
    }
}

/// How often a stage is tried before it has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// At least 1.
    pub(crate) count: u32,
    /// After which failures there is another attempt.
    pub(crate) on: BTreeSet<Failing>,
}

impl Default for Attempts {
    fn default() -> Self {
        let on = [Failing::Signal, Failing::OutOfMemory, Failing::Timeout];
        Self { count: 1, on: on.into() }
    }
}

/// How a stage can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failing {
    /// A signal ended it.
    Signal,
    /// There was not enough memory, of the machine or of a GPU.
    OutOfMemory,
    /// Its time was up.
    Timeout,
    /// Anything else: it ended with another exit status than 0, or its result is not right.
    Failure,
}

impl Failing {
    pub(super) const ALL: [Self; 4] =
        [Self::Signal, Self::OutOfMemory, Self::Timeout, Self::Failure];

    /// What it is called in a manifest.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::OutOfMemory => "out-of-memory",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        }
    }
}

/// Reads the table of a manifest or of the user; what it does not set is as in `defaults`.
pub(super) fn read_for_all(
    value: &Value<'_>,
    defaults: &StageExecution,
    mistakes: &mut Vec<Mistake>,
) -> (StageExecution, RunLimits) {
    let Some(table) = known_table("execution", value, &EXECUTION_KEYS, mistakes) else {
        return (defaults.clone(), RunLimits::default());
    };
    let execution = read_settings(table, defaults, mistakes);
    let mut right = Right(mistakes);
    let limits = RunLimits {
        cpus: right.of(table, "cpus", cores),
        gpus: right.of(table, "gpus", |_, value| gpu_numbers(value)),
        memory: right.of(table, "memory", size),
        resources: resources::read(table, right.0),
    };
    (execution, limits)
}

/// Reads `execution` of a stage; what it does not set is as in `defaults`.
pub(super) fn read_for_one(
    value: &Value<'_>,
    defaults: &StageExecution,
    mistakes: &mut Vec<Mistake>,
) -> StageExecution {
    let Some(table) = known_table("execution", value, &STAGE_EXECUTION_KEYS, mistakes) else {
        return defaults.clone();
    };
    let mut execution = read_settings(table, defaults, mistakes);
    let own_threads = table.get("threads").and(execution.execution.threads);
    let mut right = Right(mistakes);
    execution.takes = Takes {
        cpus: right.of(table, "cpus", cores),
        gpus: right.of(table, "gpus", |_, value| gpus(value)),
        memory: right.of(table, "memory", size),
        resources: resources::read(table, right.0),
    };
    execution.priority = right.of(table, "priority", |_, value| priority(value)).unwrap_or(0);
    execution.executor = right.of(table, "executor", |_, value| executors::read_name(value));
    if let Some(cpus) = execution.takes.cpus {
        // Those of `[execution]` are for stages that do not say what they take.
        execution.execution.threads = Some(own_threads.unwrap_or(cpus));
        if let (Some(threads), Some(value)) = (own_threads, table.get("threads"))
            && threads > cpus
        {
            let title = format!("{threads} threads are more than the {cpus} 'cpus' of the stage");
            let help = "without 'threads', it has as many as it takes 'cpus'";
            mistakes.push(Mistake::at(value.span(), title).help(help));
        }
    }
    execution
}

/// The most GPUs that a stage of this kind can take.
pub(super) fn most_gpus(kind: &KindInfo) -> u32 {
    match kind.worker {
        WorkerProgram::Learn => 1,
        WorkerProgram::Prepare if kind.name == "command" => MOST_GPUS,
        WorkerProgram::Prepare => 0,
    }
}

/// What is wrong with what a stage of this kind takes.
pub(super) fn kind_mistake(kind: &KindInfo, value: &Value<'_>) -> Option<Mistake> {
    let table = value.get_ref().as_table()?;
    let is_certain =
        table.get("device").is_some_and(|value| matches!(device(value), Ok(Device::Cuda(_))));
    let value = table.get("gpus")?;
    let wanted = gpus(value).ok().filter(|wanted| *wanted > 0)?;
    let (name, most) = (kind.name, most_gpus(kind));
    let mistake = |title: String| Mistake::at(value.span(), title);
    match wanted > most * WHOLE_GPU {
        true if most == 0 => {
            let title = format!("a stage of the kind '{name}' does not use a GPU");
            Some(mistake(title).help("drop 'gpus'"))
        }
        true => Some(mistake(format!("a stage of the kind '{name}' uses one GPU at most"))),
        false if wanted > WHOLE_GPU && is_certain => {
            let title = "'gpus' takes several, and 'device' is one of them".to_owned();
            Some(mistake(title).help("drop 'device', or take one GPU"))
        }
        false => None,
    }
}

/// What `[execution]` and a stage have in common.
fn read_settings(
    table: &DeTable<'_>,
    defaults: &StageExecution,
    mistakes: &mut Vec<Mistake>,
) -> StageExecution {
    let mut right = Right(mistakes);
    let mut number = |name: &'static str, low: u64, high: u64| {
        right.of(table, name, |name, value| whole_number(name, value, low, high))
    };
    let threads = number("threads", 1, MOST_CORES.into());
    let checkpoint_seconds = number("checkpoint-seconds", 0, u64::MAX);
    let timeout_seconds: Option<u64> = number("timeout-seconds", 1, u64::MAX);
    let device = right.of(table, "device", |_, value| device(value));
    let time = right.of(table, "time", |_, value| time(value));
    let attempts = table.get("attempts").and_then(|value| attempts(value, mistakes));
    let Execution {
        device: no_device, threads: no_threads, checkpoint_seconds: no_seconds, ..
    } = defaults.execution.clone();
    StageExecution {
        execution: Execution {
            device: device.unwrap_or(no_device),
            threads: threads.and_then(|threads| threads.try_into().ok()).or(no_threads),
            checkpoint_seconds: checkpoint_seconds.unwrap_or(no_seconds),
            variables: defaults.execution.variables.clone(),
        },
        timeout_seconds: timeout_seconds.or(defaults.timeout_seconds),
        time: time.or(defaults.time),
        attempts: attempts.unwrap_or_else(|| defaults.attempts.clone()),
        ..defaults.clone()
    }
}

/// Reads values, and collects what is wrong with them.
struct Right<'m>(&'m mut Vec<Mistake>);

impl Right<'_> {
    /// The value of a key, where it is there and right.
    fn of<T, U: TryFrom<T>>(
        &mut self,
        table: &DeTable<'_>,
        name: &'static str,
        read: impl Fn(&'static str, &Value<'_>) -> Result<T, Mistake>,
    ) -> Option<U> {
        let read = read(name, table.get(name)?);
        read.map_err(|mistake| self.0.push(mistake)).ok()?.try_into().ok()
    }
}

/// What is a device.
pub(super) const DEVICE_PATTERN: &str = r"^(auto|cpu|cuda(:\+?[0-9]+)?)$";

fn device(value: &Value<'_>) -> Result<Device, Mistake> {
    let text = text("device", value)?;
    text.parse().map_err(|_| {
        Mistake::at(value.span(), format!("'{text}' is not a device")).help(Device::FORMS)
    })
}

/// What is the time of a job, but for what is too long, or 0.
pub(super) const TIME_PATTERN: &str = "^([0-9]+-)?[0-9]+:0*[0-5]?[0-9]:0*[0-5]?[0-9]$";

/// The time of a job, in seconds: `HH:MM:SS`, or `D-HH:MM:SS` with days.
fn time(value: &Value<'_>) -> Result<u64, Mistake> {
    let help = "time = \"04:00:00\" is four hours, \"1-12:00:00\" a day and a half";
    let DeValue::String(text) = value.get_ref() else {
        let title =
            format!("'time' must be hours, minutes and seconds, but is {}", found(value.get_ref()));
        return Err(Mistake::at(value.span(), title).help(help));
    };
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let numbers: Option<Vec<u64>> =
        [days].into_iter().chain(clock.split(':')).map(digits).collect();
    match numbers.as_deref() {
        Some(&[days, hours, minutes @ 0..60, seconds @ 0..60])
            if days.max(hours) <= MOST_HOURS && days + hours + minutes + seconds > 0 =>
        {
            Ok(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
        }
        _ => {
            Err(Mistake::at(value.span(), format!("'{text}' is not the time of a job")).help(help))
        }
    }
}

/// A number that is written in digits alone.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A number of cores.
fn cores(name: &'static str, value: &Value<'_>) -> Result<u64, Mistake> {
    whole_number(name, value, 1, MOST_CORES.into())
}

/// What is an amount of memory. Around it, there may be spaces of any kind.
pub(super) const SIZE_PATTERN: &str =
    "^[^!-~]*[0-9.]*[1-9][0-9.]*[^!-~]*([KMGTPkmgtp][Ii]?)?[Bb][^!-~]*$";

/// An amount of memory, in bytes.
fn size(name: &'static str, value: &Value<'_>) -> Result<u64, Mistake> {
    let help = format!("write a number with a unit: {name} = \"8 GB\"");
    let DeValue::String(text) = value.get_ref() else {
        let found = found(value.get_ref());
        let title = format!("'{name}' must be a size, but is {found}");
        return Err(Mistake::at(value.span(), title).help(help));
    };
    match format::read_size(text) {
        Ok(0) => Err(Mistake::at(value.span(), format!("'{name}' cannot be 0"))),
        Ok(bytes) => Ok(bytes),
        Err(reason) => Err(Mistake::at(value.span(), format!("'{name}': {reason}")).help(help)),
    }
}

/// How many GPUs, in parts of [`WHOLE_GPU`].
fn gpus(value: &Value<'_>) -> Result<u32, Mistake> {
    let help = "gpus = 1 takes one, 0.25 shares one with others, 2 takes two, 0 takes none; a certain one is device = \"cuda:1\"";
    let mistake = |title: String| Mistake::at(value.span(), title).help(help);
    let number = match value.get_ref() {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(|number| number as f64)
            .map_err(|_| mistake("'gpus' is too large".to_owned()))?,
        DeValue::Float(float) => float.as_str().parse().unwrap_or(f64::NAN),
        other => return Err(mistake(format!("'gpus' must be a number, but is {}", found(other)))),
    };
    let parts = number * f64::from(WHOLE_GPU);
    match number {
        0.0 => Ok(0),
        _ if number > 0.0 && number < 1.0 && parts >= 1.0 => Ok((parts + 1e-6).floor() as u32),
        _ if number.fract() == 0.0 && number > 0.0 && number <= MOST_GPUS.into() => {
            Ok(number as u32 * WHOLE_GPU)
        }
        _ if number > 0.0 && number < 1.0 => {
            Err(mistake(format!("{number} is too small a part of a GPU: at least 0.001")))
        }
        _ => Err(mistake(format!(
            "'gpus' is a part of one GPU, or a whole number up to {MOST_GPUS}, but is {number}"
        ))),
    }
}

/// The numbers of GPUs.
fn gpu_numbers(value: &Value<'_>) -> Result<Vec<u32>, Mistake> {
    let DeValue::Array(items) = value.get_ref() else {
        let found = found(value.get_ref());
        let title = format!(
            "'gpus' of [execution] must be a list of the GPUs that a run may use, but is {found}"
        );
        let help = "gpus = [0, 1] for these two, [] for none; how many a stage takes is in its own execution = { gpus = 1 }";
        return Err(Mistake::at(value.span(), title).help(help));
    };
    let mut numbers = BTreeSet::new();
    for item in items {
        let number = whole_number("gpus", item, 0, u64::from(MOST_GPUS) - 1)?;
        if !numbers.insert(u32::try_from(number).unwrap_or(u32::MAX)) {
            return Err(Mistake::at(item.span(), format!("'gpus' has the GPU {number} twice")));
        }
    }
    Ok(numbers.into_iter().collect())
}

fn priority(value: &Value<'_>) -> Result<i32, Mistake> {
    let mistake = |title: String| {
        let help = "stages with a higher priority start first; without one it is 0";
        Mistake::at(value.span(), title).help(help)
    };
    let DeValue::Integer(integer) = value.get_ref() else {
        let found = found(value.get_ref());
        return Err(mistake(format!("'priority' must be a whole number, but is {found}")));
    };
    let number = i32::from_str_radix(integer.as_str(), integer.radix());
    number.ok().filter(|number| number.unsigned_abs() <= LARGEST_PRIORITY as u32).ok_or_else(|| {
        let title = format!(
            "'priority' must be from -{LARGEST_PRIORITY} to {LARGEST_PRIORITY}, but is {integer}"
        );
        mistake(title)
    })
}

/// `attempts = 3`, or `attempts = { count = 3, on = ["signal"] }`.
fn attempts(value: &Value<'_>, mistakes: &mut Vec<Mistake>) -> Option<Attempts> {
    let help = "attempts = 3, or attempts = { count = 3, on = [\"signal\", \"timeout\"] }";
    let (number, table) = match value.get_ref() {
        DeValue::Integer(_) => (value, None),
        DeValue::Table(_) => {
            let table = known_table("attempts", value, &ATTEMPTS_KEYS, mistakes)?;
            let Some(count) = table.get("count") else {
                let title = "'attempts' does not say how many there are";
                mistakes.push(Mistake::at(value.span(), title).help(help));
                return None;
            };
            (count, Some(table))
        }
        other => {
            let title =
                format!("'attempts' must be a whole number or a table, but is {}", found(other));
            mistakes.push(Mistake::at(value.span(), title).help(help));
            return None;
        }
    };
    let count = whole_number("attempts", number, 1, MOST_ATTEMPTS.into());
    let count = count.map_err(|mistake| mistakes.push(mistake)).ok()?.try_into().ok()?;
    let on = match table.and_then(|table| table.get("on")) {
        Some(value) => failures(value, mistakes)?,
        None => Attempts::default().on,
    };
    Some(Attempts { count, on })
}

/// The failures after which there is another attempt.
fn failures(value: &Value<'_>, mistakes: &mut Vec<Mistake>) -> Option<BTreeSet<Failing>> {
    let names = || Failing::ALL.into_iter().map(Failing::name);
    let DeValue::Array(items) = value.get_ref() else {
        let title = format!("'on' must be a list, but is {}", found(value.get_ref()));
        let help = format!("of {}", listed(names(), "and"));
        mistakes.push(Mistake::at(value.span(), title).help(help));
        return None;
    };
    let read = items.iter().map(|item| {
        let given = text("on", item)?;
        let known = Failing::ALL.into_iter().find(|one| one.name() == given);
        known.ok_or_else(|| {
            let hint =
                did_you_mean(given, names()).map_or(String::new(), |hint| format!(", {hint}"));
            let title = format!("'{given}' is not a failure that can be tried again{hint}");
            let help = format!("they are {}", listed(names(), "and"));
            Mistake::at(item.span(), title).help(help)
        })
    });
    read.map(|one| one.map_err(|mistake: Mistake| mistakes.push(mistake)).ok()).collect()
}
