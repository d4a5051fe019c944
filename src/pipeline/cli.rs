//! The command line: what the program takes, as types. What a command does is in `commands`.

mod cleaning;
mod export;
mod manifest;
mod running;
mod sharing;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::complete;
use crate::launcher::JOB_SUBCOMMAND;

pub(crate) use cleaning::{
    CacheArguments, CacheCommand, CacheFolder, CacheLimitArguments, CacheSizeArguments, GcArguments,
};
pub(crate) use export::{ExportArguments, ExportFormat};
pub(crate) use manifest::{ManifestArguments, WithArguments};
pub(crate) use running::{
    GpuNumbers, MachineArguments, PlanArguments, RunArguments, WatchArguments,
};
pub(crate) use sharing::{
    KeyArguments, KeyCommand, PullArguments, PushArguments, RemoteArguments, RemoteCommand,
    RemoteStatusArguments,
};

use running::gpu_numbers;

/// Runs machine-learning experiments declared in TOML manifests.
///
/// A manifest declares stages; the tool runs those whose result is not in the cache, and nothing else.
#[derive(Debug, Parser)]
#[command(
    name = "pipeline",
    version,
    max_term_width = 100,
    after_help = "\
To begin:  pipeline init  writes a manifest that runs,  pipeline run  runs it,\n\
           pipeline kinds  lists what stages can do."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Whether there are colours. `auto`: on a terminal, unless NO_COLOR is set; everywhere with CLICOLOR_FORCE=1
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: clap::ColorChoice,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run what is not in the cache yet
    ///
    /// Where stages are named, only these, and what they need.
    #[command(after_help = "\
Exit status:  0  every stage has a result, or with --detach goes on as a job, or waits for one\n              \
1  a stage failed, or cannot run\n              \
2  nothing was run: mistakes, a cache that cannot be used\n            \
130  interrupted: the same command continues")]
    Run(RunArguments),
    /// Show what would run, and why
    ///
    /// Where stages are named, only for these, and what they need.
    Plan(PlanArguments),
    /// Show what would run again whenever the manifest changes, or a file that it reads
    ///
    /// With --run, it runs. A run in progress is not interrupted by a change: when it has ended, the next one begins. A manifest
    /// with mistakes shows them, and is planned again when it is saved again. Ctrl-C ends it.
    Watch(WatchArguments),
    /// Show the graph of stages
    ///
    /// Where stages are named, only these, and what they need.
    Graph(GraphArguments),
    /// Show what changed since stages last ran
    ///
    /// Instances of a stage that run for the same reason are shown together.
    Why(WhyArguments),
    /// Show the state of stages, what runs, and their last runs
    ///
    /// Of a stage that runs: how far it is, how fast, how long it may take, since when and where; of one that was
    /// interrupted, where; of one that failed, when and why. From any shell, also on another machine with the same cache.
    Status(StatusArguments),
    /// Cancel the jobs of stages: in the queues of their schedulers, or while they run
    ///
    /// Those that a detached run has left, and those that a run follows. A job that works is asked to stop by its scheduler, and
    /// the next run continues from its checkpoint. Jobs for other values of these stages stay, and those of other accounts.
    #[command(after_help = "\
