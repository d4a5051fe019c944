//! What must run, and why: the graph compared with the records.
//!
//! Pure: records and files come in through [`Facts`]; nothing is read or run here.

use std::collections::{BTreeSet, HashSet};

use foldhash::{HashMap, HashMapExt};
use serde::Serialize;

use crate::cache::Record;
use crate::diagnostic::Span;
use crate::difference::Differences;
use crate::digest::Digest;
use crate::graph::Graph;
use crate::key::change::{self, Change};
use crate::key::{self, InputResult, KeyInput, KeyPart, OutsideDigest, StageKey};
use crate::manifest::{Manifest, Stage};
use crate::reason::Reason;
use crate::stage_name::StageName;

/// What a plan needs to know about the cache and about files outside it.
pub(crate) trait Facts {
    /// The record of a key, if its artifact exists too; else why there is no usable one.
    fn result(&self, key: &StageKey) -> Result<Record, NoResult>;
    /// The record that a remote has for a key without a usable result here, as far as that is known.
    fn remote(&self, key: &StageKey) -> Option<Record>;
    /// The record that a stage had last, whether or not its artifact exists.
    fn last(&self, stage: &StageName) -> Option<Record>;
    /// The files outside the cache that a stage reads, or why they cannot be read.
    fn outside(&self, stage: &StageName) -> Result<&[OutsideDigest], &Blocked>;
    /// Whether a stage is to run again although it has a result.
    fn is_forced(&self, _stage: &StageName, _key: &StageKey) -> bool {
        false
    }
    /// What differs between two contents of a file or folder outside the cache, where both are still known.
    fn differences(&self, old: &Digest, new: &Digest) -> Option<Differences>;
}

/// Why there is no usable result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NoResult {
    /// It never ran, or its record was removed.
    NoRecord,
    /// There is a record, but its artifact is gone.
    ArtifactGone(Digest),
    /// There is a record, but it is damaged.
    RecordDamaged,
    /// There is a record, which another version of the program wrote.
    RecordOfOtherVersion,
    /// There is a record, but it cannot be read now.
    RecordInaccessible,
    /// There was a record, which no longer counts for this reason.
    Withdrawn(String),
    /// There may have been such a record: what was withdrawn cannot be seen now, for this reason.
    WithdrawalUnknown(String),
    /// There is a record, but a power cut may have torn its artifact.
    Uncertain,
    /// There is a record on a remote, whose artifact did not come, as the remote is away.
    OutOfReach,
}

/// Why a stage cannot run, regardless of the others: a file outside the cache that it reads cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Blocked {
    /// The line that names the file; where the stage starts, if that is on the command line.
    pub(crate) line: usize,
    /// The file of this line, if it is not the manifest itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    pub(crate) message: String,
    /// What to do, where that is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) help: String,
    /// Where the value is.
    #[serde(skip)]
    pub(crate) span: Span,
}

/// Whether a stage must run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PlanState {
    /// It has a result.
    Fresh(Box<Record>),
    /// It has a result, whose artifact is only on a remote.
    Remote(Box<Record>),
    /// It must run.
    Dirty {
        reason: Reason,
        key: StageKey,
        /// What the key was made of.
        parts: Vec<KeyPart>,
    },
    /// Whether it must run is known only when other stages have run.
    Waiting {
        /// Its inputs that must run, or wait themselves.
        on: Vec<StageName>,
        /// Why it must run regardless of their results, where that is known.
        reason: Option<Reason>,
        /// The result without those of them that have none, of a stage that runs without what has failed.
        partial: Option<Box<Record>>,
    },
    /// Its key cannot be made, so nothing is known about its result.
    Blocked(Blocked),
}

impl PlanState {
    /// The key, where it is known already.
    pub(crate) fn key(&self) -> Option<StageKey> {
        match self {
            Self::Fresh(record) | Self::Remote(record) => Some(record.key),
            Self::Dirty { key, .. } => Some(*key),
            Self::Waiting { .. } | Self::Blocked(_) => None,
        }
    }

