//! The subcommands, one file each, and what they share.

mod cache;
mod checking;
mod compare;
mod completions;
mod export;
mod gc;
mod graph;
mod history;
mod init;
mod init_data;
mod job;
mod key;
mod kinds;
mod log;
mod log_follow;
mod man;
mod metered;
mod metrics;
mod nearest;
mod newest_log;
mod path;
mod plan;
mod planner;
mod pull;
mod push;
mod recorded;
mod remote;
mod remote_results;
mod report;
mod results;
mod run;
mod run_part;
mod schema;
mod settings;
mod slurm_script;
mod status;
mod status_sheet;
mod status_watch;
mod time_left;
mod track;
mod verify;
mod verify_rerun;
mod verify_restore;
mod watch;
mod why;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};
use clap_complete::CompleteEnv;
use pipeline_stages::kind::PathForm;
use pipeline_stages::point::canonical;
use pipeline_stages::text::in_short;
use pipeline_stages::url::blanked;
use pipeline_stages::worker::{file_size_limit_is_an_error, in_words, with_disk_advice};

use crate::cache::Cache;
use crate::cli::{Arguments, Command, ManifestArguments, WithArguments};
use crate::colour;
use crate::diagnostic::{Colour, Mistakes, Warnings};
use crate::facts::CacheFacts;
use crate::graph::Graph;
use crate::lint;
use crate::machine;
use crate::manifest::{
    self, Config, Executors, Fit, LOCAL, Limits, Manifest, Misfit, Override, PushPolicy,
    StageExecution, unknown_executor,
};
use crate::pattern::Pattern;
use crate::plan::{Plan, PlanState};
use crate::plan_index::Asked;
use crate::remote::SharedCache;
use crate::signing::Signing;
use crate::stage_name::StageName;
use crate::tracking::Scene;
use crate::visible;

/// What was asked for cannot be done: a manifest with mistakes, a cache that cannot be read.
const CANNOT: u8 = 2;

/// Most names in the list of what there is.
const MOST_LISTED: usize = 40;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Runs the command that the arguments of the process ask for.
pub(crate) fn main() -> ExitCode {
    if let Err(error) = file_size_limit_is_an_error().context("cannot listen to signals") {
        return report_error(error);
    }
    // A shell that asks what to offer: this does not return then.
    CompleteEnv::with_factory(Arguments::command).var(completions::VARIABLE).complete();
    let asked = colour::asked(std::env::args_os());
    colour::choose(asked);
    let mut command = without_empty_variables(Arguments::command().color(asked));
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let arguments = matches.and_then(|matches| {
        Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => return report_arguments(with_near_command(error, &command)),
    };
    let result = match &arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Watch(arguments) => watch::run(arguments),
        Command::Graph(arguments) => graph::run(arguments),
        Command::Why(arguments) => why::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Metrics(arguments) => metrics::run(arguments),
        Command::Results(arguments) => results::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::History(arguments) => history::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Track(arguments) => track::run(arguments),
        Command::Log(arguments) => log::run(arguments),
        Command::Path(arguments) => path::run(arguments),
        Command::SlurmScript(arguments) => slurm_script::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Gc(arguments) => gc::run(arguments),
        Command::Cache(arguments) => cache::run(arguments),
        Command::Push(arguments) => push::run(arguments),
        Command::Pull(arguments) => pull::run(arguments),
        Command::Remote(arguments) => remote::run(arguments),
        Command::Key(arguments) => key::run(arguments),
        Command::Kinds(arguments) => kinds::run(arguments),
        Command::Schema => schema::run(),
        Command::Init(arguments) => init::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
        Command::Job(arguments) => job::run(arguments),
    };
    result.unwrap_or_else(report_error)
}

/// The command line, where a variable of the environment that is empty is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &clap::Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command.mut_subcommands(|command| {
        command.mut_args(|argument| {
            if is_empty(&argument) {
                argument.env(clap::builder::Resettable::Reset)
            } else {
                argument
            }
        })
    })
}