Exit status:  0  no job of these stages is left, or one still writes its checkpoint and ends then\n              \
1  some could not be cancelled, or are of other accounts")]
    Cancel(StageArguments),
    /// Show what stages measured
    ///
    /// Of a stage with several instances, a table: a row for each, with its most important metrics.
    Metrics(MetricsArguments),
    /// Show every recorded result of stages, under whatever parameters
    ///
    /// A row for each result that a run of the experiment had, with the axes and parameters that differ, also those of the
    /// stages before it, and its metrics.
    Results(ResultsArguments),
    /// Show two results beside each other: parameters that differ, and metrics
    #[command(visible_alias = "diff")]
    Compare(CompareArguments),
    /// Show the runs that did something, newest first
    ///
    /// Of all experiments in the cache, or of that of a manifest.
    History(HistoryArguments),
    /// Write a page about an experiment: one HTML file that needs nothing else
    ///
    /// It has the graph, summaries, metrics, curves, confusion matrices, label noise, times, and how every number
    /// was made. Stages that are not fresh are shown with their last results, and marked.
    Report(ReportArguments),
    /// Write an experiment to a folder for others, or the artifact of one stage
    ///
    /// `export [MANIFEST] DIR [STAGE]...` writes what ran, with what, and what it produced: an RO-Crate 1.1 (Process Run Crate
    /// 0.5) has the manifest, every fresh stage with its parameters, inputs, results and times, and the artifacts that are
    /// numbers, tables and plots. Others are described by their digests.
    ///
    /// `export [MANIFEST] STAGE DIR` writes the files of one artifact, which are yours then: writable, and independent of the
    /// cache. With `--format torch`, weights are a state dict for PyTorch. Where the first word after the manifest is a stage
    /// and the last one is not, this is meant, without a --format too.
    Export(ExportArguments),
    /// Send results to the trackers of the manifest: what they do not have yet
    ///
    /// A run sends what it measures while it runs. Where a server did not work then, or the manifest did not have
    /// [tracking], this sends the fresh results: parameters, metrics, curves and small files. What it has already is not
    /// sent again, and what is incomplete is completed. Where stages are named, only of these.
    Track(TrackArguments),
    /// Show what stages wrote to their logs
    ///
    /// Of several stages, each log is headed by `==> NAME <==`. With --follow, a heading also shows whose lines follow.
    Log(LogArguments),
    /// Print the paths of the artifacts of stages
    ///
    /// Where the arguments can mean several stages, a line for each: its name, a tab, its path.
    Path(StageArguments),
    /// Show what would be submitted to Slurm for a stage
    ///
    /// With --test, Slurm says whether it would take that, and when it would begin. Nothing is submitted.
    SlurmScript(SlurmScriptArguments),
    /// Check that artifacts are intact, or that a stage can be reproduced
    ///
    /// Hashes the artifacts of the manifest's fresh stages. Those that no longer match their digest are listed,
    /// file by file, and moved to the cache's quarantine. The records of everything that was made from them are
    /// withdrawn: the next run makes them again. --restore brings such records back.
    ///
    /// With --rerun, runs one stage again from the start, in a scratch folder, and compares the result with the
    /// recorded one. Nothing recorded is changed. Unless the manifest sets them, the device and the number of
    /// threads are those of the record, as they change the last bits of sums.
    Verify(VerifyArguments),
    /// Remove what nothing needs from the cache
    ///
    /// Results that no run has used for 30 days go, with their records and logs. So do checkpoints, failed outputs, kept reruns
    /// and what is in the quarantine, where they are as old. What a run in progress uses stays, what the latest run of each
    /// manifest used, and the results of the manifests of --keep, whatever their age. Runs may continue at the same time.
    Gc(GcArguments),
    /// Show what takes room in the cache, and limit how much it may take
    Cache(CacheArguments),
    /// Send fresh results to the remote: the cache that others share
    ///
    /// With those that they were made from. What the remote has already is not sent again, and never changed. Which cache that
    /// is, is in the manifest or your config.toml: [cache] remote = "file:///mnt/share/cache".
    Push(PushArguments),
    /// Bring results from the remote into the cache
    ///
    /// Of the stages that are named, with their artifacts; nothing is run. Every byte is checked. A run does not need this: it
    /// asks the remote for results, and brings those artifacts that its stages read.
    Pull(PullArguments),
    /// Look at the remote: the cache that others share
    Remote(RemoteArguments),
    /// Make a key that signs the results that you push, or show it
    ///
    /// Who trusts the key takes results from a remote only where they are signed: trust = "signed" in their config.toml.
    Key(KeyArguments),
    /// List the kinds of stages, or explain one
    Kinds(KindsArguments),
    /// Print a JSON Schema of manifests, for completion and checks in an editor
    ///
    /// `pipeline schema > manifest.schema.json`, and `#:schema manifest.schema.json` as the first line of a manifest.
    Schema,
    /// Write a starter manifest, with its data
    Init(InitArguments),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
    /// Write the manual pages
    #[command(name = "__man", hide = true)]
    Man(ManArguments),
    /// Run one job from a file that another process wrote
    #[command(name = JOB_SUBCOMMAND, hide = true)]
    Job(JobArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ResultsArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Sort by this metric, parameter or axis: the largest first
    #[arg(long, value_name = "METRIC", add = ArgValueCompleter::new(complete::columns))]
    pub(crate) sort: Option<String>,
    /// The smallest first
    #[arg(long, requires = "sort")]
    pub(crate) reverse: bool,
    /// Only results with these values of parameters or axes: `rate=0.9,train.epochs=3`. The same name twice means either value
    #[arg(long = "where", value_name = "NAME=VALUE", value_parser = conditions, add = ArgValueCompleter::new(complete::conditions))]
    pub(crate) conditions: Vec<Conditions>,
    /// Show every metric, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Show also what each took: time, time of the processor, memory, bytes that it read and wrote
    #[arg(long)]
    pub(crate) usage: bool,
    #[command(flatten)]
    pub(crate) format: ResultsFormat,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ResultsFormat {
    /// Print CSV: one table, with all metrics
    #[arg(long)]
    pub(crate) csv: bool,
    /// Print JSON, with all parameters and metrics
    #[arg(long)]
    pub(crate) json: bool,
    /// Print Markdown
    #[arg(long)]
    pub(crate) markdown: bool,
}

/// The names and values of one `--where`.
#[derive(Debug, Clone)]
pub(crate) struct Conditions(pub(crate) Vec<(String, String)>);

/// Several with commas between them, as `--only` takes them; a comma before what is no `NAME=`, or in brackets, is one of a value.
fn conditions(text: &str) -> Result<Conditions, String> {
    let mut all: Vec<(String, String)> = Vec::new();
    let is_open =
        |value: &str| value.matches(['[', '{']).count() > value.matches([']', '}']).count();
    for part in text.split(',') {
        match (part.split_once('='), all.last_mut()) {
            (_, Some((_, value))) if is_open(value) => value.push_str(&format!(",{part}")),
            (None, Some(_)) if part.trim().is_empty() => {}
            (Some((name, value)), _) => all.push((name.trim().to_owned(), value.trim().to_owned())),
            (None, Some((_, value))) => value.push_str(&format!(",{part}")),
            (None, None) => return Err("write it as rate=0.9".to_owned()),
        }
    }
    Ok(Conditions(all))
}

/// The fewest digits of a key that mean it.
pub(crate) const SHORTEST_KEY: usize = 6;

#[derive(Debug, Args)]
#[command(mut_arg("rest", |arg| {
    arg.value_name("RESULT").help(format!(
        "The two results: each a stage, an instance, or a key as `results` shows it, or its first digits: at least {SHORTEST_KEY}"
    ))
}))]
pub(crate) struct CompareArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Show all parameters, not only those that differ
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct HistoryArguments {
    #[command(subcommand)]
    pub(crate) command: Option<HistoryCommand>,
    /// Only the runs of the experiment of this manifest
    pub(crate) manifest: Option<PathBuf>,
    /// The cache [env: PIPELINE_CACHE; default: `cache` in the nearest folder above the manifest, or
    /// above this one, that has one or a `.git`]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Show every run, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON, of every run
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// Show one run: what it was asked to do, what ran, and where
    Show(HistoryShowArguments),
}

