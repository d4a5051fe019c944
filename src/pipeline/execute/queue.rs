//! Which stages can be looked at, wait for a slot, or run: always in the order of the plan.
//!
//! Knows who reads whom, and no record, cache or worker. What one change costs does not grow with the
//! number of stages, only with that of the readers of the stage that changed.

use std::collections::{BTreeSet, HashMap};

use crate::graph::Graph;
use crate::stage_name::StageName;

/// Where a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Some of its inputs have no result.
    Pending,
    /// All its inputs have results, and nobody has looked whether it must run.
    Unseen,
    /// It must run, and waits for a slot.
    Ready,
    /// A job works on it.
    Running,
    /// It is over.
    Ended {
        /// Whether it has a result.
        result: bool,
    },
}

/// All stages of a run, in an order in which each comes after its inputs.
pub struct Queue {
    order: Vec<StageName>,
    places: HashMap<StageName, usize>,
    stands: Vec<Stand>,
    /// Per stage, how many of its inputs have no result.
    missing: Vec<usize>,
    /// Per stage, those that read it.
    readers: Vec<Vec<usize>>,
    // The places of those that stand so, so that what comes first in the order comes first.
    unseen: BTreeSet<usize>,
    ready: BTreeSet<usize>,
    running: BTreeSet<usize>,
}

impl Queue {
    /// The queue at the beginning of a run of these stages, which are closed under inputs.
    pub fn new(order: &[StageName], graph: &Graph) -> Self {
        let places: HashMap<_, _> =
            order.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        let readers = order.iter().map(|name| {
            let readers = graph.consumers(name).into_iter();
            readers.filter_map(|reader| places.get(reader).copied()).collect()
        });
        let mut queue = Self {
            stands: vec![Stand::Pending; order.len()],
            missing: order.iter().map(|name| graph.inputs(name).len()).collect(),
            readers: readers.collect(),
            order: order.to_vec(),
            places,
            unseen: BTreeSet::new(),
            ready: BTreeSet::new(),
            running: BTreeSet::new(),
        };
        (0..queue.order.len()).for_each(|place| queue.settle(place));
        queue
    }

    /// The first stage that nobody has looked at, all of whose inputs have results.
    pub fn first_unseen(&self) -> Option<StageName> {
        self.unseen.first().map(|&place| self.order[place].clone())
    }

    /// The stages that wait for a slot.
    pub fn ready(&self) -> impl Iterator<Item = &StageName> {
        self.ready.iter().map(|&place| &self.order[place])
    }

    /// The stages that a job works on.
    pub fn running(&self) -> impl ExactSizeIterator<Item = &StageName> {
        self.running.iter().map(|&place| &self.order[place])
    }

    /// Somebody looked: it must run.
    pub fn must_run(&mut self, name: &StageName) {
        self.set(name, Stand::Ready);
    }

    /// A job works on it.
    pub fn started(&mut self, name: &StageName) {
        self.set(name, Stand::Running);
    }

    /// It is over, with a result or without one. With one, its readers may be next.
    pub fn ended(&mut self, name: &StageName, result: bool) {
        self.set(name, Stand::Ended { result });
    }

    /// It begins anew. If it had a result, that counts no more: gives the readers that were about to use
    /// it and must wait again.
    pub fn begins_again(&mut self, name: &StageName) -> Vec<StageName> {
        let Some(&place) = self.places.get(name) else { return Vec::new() };
        let waited: Vec<usize> = self.readers[place]
            .iter()
            .copied()
            .filter(|&reader| self.stands[reader] == Stand::Ready)
            .collect();
        self.set(name, Stand::Pending);
        self.settle(place);
        let again = waited.into_iter().filter(|&reader| self.stands[reader] == Stand::Pending);
        again.map(|reader| self.order[reader].clone()).collect()
    }

    fn set(&mut self, name: &StageName, stand: Stand) {
        let Some(&place) = self.places.get(name) else { return };
        let had = self.stands[place] == Stand::Ended { result: true };
        let has = stand == Stand::Ended { result: true };
        self.put(place, stand);
        if had == has {
            return;
        }
        for reader in self.readers[place].clone() {
            self.missing[reader] =
                if has { self.missing[reader] - 1 } else { self.missing[reader] + 1 };
            self.settle(reader);
        }
    }