/// A manifest that was read, its graph, and its cache.
pub(crate) struct Project {
    pub(crate) manifest: Manifest,
    pub(crate) graph: Graph,
    pub(crate) cache: Arc<Cache>,
    /// The cache that others share, where there is one.
    pub(crate) shared: Option<Arc<SharedCache>>,
    /// Which results are sent there when they were made.
    pub(crate) push: PushPolicy,
    /// How many stages the user wants to run at once.
    pub(crate) jobs: Option<u16>,
    /// What the user lets all stages of a run take together, where a manifest does not say.
    limits: Limits,
    /// Where stages can run, beside here: what a manifest says counts more than what the user says.
    pub(crate) executors: Executors,
    /// How much room the user lets a cache take that does not have a limit.
    pub(crate) cache_limit: Option<u64>,
    /// The axes of `--only`, each with a value.
    only: Vec<String>,
}

impl Project {
    /// What all stages of a run may take together, where this was typed. Only what is typed can be more than the machine has:
    /// files are for other machines, too.
    pub(crate) fn limits(&self, typed: Limits) -> Limits {
        let files = self.manifest.limits.clone().or(&self.limits);
        typed.or(&files.at_most(machine::cores(), machine::memory()))
    }

    /// The executor that was typed.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn executor(&self, typed: Option<&str>) -> anyhow::Result<Option<String>> {
        let Some(name) = typed else { return Ok(None) };
        if name != LOCAL && !self.executors.contains_key(name) {
            let (title, help) = unknown_executor(name, &self.executors);
            bail!("{title} (--executor, PIPELINE_EXECUTOR); {help}");
        }
        Ok(Some(name.to_owned()))
    }

    /// Reads the manifest and opens its cache. Nothing is written.
    pub(crate) fn open(arguments: &ManifestArguments) -> anyhow::Result<Self> {
        Self::open_on(arguments, &settings::config()?)
    }

    /// The same, without how the user wants stages to be run that do not say it.
    pub(crate) fn open_as_written(arguments: &ManifestArguments) -> anyhow::Result<Self> {
        let config = settings::config()?;
        Self::open_on(arguments, &Config { execution: StageExecution::default(), ..config })
    }

    fn open_on(arguments: &ManifestArguments, config: &Config) -> anyhow::Result<Self> {
        Located::of(arguments, config)?.read()
    }

    /// The stages that these patterns mean, or every stage without a pattern, each after its inputs.
    ///
    /// # Errors
    /// When a pattern does not mean any stage.
    pub(crate) fn choose(&self, patterns: &[String]) -> anyhow::Result<Vec<&StageName>> {
        let mut chosen: Vec<&StageName> = self.graph.order().collect();
        if !patterns.is_empty() {
            let mut named = HashSet::new();
            for pattern in patterns {
                named.extend(self.matching(pattern)?);
            }
            chosen.retain(|name| named.contains(name));
        }
        if !self.only.is_empty() {
            let point = format!("*@{}", self.only.join(","));
            let only = Pattern::read(&point);
            chosen.retain(|name| only.has(name));
            ensure!(!chosen.is_empty(), "{}", self.none_at());
        }
        Ok(chosen)
    }

    /// Why `--only` leaves nothing.
    fn none_at(&self) -> String {
        let manifest = self.manifest.path.display();
        let point = self.only.join(",");
        let unknown = self.unknown_axis("*", &point);
        unknown.unwrap_or_else(|| format!("none of these stages of {manifest} is at {point}"))
    }

    /// What is wrong with the first axis or value of `AXIS=VALUE,…` that no stage of this pattern has.
    fn unknown_axis(&self, stages: &str, point: &str) -> Option<String> {
        let none = match stages {
            "*" => format!("no stage of {} has", self.manifest.path.display()),
            _ => format!("'{stages}' does not have"),
        };
        let pattern = Pattern::read(stages);
        let mut axes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for name in self.graph.order().filter(|name| pattern.has_template(name.template())) {
            for (axis, value) in name.point() {
                axes.entry(axis).or_default().insert(value);
            }
        }
        let parts = point.split(',').filter(|part| !part.contains('*'));
        let mut parts = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
        parts.find_map(|(axis, value)| match axes.get(axis) {
            None if axes.is_empty() => Some(format!("{none} the axis '{axis}', or any other")),
            None => {
                let near = manifest::did_you_mean(axis, axes.keys().copied());
                let hint = near
                    .unwrap_or_else(|| format!("its axes: {}", in_short(axes.keys(), MOST_LISTED)));
                Some(format!("{none} the axis '{axis}'; {hint}"))
            }
            Some(values) if values.iter().all(|one| canonical(one) != canonical(value)) => {
                // No number is a misspelt other one.
                let near = match value.parse::<f64>() {
                    Ok(_) => None,
                    Err(_) => manifest::did_you_mean(value, values.iter().copied()),
                };
                let hint =
                    near.unwrap_or_else(|| format!("there are: {}", in_short(values, MOST_LISTED)));
                Some(format!("{none} the value '{value}' of '{axis}'; {hint}"))
            }
            Some(_) => None,
        })
    }

    /// These stages with all they need, each after its inputs.
    pub(crate) fn with_inputs(&self, stages: &[&StageName]) -> Vec<StageName> {
        if stages.len() == self.graph.order().len() {
            return self.graph.order().cloned().collect();
        }
        let needed: BTreeSet<StageName> = self.graph.with_ancestors(stages.iter().copied());
        self.graph.order().filter(|name| needed.contains(*name)).cloned().collect()
    }

    /// The stages of these patterns with all they need, or every stage without a pattern.
    pub(crate) fn select(&self, patterns: &[String]) -> anyhow::Result<Vec<StageName>> {
        Ok(self.with_inputs(&self.choose(patterns)?))
    }

    /// The stages of these patterns that are to run again although they have results, of those that were selected.
    ///
    /// # Errors
    /// When a pattern does not mean any of them.
    pub(crate) fn forced(
        &self,
        patterns: &[String],
        selected: &[StageName],
    ) -> anyhow::Result<BTreeSet<StageName>> {
        let selected: HashSet<&StageName> = selected.iter().collect();
        let mut forced = BTreeSet::new();
        for pattern in patterns {
            let found = self.matching(pattern)?.into_iter().filter(|name| selected.contains(name));
            let found: Vec<_> = found.cloned().collect();
            if found.is_empty() {
                bail!(
                    "'{pattern}' of --force is not among the stages that are to run, nor needed by them"
                );
            }
            forced.extend(found);
        }
        Ok(forced)
    }

    /// The one stage of this pattern. If there is none, the error lists near names.
    pub(crate) fn find(&self, pattern: &str) -> anyhow::Result<&StageName> {
        let found = self.matching(pattern)?;
        let exact = found.iter().find(|stage| stage.as_str() == pattern);
        match exact.map_or(found.as_slice(), std::slice::from_ref) {
            [only] => Ok(only),
            several => Err(anyhow!(
                "'{pattern}' is {} stages; name one of them: {}",
                several.len(),
                several.first().map_or("", |first| first.as_str())
            )),
        }
    }

    /// The stages that a pattern means; at least one.
    fn matching(&self, pattern: &str) -> anyhow::Result<Vec<&StageName>> {
        let read = Pattern::read(pattern);
        let found: Vec<_> = self.graph.order().filter(|stage| read.has(stage)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let manifest = self.manifest.path.display();
        if manifest::is_manifest(Path::new(pattern)) {
            bail!("{manifest} has no stage '{pattern}'; a manifest is named before stages");
        }
        let (name, point) = pattern.split_once('@').unwrap_or((pattern, ""));
        let same = self.graph.order().filter(|stage| read.has_template(stage.template()));
        let same: Vec<_> = same.collect();
        if let [first, ..] = same.as_slice() {
            if let Some(unknown) = self.unknown_axis(name, point) {
                bail!(unknown);
            }
            let near = same.iter().find(|stage| read.has_axis(stage)).unwrap_or(first);
            // Each of the values exists, as far as the pattern writes them out.
            let why = match point.contains('*') {
                true => String::new(),
                false => format!(": no instance of '{name}' has these values together"),
            };
            bail!("{manifest} has no stage '{pattern}'{why}; there is, for example, {near}");
        }
        let mut templates: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        templates
            .extend(self.graph.order().map(StageName::template).filter(|name| seen.insert(*name)));
        let hint = did_you_mean(name, templates.into_iter());
        Err(anyhow!("{manifest} has no stage '{pattern}'; {hint}"))
    }

    /// What the trackers of the manifest must know to begin.
    pub(crate) fn tracking(&self, arguments: &ManifestArguments) -> Scene<'_> {
        Scene {
            tracking: &self.manifest.tracking,
            experiment: &self.manifest.experiment.name,
            manifest: self.manifest.path.display().to_string(),
            files: self.manifest.files.clone(),
            cache: &self.cache,
            resend: arguments.command("track --resend", &[]),
        }
    }

    /// The plan of these stages, which are closed under inputs.
    pub(crate) fn plan(&self, selected: &[StageName]) -> Plan {
        Plan::of(&self.manifest, &self.graph, selected, &self.facts(selected))
    }

    /// What the plan of these stages is based on.
    pub(crate) fn facts(&self, selected: &[StageName]) -> CacheFacts<'_> {
        CacheFacts::look(&self.cache, &self.manifest, selected).shared_in(self.shared.as_deref())
    }

    /// Checks that the stages of a plan fit to the artifacts that exist, and to files outside the cache.
    ///
    /// # Errors
    /// All mistakes of the manifest that these show.
    pub(crate) fn check_fit(&self, plan: &Plan) -> Result<(), Mistakes> {
        // What follows from the parameters alone was checked when the manifest was read, but for what is in files.
        let shows_more = |(name, state): (&StageName, &PlanState)| match state {
            PlanState::Fresh(_) => true,
            _ => self.manifest.stage(name).is_some_and(|stage| {
                let mut paths = stage.stage.outside_paths().into_iter();
                paths.any(|outside| outside.form == PathForm::Matrix)
            }),
        };
        if plan.is_all_fresh() || !plan.iter().any(shows_more) {
            return Ok(());
        }
        let artifact = |name: &StageName| match plan.state(name) {
            Some(PlanState::Fresh(record)) => {
                Some(self.cache.known(record.artifact, &record.output.digest).unwrap_or_default())
            }
            _ => None,
        };
        let is_planned = |name: &StageName| plan.state(name).is_some();
        let (_, misfits) = Fit::check(&self.manifest, &self.graph, artifact, is_planned);
        let planned = misfits.into_iter().filter(|misfit| is_planned(&misfit.stage));
        let mistakes = Misfit::mistakes(planned);
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Mistakes::new(self.manifest.sources.clone(), mistakes)),
        }
    }
}