    /// The result for the manifest as it is: also one without inputs that have failed, where the stage allows that.
    pub(crate) fn result(&self) -> Option<&Record> {
        match self {
            Self::Fresh(record)
            | Self::Remote(record)
            | Self::Waiting { partial: Some(record), .. } => Some(record),
            _ => None,
        }
    }

    /// The result of a stage that need not run, wherever its artifact is.
    pub(crate) fn finished(&self) -> Option<&Record> {
        match self {
            Self::Fresh(record) | Self::Remote(record) => Some(record),
            _ => None,
        }
    }
}

/// The state of every stage that was asked for, and of what it needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    states: HashMap<StageName, PlanState>,
    order: Vec<StageName>,
}

impl Plan {
    /// Plans these stages. They are in an order in which every stage comes after its inputs, and
    /// closed: with each stage come its inputs.
    pub(crate) fn of(
        manifest: &Manifest,
        graph: &Graph,
        selected: &[StageName],
        facts: &dyn Facts,
    ) -> Self {
        let mut plan =
            Self { states: HashMap::with_capacity(selected.len()), order: selected.to_vec() };
        for name in selected {
            let Some(declaration) = manifest.stage(name) else { continue };
            let state = plan.state_of(declaration, graph, facts);
            plan.states.insert(name.clone(), state);
        }
        plan
    }

    fn state_of(&self, declaration: &Stage, graph: &Graph, facts: &dyn Facts) -> PlanState {
        let name = &declaration.name;
        let on: Vec<StageName> = graph
            .inputs(name)
            .into_iter()
            .filter(|input| self.states.get(*input).and_then(PlanState::finished).is_none())
            .cloned()
            .collect();
        let result_of = |input: &StageName| {
            let result = self.states.get(input).and_then(PlanState::finished);
            result.map_or(InputResult::Unknown, made)
        };
        let outside = match facts.outside(name) {
            Ok(outside) => outside,
            Err(blocked) => return PlanState::Blocked(blocked.clone()),
        };
        let parts = || key::parts(declaration, outside, result_of);
        if on.is_empty() {
            return decide(name, parts(), facts);
        }
        let reason = match facts.last(name) {
            None => Some(Reason::NeverRan),
            Some(last) => known_reason(declaration, &on, &last, &parts(), facts),
        };
        let partial = declaration.stage.allows_missing().then(|| {
            let parts = key::parts(declaration, outside, |input| match result_of(input) {
                InputResult::Unknown => InputResult::Missing,
                known => known,
            });
            facts.result(&StageKey::of(&parts)).ok().map(Box::new)
        });
        PlanState::Waiting { on, reason, partial: partial.flatten() }
    }

    /// The stages in an order in which every one comes after its inputs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&StageName, &PlanState)> {
        self.order.iter().filter_map(|name| self.states.get_key_value(name))
    }

    pub(crate) fn state(&self, name: &StageName) -> Option<&PlanState> {
        self.states.get(name)
    }

    /// Whether nothing must run.
    pub(crate) fn is_all_fresh(&self) -> bool {
        self.states.values().all(|state| state.finished().is_some())
    }

    /// The stages that wait for a blocked one, directly or not.
    pub(crate) fn held_up(&self) -> BTreeSet<&StageName> {
        let mut held = BTreeSet::new();
        if !self.states.values().any(|state| matches!(state, PlanState::Blocked(_))) {
            return held;
        }
        for (name, state) in self.iter() {
            let PlanState::Waiting { on, .. } = state else { continue };
            let is_stuck = |input: &StageName| {
                held.contains(input)
                    || matches!(self.states.get(input), Some(PlanState::Blocked(_)))
            };
            if on.iter().any(is_stuck) {
                held.insert(name);
            }
        }
        held
    }
}

