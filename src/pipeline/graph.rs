//! The graph of stages: which stage needs which, and in which order.
//!
//! The only file that names petgraph. Does not know what a stage is: only its name. Nothing here is
//! recursive: a manifest of any size fits on the stack.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::fmt;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::stage_name::StageName;

/// A directed acyclic graph of stages. An edge runs from a stage to one that reads its artifact.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    // Nodes in the manifest's order, so that a node's index is its rank there.
    graph: DiGraph<StageName, ()>,
    nodes: HashMap<StageName, NodeIndex>,
    order: Vec<NodeIndex>,
}

/// Stages that depend on each other: each is read by the next one, and the last one by the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cycle(pub(crate) Vec<StageName>);

impl Cycle {
    /// A longer cycle is shown by its first and its last stages.
    const LONGEST_SHOWN: usize = 10;
    const SHOWN_AT_START: usize = 5;
    const SHOWN_AT_END: usize = 2;

    /// Each stage that is shown, with the one that reads it. `None` is for those left out.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Option<(&StageName, &StageName)>> {
        let Self(names) = self;
        let length = names.len();
        let left_out = match length {
            0..=Self::LONGEST_SHOWN => 0..0,
            _ => Self::SHOWN_AT_START..length - Self::SHOWN_AT_END,
        };
        let pair = move |index: usize| Some((names.get(index)?, names.get((index + 1) % length)?));
        let start = (0..left_out.start).map(pair);
        let gap = (!left_out.is_empty()).then_some(None);
        start.chain(gap).chain((left_out.end..length).map(pair))
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stage in self.shown() {
            match stage {
                Some((name, _)) => write!(f, "{name} -> ")?,
                None => {
                    let others = self.0.len() - Self::SHOWN_AT_START - Self::SHOWN_AT_END;
                    write!(f, "({others} others) -> ")?;
                }
            }
        }
        self.0.first().map_or(Ok(()), |first| write!(f, "{first}"))
    }
}

impl Graph {
    /// The graph of these stages (in the manifest's order) and of these edges, from the stage that
    /// produces an artifact to the one that reads it. Edges of stages that are not among them are left out.
    ///
    /// # Errors
    ///
    /// The shortest cycle of every group of stages that wait for each other.
    pub(crate) fn new(
        stages: impl IntoIterator<Item = StageName>,
        edges: impl IntoIterator<Item = (StageName, StageName)>,
    ) -> Result<Self, Vec<Cycle>> {
        let stages: Vec<StageName> = stages.into_iter().collect();
        let mut graph = DiGraph::with_capacity(stages.len(), stages.len());
        let mut nodes = HashMap::with_capacity(stages.len());
        for name in stages {
            nodes.entry(name.clone()).or_insert_with(|| graph.add_node(name));
        }
        // Not `update_edge`: it searches all edges of a stage for every new one.
        let mut seen = HashSet::new();
        for (from, to) in edges {
            if let (Some(&from), Some(&to)) = (nodes.get(&from), nodes.get(&to))
                && seen.insert((from, to))
            {
                graph.add_edge(from, to, ());
            }
        }
        match topological_order(&graph) {
            Some(order) => Ok(Self { graph, nodes, order }),
            None => Err(cycles(&graph)),
        }
    }

    /// Every stage after the stages that it reads; where that leaves a choice, in the manifest's order.
    pub(crate) fn order(&self) -> impl DoubleEndedIterator<Item = &StageName> + ExactSizeIterator {
        self.order.iter().map(|&node| &self.graph[node])
    }

    /// The stages that `stage` reads, each once, in the manifest's order.
    pub(crate) fn inputs(&self, stage: &StageName) -> Vec<&StageName> {
        self.neighbours(stage, Direction::Incoming)
    }

    /// The stages that read `stage`, each once, in the manifest's order.
    pub(crate) fn consumers(&self, stage: &StageName) -> Vec<&StageName> {
        self.neighbours(stage, Direction::Outgoing)
    }

    /// `stages` and everything that they need, directly or not.
    pub(crate) fn with_ancestors<'a>(
        &self,
        stages: impl IntoIterator<Item = &'a StageName>,
    ) -> BTreeSet<StageName> {
        let mut waiting: Vec<_> =
            stages.into_iter().filter_map(|stage| self.nodes.get(stage).copied()).collect();
        let mut seen: BTreeSet<_> = waiting.iter().copied().collect();
        while let Some(node) = waiting.pop() {
            let next = self.graph.neighbors_directed(node, Direction::Incoming);
            waiting.extend(next.filter(|&node| seen.insert(node)));
        }
        seen.into_iter().map(|node| self.graph[node].clone()).collect()
    }

    /// The stages by the length of the longest way to them: first those that read none, and in each
    /// layer those that read at least one of the layer before. Within a layer, the manifest's order.
    pub(crate) fn layers(&self) -> Vec<Vec<&StageName>> {
        let mut depths = vec![0; self.graph.node_count()];
        for &node in &self.order {
            for consumer in self.graph.neighbors_directed(node, Direction::Outgoing) {
                depths[consumer.index()] = depths[consumer.index()].max(depths[node.index()] + 1);
            }
        }
        let count = depths.iter().max().map_or(0, |deepest| deepest + 1);
        let mut layers = vec![Vec::new(); count];
        for (node, depth) in self.graph.node_indices().zip(depths) {
            layers[depth].push(&self.graph[node]);
        }
        layers
    }

    fn neighbours(&self, stage: &StageName, direction: Direction) -> Vec<&StageName> {
        let Some(&node) = self.nodes.get(stage) else { return Vec::new() };
        let mut nodes: Vec<_> = self.graph.neighbors_directed(node, direction).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|node| &self.graph[node]).collect()
    }
}