/// A manifest that was found and not yet read.
pub(crate) struct Located<'a> {
    config: &'a Config,
    with: &'a WithArguments,
    path: PathBuf,
    /// What the environment and the command line change about it, in this order.
    changes: Vec<Override>,
}

impl<'a> Located<'a> {
    /// Finds the manifest that the arguments name.
    pub(crate) fn of(arguments: &'a ManifestArguments, config: &'a Config) -> anyhow::Result<Self> {
        let path = match arguments.named() {
            Some(named) => named.to_owned(),
            None => nearest_manifest(&arguments.stages())?,
        };
        let mut changes = settings::variables()?;
        changes.extend(arguments.with.changes());
        Ok(Self { config, with: &arguments.with, path, changes })
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> PathBuf {
        folder_of(&self.path)
    }

    /// Its cache. Nothing is written.
    pub(crate) fn cache(&self) -> anyhow::Result<Cache> {
        cache_of(self.config, self.with.cache.as_deref(), &self.folder())
    }

    /// What a run of these stages depends on, beside the text of the manifest.
    pub(crate) fn asked(&self, stages: &[String]) -> Asked {
        let changes = self.changes.iter().map(|change| format!("{change:?}"));
        let only = self.with.only.iter().map(|only| format!("--only {only}"));
        // What was pushed to one remote is not at another one.
        let settings = [
            format!("{:?}", self.config.execution),
            format!("{:?}", self.config.sharing),
            format!("{:?}", settings::remote_of_environment()),
        ];
        let words: Vec<String> =
            stages.iter().cloned().chain(only).chain(changes).chain(settings).collect();
        Asked::new(&self.path, &self.folder(), words.iter().map(String::as_str))
    }

    /// Reads it. Nothing is written.
    pub(crate) fn read(&self) -> anyhow::Result<Project> {
        let (manifest, graph) =
            manifest::read_on(&self.path, &self.changes, &self.config.execution)?;
        self.project(manifest, graph)
    }

    /// Reads a part of it, as [`manifest::read_part`] does. Nothing is written.
    fn read_part(&self, templates: &HashSet<&str>) -> Option<Project> {
        let execution = &self.config.execution;
        let read = manifest::read_part(&self.path, &self.changes, execution, templates);
        read.and_then(|(manifest, graph)| self.project(manifest, graph).ok())
    }

    fn project(&self, mut manifest: Manifest, graph: Graph) -> anyhow::Result<Project> {
        manifest.folder = self.folder();
        let cache = Arc::new(self.cache()?);
        let Config { jobs, cache_limit, .. } = *self.config;
        let (limits, only) = (self.config.limits.clone(), self.with.only.clone());
        let sharing = settings::sharing(manifest.sharing.clone().or(&self.config.sharing))?;
        let signing = Signing { trust: self.config.trust.clone(), key_file: settings::key_path() };
        let shared = sharing.remote.map(|remote| Arc::new(SharedCache::new(remote, signing)));
        let push = sharing.push.unwrap_or(PushPolicy::Never);
        let mut executors = self.config.executors.clone();
        executors.extend(manifest.executors.clone());
        Ok(Project {
            manifest,
            graph,
            cache,
            shared,
            push,
            jobs,
            limits,
            executors,
            cache_limit,
            only,
        })
    }
}

/// The folder of a manifest, absolute. The folders above `a/..` are not those above it.
fn folder_of(manifest: &Path) -> PathBuf {
    let absolute = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    match folder.components().any(|part| part == Component::ParentDir) {
        true => folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
        false => folder.to_owned(),
    }
}

/// The `pipeline.toml` of this folder, or of the nearest one above, as a relative path. On a terminal, a note names it.
fn nearest_manifest(stages: &[String]) -> anyhow::Result<PathBuf> {
    let folder = std::env::current_dir().context("no current folder")?;
    let mut path = PathBuf::from(manifest::DEFAULT_NAME);
    for above in folder.ancestors() {
        if above.join(manifest::DEFAULT_NAME).is_file() {
            // Not in a script, and not where a program reads the output.
            if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
                note(&format!("manifest: {}", path.display()));
            }
            return Ok(path);
        }
        path = Path::new("..").join(path);
    }
    let file = stages.iter().find(|stage| Path::new(stage).exists());
    let hint = file.map_or(String::new(), |file| {
        format!("; '{file}' is taken for a stage, as it does not end in .toml")
    });
    bail!(
        "no manifest is named, and there is no {} in {} or above: name a .toml file, or write a manifest with `pipeline init`{hint}",
        manifest::DEFAULT_NAME,
        folder.display()
    )
}