/// What a record says of the result of an input.
pub(crate) fn made(record: &Record) -> InputResult {
    InputResult::Made { key: record.key, digest: record.output.digest }
}

/// Why a stage that had a result must run regardless of the inputs that it waits `on`; `None` where it depends on them.
fn known_reason(
    declaration: &Stage,
    on: &[StageName],
    last: &Record,
    parts: &[KeyPart],
    facts: &dyn Facts,
) -> Option<Reason> {
    let on: HashSet<&StageName> = on.iter().collect();
    let inputs = key::inputs(declaration, |_| None).into_iter();
    let inputs = inputs.map(|KeyInput { port, from, .. }| (port, &from[0].from));
    let waiting: Vec<_> = inputs.filter(|(_, from)| on.contains(from)).collect();
    let is_waiting: HashSet<&str> = waiting.iter().map(|(port, _)| port.as_str()).collect();
    let mut changes = changes(&last.parts, parts, facts);
    // The content of a waiting input is not known: it is missing from the parts, which is not a change. A new
    // input is a change, regardless of its content.
    changes.retain(|change| match change {
        Change::Input { port, new: None, .. } | Change::Missing { port, .. } => {
            !key::single_ports(port).any(|port| is_waiting.contains(port.as_ref()))
        }
        _ => true,
    });
    let had: HashSet<_> = last
        .parts
        .iter()
        .filter_map(|part| match part {
            KeyPart::Input { port, .. } | KeyPart::Missing { port } => {
                Some(key::single_ports(port))
            }
            _ => None,
        })
        .flatten()
        .collect();
    let added = waiting.iter().filter(|(port, _)| !had.contains(port.as_str()));
    changes.extend(added.map(|(port, from)| Change::Input {
        port: port.clone(),
        from: (*from).clone(),
        old: None,
        new: None,
    }));
    (!changes.is_empty()).then_some(Reason::Changed { changes })
}

/// How the parts of a key differ from older ones, with the files of a folder that changed.
fn changes(old: &[KeyPart], new: &[KeyPart], facts: &dyn Facts) -> Vec<Change> {
    let mut changes = change::changes(old, new);
    for change in &mut changes {
        if let Change::Outside { was: None, old: Some(old), new: Some(new), differences, .. } =
            change
        {
            *differences = facts.differences(old, new);
        }
    }
    changes
}

