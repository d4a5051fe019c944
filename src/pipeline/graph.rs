//! The graph of stages: who needs whom, and in which order.
//!
//! The only file that names petgraph. Does not know what a stage is: only its name.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::fmt;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::manifest::StageName;

/// A directed acyclic graph of stages. An edge runs from a stage to one that reads its artifact.
#[derive(Debug, Clone)]
pub struct Graph {
    // Nodes in the manifest's order, so that a node's index is its rank there.
    graph: DiGraph<StageName, ()>,
    nodes: HashMap<StageName, NodeIndex>,
    order: Vec<NodeIndex>,
}

/// Stages that wait for each other: each is read by the next, and the last one by the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle(pub Vec<StageName>);

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.0 {
            write!(f, "{name} -> ")?;
        }
        self.0.first().map_or(Ok(()), |first| write!(f, "{first}"))
    }
}

impl Graph {
    /// The graph of these stages (in the manifest's order) and of these edges, from the stage that
    /// gives an artifact to the one that reads it. Edges of stages that are not among them are left out.
    ///
    /// # Errors
    ///
    /// The shortest cycle of every group of stages that wait for each other.
    pub fn new(
        stages: impl IntoIterator<Item = StageName>,
        edges: impl IntoIterator<Item = (StageName, StageName)>,
    ) -> Result<Self, Vec<Cycle>> {
        let mut graph = DiGraph::new();
        let mut nodes = HashMap::new();
        for name in stages {
            nodes.entry(name.clone()).or_insert_with(|| graph.add_node(name));
        }
        for (from, to) in edges {
            if let (Some(&from), Some(&to)) = (nodes.get(&from), nodes.get(&to)) {
                graph.update_edge(from, to, ());
            }
        }
        match topological_order(&graph) {
            Some(order) => Ok(Self { graph, nodes, order }),
            None => Err(cycles(&graph)),
        }
    }

    /// Every stage after the stages that it reads; where that leaves a choice, in the manifest's order.
    pub fn order(&self) -> impl DoubleEndedIterator<Item = &StageName> + ExactSizeIterator {
        self.order.iter().map(|&node| &self.graph[node])
    }

    /// The number of stages.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no stage.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether there is a stage of this name.
    pub fn contains(&self, stage: &StageName) -> bool {
        self.nodes.contains_key(stage)
    }

    /// The stages that `stage` reads, each once, in the manifest's order.
    pub fn inputs(&self, stage: &StageName) -> Vec<&StageName> {
        self.neighbours(stage, Direction::Incoming)
    }

    /// The stages that read `stage`, each once, in the manifest's order.
    pub fn consumers(&self, stage: &StageName) -> Vec<&StageName> {
        self.neighbours(stage, Direction::Outgoing)
    }

    /// `stages` and everything that they need, directly or not.
    pub fn with_ancestors<'a>(
        &self,
        stages: impl IntoIterator<Item = &'a StageName>,
    ) -> BTreeSet<StageName> {
        self.reachable(stages, Direction::Incoming)
    }

    /// `stages` and everything that needs them, directly or not.
    pub fn with_descendants<'a>(
        &self,
        stages: impl IntoIterator<Item = &'a StageName>,
    ) -> BTreeSet<StageName> {
        self.reachable(stages, Direction::Outgoing)
    }

    /// The stages by the length of the longest way to them: first those that read none, and in each
    /// layer those that read at least one of the layer before. Within a layer, the manifest's order.
    pub fn layers(&self) -> Vec<Vec<&StageName>> {
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
        let nodes: BTreeSet<_> = self.graph.neighbors_directed(node, direction).collect();
        nodes.into_iter().map(|node| &self.graph[node]).collect()
    }

    fn reachable<'a>(
        &self,
        stages: impl IntoIterator<Item = &'a StageName>,
        direction: Direction,
    ) -> BTreeSet<StageName> {
        let mut waiting: Vec<_> =
            stages.into_iter().filter_map(|stage| self.nodes.get(stage).copied()).collect();
        let mut seen: BTreeSet<_> = waiting.iter().copied().collect();
        while let Some(node) = waiting.pop() {
            let next = self.graph.neighbors_directed(node, direction);
            waiting.extend(next.filter(|&node| seen.insert(node)));
        }
        seen.into_iter().map(|node| self.graph[node].clone()).collect()
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

/// Per strongly connected component, the shortest cycle through its first stage that lies on one.
fn cycles(graph: &DiGraph<StageName, ()>) -> Vec<Cycle> {
    let mut starts: Vec<_> = petgraph::algo::tarjan_scc(graph)
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