/// The cache that the arguments, the environment or the user's settings name, or else that of a folder.
pub(crate) fn open_cache(given: Option<&Path>, folder: &Path) -> anyhow::Result<Cache> {
    cache_of(&settings::config()?, given, folder)
}

fn cache_of(config: &Config, given: Option<&Path>, folder: &Path) -> anyhow::Result<Cache> {
    let root = match given.map(Path::to_owned).or_else(|| settings::cache(config)) {
        Some(folder) => std::path::absolute(folder).context("no current folder")?,
        None => default_cache(folder),
    };
    Cache::open(&root)
}

/// The cache in the nearest folder above the manifest that has one, or a `.git`; else beside the manifest. A link counts
/// also if its target does not exist: results must not begin again elsewhere because a disk is not mounted.
fn default_cache(folder: &Path) -> PathBuf {
    let has_cache = |cache: PathBuf| cache.is_dir() || cache.is_symlink();
    let is_root = |folder: &&Path| has_cache(folder.join("cache")) || folder.join(".git").exists();
    folder.ancestors().find(is_root).unwrap_or(folder).join("cache")
}

/// `did you mean 'train'?`, or the list of all.
pub(crate) fn did_you_mean<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.collect();
    let nearest = manifest::did_you_mean(name, all.iter().copied());
    nearest.unwrap_or_else(|| format!("there are: {}", all.join(", ")))
}