/// Whether a stage must run, if all of its inputs exist.
pub(crate) fn decide(name: &StageName, parts: Vec<KeyPart>, facts: &dyn Facts) -> PlanState {
    let key = StageKey::of(&parts);
    let found = match facts.result(&key) {
        Ok(record) => Ok(PlanState::Fresh(Box::new(record))),
        // What was withdrawn here does not come back from elsewhere, and what may be torn is looked at first.
        Err(
            why @ (NoResult::Withdrawn(_) | NoResult::WithdrawalUnknown(_) | NoResult::Uncertain),
        ) => Err(why),
        Err(why) => facts.remote(&key).map(|record| PlanState::Remote(Box::new(record))).ok_or(why),
    };
    let reason = match found {
        Ok(_) | Err(NoResult::RecordOfOtherVersion | NoResult::RecordInaccessible)
            if facts.is_forced(name, &key) =>
        {
            Reason::Forced
        }
        Ok(state) => return state,
        Err(NoResult::ArtifactGone(digest)) => Reason::ArtifactGone { digest },
        Err(NoResult::RecordDamaged) => Reason::RecordDamaged,
        Err(NoResult::RecordOfOtherVersion) => Reason::RecordOfOtherVersion,
        Err(NoResult::RecordInaccessible) => Reason::RecordInaccessible,
        Err(NoResult::Withdrawn(because)) => Reason::Withdrawn { because },
        Err(NoResult::WithdrawalUnknown(because)) => Reason::WithdrawalUnknown { because },
        Err(NoResult::Uncertain) => Reason::Uncertain,
        Err(NoResult::OutOfReach) => Reason::OutOfReach,
        Err(NoResult::NoRecord) => match facts.last(name).filter(|last| last.key != key) {
            None => Reason::NeverRan,
            Some(last) => Reason::Changed { changes: changes(&last.parts, &parts, facts) },
        },
    };
    PlanState::Dirty { reason, key, parts }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    use crate::digest::FieldHasher;
    use crate::manifest;

    const CHAIN: &str = r#"
        [experiment]
        name = "test"
        [stages.a]
        kind = "command"
        run = ["a"]
        [stages.b]
        kind = "command"
        run = ["b"]
        inputs = { a = "a" }
        [stages.c]
        kind = "command"
        run = ["c"]
        inputs = { b = "b" }
        [stages.other]
        kind = "command"
        run = ["other"]
    "#;

    /// Facts in memory: records, and which artifacts are missing.
    #[derive(Default)]
    struct Memory {
        records: RefCell<BTreeMap<StageKey, Record>>,
        heads: RefCell<BTreeMap<StageName, StageKey>>,
        gone: RefCell<Vec<StageKey>>,
        withdrawn: RefCell<Vec<StageKey>>,
        remote: BTreeMap<StageKey, Record>,
        blocked: BTreeMap<StageName, Blocked>,
        forced: Option<StageName>,
    }

    impl Facts for Memory {
        fn result(&self, key: &StageKey) -> Result<Record, NoResult> {
            if self.withdrawn.borrow().contains(key) {
                return Err(NoResult::Withdrawn("it was wrong".to_owned()));
            }
            let record = self.records.borrow().get(key).cloned().ok_or(NoResult::NoRecord)?;
            match self.gone.borrow().contains(key) {
                true => Err(NoResult::ArtifactGone(record.output.digest)),
                false => Ok(record),
            }
        }
        fn remote(&self, key: &StageKey) -> Option<Record> {
            self.remote.get(key).cloned()
        }
        fn last(&self, stage: &StageName) -> Option<Record> {
            self.records.borrow().get(self.heads.borrow().get(stage)?).cloned()
        }
        fn outside(&self, stage: &StageName) -> Result<&[OutsideDigest], &Blocked> {
            self.blocked.get(stage).map_or(Ok(&[]), Err)
        }
        fn is_forced(&self, stage: &StageName, _: &StageKey) -> bool {
            self.forced.as_ref() == Some(stage)
        }
        fn differences(&self, _: &Digest, _: &Digest) -> Option<Differences> {
            None
        }
    }

    impl Memory {
        /// Runs what a plan says until all is fresh; `output` returns the content of a stage's artifact.
        /// Returns the stages that ran, in order.
        fn run(&self, text: &str, output: impl Fn(&str, &StageKey) -> String) -> Vec<String> {
            let mut ran = Vec::new();
            loop {
                let plan = self.plan(text);
                for (name, state) in plan.iter() {
                    if let PlanState::Fresh(record) = state {
                        self.heads.borrow_mut().insert(name.clone(), record.key);
                    }
                }
                let dirty = plan.iter().find_map(|(name, state)| match state {
                    PlanState::Dirty { reason, key, parts } => Some((name, reason, key, parts)),
                    _ => None,
                });
                let Some((name, _reason, key, parts)) = dirty else {
                    assert!(plan.is_all_fresh(), "nothing waits for nothing");
                    return ran;
                };
                let digest = FieldHasher::new("test").text(&output(name.as_str(), key)).finish();
                let record = Record::for_test(name.as_str(), parts.clone(), digest);
                self.records.borrow_mut().insert(*key, record);
                self.gone.borrow_mut().retain(|gone| gone != key);
                self.heads.borrow_mut().insert(name.clone(), *key);
                ran.push(name.to_string());
            }
        }

        fn plan(&self, text: &str) -> Plan {
            let (manifest, graph) =
                manifest::parse(Path::new("test.toml"), text, &[]).expect("a manifest");
            let selected: Vec<_> = graph.order().cloned().collect();
            Plan::of(&manifest, &graph, &selected, self)
        }

        fn states(&self, text: &str) -> String {
            let plan = self.plan(text);
            let texts: Vec<String> = plan
                .iter()
                .map(|(name, state)| match state {
                    PlanState::Fresh(_) => format!("{name} fresh"),
                    PlanState::Remote(_) => format!("{name} remote"),
                    PlanState::Dirty { reason, .. } => format!("{name} dirty: {reason}"),
                    PlanState::Waiting { on, reason, .. } => {
                        let on: Vec<_> = on.iter().map(StageName::as_str).collect();
                        let reason = reason.as_ref().map_or("?".to_owned(), Reason::to_string);
                        format!("{name} waits on {}: {reason}", on.join(","))
                    }
                    PlanState::Blocked(Blocked { message, .. }) => {
                        format!("{name} blocked: {message}")
                    }
                })
                .collect();
            texts.join("\n")
        }
    }

    /// Every stage produces something else for another key.
    fn by_key(_: &str, key: &StageKey) -> String {
        key.to_string()
    }

    #[test]
    fn at_first_everything_runs_and_then_nothing() {
        let world = Memory::default();
        assert_eq!(
            world.states(CHAIN),
            "a dirty: no earlier run\nb waits on a: no earlier run\n\
             c waits on b: no earlier run\nother dirty: no earlier run"
        );
        assert_eq!(world.run(CHAIN, by_key), ["a", "b", "c", "other"]);
        assert!(world.plan(CHAIN).is_all_fresh());
        assert!(world.run(CHAIN, by_key).is_empty());
    }

    #[test]
    fn an_edit_reruns_the_stage_and_what_depends_on_it() {
        let world = Memory::default();
        world.run(CHAIN, by_key);
        let edited = CHAIN.replace(r#"run = ["b"]"#, r#"run = ["b", "-v"]"#);
        assert_eq!(
            world.states(&edited),
            "a fresh\nb dirty: run: [\"b\"] -> [\"b\",\"-v\"]\nc waits on b: ?\nother fresh"
        );
        assert_eq!(world.run(&edited, by_key), ["b", "c"]);
        assert!(world.run(CHAIN, by_key).is_empty(), "the old results are still there");
    }

    #[test]
    fn the_same_output_as_before_stops_the_reruns() {
        let world = Memory::default();
        let constant = |name: &str, _: &StageKey| name.to_owned();
        world.run(CHAIN, constant);
        let edited = CHAIN.replace(r#"run = ["a"]"#, r#"run = ["a", "-v"]"#);
        assert_eq!(world.run(&edited, constant), ["a"]);
    }

    #[test]
    fn a_missing_artifact_is_a_miss() {
        let world = Memory::default();
        world.run(CHAIN, by_key);
        let (b, _) =
            world.heads.borrow().iter().nth(1).map(|(name, key)| (*key, name.clone())).expect("b");
        world.gone.borrow_mut().push(b);
        let states = world.states(CHAIN);
        assert!(states.contains("b dirty: its artifact"), "{states}");
        assert!(states.contains("c waits on b: ?"), "{states}");
        assert_eq!(world.run(CHAIN, by_key), ["b"], "c had the same input before");
    }

    #[test]
    fn a_result_that_only_a_remote_has_counts_unless_it_was_withdrawn_here() {
        let ann = Memory::default();
        ann.run(CHAIN, by_key);
        let (heads, records) = (ann.heads.take(), ann.records.take());
        let key = |name: &str| heads[&name.parse::<StageName>().expect("a name")];
        let mut bob = Memory { remote: records.clone(), ..Memory::default() };
        assert_eq!(bob.states(CHAIN), "a remote\nb remote\nc remote\nother remote");
        assert!(bob.plan(CHAIN).is_all_fresh());
        // What is here goes before what is there.
        bob.records.borrow_mut().insert(key("a"), records[&key("a")].clone());
        bob.gone.borrow_mut().push(key("other"));
        bob.records.borrow_mut().insert(key("other"), records[&key("other")].clone());
        assert_eq!(bob.states(CHAIN), "a fresh\nb remote\nc remote\nother remote");
        bob.withdrawn.borrow_mut().push(key("b"));
        let states = bob.states(CHAIN);
        assert!(
            states.contains("b dirty: its record was withdrawn: it was wrong\nc waits on b"),
            "{states}"
        );
        bob.withdrawn.borrow_mut().clear();
        bob.forced = Some("c".parse().expect("a name"));
        assert!(bob.states(CHAIN).contains("b remote\nc dirty: asked for with --force"));
    }

    #[test]
    fn what_is_known_about_a_waiting_stage_is_shown() {
        let world = Memory::default();
        world.run(CHAIN, by_key);
        let edited = CHAIN
            .replace(r#"run = ["a"]"#, r#"run = ["x"]"#)
            .replace(r#"run = ["c"]"#, r#"run = ["y"]"#);
        assert_eq!(
            world.states(&edited),
            "a dirty: run: [\"a\"] -> [\"x\"]\nb waits on a: ?\n\
             c waits on b: run: [\"c\"] -> [\"y\"]\nother fresh"
        );
    }

    #[test]
    fn a_new_or_a_removed_input_is_known_before_it_exists() {
        let world = Memory::default();
        world.run(CHAIN, by_key);
        let dirty = CHAIN.replace(r#"run = ["a"]"#, r#"run = ["x"]"#);
        let more = dirty.replace(r#"{ b = "b" }"#, r#"{ b = "b", a = "a" }"#);
        let states = world.states(&more);
        assert!(states.contains("c waits on a,b: input 'inputs.a' is new: stage 'a'"), "{states}");
        let fewer = dirty.replace(r#"{ a = "a" }"#, r#"{ x = "a" }"#);
        let states = world.states(&fewer);
        assert!(
            states.contains(
                "b waits on a: input 'inputs.a' was removed: stage 'a'; input 'inputs.x' is new"
            ),
            "{states}"
        );
    }

    #[test]
    fn what_cannot_be_read_blocks_its_stage_and_holds_up_those_behind_it() {
        let mut world = Memory::default();
        world.run(CHAIN, by_key);
        let b: StageName = "b".parse().expect("a name");
        world.blocked.insert(b, Blocked { message: "gone".to_owned(), ..Blocked::default() });
        assert_eq!(world.states(CHAIN), "a fresh\nb blocked: gone\nc waits on b: ?\nother fresh");
        let plan = world.plan(CHAIN);
        assert!(!plan.is_all_fresh());
        assert_eq!(plan.held_up().into_iter().map(StageName::as_str).collect::<Vec<_>>(), ["c"]);
        // Whatever it reads beside the file.
        world.gone.borrow_mut().extend(world.heads.borrow().values().copied());
        let states = world.states(CHAIN);
        assert!(states.starts_with("a dirty") && states.contains("b blocked: gone"), "{states}");
    }

    #[test]
    fn a_forced_stage_runs_although_it_has_a_result() {
        let mut world = Memory::default();
        world.run(CHAIN, by_key);
        world.forced = "b".parse().ok();
        assert_eq!(
            world.states(CHAIN),
            "a fresh\nb dirty: asked for with --force\nc waits on b: ?\nother fresh"
        );
        world.gone.borrow_mut().extend(world.heads.borrow().values().copied());
        let states = world.states(CHAIN);
        assert!(states.contains("b waits on a: ?"), "{states}");
    }

    #[test]
    fn renaming_a_stage_reruns_nothing() {
        let world = Memory::default();
        world.run(CHAIN, by_key);
        let renamed =
            CHAIN.replace("[stages.a]", "[stages.first]").replace("a = \"a\"", "a = \"first\"");
        assert!(world.plan(&renamed).is_all_fresh());
    }
}
