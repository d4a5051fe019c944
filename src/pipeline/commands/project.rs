//! A manifest with its graph and its cache: how commands find and open them, and which stages are meant.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::IsTerminal;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use pipeline_stages::kind::PathForm;
use pipeline_stages::point::canonical;
use pipeline_stages::text::in_short;

use super::hint::{MOST_LISTED, did_you_mean};
use super::output::note;
use super::settings;
use crate::cache::{Cache, is_of_others};
use crate::cli::{ManifestArguments, WithArguments};
use crate::diagnostic::Mistakes;
use crate::facts::CacheFacts;
use crate::graph::Graph;
use crate::machine;
use crate::manifest::{
    self, Config, Executors, Fit, LOCAL, Manifest, Misfit, Override, PushPolicy, RunLimits,
    StageExecution, unknown_executor,
};
use crate::pattern::Pattern;
use crate::plan::{Plan, PlanState};
use crate::plan_index::IndexKey;
use crate::remote::SharedCache;
use crate::signing::Signing;
use crate::stage_name::StageName;
use crate::tracking::Scene;

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
    limits: RunLimits,
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
    pub(crate) fn limits(&self, typed: RunLimits) -> RunLimits {
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
        let near = manifest::did_you_mean(name.trim_end_matches('/'), templates.iter().copied());
        let path = Path::new(pattern);
        if near.is_none() && (pattern.contains('/') || path.exists()) {
            let own = path.join(manifest::DEFAULT_NAME);
            let hint = match path.is_dir() {
                true if own.is_file() => {
                    format!(", but a folder: did you mean '{}'?", own.display())
                }
                true => ", but a folder: a manifest is a file that ends in .toml".to_owned(),
                false => "; a manifest ends in .toml".to_owned(),
            };
            bail!("{manifest} has no stage '{pattern}'; that is not a manifest{hint}");
        }
        let hint = near.unwrap_or_else(|| did_you_mean(name, templates.into_iter()));
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
    pub(crate) fn index_key(&self, stages: &[String], executor: Option<&str>) -> IndexKey {
        let changes = self.changes.iter().map(|change| format!("{change:?}"));
        let only = self.with.only.iter().map(|only| format!("--only {only}"));
        // What was pushed to one remote is not at another one.
        let settings = [
            format!("{:?}", self.config.execution),
            format!("{:?}", self.config.sharing),
            format!("{:?}", settings::remote_of_environment()),
            // One that does not exist is a mistake each time.
            format!("{:?}", executor.map(|name| (name, self.config.executors.contains_key(name)))),
        ];
        let words: Vec<String> =
            stages.iter().cloned().chain(only).chain(changes).chain(settings).collect();
        IndexKey::new(&self.path, &self.folder(), words.iter().map(String::as_str))
    }

    /// Reads it. Nothing is written.
    pub(crate) fn read(&self) -> anyhow::Result<Project> {
        let (manifest, graph) =
            manifest::read_on(&self.path, &self.changes, &self.config.execution)?;
        self.project(manifest, graph)
    }

    /// Reads a part of it, as [`manifest::read_part`] does. Nothing is written.
    pub(super) fn read_part(&self, templates: &HashSet<&str>) -> Option<Project> {
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
pub(super) fn folder_of(manifest: &Path) -> PathBuf {
    let absolute = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    match folder.components().any(|part| part == Component::ParentDir) {
        true => folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
        false => folder.to_owned(),
    }
}

/// The `pipeline.toml` of this folder, or of the nearest one above, as a relative path. On a terminal, a note names it.
pub(super) fn nearest_manifest(stages: &[String]) -> anyhow::Result<PathBuf> {
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

/// Fails where there is no cache: for whoever asks about the whole of one.
pub(super) fn check_exists(cache: &Cache) -> anyhow::Result<()> {
    let layout = cache.layout();
    ensure!(layout.version().exists(), "there is no cache in {}", layout.root().display());
    Ok(())
}

fn cache_of(config: &Config, given: Option<&Path>, folder: &Path) -> anyhow::Result<Cache> {
    let root = match given.map(Path::to_owned).or_else(|| settings::cache(config)) {
        Some(folder) => std::path::absolute(folder).context("no current folder")?,
        None => default_cache(folder),
    };
    Cache::open(&root)
}

/// The cache in the nearest folder above the manifest that has one, or a `.git`; else beside the manifest. One of this name that something else uses does not count. A link
/// counts also if its target does not exist: results must not begin again elsewhere because a disk is not mounted.
fn default_cache(folder: &Path) -> PathBuf {
    let has_cache =
        |cache: PathBuf| (cache.is_dir() && !is_of_others(&cache)) || cache.is_symlink();
    let is_root = |folder: &&Path| has_cache(folder.join("cache")) || folder.join(".git").exists();
    folder.ancestors().find(is_root).unwrap_or(folder).join("cache")
}
