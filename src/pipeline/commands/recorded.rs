//! Recorded results of stages, under whatever parameters: found through the history and the current plan, each with
//! everything that it was made with.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use pipeline_stages::clean_labels::CleanLabels;
use pipeline_stages::known::{Known, KnownInputs, SplitId};
use pipeline_stages::point::canonical;
use pipeline_stages::{KindConfig, kind_info};
use serde_json::{Map, Value};

use super::project::Project;
use crate::cache::Record;
use crate::digest::Digest;
use crate::history;
use crate::key::{KeyPart, StageKey};
use crate::plan::Plan;
use crate::stage_name::StageName;

/// How deep tables in parameters are taken apart.
const DEEPEST: usize = 4;

/// The most stages that are read one after the other: more than any graph needs.
const LONGEST_CHAIN: usize = 100;

/// What a result was made with: a parameter, under the name of its stage in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Setting {
    pub(super) stage: String,
    pub(super) name: String,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.stage, self.name)
    }
}

impl Setting {
    /// Whether it is an entry of a table: `environment.RATE`.
    pub(super) fn is_entry(&self) -> bool {
        self.name.contains('.')
    }

    /// Whether somebody means it: `train.epochs`, `epochs`.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let last = self.name.rsplit('.').next().unwrap_or_default();
        self.to_string() == name || self.name == name || last == name
    }
}

/// The parameters of a stage and of all stages before it.
pub(super) type Settings = BTreeMap<Setting, Value>;

/// A recorded result.
pub(super) struct Recorded {
    /// What the stage was called in the newest run that had the result.
    pub(super) name: StageName,
    pub(super) record: Record,
    /// Whether the manifest has this result now.
    pub(super) is_current: bool,
    origin: Rc<Origin>,
}

impl Recorded {
    /// What it was made with.
    pub(super) fn settings(&self) -> &Settings {
        &self.origin.settings
    }

    /// Whether it has learned from labels that are known to be right, or was chosen by them: by its own parameters, or by those of a stage before it.
    pub(super) fn uses_clean_labels(&self) -> bool {
        self.origin.clean_labels == CleanLabels::Decide
    }
}

/// What a result follows from.
#[derive(Default)]
struct Origin {
    settings: Settings,
    known: Known,
    clean_labels: CleanLabels,
}

/// All recorded results of an experiment.
pub(super) struct AllRecorded {
    /// The names of stages, each with a key: the current ones first, then from the newest run to the oldest.
    names: Vec<(StageName, StageKey, bool)>,
    records: HashMap<StageKey, Record>,
    /// The names in the manifest, and the keys, of what made an artifact.
    makers: HashMap<Digest, Vec<(String, StageKey)>>,
    origins: HashMap<(String, StageKey), Rc<Origin>>,
}

impl AllRecorded {
    /// Reads them.
    pub(super) fn read(project: &Project, plan: &Plan) -> anyhow::Result<Self> {
        let experiment = &project.manifest.experiment.name;
        let current = plan.iter().filter_map(|(name, state)| Some((name.clone(), state.result()?)));
        let (mut names, mut records) = (Vec::new(), HashMap::new());
        for (name, record) in current {
            names.push((name, record.key, true));
            records.insert(record.key, record.clone());
        }
        let current: HashSet<StageKey> = records.keys().copied().collect();
        // Without a history, the last result of each stage is still known.
        let heads = project.graph.order().filter_map(|name| {
            Some((name.clone(), project.cache.head(experiment, name.as_str())?))
        });
        let past = history::names_and_keys(&project.cache, experiment, usize::MAX, |_| true)?;
        for (name, key) in past.into_iter().chain(heads) {
            if !current.contains(&key) {
                names.push((name, key, false));
            }
        }
        let mut makers: HashMap<Digest, Vec<(String, StageKey)>> = HashMap::new();
        let mut seen = BTreeSet::new();
        names.retain(|(name, key, is_current)| {
            if !records.contains_key(key) {
                records.extend(project.cache.record(key).map(|record| (*key, record)));
            }
            let Some(record) = records.get(key) else { return false };
            let maker = (name.template().to_owned(), *key);
            let makers = makers.entry(record.output.digest).or_default();
            if !makers.contains(&maker) {
                makers.push(maker);
            }
            // Several instances may have one result now; of earlier ones, the newest name counts.
            seen.insert(*key) || *is_current
        });
        Ok(Self { names, records, makers, origins: HashMap::new() })
    }

