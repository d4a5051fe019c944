//! Where nodes and edges are: layers from top to bottom (Sugiyama, Tagawa and Toda, 1981).
//!
//! Pure and deterministic. Layers by the longest way; an edge over several layers is a chain of invisible nodes, one a layer; the order
//! within layers by medians, the best of several sweeps; places by least squares under that order. Does not depend on stages.

use std::collections::BTreeSet;

/// Between two nodes of a layer.
const GAP: f64 = 28.0;
/// Between two layers.
const LAYER_GAP: f64 = 44.0;
/// Around everything.
const MARGIN: f64 = 12.0;
/// The width of an edge that passes through a layer.
const PASSING: f64 = 8.0;
/// How often the layers are ordered, down and up.
const SWEEPS: usize = 12;
/// With more invisible nodes than these, long edges are straight.
const MOST_PASSING: usize = 50_000;

/// A place, in pixels from the top left.
pub(super) type Place = (f64, f64);

/// The places of a graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    /// The top left corner of each node.
    pub(super) corners: Vec<Place>,
    /// The places that each edge goes through. Between the first two and so on it bends, and it is straight from the second to the
    /// third: through a layer. Empty for an edge from a node to itself.
    pub(super) routes: Vec<Vec<Place>>,
}

/// A node, or an edge where it passes through a layer.
struct Item {
    layer: usize,
    width: f64,
    is_passing: bool,
    /// What it is connected to, in the layer before and in the one after.
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Layout {
    /// Lays out nodes of these widths and heights. Of each cycle, an edge is drawn against the direction.
    pub(super) fn of(sizes: &[(f64, f64)], edges: &[(usize, usize)]) -> Self {
        let ranks = ranks(sizes.len(), edges);
        let is_forward = |&(from, to): &(usize, usize)| ranks[from] <= ranks[to];
        let turned =
            |edge: &(usize, usize)| if is_forward(edge) { *edge } else { (edge.1, edge.0) };
        let forward: Vec<_> = edges.iter().map(turned).collect();
        let layers = layers(&ranks, &forward);
        let mut items: Vec<Item> = sizes
            .iter()
            .zip(&layers)
            .map(|(size, &layer)| Item::new(layer, size.0, false))
            .collect();
        let chains = chains(&mut items, &forward);
        let order = order(&items);
        let centres = centres(&items, &order);

        let mut heights = vec![0.0_f64; order.len()];
        for (size, &layer) in sizes.iter().zip(&layers) {
            heights[layer] = heights[layer].max(size.1);
        }
        let mut tops = Vec::with_capacity(heights.len());
        let mut y = MARGIN;
        for height in &heights {
            tops.push(y);
            y += height + LAYER_GAP;
        }
        let height = if heights.is_empty() { 2.0 * MARGIN } else { y - LAYER_GAP + MARGIN };
        let corner = |node: usize| {
            let (width, height) = sizes[node];
            let layer = layers[node];
            (centres[node] - width / 2.0, tops[layer] + (heights[layer] - height) / 2.0)
        };
        let corners: Vec<Place> = (0..sizes.len()).map(corner).collect();
        let ends = ends(sizes, &forward, &chains, &centres);
        let routes = forward.iter().zip(edges).zip(&chains).zip(ends).map(
            |(((edge, given), chain), ends)| {
                let &(from, to) = edge;
                if from == to {
                    return Vec::new();
                }
                let mut route = vec![(ends.0, corners[from].1 + sizes[from].1)];
                for &item in chain {
                    let layer = items[item].layer;
                    let x = centres[item];
                    route.extend([(x, tops[layer]), (x, tops[layer] + heights[layer])]);
                }
                route.push((ends.1, corners[to].1));
                if !is_forward(given) {
                    route.reverse();
                }
                route
            },
        );
        let routes = routes.collect();
        let right = items.iter().zip(&centres).map(|(item, centre)| centre + item.width / 2.0);
        let width = right.fold(MARGIN, f64::max) + MARGIN;
        Self { width, height, corners, routes }
    }
}

impl Item {
    fn new(layer: usize, width: f64, is_passing: bool) -> Self {
        Self { layer, width, is_passing, before: Vec::new(), after: Vec::new() }
    }
}

/// The number of each node in an order in which edges go forward. In a cycle, the node with the lowest number is first.
fn ranks(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut outgoing = vec![Vec::new(); count];
    let mut missing = vec![0_usize; count];
    for &(from, to) in edges.iter().filter(|(from, to)| from != to) {
        outgoing[from].push(to);
        missing[to] += 1;
    }
    let mut ready: BTreeSet<usize> = (0..count).filter(|&node| missing[node] == 0).collect();
    let mut waiting: BTreeSet<usize> = (0..count).collect();
    let mut ranks = vec![0; count];
    for rank in 0..count {
        let Some(node) = ready.pop_first().or_else(|| waiting.first().copied()) else { break };
        waiting.remove(&node);
        ranks[node] = rank;
        for &to in &outgoing[node] {
            missing[to] -= 1;
            if missing[to] == 0 && waiting.contains(&to) {
                ready.insert(to);
            }
        }
    }
    ranks
}

/// The layer of each node. One that reads nothing is just above the first one that reads it.
fn layers(ranks: &[usize], edges: &[(usize, usize)]) -> Vec<usize> {
    let count = ranks.len();
    let mut outgoing = vec![Vec::new(); count];
    let mut reads = vec![false; count];
    for &(from, to) in edges.iter().filter(|(from, to)| from != to) {
        outgoing[from].push(to);
        reads[to] = true;
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&node| ranks[node]);
    let mut layers: Vec<usize> = vec![0; count];
    for node in order {
        for &to in &outgoing[node] {
            layers[to] = layers[to].max(layers[node] + 1);
        }
    }
    for node in (0..count).filter(|&node| !reads[node]) {
        if let Some(first) = outgoing[node].iter().map(|&to| layers[to]).min() {
            layers[node] = first.saturating_sub(1);
        }
    }
    layers
}

/// Connects the items, through new ones where an edge passes through a layer. Returns those of each edge.
fn chains(items: &mut Vec<Item>, edges: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let length =
        |&(from, to): &(usize, usize)| (items[to].layer - items[from].layer).saturating_sub(1);
    let is_straight = edges.iter().map(length).sum::<usize>() > MOST_PASSING;
    let mut seen = BTreeSet::new();
    let chains = edges.iter().map(|&(from, to)| {
        let mut chain = Vec::new();
        if from == to || !seen.insert((from, to)) {
            return chain;
        }
        let mut last = from;
        if !is_straight {
            for layer in items[from].layer + 1..items[to].layer {
                let item = items.len();
                items.push(Item::new(layer, PASSING, true));
                connect(items, last, item);
                chain.push(item);
                last = item;
            }
        }
        if items[last].layer + 1 == items[to].layer {
            connect(items, last, to);
        }
        chain
    });
    chains.collect()
}

fn connect(items: &mut [Item], from: usize, to: usize) {
    items[from].after.push(to);
    items[to].before.push(from);
}

/// The items of each layer from left to right: of all orders that the sweeps find, the one with the fewest crossings.
fn order(items: &[Item]) -> Vec<Vec<usize>> {
    let count = items.iter().map(|item| item.layer + 1).max().unwrap_or(0);
    let mut order = vec![Vec::new(); count];
    for (index, item) in items.iter().enumerate() {
        order[item.layer].push(index);
    }
    let mut best = (crossings(items, &order), order.clone());
    for sweep in 0..SWEEPS {
        if best.0 == 0 {
            break;
        }
        let down = sweep % 2 == 0;
        let layers: Vec<usize> =
            if down { (1..count).collect() } else { (0..count.saturating_sub(1)).rev().collect() };
        for layer in layers {
            let fixed = if down { layer - 1 } else { layer + 1 };
            let places = places(items.len(), &order[fixed]);
            let own = self::places(items.len(), &order[layer]);
            let wanted = |item: &usize| {
                let near = if down { &items[*item].before } else { &items[*item].after };
                mean(near.iter().map(|&it| places[it] as f64)).unwrap_or(own[*item] as f64)
            };
            order[layer].sort_by(|one, other| wanted(one).total_cmp(&wanted(other)));
        }
        let crossings = crossings(items, &order);
        if crossings < best.0 {
            best = (crossings, order.clone());
        }
    }
    best.1
}

/// The number of each item in its layer.
fn places(count: usize, layer: &[usize]) -> Vec<usize> {
    let mut places = vec![0; count];
    for (place, &item) in layer.iter().enumerate() {
        places[item] = place;
    }
    places
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// How often edges between neighbouring layers cross.
fn crossings(items: &[Item], order: &[Vec<usize>]) -> usize {
    let pairs = order.iter().zip(order.iter().skip(1));
    let counts = pairs.map(|(upper, lower)| {
        let places = places(items.len(), lower);
        // A tree of sums over the places of the lower layer.
        let mut sums = vec![0_usize; lower.len() + 1];
        let (mut crossings, mut ended) = (0, 0);
        for &item in upper {
            let mut ends: Vec<usize> = items[item].after.iter().map(|&to| places[to]).collect();
            ends.sort_unstable();
            for end in &ends {
                let mut index = end + 1;
                let mut up_to_here = 0;
                while index > 0 {
                    up_to_here += sums[index];
                    index &= index - 1;
                }
                crossings += ended - up_to_here;
            }
            for end in ends {
                let mut index = end + 1;
                while index < sums.len() {
                    sums[index] += 1;
                    index += index & index.wrapping_neg();
                }
                ended += 1;
            }
        }
        crossings
    });
    counts.sum()
}

/// The horizontal centre of each item: near those that it is connected to, in the order of its layer.
fn centres(items: &[Item], order: &[Vec<usize>]) -> Vec<f64> {
    let mut centres = vec![0.0; items.len()];
    for layer in order {
        let mut x = 0.0;
        for &item in layer {
            centres[item] = x + items[item].width / 2.0;
            x += items[item].width + GAP;
        }
    }
    for pass in 0..4 * SWEEPS {
        let down = pass % 2 == 0;
        let mut layers: Vec<&Vec<usize>> = order.iter().collect();
        if !down {
            layers.reverse();
        }
        for layer in layers {
            let wanted = |&item: &usize| {
                let Item { before, after, .. } = &items[item];
                // In the last passes, both sides count.
                let is_last = pass >= SWEEPS;
                let before = before.iter().filter(|_| down || is_last);
                let after = after.iter().filter(|_| !down || is_last);
                let (mut weight, mut sum) = (0.0, 0.0);
                for &near in before.chain(after) {
                    let own = straightness(&items[item], &items[near]);
                    weight += own;
                    sum += own * centres[near];
                }
                if weight > 0.0 { (sum / weight, weight) } else { (centres[item], 0.5) }
            };
            let wanted: Vec<(f64, f64)> = layer.iter().map(wanted).collect();
            for (&item, x) in layer.iter().zip(spread(items, layer, &wanted)) {
                centres[item] = x;
            }
        }
    }
    let left = items.iter().zip(&centres).map(|(item, centre)| centre - item.width / 2.0);
    let left = left.fold(f64::INFINITY, f64::min);
    centres.iter().map(|centre| centre - left + MARGIN).collect()
}

/// How much it counts that two items are above each other: most for the middle of long edges.
fn straightness(one: &Item, other: &Item) -> f64 {
    match (one.is_passing, other.is_passing) {
        (true, true) => 8.0,
        (false, false) => 1.0,
        _ => 2.0,
    }
}

/// The places nearest to the wanted ones, by least squares, at which no two items of a layer are too near: pools of items that touch each
/// other (pool adjacent violators). Each wanted place has a weight.
fn spread(items: &[Item], layer: &[usize], wanted: &[(f64, f64)]) -> Vec<f64> {
    struct Pool {
        weight: f64,
        sum: f64,
        count: usize,
    }
    let mut offsets = Vec::with_capacity(layer.len());
    let mut offset = 0.0;
    for (index, &item) in layer.iter().enumerate() {
        if index > 0 {
            offset += (items[layer[index - 1]].width + items[item].width) / 2.0 + GAP;
        }
        offsets.push(offset);
    }
    let mut pools: Vec<Pool> = Vec::new();
    for ((wanted, weight), offset) in wanted.iter().zip(&offsets) {
        let mut pool = Pool { weight: *weight, sum: weight * (wanted - offset), count: 1 };
        while let Some(last) = pools.pop_if(|last| last.sum / last.weight >= pool.sum / pool.weight)
        {
            pool = Pool {
                weight: last.weight + pool.weight,
                sum: last.sum + pool.sum,
                count: last.count + pool.count,
            };
        }
        pools.push(pool);
    }
    let starts =
        pools.iter().flat_map(|pool| std::iter::repeat_n(pool.sum / pool.weight, pool.count));
    starts.zip(offsets).map(|(start, offset)| start + offset).collect()
}

/// Where each edge leaves its first node and reaches its last one: side by side, in the order of where they come from or go to.
fn ends(
    sizes: &[(f64, f64)],
    edges: &[(usize, usize)],
    chains: &[Vec<usize>],
    centres: &[f64],
) -> Vec<(f64, f64)> {
    let mut ends: Vec<(f64, f64)> =
        edges.iter().map(|&(from, to)| (centres[from], centres[to])).collect();
    let (mut leaving, mut arriving) =
        (vec![Vec::new(); sizes.len()], vec![Vec::new(); sizes.len()]);
    for (index, (&(from, to), chain)) in
        edges.iter().zip(chains).enumerate().filter(|(_, ((from, to), _))| from != to)
    {
        leaving[from].push((chain.first().map_or(centres[to], |&item| centres[item]), index));
        arriving[to].push((chain.last().map_or(centres[from], |&item| centres[item]), index));
    }
    for node in 0..sizes.len() {
        for (side, edges) in [(0, &mut leaving[node]), (1, &mut arriving[node])] {
            edges.sort_by(|one, other| one.0.total_cmp(&other.0));
            let room = (sizes[node].0 - 48.0).max(0.0);
            let step = (room / edges.len().max(1) as f64).min(18.0);
            let first = centres[node] - step * (edges.len().saturating_sub(1)) as f64 / 2.0;
            for (place, &(_, index)) in edges.iter().enumerate() {
                let x = first + step * place as f64;
                if side == 0 { ends[index].0 = x } else { ends[index].1 = x }
            }
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: (f64, f64) = (100.0, 50.0);

    fn layout(count: usize, edges: &[(usize, usize)]) -> Layout {
        Layout::of(&vec![SIZE; count], edges)
    }

    #[test]
    fn a_chain_is_straight_and_goes_down() {
        let layout = layout(3, &[(0, 1), (1, 2)]);
        let places: Vec<_> = layout.corners.iter().map(|(x, y)| (x.round(), y.round())).collect();
        assert_eq!(places, [(12.0, 12.0), (12.0, 106.0), (12.0, 200.0)]);
        assert_eq!((layout.width.round(), layout.height.round()), (124.0, 262.0));
        assert_eq!(
            layout.routes[0].iter().map(|place| place.0.round()).collect::<Vec<_>>(),
            [62.0, 62.0]
        );
    }

    #[test]
    fn an_edge_over_a_layer_goes_around_what_is_there() {
        let layout = layout(3, &[(0, 1), (1, 2), (0, 2)]);
        let passing = layout.routes[2][1].0;
        let (left, right) = (layout.corners[1].0, layout.corners[1].0 + SIZE.0);
        assert_eq!(layout.routes[2].len(), 4);
        assert!(passing < left || passing > right, "{passing} is not within {left} to {right}");
    }

    #[test]
    fn the_order_within_a_layer_avoids_crossings() {
        // Two pairs that would cross.
        let layout = layout(4, &[(0, 3), (1, 2)]);
        assert_eq!(
            layout.corners[0].0 < layout.corners[1].0,
            layout.corners[3].0 < layout.corners[2].0
        );
    }

    #[test]
    fn what_reads_nothing_is_near_its_reader() {
        let layout =
            layout(4, &[(0, 1), (1, 2), (3, 2)].map(|(from, to): (usize, usize)| (from, to)));
        assert_eq!(layout.corners.len(), 4);
        let late = self::layout(4, &[(0, 1), (1, 3), (2, 3)]);
        assert_eq!(late.corners[2].1, late.corners[1].1, "not in the first layer");
    }

    #[test]
    fn nothing_loops_and_backward_edges_can_be_drawn() {
        assert_eq!(layout(0, &[]).corners, []);
        let layout = layout(2, &[(0, 0), (0, 1), (1, 0)]);
        assert!(layout.routes[0].is_empty());
        assert!(layout.routes[2][0].1 > layout.routes[2][1].1, "it goes up");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_two_nodes_overlap(edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..30)) {
            let sizes: Vec<(f64, f64)> = (0..12_u32).map(|node| (80.0 + 10.0 * f64::from(node), 40.0)).collect();
            let layout = Layout::of(&sizes, &edges);
            prop_assert_eq!(&layout, &Layout::of(&sizes, &edges));
            for (one, (x, y)) in layout.corners.iter().enumerate() {
                prop_assert!(*x >= 0.0 && x + sizes[one].0 <= layout.width + 0.01);
                prop_assert!(*y >= 0.0 && y + sizes[one].1 <= layout.height + 0.01);
                for (other, place) in layout.corners.iter().enumerate().skip(one + 1) {
                    let apart = x + sizes[one].0 <= place.0 + 0.01 || place.0 + sizes[other].0 <= x + 0.01 || y != &place.1;
                    prop_assert!(apart, "{one} and {other}");
                }
            }
            for route in layout.routes.iter().flatten() {
                prop_assert!(route.0.is_finite() && route.1.is_finite());
            }
        }
    }
}