/// Writes text for people to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_while_read(text).map(drop)
}

/// Writes text for people that this program has coloured, where standard output has colours.
pub(crate) fn print_coloured(text: &str) -> anyhow::Result<()> {
    print_coloured_while_read(text).map(drop)
}

/// The same. Returns whether somebody still reads it.
pub(crate) fn print_coloured_while_read(text: &str) -> anyhow::Result<bool> {
    print_exact(visible::coloured(text).as_bytes())
}

/// As [`print`]. Returns whether somebody still reads it: for commands that would go on otherwise.
pub(crate) fn print_while_read(text: &str) -> anyhow::Result<bool> {
    print_exact(visible::text(text).as_bytes())
}

/// Writes what a program reads to standard output: as it is, but for a terminal. There, colours are left out, and what
/// else could act on the terminal is escaped.
pub(crate) fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    print_raw_while_read(bytes).map(drop)
}

/// The same. Returns whether somebody still reads it.
pub(crate) fn print_raw_while_read(bytes: &[u8]) -> anyhow::Result<bool> {
    if !std::io::stdout().is_terminal() {
        return print_exact(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
        Some(line) => visible::without_colours(line.trim_end_matches('\r')) + "\n",
        None => visible::without_colours(line),
    });
    print_while_read(&lines.collect::<String>())
}