#[derive(Debug, Args)]
pub(crate) struct HistoryShowArguments {
    /// The run, or the beginning of its name
    pub(crate) run: String,
    /// The cache [env: PIPELINE_CACHE; default: `cache` in the nearest folder above this one that
    /// has one or a `.git`]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Only print the text of its manifest
    #[arg(long, conflicts_with = "json")]
    pub(crate) manifest: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GraphArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// The output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: GraphFormat,
    /// Show every instance of a stage, however many there are
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// The file to write; `-` for standard output
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
    /// Open it in the browser
    #[arg(long)]
    pub(crate) open: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status:  0  all trackers have all fresh results\n              \
1  something was not sent\n              \
2  nothing could be done: mistakes, no tracker")]
pub(crate) struct TrackArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Send the fresh results that a tracker does not have, or not completely
    #[arg(long, required = true)]
    pub(crate) resend: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// For people, in a terminal
    Text,
    /// For Graphviz
    Dot,
    /// For Markdown pages
    Mermaid,
    /// A picture
    Svg,
    /// A page: the picture, and what is known of each stage
    Html,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct StageArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
}

#[derive(Debug, Args)]
pub(crate) struct SlurmScriptArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// The executor, where the stage does not say one
    #[arg(long, env = "PIPELINE_EXECUTOR", hide_env_values = true, value_name = "NAME")]
    pub(crate) executor: Option<String>,
    /// Ask Slurm whether it would take it
    #[arg(long)]
    pub(crate) test: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Show what is added, too, until the stages have ended, or no run is in progress that could start them
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Show every instance of a stage, also those that run for the same reason
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Show it again whenever something changed, until nothing runs and no run is in progress
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) watch: bool,
    /// Show every instance of a stage, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Show also what the last runs took: time of the processor, memory, bytes that they read
    #[arg(long)]
    pub(crate) usage: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MetricsArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Show every metric of a stage with several instances, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status:  0  intact; the same bytes again, or within the tolerance\n              \