/// Kahn's algorithm with a heap, so that ties go by the nodes' order. `None` if there is a cycle.
fn topological_order(graph: &DiGraph<StageName, ()>) -> Option<Vec<NodeIndex>> {
    let inputs = |node| graph.neighbors_directed(node, Direction::Incoming).count();
    let mut missing: Vec<_> = graph.node_indices().map(inputs).collect();
    let roots = graph.node_indices().filter(|node| missing[node.index()] == 0);
    let mut ready: BinaryHeap<_> = roots.map(Reverse).collect();
    let mut order = Vec::with_capacity(graph.node_count());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for consumer in graph.neighbors_directed(node, Direction::Outgoing) {
            missing[consumer.index()] -= 1;
            if missing[consumer.index()] == 0 {
                ready.push(Reverse(consumer));
            }
        }
    }
    (order.len() == graph.node_count()).then_some(order)
}

/// Per strongly connected component, the shortest cycle through its first stage that is on one.
fn cycles(graph: &DiGraph<StageName, ()>) -> Vec<Cycle> {
    // Not `tarjan_scc`: it recurses once for every stage of a chain.
    let mut starts: Vec<_> = petgraph::algo::kosaraju_scc(graph)
        .into_iter()
        .filter(|component| {
            component.len() > 1 || component.iter().any(|&node| graph.contains_edge(node, node))
        })
        .filter_map(|component| component.into_iter().min())
        .collect();
    starts.sort();
    let cycles = starts.into_iter().filter_map(|start| shortest_cycle(graph, start));
    cycles.map(|nodes| Cycle(nodes.into_iter().map(|node| graph[node].clone()).collect())).collect()
}

