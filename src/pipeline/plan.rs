//! What must run, and why: the graph held against the records.
//!
//! Pure: what there is comes in through [`Facts`]; nothing is read or run here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cache::Record;
use crate::digest::Digest;
use crate::graph::Graph;
use crate::key::{self, Change, OutsideDigest, Part, StageKey};
use crate::manifest::{Manifest, StageDeclaration, StageName};

/// What a plan needs to know about the world.
pub trait Facts {
    /// The record of a key, if its artifact is there too.
    fn usable(&self, key: &StageKey) -> Option<Record>;
    /// The record that a stage had last, whether or not its artifact is there.
    fn last(&self, stage: &StageName) -> Option<Record>;
    /// The files outside the cache that a stage reads.
    fn outside(&self, stage: &StageName) -> &[OutsideDigest];
}

/// Whether a stage must run.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Its result is there.
    Fresh(Box<Record>),
    /// It must run.
    Dirty {
        /// Why.
        reason: Reason,
        /// Its key.
        key: StageKey,
        /// What the key was made of.
        parts: Vec<Part>,
    },
    /// Whether it must run is known only when other stages have run.
    Waiting {
        /// Its inputs that must run, or wait themselves.
        on: Vec<StageName>,
        /// Why it must run whatever they give, where that is known.
        reason: Option<Reason>,
    },
}

/// Why a stage must run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// There is no record of it.
    NeverRan,
    /// There is a record, but its artifact is gone.
    ArtifactGone {
        /// The artifact.
        digest: Digest,
    },
    /// Something that enters its key changed.
    Changed {
        /// What.
        changes: Vec<Change>,
    },
}

/// The state of every stage that was asked for, and of what it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    states: BTreeMap<StageName, State>,
    order: Vec<StageName>,
}

impl Plan {
    /// Plans these stages. They are in an order in which every stage comes after its inputs, and
    /// closed: with each stage come its inputs.
    pub fn of(
        manifest: &Manifest,
        graph: &Graph,
        selected: &[StageName],
        facts: &dyn Facts,
    ) -> Self {
        let mut plan = Self { states: BTreeMap::new(), order: selected.to_vec() };
        for name in selected {
            let Some(declaration) = manifest.stage(name) else { continue };
            let state = plan.state_of(declaration, graph, facts);
            plan.states.insert(name.clone(), state);
        }
        plan
    }

    fn state_of(&self, declaration: &StageDeclaration, graph: &Graph, facts: &dyn Facts) -> State {
        let name = &declaration.name;
        let on: Vec<StageName> = graph
            .inputs(name)
            .into_iter()
            .filter(|input| !matches!(self.states.get(*input), Some(State::Fresh(_))))
            .cloned()
            .collect();
        let digest_of = |input: &StageName| match self.states.get(input) {
            Some(State::Fresh(record)) => Some(record.output.digest),
            _ => None,
        };
        let parts = key::parts(declaration, facts.outside(name), digest_of);
        if on.is_empty() {
            return decide(name, parts, facts);
        }
        State::Waiting { on, reason: known_reason(facts.last(name), &parts) }
    }

    /// The stages in an order in which every one comes after its inputs.
    pub fn iter(&self) -> impl Iterator<Item = (&StageName, &State)> {
        self.order.iter().filter_map(|name| self.states.get_key_value(name))
    }

    /// The state of one stage.
    pub fn state(&self, name: &StageName) -> Option<&State> {
        self.states.get(name)
    }

    /// Whether nothing must run.
    pub fn is_all_fresh(&self) -> bool {
        self.states.values().all(|state| matches!(state, State::Fresh(_)))
    }
}

/// Why a stage must run whatever its waiting inputs give; `None` while all depends on them.
fn known_reason(last: Option<Record>, parts: &[Part]) -> Option<Reason> {
    let Some(last) = last else { return Some(Reason::NeverRan) };
    let mut changes = key::changes(&last.parts, parts);
    // What a waiting input gives is not known: that it is not among the parts is no change.
    changes.retain(|change| !matches!(change, Change::Input { new: None, .. }));
    (!changes.is_empty()).then_some(Reason::Changed { changes })
}

/// Whether a stage must run, all of whose inputs are there.
pub fn decide(name: &StageName, parts: Vec<Part>, facts: &dyn Facts) -> State {
    let key = StageKey::of(&parts);
    if let Some(record) = facts.usable(&key) {
        return State::Fresh(Box::new(record));
    }
    let reason = match facts.last(name) {
        None => Reason::NeverRan,
        Some(last) if last.key == key => Reason::ArtifactGone { digest: last.output.digest },
        Some(last) => Reason::Changed { changes: key::changes(&last.parts, &parts) },
    };
    State::Dirty { reason, key, parts }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("no earlier run"),
            Self::ArtifactGone { digest } => {
                write!(f, "its artifact {} is gone from the cache or damaged", digest.short())
            }
            Self::Changed { changes } => {
                let texts: Vec<String> = changes.iter().map(Change::to_string).collect();
                f.write_str(&texts.join("; "))
            }
        }
    }
}