1  damaged, missing or unreadable; another result, or a rerun that failed\n              \
2  nothing could be checked: mistakes, inputs that are not fresh\n            \
130  interrupted")]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Check everything in the cache, regardless of the manifest
    #[arg(long, conflicts_with = "rerun")]
    pub(crate) all: bool,
    /// Restore the records that were withdrawn because they were made from damaged artifacts
    #[arg(long, conflicts_with = "rerun")]
    pub(crate) restore: bool,
    /// Run this stage again in a scratch folder, and compare
    #[arg(long, value_name = "STAGE")]
    pub(crate) rerun: Option<String>,
    /// The GPUs that the rerun may use, as in `run` [default: all]
    #[arg(long, env = "PIPELINE_GPUS", hide_env_values = true, value_name = "N,...", allow_hyphen_values = true, value_parser = gpu_numbers)]
    pub(crate) gpus: Option<GpuNumbers>,
    /// Accept other bytes if no metric differs by more than this (on GPUs, sums vary): `0.005`
    #[arg(long, value_name = "NUMBER", requires = "rerun", allow_negative_numbers = true, value_parser = tolerance)]
    pub(crate) tolerance: Option<f64>,
    /// Keep the output of the rerun, and print its path
    #[arg(long, requires = "rerun")]
    pub(crate) keep: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "it must be a number of at least 0".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct KindsArguments {
    /// The kind to explain
    #[arg(add = ArgValueCompleter::new(complete::kinds))]
    pub(crate) kind: Option<String>,
    /// Of the kind, only this input, parameter, or value of a parameter (a method, a loss)
    pub(crate) parameter: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "parameter")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// The folder to write to
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Write a manifest for the images in this folder, `train/CLASS/` and `test/CLASS/`, without data
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// The folder to write to
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// The job
    pub(crate) spec: PathBuf,
    /// The token of the job that was submitted: another one of the same key may be there now
    #[arg(long)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_divided_by_commas_that_are_in_no_value() {
        let read = |text: &str| conditions(text).map(|all| all.0).map_err(|_| ());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, expected) in [
            ("rate=0.9", vec![pair("rate", "0.9")]),
            ("rate=0.9, seed=1,", vec![pair("rate", "0.9"), pair("seed", "1")]),
            ("a=[1,2],b=3", vec![pair("a", "[1,2]"), pair("b", "3")]),
            ("a={x=1,y=[2,3]},b=3", vec![pair("a", "{x=1,y=[2,3]}"), pair("b", "3")]),
            ("text=one,two", vec![pair("text", "one,two")]),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        assert_eq!(read("rate"), Err(()));
    }

    #[test]
    fn a_number_below_0_is_a_value_that_is_not_right() {
        for (arguments, wanted) in [
            ("run --jobs -1", "it must be a whole number from 1 to 65535"),
            ("run --cpus -3", "it must be a whole number from 1 to 1024"),
            ("run --gpus -1,2", "write their numbers, as in 0,1,3, or none"),
            ("run --memory -5GB", "'-5GB' is not a size"),
            ("run --resources -1", "write a name and a number, as in licence=2"),
            ("run --resources licence=-1", "'licence' must be a whole number from 1"),
            ("verify --gpus -1", "write their numbers, as in 0,1,3, or none"),
            ("verify --rerun a --tolerance -1", "it must be a number of at least 0"),
            ("gc --max-size -1GB", "'-1GB' is not a size"),
            ("gc --keep-days -1", "it must be a whole number of days"),
            ("gc --keep-days 1.5", "it must be a whole number of days"),
            ("gc --keep-days 1e9", "it must be a whole number of days"),
            ("cache limit -5", "'-5' is not a size"),
        ] {
            let words = std::iter::once("pipeline").chain(arguments.split(' '));
            let error = Arguments::try_parse_from(words).expect_err(arguments).to_string();
            assert!(error.contains(wanted) && !error.contains("tip:"), "{arguments}: {error}");
        }
        // What follows is still an option.
        assert!(Arguments::try_parse_from(["pipeline", "cache", "limit", "-C", "x"]).is_ok());
        assert!(Arguments::try_parse_from(["pipeline", "gc", "--keep-days", "0", "-n"]).is_ok());
    }
}
