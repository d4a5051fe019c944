//! Results of a manifest that are on the remote: found by their keys, and brought into the cache.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;

use super::metered::metered;
use super::output::note;
use super::project::Project;
use crate::cache::{Record, Watch, on_threads};
use crate::cli::ManifestArguments;
use crate::digest::Digest;
use crate::execute::with_advice;
use crate::key::StageKey;
use crate::plan::{Plan, PlanState};
use crate::reason::Reason;
use crate::remote::{NotPulled, SharedCache};
use crate::stage_name::StageName;

/// Most warnings of the same kind.
const MOST_WARNINGS: usize = 3;

/// After this time, it is said that somebody waits for the remote.
const SILENCE: Duration = Duration::from_secs(2);

/// How many artifacts are moved at once.
pub(super) const MOST_AT_ONCE: usize = 4;

impl Project {
    /// The cache that others share.
    ///
    /// # Errors
    /// When none is named.
    pub(super) fn required_remote(
        &self,
        arguments: &ManifestArguments,
    ) -> anyhow::Result<&SharedCache> {
        let file =
            arguments.named().map_or("the manifest".into(), |path| path.display().to_string());
        self.shared.as_deref().with_context(|| {
            format!(
                "no remote is named: write [cache] remote = \"file:///mnt/share/cache\" into {file} or your config.toml, \
                 or set PIPELINE_REMOTE"
            )
        })
    }

    /// Asks the remote for the results of these stages that are not here, closed under inputs: first for those whose keys are known, then
    /// for those whose keys are known with them, and so on. What it says is part of every plan from then on.
    fn ask_remote(&self, selected: &[StageName]) {
        let Some(shared) = &self.shared else { return };
        let facts = self.facts(selected);
        let mut asked = HashMap::new();
        saying_when_slow(&format!("asking {} ...", shared.address()), || {
            loop {
                let plan = Plan::of(&self.manifest, &self.graph, selected, &facts);
                let keys = plan.iter().filter_map(|(name, state)| match state {
                    PlanState::Dirty { reason, .. }
                        if reason.is_withdrawal() || *reason == Reason::Uncertain =>
                    {
                        None
                    }
                    PlanState::Dirty { key, .. } => Some((*key, name.clone())),
                    // It may have been removed there since.
                    PlanState::Remote(record) => Some((record.key, name.clone())),
                    _ => None,
                });
                let keys: HashMap<StageKey, StageName> =
                    keys.filter(|(key, _)| !shared.has_answered(key)).collect();
                let is_all = shared.ask(&keys.keys().copied().collect::<Vec<_>>());
                let is_last = keys.is_empty() || !is_all;
                asked.extend(keys);
                if is_last {
                    break;
                }
            }
        });
        shared.keep(&self.cache);
        self.warn_of_remote(&asked);
    }

    /// The same, and what it says is kept for later processes although nothing was ever run here.
    pub(super) fn ask_remote_and_keep(&self, selected: &[StageName]) {
        let Some(shared) = &self.shared else { return };
        self.ask_remote(selected);
        // Where the cache cannot be written, it is asked again next time.
        if shared.says_something()
            && !self.cache.layout().version().exists()
            && self.cache.prepare().is_ok()
        {
            shared.keep(&self.cache);
        }
    }

    /// The same for whoever only shows it, and makes no cache: where there is none yet, a note names the command that keeps it.
    pub(super) fn ask_remote_to_show(&self, selected: &[StageName], arguments: &ManifestArguments) {
        let Some(shared) = &self.shared else { return };
        self.ask_remote(selected);
        if shared.says_something() && !self.cache.layout().version().exists() {
            note(&format!(
                "what the remote has is not kept, as there is no cache in {} yet: `{}` makes one",
                self.cache.layout().root().display(),
                arguments.command_again("pull")
            ));
        }
    }

    /// The end of an advice about results that are not here, as far as that is known: a remote that was not asked may have them.
    pub(super) fn or_pull(&self, command: &str) -> String {
        let is_shared = self.shared.is_some();
        if is_shared { format!("; `{command}` brings what the remote has") } else { String::new() }
    }