    /// The results of the stages whose name `is_wanted`.
    pub(super) fn results(&mut self, is_wanted: impl Fn(&StageName) -> bool) -> Vec<Recorded> {
        let wanted = self.names.iter().filter(|(name, ..)| is_wanted(name));
        let wanted: Vec<_> = wanted.cloned().collect();
        let results = wanted.into_iter().filter_map(|(name, key, is_current)| {
            let record = self.records.get(&key)?.clone();
            let origin = self.origin(name.template(), &key, LONGEST_CHAIN);
            Some(Recorded { name, record, is_current, origin })
        });
        results.collect()
    }

    /// The names and keys of all of them.
    pub(super) fn names(&self) -> impl Iterator<Item = (&StageName, &StageKey)> {
        self.names.iter().map(|(name, key, _)| (name, key))
    }

    fn origin(&mut self, stage: &str, key: &StageKey, left: usize) -> Rc<Origin> {
        let place = (stage.to_owned(), *key);
        if let Some(known) = self.origins.get(&place) {
            return Rc::clone(known);
        }
        let mut found = Origin::default();
        let (mut kind, mut parameters) = (None, Map::new());
        let mut inputs: Vec<(String, Rc<Origin>)> = Vec::new();
        let parts = self.records.get(key).map(|record| record.parts.clone()).unwrap_or_default();
        let setting = |name: &str| Setting { stage: stage.to_owned(), name: name.to_owned() };
        for part in parts {
            match part {
                KeyPart::Schema { .. } | KeyPart::Missing { .. } => {}
                KeyPart::Kind { name, .. } => {
                    kind = kind_info(&name);
                    found.settings.insert(setting("kind"), name.into());
                }
                KeyPart::Seed { seed } => drop(found.settings.insert(setting("seed"), seed.into())),
                KeyPart::Parameter { name, value } => {
                    parameters.insert(name.clone(), value.clone());
                    add(&mut found.settings, setting(&name), value, 0);
                }
                KeyPart::Outside { path, digest, .. } => {
                    found.settings.insert(setting(&path), digest.short().into());
                }
                // All instances of a stage: what they have in common is not told apart.
                KeyPart::Input { port, .. } if port.contains('@') => {}
                KeyPart::Input { port, from, digest } => {
                    let maker = self.maker(from.template(), &digest).filter(|_| left > 0);
                    let Some(key) = maker else {
                        found.settings.insert(setting(&port), digest.short().into());
                        inputs.push((port, Rc::default()));
                        continue;
                    };
                    let before = self.origin(from.template(), &key, left - 1);
                    let settings = before.settings.iter();
                    found
                        .settings
                        .extend(settings.map(|(name, value)| (name.clone(), value.clone())));
                    inputs.push((port, before));
                }
            }
        }
        let read = kind.and_then(|kind| {
            // Results of earlier versions may have parameters that do not exist any more.
            parameters.retain(|name, _| (kind.fields)().iter().any(|field| field.name == *name));
            KindConfig::read(kind.name, Value::Object(parameters))
        });
        if let Some(Ok(stage)) = read {
            let known = inputs.iter().map(|(port, before)| (port.clone(), before.known.clone()));
            let known = KnownInputs::new(known);
            let of_inputs =
                inputs.iter().map(|(port, before)| (port.as_str(), before.clean_labels));
            found.clean_labels = stage.clean_labels(&known, of_inputs);
            found.known = stage.knows(&known, || SplitId::of(key));
        } else {
            // Of a stage that cannot be read any more, what it takes from its inputs is not known.
            let of_inputs = inputs.iter().map(|(_, before)| before.clean_labels);
            found.clean_labels = of_inputs.max().unwrap_or_default();
        }
        let found = Rc::new(found);
        self.origins.insert(place, Rc::clone(&found));
        found
    }

    /// The key of what made an artifact, as far as it is known: preferably of a stage with this name.
    fn maker(&self, stage: &str, digest: &Digest) -> Option<StageKey> {
        let makers = self.makers.get(digest)?;
        let same = makers.iter().find(|(name, _)| name == stage);
        same.or(makers.first()).map(|(_, key)| *key)
    }
}

/// Adds a parameter: a table by its entries. One that is not given is left out.
fn add(settings: &mut Settings, setting: Setting, value: Value, depth: usize) {
    match value {
        Value::Null => {}
        Value::Object(table) if depth < DEEPEST => {
            for (name, value) in table {
                let name = format!("{}.{name}", setting.name);
                add(settings, Setting { stage: setting.stage.clone(), name }, value, depth + 1);
            }
        }
        value => drop(settings.insert(setting, value)),
    }
}

/// A value as it is shown, and compared: numbers in their shortest form.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => canonical(&other.to_string()).into_owned(),
    }
}
