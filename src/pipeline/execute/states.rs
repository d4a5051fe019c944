//! Where every stage of a run is: one state each, one setter, what those that run have taken of the pools, and who is next.
//!
//! Does not depend on how the cache works, or on workers. What one change costs does not grow with the
//! number of stages, only with that of the readers of the stage that changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::order::{self, Weight};
use super::pools::{Depths, Needs, Pool, Pools, Taken};
use super::spec::Work;
use crate::cache::KnownResult;
use crate::digest::Digest;
use crate::events::Outcome;
use crate::graph::Graph;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// Where a stage is.
pub(crate) enum StageState {
    /// Some of its inputs do not have a result yet.
    Waiting,
    /// All its inputs have results, and nobody has looked whether it must run.
    Unseen,
    /// It must run, and waits for its slots.
    Ready(Box<Work>),
    /// Another stage with the same key is ready or runs: this one is looked at again when that has ended.
    Parked {
        /// The other stage.
        behind: StageName,
    },
    /// A job works on it.
    Running {
        key: StageKey,
        /// Since when.
        since: Instant,
        /// The artifact that it had when it started.
        before: Option<Digest>,
        /// Whether it had a result, and runs because somebody asked for it.
        forced: bool,
    },
    /// It is over.
    Ended {
        /// How it ended.
        outcome: Outcome,
        /// Its result, where it has one.
        result: Option<Box<KnownResult>>,
    },
}

impl StageState {
    /// Its result, where it has one.
    pub(crate) fn result(&self) -> Option<&KnownResult> {
        match self {
            Self::Ended { result, .. } => result.as_deref(),
            _ => None,
        }
    }

    /// Its key, where it is ready or runs: others with the same key wait for it.
    fn held_key(&self) -> Option<StageKey> {
        match self {
            Self::Ready(work) => Some(work.key),
            Self::Running { key, .. } => Some(*key),
            _ => None,
        }
    }
}

/// Beyond this many stages that wait for the disk, or have nearly come to that, more would not make it faster.
const MOST_RELEASED: usize = 8;

/// All stages of a run, in an order in which each comes after its inputs.
pub(crate) struct StageStates {
    order: Vec<StageName>,
    places: HashMap<StageName, usize>,
    states: Vec<StageState>,
    /// Per stage, how many of its inputs do not have a result.
    missing: Vec<usize>,
    /// The stages that start without the inputs that do not have a result.
    partial: BTreeSet<usize>,
    /// Per stage, those that read it.
    readers: Vec<Vec<usize>>,
    pools: Pools,
    /// What stages take of the pools while they run, each once.
    needs: Vec<Needs>,
    /// Per stage, which of these is its own.
    need: Vec<usize>,
    /// The places in the order in which stages start.
    starts: Vec<usize>,
    /// Per stage, where it is among these.
    turns: Vec<usize>,
    /// The places of those that nobody has looked at, so that what comes first in the order comes first.
    unseen: BTreeSet<usize>,
    /// Per entry of `needs`, the turns of those that are ready.
    ready: Vec<BTreeSet<usize>>,
    /// The places of those that run, each with what it has taken.
    running: BTreeMap<usize, Taken>,
    /// Those that run, and need it no longer.
    released: BTreeSet<usize>,
    /// Per key of a stage that is ready or runs, its place.
    holders: HashMap<StageKey, usize>,
    /// Per such stage, those that are parked behind it.
    parked: HashMap<usize, BTreeSet<usize>>,
}

impl StageStates {
    /// The states at the beginning of a run of these stages, which are closed under inputs. Nothing may start before
    /// [`StageStates::share_out`].
    pub(crate) fn new(order: &[StageName], graph: &Graph) -> Self {
        let places: HashMap<_, _> =
            order.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        let readers = order.iter().map(|name| {
            let readers = graph.consumers(name).into_iter();
            readers.filter_map(|reader| places.get(reader).copied()).collect()
        });
        let mut all = Self {
            states: order.iter().map(|_| StageState::Waiting).collect(),
            missing: order.iter().map(|name| graph.inputs(name).len()).collect(),
            partial: BTreeSet::new(),
            readers: readers.collect(),
            pools: Pools::default(),
            needs: vec![Needs::default()],
            need: vec![0; order.len()],
            starts: (0..order.len()).collect(),
            turns: (0..order.len()).collect(),
            order: order.to_vec(),
            places,
            unseen: BTreeSet::new(),
            ready: vec![BTreeSet::new()],
            running: BTreeMap::new(),
            released: BTreeSet::new(),
            holders: HashMap::new(),
            parked: HashMap::new(),
        };
        (0..all.order.len()).for_each(|place| all.settle(place));
        all
    }