    /// Says what is wrong with the remote: why it is not asked any more, and what it had that did not count for the stages of these keys.
    fn warn_of_remote(&self, asked: &HashMap<StageKey, StageName>) {
        let Some(shared) = &self.shared else { return };
        let odd = shared.take_odd();
        for (key, reason) in odd.iter().take(MOST_WARNINGS) {
            let stage = key.and_then(|key| asked.get(&key));
            let stage = stage.map_or(String::new(), |stage| format!("{stage}: "));
            note(&format!("warning: {}: {stage}{reason}", shared.address()));
        }
        if let Some(more) = odd.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
            note(&format!("warning: {}: {more} more like these", shared.address()));
        }
        if let Some(trouble) = shared.take_trouble() {
            note(&format!("warning: the remote {} is not used: {trouble}", shared.address()));
        }
    }

    /// The plan of these stages, after the artifacts of those that are wanted were brought into the cache where they were only on the
    /// remote. A note says which could not be.
    pub(super) fn plan_here(
        &self,
        selected: &[StageName],
        is_wanted: impl Fn(&StageName, &Record) -> bool,
    ) -> anyhow::Result<Plan> {
        let plan = self.plan(selected);
        let mut records = remote_only(&plan, plan.iter().map(|(name, _)| name));
        records.retain(|(name, record)| is_wanted(name, record));
        if records.is_empty() {
            return Ok(plan);
        }
        let not = match self.bring(&records) {
            Ok(brought) => brought.not,
            // What needs none of them can go on.
            Err(error) => {
                let why = format!("{error:#}");
                records.iter().map(|(name, _)| (name.clone(), why.clone())).collect()
            }
        };
        for (name, why) in &not {
            note(&format!("warning: the result of {name} was not brought from the remote: {why}"));
        }
        Ok(self.plan(selected))
    }

    /// Brings results into the cache, each with the name of a stage.
    ///
    /// # Errors
    /// When nothing can be written into the cache.
    pub(super) fn bring(&self, records: &[(StageName, Record)]) -> anyhow::Result<Brought> {
        let Some(shared) = &self.shared else { return Ok(Brought::default()) };
        self.cache.prepare().map_err(with_advice)?;
        let watch = Watch::default();
        let bytes = records.iter().map(|(_, record)| record.output.extent.bytes).sum();
        let pulled = metered("pull", bytes, &watch, || {
            on_threads(records, MOST_AT_ONCE, |(_, record)| {
                shared.pull(&self.cache, record, &watch)
            })
        });
        let mut brought = Brought::default();
        let mut heads = HashMap::new();
        for ((name, _), pulled) in records.iter().zip(pulled) {
            match pulled {
                Ok((record, withdrawn)) => {
                    for one in withdrawn {
                        note(&format!("{} no longer counts: {}", one.record.name(), one.reason));
                    }
                    brought.bytes += record.output.extent.bytes;
                    heads.insert(name, record.key);
                    brought.results.push((name.clone(), record.output.digest));
                }
                Err(NotPulled::There(failure)) => brought.not.push((name.clone(), failure.reason)),
                Err(NotPulled::Here(error)) => {
                    brought.not.push((name.clone(), format!("{:#}", with_advice(error))));
                }
                Err(NotPulled::Stopped) => brought.not.push((name.clone(), "stopped".to_owned())),
            }
        }
        let experiment = &self.manifest.experiment.name;
        for (name, key) in heads {
            self.cache.set_head(experiment, name.as_str(), &key).map_err(with_advice)?;
        }
        Ok(brought)
    }
}

/// Does the work, and says what it is where it takes long.
fn saying_when_slow(text: &str, work: impl FnOnce()) {
    let (sender, receiver) = channel::<()>();
    std::thread::scope(|scope| {
        let say = move || {
            if receiver.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
                note(text);
            }
        };
        // Where the system has no thread left, nothing is said.
        let _ = std::thread::Builder::new().spawn_scoped(scope, say);
        work();
        drop(sender);
    });
}

/// What was brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// The stages with their artifacts.
    pub(super) results: Vec<(StageName, Digest)>,
    pub(super) bytes: u64,
    /// What was not, each with the reason.
    pub(super) not: Vec<(StageName, String)>,
}

/// The results of these stages that are only on the remote, each once.
pub(super) fn remote_only<'a>(
    plan: &Plan,
    wanted: impl Iterator<Item = &'a StageName>,
) -> Vec<(StageName, Record)> {
    let mut seen = HashSet::new();
    let remote = wanted.filter_map(|name| match plan.state(name) {
        Some(PlanState::Remote(record)) if seen.insert(record.key) => {
            Some((name.clone(), (**record).clone()))
        }
        _ => None,
    });
    remote.collect()
}