    /// Puts a stage that has not begun where it stands by the results of its inputs.
    fn settle(&mut self, place: usize) {
        match (self.stands[place], self.missing[place]) {
            (Stand::Pending, 0) => self.put(place, Stand::Unseen),
            (Stand::Unseen | Stand::Ready, 1..) => self.put(place, Stand::Pending),
            _ => {}
        }
    }

    fn put(&mut self, place: usize, stand: Stand) {
        let set_of = |queue: &mut Self, stand: Stand, is_in: bool| {
            let set = match stand {
                Stand::Unseen => &mut queue.unseen,
                Stand::Ready => &mut queue.ready,
                Stand::Running => &mut queue.running,
                Stand::Pending | Stand::Ended { .. } => return,
            };
            if is_in {
                set.insert(place)
            } else {
                set.remove(&place)
            };
        };
        set_of(self, self.stands[place], false);
        set_of(self, stand, true);
        self.stands[place] = stand;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: usize) -> StageName {
        format!("s{number}").parse().expect("a name")
    }

    fn queue(stages: usize, edges: &[(usize, usize)]) -> (Queue, Graph) {
        let named = edges.iter().map(|&(from, to)| (name(from), name(to)));
        let graph = Graph::new((0..stages).map(name), named).expect("no cycle");
        let order: Vec<_> = graph.order().cloned().collect();
        (Queue::new(&order, &graph), graph)
    }

    #[test]
    fn a_chain_goes_link_by_link() {
        let (mut queue, _) = queue(3, &[(0, 1), (1, 2)]);
        for number in 0..3 {
            let next = queue.first_unseen().expect("the next link");
            assert_eq!(next, name(number));
            queue.must_run(&next);
            assert_eq!(queue.first_unseen(), None);
            queue.started(&next);
            assert_eq!((queue.ready().count(), queue.running().len()), (0, 1));
            queue.ended(&next, true);
        }
        assert_eq!((queue.first_unseen(), queue.running().len()), (None, 0));
    }

    #[test]
    fn what_has_no_result_holds_up_its_readers() {
        let (mut queue, _) = queue(3, &[(0, 1)]);
        queue.ended(&name(0), false);
        assert_eq!(queue.first_unseen(), Some(name(2)));
        queue.ended(&name(2), true);
        assert_eq!(queue.first_unseen(), None);
    }

    #[test]
    fn a_lost_result_takes_its_readers_back() {
        // One reads it and finds it damaged, one waits for a slot, one nobody has looked at, one is done.
        let (mut queue, _) = queue(5, &[(0, 1), (0, 2), (0, 3), (0, 4)]);
        queue.ended(&name(0), true);
        queue.started(&name(1));
        queue.must_run(&name(2));
        queue.ended(&name(4), true);
        assert!(queue.begins_again(&name(1)).is_empty());
        assert_eq!(queue.begins_again(&name(0)), [name(2)]);
        assert_eq!(queue.first_unseen(), Some(name(0)));
        assert_eq!((queue.ready().count(), queue.running().len()), (0, 0));
        queue.ended(&name(0), true);
        let mut seen = Vec::new();
        while let Some(next) = queue.first_unseen() {
            queue.ended(&next, true);
            seen.push(next);
        }
        assert_eq!(seen, [name(1), name(2), name(3)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens to stages, none is looked at, ready or started before all its inputs have results.
        #[test]
        fn nothing_comes_before_its_inputs(
            edges in proptest::collection::vec((0..8_usize, 0..8_usize), 0..20),
            events in proptest::collection::vec((0..5_u8, 0..8_usize), 0..60),
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from < to).collect();
            let (mut queue, graph) = queue(8, &edges);
            let mut results = BTreeSet::new();
            for (event, number) in events {
                let any = name(number);
                match event {
                    0 | 1 => if let Some(next) = queue.first_unseen() {
                        if event == 0 { queue.must_run(&next) } else {
                            queue.ended(&next, true);
                            results.insert(next);
                        }
                    },
                    2 => {
                        let next = queue.ready().next().cloned();
                        next.iter().for_each(|next| queue.started(next));
                    }
                    3 => {
                        let next = queue.running().next().cloned();
                        next.iter().for_each(|next| queue.ended(next, number % 2 == 0));
                        results.extend(next.filter(|_| number % 2 == 0));
                    }
                    _ => if results.remove(&any) { queue.begins_again(&any); },
                }
                let begun = queue.ready().cloned().chain(queue.first_unseen());
                for stage in begun.collect::<Vec<_>>() {
                    prop_assert!(graph.inputs(&stage).into_iter().all(|input| results.contains(input)));
                }
            }
        }
    }
}