/// Breadth first from `start` until an edge leads back to it.
fn shortest_cycle(graph: &DiGraph<StageName, ()>, start: NodeIndex) -> Option<Vec<NodeIndex>> {
    let mut parents: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(node) = waiting.pop_front() {
        let next: BTreeSet<_> = graph.neighbors_directed(node, Direction::Outgoing).collect();
        if next.contains(&start) {
            let mut path = vec![node];
            while let Some(&parent) = path.last().and_then(|node| parents.get(node)) {
                path.push(parent);
            }
            path.reverse();
            return Some(path);
        }
        for consumer in next {
            if consumer != start && !parents.contains_key(&consumer) {
                parents.insert(consumer, node);
                waiting.push_back(consumer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: usize) -> StageName {
        format!("s{number}").parse().expect("letters and digits")
    }

    fn named(text: &str) -> StageName {
        text.parse().expect("a name")
    }

    /// A graph from a list of stages and of edges `from>to`.
    fn graph(stages: &str, edges: &str) -> Result<Graph, Vec<Cycle>> {
        let edges = edges.split_whitespace().filter_map(|edge| edge.split_once('>'));
        let edges: Vec<_> = edges.map(|(from, to)| (named(from), named(to))).collect();
        Graph::new(stages.split_whitespace().map(named), edges)
    }

    fn joined<'a>(names: impl IntoIterator<Item = &'a StageName>) -> String {
        names.into_iter().map(StageName::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_manifests_order_decides_where_edges_do_not() {
        let graph = graph("d c b a", "a>c").expect("no cycle");
        assert_eq!(joined(graph.order()), "d b a c");
        assert_eq!(joined(graph.consumers(&named("a"))), "c");
        assert_eq!(joined(graph.inputs(&named("c"))), "a");
        assert_eq!(joined(graph.inputs(&named("nobody"))), "");
    }

    #[test]
    fn two_ports_that_read_the_same_stage_are_one_edge() {
        let graph = graph("a b", "a>b a>b").expect("no cycle");
        assert_eq!(joined(graph.inputs(&named("b"))), "a");
        assert_eq!(joined(graph.order()), "a b");
    }

    #[test]
    fn what_a_stage_needs() {
        let graph = graph("a b c d e", "a>b b>d c>d d>e").expect("no cycle");
        assert_eq!(joined(&graph.with_ancestors([&named("b"), &named("c")])), "a b c");
        assert_eq!(joined(&graph.with_ancestors([&named("e")])), "a b c d e");
        assert_eq!(joined(&graph.with_ancestors([&named("nobody")])), "");
    }

    #[test]
    fn layers_go_by_the_longest_way() {
        let graph = graph("a b c d", "a>b b>c a>c").expect("no cycle");
        let layers: Vec<_> = graph.layers().into_iter().map(joined).collect();
        assert_eq!(layers, ["a d", "b", "c"]);
        assert!(Graph::new([], []).expect("no cycle").layers().is_empty());
    }

    #[test]
    fn cycles_are_named_once_and_by_the_shortest_way() {
        let table = [
            ("a b", "a>b b>a", "a -> b -> a"),
            ("a", "a>a", "a -> a"),
            ("a b c", "b>a a>c c>b", "a -> c -> b -> a"),
            ("a b c d", "a>b b>c c>d d>a c>a", "a -> b -> c -> a"),
            ("x a b c d", "x>a a>b b>a x>c c>d d>c", "a -> b -> a; c -> d -> c"),
        ];
        for (stages, edges, expected) in table {
            let cycles = graph(stages, edges).expect_err("a cycle");
            let cycles: Vec<_> = cycles.iter().map(Cycle::to_string).collect();
            assert_eq!(cycles.join("; "), expected, "{edges}");
        }
    }

    /// On a thread with a small stack: what recurses once a stage does not fit.
    fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(work);
        thread.expect("a thread").join().expect("it fits");
    }

    #[test]
    fn a_long_cycle_is_found_and_shortened() {
        on_a_small_stack(|| {
            let count = 100_000;
            let edges = (0..count).map(|number| (name(number), name((number + 1) % count)));
            let cycles = Graph::new((0..count).map(name), edges).expect_err("a cycle");
            let texts: Vec<_> = cycles.iter().map(Cycle::to_string).collect();
            let text = "s0 -> s1 -> s2 -> s3 -> s4 -> (99993 others) -> s99998 -> s99999 -> s0";
            assert_eq!(texts, [text]);
            assert_eq!(cycles[0].shown().flatten().last(), Some((&name(count - 1), &name(0))));
        });
        for count in [10, 11] {
            let shown = Cycle((0..count).map(name).collect()).to_string();
            assert_eq!(shown.contains("others"), count > 10, "{shown}");
        }
    }

    #[test]
    fn a_stage_that_all_others_read_takes_no_longer_than_others() {
        on_a_small_stack(|| {
            let count = 100_000;
            let edges = (1..count).map(|number| (name(0), name(number)));
            let graph = Graph::new((0..count).map(name), edges).expect("no cycle");
            assert_eq!(graph.consumers(&name(0)).len(), count - 1);
            assert_eq!(graph.layers().len(), 2);
        });
    }

    fn edges(stages: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
        proptest::collection::vec((0..stages, 0..stages), 0..stages * 3)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Any edges: an order that respects them, or cycles that are made of them.
        #[test]
        fn an_order_or_cycles(edges in edges(12)) {
            let named: Vec<_> = edges.iter().map(|&(from, to)| (name(from), name(to))).collect();
            match Graph::new((0..12).map(name), named.clone()) {
                Ok(graph) => {
                    let order: Vec<_> = graph.order().cloned().collect();
                    prop_assert_eq!(order.len(), 12);
                    let place = |stage: &StageName| order.iter().position(|other| other == stage);
                    prop_assert!(named.iter().all(|(from, to)| place(from) < place(to)));
                }
                Err(cycles) => {
                    prop_assert!(!cycles.is_empty());
                    for Cycle(names) in cycles {
                        let next = names.iter().cycle().skip(1);
                        for (from, to) in names.iter().zip(next) {
                            prop_assert!(named.contains(&(from.clone(), to.clone())));
                        }
                    }
                }
            }
        }

        /// Edges that only lead forwards: no cycle; ancestors closed; every layer reads the one before.
        #[test]
        fn ancestors_and_layers(edges in edges(12), start in 0_usize..12) {
            let forwards = edges.iter().filter(|(from, to)| from < to);
            let named: Vec<_> = forwards.map(|&(from, to)| (name(from), name(to))).collect();
            let graph = Graph::new((0..12).map(name), named.clone()).expect("no cycle");

            let needed = graph.with_ancestors([&name(start)]);
            let closed = |stage: &StageName| graph.inputs(stage).into_iter().all(|input| needed.contains(input));
            prop_assert!(needed.contains(&name(start)) && needed.iter().all(closed));
            let is_read = |stage: &StageName| {
                *stage == name(start)
                    || graph.consumers(stage).into_iter().any(|reader| needed.contains(reader))
            };
            prop_assert!(needed.iter().all(is_read), "nothing but what is needed");

            let layers = graph.layers();
            prop_assert_eq!(layers.iter().map(Vec::len).sum::<usize>(), 12);
            let layer = |stage: &StageName| layers.iter().position(|layer| layer.contains(&stage));
            prop_assert!(named.iter().all(|(from, to)| layer(from) < layer(to)));
            for pair in layers.windows(2) {
                let reads_before = |stage: &&StageName| graph.inputs(stage).iter().any(|input| pair[0].contains(input));
                prop_assert!(pair[1].iter().all(reads_before));
            }
        }
    }
}