/// Writes a remark beside the output to standard error.
pub(crate) fn note(text: &str) {
    // Where standard error is closed, nobody reads it.
    let _ = writeln!(std::io::stderr(), "{}", visible::text(text));
}

/// Writes to standard output. It is not an error if nobody reads it any more (`| head`): returns whether somebody does.
fn print_exact(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("cannot write to standard output"),
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print_exact(visible::json(&format!("{value:#}\n")).as_bytes()).map(drop)
}

/// An error about a command that does not exist, with the one that is near: letters that are swapped, too.
fn with_near_command(mut error: clap::Error, known: &clap::Command) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let names = known.get_subcommands().filter(|command| !command.is_hide_set());
    if let Some(near) = manifest::nearest(given, names.map(clap::Command::get_name)) {
        let near = ContextValue::Strings(vec![near.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, near);
    }
    error
}

/// What is wrong with the arguments, or the help that they ask for.
fn report_arguments(error: clap::Error) -> ExitCode {
    let text = error.to_string();
    match blanked(&text) {
        // It repeats what was given: a URL with a password.
        Cow::Owned(text) => {
            report_error(anyhow!("{}", text.trim_start_matches("error: ").trim_end()))
        }
        Cow::Borrowed(_) => error.exit(),
    }
}

/// Shows the warnings about these stages on standard error. Returns whether there are any.
fn warn(project: &Project, selected: &[StageName]) -> bool {
    show_warnings(&lint::warnings(&project.manifest, selected))
}

/// Shows warnings. Returns whether there are any.
fn show_warnings(warnings: &Warnings) -> bool {
    let text = warnings.render(colour_of_errors());
    // Where standard error is closed, nobody reads it.
    let _ = std::io::stderr().write_all(visible::coloured(&text).as_bytes());
    !text.is_empty()
}

fn colour_of_errors() -> Colour {
    if colour::is_for_errors() { Colour::Always } else { Colour::Never }
}

/// Shows an error and returns its exit status.
fn report_error(error: anyhow::Error) -> ExitCode {
    let text = match error.downcast_ref::<Mistakes>() {
        Some(mistakes) => visible::coloured(&mistakes.render(colour_of_errors())),
        None => {
            let error = with_disk_advice(error);
            format!("error: {}\n", visible::text(&in_words(&error)))
        }
    };
    // Where standard error is closed, nobody reads it.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(CANNOT)
}