    /// From now on, stages take these of the pools with these depths, and start in the order of their weights. Before the first
    /// one starts.
    pub(crate) fn share_out(
        &mut self,
        depths: Depths,
        needs_of: impl Fn(&StageName) -> Needs,
        weight_of: impl Fn(&StageName) -> Weight,
    ) {
        self.pools = Pools::new(depths);
        let weights: Vec<Weight> = self.order.iter().map(weight_of).collect();
        self.starts = order::order(&weights, &self.readers);
        for (turn, place) in self.starts.iter().enumerate() {
            self.turns[*place] = turn;
        }
        self.ready.iter_mut().for_each(BTreeSet::clear);
        for place in 0..self.order.len() {
            self.set_needs(place, needs_of(&self.order[place]));
        }
    }

    /// From now on, a stage that does not run runs alone.
    pub(crate) fn run_alone(&mut self, name: &StageName) {
        if let Some(&place) = self.places.get(name) {
            self.set_needs(place, Needs { alone: true, ..self.needs[self.need[place]].clone() });
        }
    }

    /// From now on, a stage that does not run has all of the GPU that it runs on.
    pub(crate) fn run_with_own_gpu(&mut self, name: &StageName) {
        if let Some(&place) = self.places.get(name) {
            let needs = self.needs[self.need[place]].clone();
            self.set_needs(place, Needs { gpus: needs.gpus.whole(), ..needs });
        }
    }

    /// What a stage takes of the pools.
    pub(crate) fn needs(&self, name: &StageName) -> Needs {
        self.places
            .get(name)
            .map_or(Needs::default(), |&place| self.needs[self.need[place]].clone())
    }

    /// The key of a stage, where it is ready or runs.
    pub(crate) fn held_key(&self, name: &StageName) -> Option<StageKey> {
        self.get(name)?.held_key()
    }

    fn set_needs(&mut self, place: usize, needs: Needs) {
        self.ready[self.need[place]].remove(&self.turns[place]);
        // Stages that take the same are many, and what they take is few.
        let known = self.needs.iter().rposition(|known| *known == needs);
        self.need[place] = known.unwrap_or_else(|| {
            self.needs.push(needs);
            self.ready.push(BTreeSet::new());
            self.needs.len() - 1
        });
        if let StageState::Ready(_) = self.states[place] {
            self.ready[self.need[place]].insert(self.turns[place]);
        }
    }

    /// What a stage that runs has taken.
    pub(crate) fn taken(&self, name: &StageName) -> Option<&Taken> {
        self.running.get(self.places.get(name)?)
    }

    /// The stages, each after its inputs.
    pub(crate) fn order(&self) -> &[StageName] {
        &self.order
    }

