//! What runs, plans and watches take: what runs again, and what of the machine.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::manifest::ManifestArguments;
use crate::cache::Durability;
use crate::complete;
use crate::format;
use crate::manifest::{MOST_CORES, RunLimits, read_resource};
use crate::progress::Style;
use crate::shell;

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Only show what would run, and why, as `plan` does
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Run this stage again even if it has a result, and show whether the bytes are the same; several, by patterns too
    #[arg(long, value_name = "STAGE", add = ArgValueCompleter::new(complete::stages))]
    pub(crate) force: Vec<String>,
    /// In the tables at the end, show every instance of a stage and every row of a summary, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArguments,
    /// End when what is ready has been submitted; the next run follows those jobs, and submits what they made ready
    #[arg(long)]
    pub(crate) detach: bool,
    /// After a failure, continue with the stages that do not depend on it
    #[arg(short, long)]
    pub(crate) keep_going: bool,
    /// When results are flushed to the disk
    #[arg(long, value_name = "WHEN", default_value = "full")]
    pub(crate) durability: Durability,
    /// How to show progress
    #[arg(
        long,
        env = "PIPELINE_PROGRESS",
        hide_env_values = true,
        value_name = "STYLE",
        default_value = "auto"
    )]
    pub(crate) progress: Style,
}

/// What stages take together, and where they run.
#[derive(Debug, Clone, Args)]
pub(crate) struct MachineArguments {
    /// Run this many stages at once, as far as there is memory and a GPU for them, and with --cpus the cores [default: one per core]
    #[arg(short, long, env = "PIPELINE_JOBS", hide_env_values = true, value_name = "N", allow_negative_numbers = true, value_parser = jobs)]
    pub(crate) jobs: Option<u16>,
    /// The cores that all stages together may take [default: those of the machine]
    #[arg(long, env = "PIPELINE_CPUS", hide_env_values = true, value_name = "N", allow_negative_numbers = true, value_parser = cpus)]
    pub(crate) cpus: Option<u32>,
    /// The GPUs that stages may use, by number: `--gpus 0,1,3`, `--gpus none` [default: all]
    #[arg(long, env = "PIPELINE_GPUS", hide_env_values = true, value_name = "N,...", allow_hyphen_values = true, value_parser = gpu_numbers)]
    pub(crate) gpus: Option<GpuNumbers>,
    /// The memory that all stages together may take, of those that say how much: `--memory '32 GB'` [default: that of the machine]
    #[arg(long, env = "PIPELINE_MEMORY", hide_env_values = true, value_name = "SIZE", allow_hyphen_values = true, value_parser = memory)]
    pub(crate) memory: Option<u64>,
    /// What there is of resources that stages take by a name of yours: `--resources licence=2,downloads=4`
    #[arg(long, env = "PIPELINE_RESOURCES", hide_env_values = true, value_name = "NAME=N,...", allow_hyphen_values = true, value_delimiter = ',', value_parser = read_resource)]
    pub(crate) resources: Vec<(String, u32)>,
    /// Run the stages that learn on this executor, where they do not say another one; `local` is here
    #[arg(long, env = "PIPELINE_EXECUTOR", hide_env_values = true, value_name = "NAME")]
    pub(crate) executor: Option<String>,
}

/// The numbers of `--gpus`.
#[derive(Debug, Clone)]
pub(crate) struct GpuNumbers(pub(crate) Vec<u32>);

pub(super) fn gpu_numbers(text: &str) -> Result<GpuNumbers, String> {
    if text.trim() == "none" {
        return Ok(GpuNumbers(Vec::new()));
    }
    let numbers = text.split(',').map(|number| number.trim().parse());
    let numbers: Vec<u32> = numbers
        .collect::<Result<_, _>>()
        .map_err(|_| "write their numbers, as in 0,1,3, or none".to_owned())?;
    match (1..numbers.len()).find(|place| numbers[..*place].contains(&numbers[*place])) {
        Some(again) => Err(format!("it has the GPU {} twice", numbers[again])),
        None => Ok(GpuNumbers(numbers)),
    }
}

fn memory(text: &str) -> Result<u64, String> {
    match format::read_size(text) {
        Ok(0) => Err("it cannot be 0".to_owned()),
        read => read,
    }
}

/// How many cores stages take together.
fn cpus(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST_CORES).contains(number));
    number.ok_or_else(|| {
        format!("it must be a whole number from 1 to {MOST_CORES}, here or in PIPELINE_CPUS")
    })
}

/// How many stages run at once.
fn jobs(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| {
        format!("it must be a whole number from 1 to {}, here or in PIPELINE_JOBS", u16::MAX)
    })
}

impl MachineArguments {
    /// What all stages together may take of the machine, as far as it was typed.
    pub(crate) fn limits(&self) -> RunLimits {
        let gpus = self.gpus.as_ref().map(|GpuNumbers(numbers)| numbers.clone());
        let resources = self.resources.iter().cloned().collect();
        RunLimits { cpus: self.cpus, gpus, memory: self.memory, resources }
    }
}

impl RunArguments {
    /// What selects stages, as it was typed, but for `--set` and `--sweep`.
    pub(crate) fn selection(&self) -> Vec<String> {
        let option = |name: &str, value: &String| format!("--{name} {}", shell::quoted(value));
        let only = self.manifest.with.only.iter().map(|value| option("only", value));
        let force = self.force.iter().map(|value| option("force", value));
        let stages = self.manifest.stages().into_iter();
        stages.map(|stage| shell::quoted(&stage).into_owned()).chain(only).chain(force).collect()
    }
}

#[derive(Debug, Args)]
#[command(mut_args(|argument| match argument.get_id().as_str() {
    "force" | "dry_run" => argument.hide(true),
    _ => argument,
}))]
pub(crate) struct WatchArguments {
    /// Run what is not in the cache yet, each time
    #[arg(long)]
    pub(crate) run: bool,
    /// How: the options of `run`.
    #[command(flatten)]
    pub(crate) how: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// As if this stage were run with --force; several, by patterns too
    #[arg(long, value_name = "STAGE", add = ArgValueCompleter::new(complete::stages))]
    pub(crate) force: Vec<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArguments,
    /// Ask the remote for results, as a run does
    #[arg(long)]
    pub(crate) remote: bool,
    /// Show every instance of a stage, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with 1 if anything would run
    #[arg(long)]
    pub(crate) exit_code: bool,
}