    /// Every stage with its state, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&StageName, &StageState)> {
        self.order.iter().zip(&self.states)
    }

    /// The results of those that have one, in order.
    pub(crate) fn into_results(self) -> impl Iterator<Item = (StageName, KnownResult)> {
        self.order.into_iter().zip(self.states).filter_map(|(name, state)| match state {
            StageState::Ended { result: Some(result), .. } => Some((name, *result)),
            _ => None,
        })
    }

    /// The state of a stage.
    pub(crate) fn get(&self, name: &StageName) -> Option<&StageState> {
        self.places.get(name).map(|&place| &self.states[place])
    }

    /// The first stage that nobody has looked at, all of whose inputs have results.
    pub(crate) fn first_unseen(&self) -> Option<&StageName> {
        self.unseen.first().map(|&place| &self.order[place])
    }

    /// The first stage, in the order in which they start, that is ready and for which enough is left.
    pub(crate) fn first_to_start(&self) -> Option<&StageName> {
        // Of those that take the same, none can start where the first one cannot.
        let firsts = self.ready.iter().enumerate();
        let firsts = firsts.filter_map(|(needs, ready)| Some((*ready.first()?, needs)));
        let mut firsts: Vec<(usize, usize)> = firsts.collect();
        firsts.sort_unstable();
        let needs = firsts.iter().map(|(_, needs)| &self.needs[*needs]);
        let (turn, _) = firsts[self.pools.first_to_start(needs)?];
        Some(&self.order[self.starts[turn]])
    }

    /// What those that are ready wait for. Nothing where one could start.
    pub(crate) fn wait_for(&self) -> HashMap<&StageName, Pool> {
        let ready = self.ready.iter().zip(&self.needs);
        let ready = ready.flat_map(|(turns, needs)| turns.iter().map(move |turn| (*turn, needs)));
        let mut ready: Vec<(usize, &Needs)> = ready.collect();
        ready.sort_unstable_by_key(|(turn, _)| *turn);
        let pools = self.pools.wait_for(ready.iter().map(|(_, needs)| *needs));
        let stages = ready.iter().map(|(turn, _)| &self.order[self.starts[*turn]]);
        stages.zip(pools).filter_map(|(stage, pool)| Some((stage, pool?))).collect()
    }

    /// Another stage than this one that has this key, and is ready or runs.
    pub(crate) fn holder(&self, key: &StageKey, than: &StageName) -> Option<&StageName> {
        let holder = &self.order[*self.holders.get(key)?];
        (holder != than).then_some(holder)
    }

    /// How many stages run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Gives what a stage that runs has taken to others: it needs next to nothing of it now. Not where many do so already.
    pub(crate) fn release(&mut self, name: &StageName) {
        if let Some(&place) = self.places.get(name)
            && let Some(taken) = self.running.get_mut(&place)
            && self.released.len() < MOST_RELEASED
            && self.released.insert(place)
        {
            self.pools.give_back(std::mem::take(taken));
        }
    }

    /// Moves a stage to another state: the only way to do so. A stage that gets a result lets its readers be looked at;
    /// one that loses it (it is damaged, and made again) takes back the readers that have not begun.
    pub(crate) fn set(&mut self, name: &StageName, state: StageState) {
        let Some(&place) = self.places.get(name) else { return };
        let had = self.states[place].result().is_some();
        let has = state.result().is_some();
        self.put(place, state);
        self.settle(place);
        if had == has {
            return;
        }
        for reader in self.readers[place].clone() {
            if has {
                self.missing[reader] -= 1;
            } else {
                self.missing[reader] += 1;
                // This input is made again, so it is worth waiting for.
                self.partial.remove(&reader);
            }
            self.settle(reader);
        }
    }

    /// Lets a stage start without the inputs that do not have a result, until another one loses its own.
    pub(crate) fn let_start(&mut self, name: &StageName) {
        let Some(&place) = self.places.get(name) else { return };
        self.partial.insert(place);
        self.settle(place);
    }

    /// Moves a stage that has not begun to where it is by the results of its inputs.
    fn settle(&mut self, place: usize) {
        let missing = if self.partial.contains(&place) { 0 } else { self.missing[place] };
        match (&self.states[place], missing) {
            (StageState::Waiting, 0) => self.put(place, StageState::Unseen),
            (StageState::Unseen | StageState::Ready(_) | StageState::Parked { .. }, 1..) => {
                self.put(place, StageState::Waiting)
            }
            _ => {}
        }
    }

    fn put(&mut self, place: usize, state: StageState) {
        self.unseen.remove(&place);
        self.ready[self.need[place]].remove(&self.turns[place]);
        if let Some(taken) = self.running.remove(&place) {
            self.released.remove(&place);
            // A job that goes on elsewhere keeps its place among those of its executor.
            if !matches!(state, StageState::Ended { outcome: Outcome::Left, .. }) {
                self.pools.give_back(taken);
            }
        }
        if let StageState::Parked { behind } = &self.states[place]
            && let Some(parked) =
                self.places.get(behind).and_then(|holder| self.parked.get_mut(holder))
        {
            parked.remove(&place);
        }
        match &state {
            StageState::Unseen => drop(self.unseen.insert(place)),
            StageState::Ready(_) => drop(self.ready[self.need[place]].insert(self.turns[place])),
            StageState::Running { .. } => {
                let taken = self.pools.take(&self.needs[self.need[place]]);
                self.running.insert(place, taken);
            }
            StageState::Parked { behind } => {
                if let Some(&holder) = self.places.get(behind) {
                    self.parked.entry(holder).or_default().insert(place);
                }
            }
            StageState::Waiting | StageState::Ended { .. } => {}
        }
        let (held, holds) = (self.states[place].held_key(), state.held_key());
        self.states[place] = state;
        if held != holds {
            self.hold(place, held, holds);
        }
    }

    /// Another key is held at this place than before: those that are parked behind it are to be looked at again.
    fn hold(&mut self, place: usize, held: Option<StageKey>, holds: Option<StageKey>) {
        if let Some(key) = held.filter(|key| self.holders.get(key) == Some(&place)) {
            self.holders.remove(&key);
        }
        if let Some(key) = holds {
            self.holders.entry(key).or_insert(place);
        }
        for parked in self.parked.remove(&place).unwrap_or_default() {
            self.put(parked, StageState::Waiting);
            self.settle(parked);
        }
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;

    use crate::cache::Record;

    use crate::digest::FieldHasher;
    use crate::reason::Reason;

    fn name(number: usize) -> StageName {
        format!("s{number}").parse().expect("a name")
    }

    fn states(stages: usize, edges: &[(usize, usize)]) -> (StageStates, Graph) {
        let named = edges.iter().map(|&(from, to)| (name(from), name(to)));
        let graph = Graph::new((0..stages).map(name), named).expect("no cycle");
        let order: Vec<_> = graph.order().cloned().collect();
        (StageStates::new(&order, &graph), graph)
    }

    fn ready() -> StageState {
        let parts = Vec::new();
        let key = StageKey::of(&parts);
        StageState::Ready(Box::new(Work { reason: Reason::NeverRan, key, parts }))
    }

    fn running() -> StageState {
        StageState::Running {
            key: StageKey::of(&Vec::new()),
            since: Instant::now(),
            before: None,
            forced: false,
        }
    }

    fn ended(result: bool) -> StageState {
        let parts = Vec::new();
        let digest = FieldHasher::new("test").text("output").finish();
        let record = Record::for_test("stage", parts, digest);
        StageState::Ended {
            outcome: Outcome::Stopped,
            result: result.then(|| Box::new(record.into())),
        }
    }

    fn first(states: &StageStates) -> Option<StageName> {
        states.first_unseen().cloned()
    }

    #[test]
    fn a_chain_goes_link_by_link() {
        let (mut states, _) = states(3, &[(0, 1), (1, 2)]);
        for number in 0..3 {
            let next = first(&states).expect("the next link");
            assert_eq!(next, name(number));
            states.set(&next, ready());
            assert_eq!((first(&states), states.first_to_start()), (None, Some(&next)));
            states.set(&next, running());
            assert_eq!((states.first_to_start(), states.running()), (None, 1));
            states.set(&next, ended(true));
        }
        assert_eq!((first(&states), states.running()), (None, 0));
    }

    #[test]
    fn what_does_not_have_a_result_holds_up_its_readers() {
        let (mut states, _) = states(3, &[(0, 1)]);
        states.set(&name(0), ended(false));
        assert_eq!(first(&states), Some(name(2)));
        states.set(&name(2), ended(true));
        assert_eq!(first(&states), None);
    }

    #[test]
    fn a_lost_result_takes_its_readers_back() {
        // One reads it and finds it damaged, one waits for a slot, one nobody has looked at, one is done.
        let (mut states, _) = states(5, &[(0, 1), (0, 2), (0, 3), (0, 4)]);
        states.set(&name(0), ended(true));
        states.set(&name(1), running());
        states.set(&name(2), ready());
        states.set(&name(4), ended(true));
        states.set(&name(1), StageState::Waiting);
        states.set(&name(0), StageState::Waiting);
        assert_eq!(first(&states), Some(name(0)));
        assert_eq!((states.first_to_start(), states.running()), (None, 0));
        states.set(&name(0), ended(true));
        let mut seen = Vec::new();
        while let Some(next) = first(&states) {
            states.set(&next, ended(true));
            seen.push(next);
        }
        assert_eq!(seen, [name(1), name(2), name(3)]);
    }

    fn parked(behind: usize) -> StageState {
        StageState::Parked { behind: name(behind) }
    }

    #[test]
    fn what_is_parked_is_looked_at_when_the_other_ends() {
        for end in [ended(true), ended(false), StageState::Waiting] {
            let (mut states, _) = states(3, &[]);
            let StageState::Ready(work) = ready() else { unreachable!() };
            assert_eq!(states.holder(&work.key, &name(1)), None);
            states.set(&name(0), ready());
            assert_eq!(states.holder(&work.key, &name(1)), Some(&name(0)));
            assert_eq!(states.holder(&work.key, &name(0)), None);
            states.set(&name(1), parked(0));
            states.set(&name(2), parked(0));
            // Ready and then running, it is the same work.
            states.set(&name(0), running());
            assert_eq!(
                (first(&states), states.first_to_start(), states.running()),
                (None, None, 1)
            );
            let is_ended = matches!(end, StageState::Ended { .. });
            states.set(&name(0), end);
            assert_eq!(states.holder(&work.key, &name(1)), None);
            assert_eq!(first(&states), Some(name(usize::from(is_ended))));
            states.set(&name(0), ended(true));
            states.set(&name(1), ended(true));
            assert_eq!(first(&states), Some(name(2)));
        }
    }

    #[test]
    fn what_is_parked_and_loses_an_input_is_parked_no_longer() {
        let (mut states, _) = states(3, &[(0, 2)]);
        states.set(&name(0), ended(true));
        states.set(&name(1), ready());
        states.set(&name(2), parked(1));
        states.set(&name(0), StageState::Waiting);
        states.set(&name(0), ready());
        states.set(&name(1), ended(true));
        assert_eq!(first(&states), None, "it waits for its input");
        states.set(&name(0), ended(true));
        assert_eq!(first(&states), Some(name(2)));
    }

    fn needs(cores: u32) -> Needs {
        Needs { cores, ..Needs::default() }
    }

    /// Four stages that do not read each other, and as many cores as this.
    fn four(cores: u64, needs_of: impl Fn(&str) -> Needs, weights: [f64; 4]) -> StageStates {
        let (mut states, _) = states(4, &[]);
        let seconds = |name: &StageName| match name.as_str().as_bytes() {
            [b's', digit] => weights.get(usize::from(digit - b'0')).copied(),
            _ => None,
        };
        let weight = |name: &StageName| Weight { priority: 0, seconds: seconds(name) };
        let depths = Depths::from([(Pool::Cores, cores)]);
        states.share_out(depths, |name| needs_of(name.as_str()), weight);
        states
    }

    #[test]
    fn a_stage_starts_when_enough_is_left_and_the_longest_first() {
        // What is ready before the order is known is in it, too.
        let (mut states, _) = states(4, &[]);
        (0..4).for_each(|number| states.set(&name(number), ready()));
        let needs_of = |name: &StageName| needs(if name.as_str() == "s3" { 3 } else { 1 });
        let seconds = |name: &StageName| match name.as_str() {
            "s0" => 1.0,
            "s1" => 9.0,
            "s2" => 2.0,
            _ => 5.0,
        };
        let weight = |name: &StageName| Weight { priority: 0, seconds: Some(seconds(name)) };
        states.share_out(Depths::from([(Pool::Cores, 3)]), needs_of, weight);
        assert_eq!(states.first_to_start(), Some(&name(1)));
        states.set(&name(1), running());
        // It waits for three cores, and nobody behind it takes one.
        assert_eq!(states.first_to_start(), None);
        states.set(&name(1), ended(true));
        assert_eq!(states.first_to_start(), Some(&name(3)));
        states.set(&name(3), running());
        assert_eq!(states.first_to_start(), None);
        states.set(&name(3), ended(false));
        assert_eq!(states.first_to_start(), Some(&name(2)));
        states.set(&name(2), running());
        assert_eq!(states.first_to_start(), Some(&name(0)));
    }

    #[test]
    fn a_stage_that_waits_for_the_disk_gives_what_it_took_away_once() {
        let mut states = four(1, |_| needs(1), [0.0; 4]);
        (0..3).for_each(|number| states.set(&name(number), ready()));
        states.release(&name(0));
        states.set(&name(0), running());
        assert_eq!(states.first_to_start(), None);
        states.release(&name(0));
        states.release(&name(0));
        assert_eq!((states.first_to_start(), states.running()), (Some(&name(1)), 1));
        states.set(&name(1), running());
        states.set(&name(0), ended(true));
        assert_eq!(states.first_to_start(), None);
        states.set(&name(1), ended(true));
        assert_eq!(states.first_to_start(), Some(&name(2)));
    }

    #[test]
    fn what_runs_alone_waits_for_all_others_and_they_for_it() {
        let mut states = four(9, |_| needs(1), [0.0; 4]);
        (0..4).for_each(|number| states.set(&name(number), ready()));
        states.set(&name(0), running());
        states.set(&name(1), running());
        states.set(&name(0), ready());
        states.run_alone(&name(0));
        assert_eq!(states.first_to_start(), None);
        states.set(&name(1), ended(true));
        assert_eq!(states.first_to_start(), Some(&name(0)));
        states.set(&name(0), running());
        assert_eq!(states.first_to_start(), None);
        states.set(&name(0), ended(true));
        assert_eq!(states.first_to_start(), Some(&name(2)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens to stages, none is looked at, ready or started before all its inputs have results, or it was
        /// allowed to start without some and has lost none since; and every slot that was taken is given back.
        #[test]
        fn nothing_comes_before_its_inputs(
            edges in proptest::collection::vec((0..8_usize, 0..8_usize), 0..20),
            events in proptest::collection::vec((0..8_u8, 0..8_usize), 0..60),
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from < to).collect();
            let (mut states, graph) = states(8, &edges);
            let cores = Depths::from([(Pool::Cores, 6)]);
            let two = |name: &StageName| needs(if name.as_str() < "s4" { 2 } else { 3 });
            states.share_out(cores, two, |_| Weight::default());
            let (mut results, mut without_some) = (BTreeSet::new(), BTreeSet::new());
            for (event, number) in events {
                let any = name(number);
                let running_now = states.iter().find(|(_, state)| matches!(state, StageState::Running { .. }));
                let running_now = running_now.map(|(name, _)| name.clone());
                match event {
                    0 | 1 => if let Some(next) = first(&states) {
                        if event == 0 { states.set(&next, ready()) } else {
                            states.set(&next, ended(true));
                            results.insert(next);
                        }
                    },
                    2 => {
                        let next = states.first_to_start().cloned();
                        next.iter().for_each(|next| states.set(next, running()));
                    }
                    3 => {
                        let result = number % 2 == 0;
                        running_now.iter().for_each(|stage| states.set(stage, ended(result)));
                        results.extend(running_now.filter(|_| result));
                    }
                    6 => states.release(&any),
                    7 => if !matches!(states.get(&any), Some(StageState::Running { .. })) {
                        states.run_alone(&any);
                    },
                    4 => if results.remove(&any) {
                        states.set(&any, StageState::Waiting);
                        without_some.retain(|stage| !graph.consumers(&any).contains(&stage));
                    },
                    _ => {
                        states.let_start(&any);
                        without_some.insert(any);
                    }
                }
                let takes = |(place, _): (&usize, &Taken)| match &states.needs[states.need[*place]] {
                    _ if states.released.contains(place) => 0,
                    Needs { alone: true, .. } => 6,
                    Needs { cores, .. } => *cores,
                };
                let taken: u32 = states.running.iter().map(takes).sum();
                prop_assert!(taken <= 6);
                let ready: usize = states.ready.iter().map(BTreeSet::len).sum();
                let is_ready = |(_, state): &(_, &StageState)| matches!(state, StageState::Ready(_));
                prop_assert_eq!(ready, states.iter().filter(is_ready).count());
                prop_assert!(states.first_to_start().is_some() || ready == 0 || taken > 0);
                let begun = states.iter().filter(|(_, state)| matches!(state, StageState::Ready(_)));
                let begun = begun.map(|(name, _)| name.clone()).chain(first(&states));
                for stage in begun.collect::<Vec<_>>() {
                    let has_all = graph.inputs(&stage).into_iter().all(|input| results.contains(input));
                    prop_assert!(has_all || without_some.contains(&stage));
                }
            }
        }
    }
}
