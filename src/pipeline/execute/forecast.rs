//! How long the stages of a run may take, each from a few recorded runs of like stages, and all together on a machine.
//!
//! Reads no more records than a moment takes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

use super::order::{self, Weight};
use super::places::Places;
use super::pools::{Needs, Pools, Taken};
use crate::expected::Runs;
use crate::facts::CacheFacts;
use crate::graph::Graph;
use crate::manifest::{Manifest, Stage};
use crate::plan::Facts;
use crate::stage_name::StageName;

/// The most records of a stage in the manifest that are read, and of all of them.
const MOST_OF_ONE: usize = 16;
const MOST: usize = 512;

/// The seconds that these stages may take, of those that are known.
pub(crate) fn seconds(
    manifest: &Manifest,
    facts: &CacheFacts<'_>,
    open: &[&Stage],
) -> HashMap<StageName, f64> {
    // One stage needs no order.
    if open.len() < 2 {
        return HashMap::new();
    }
    let wanted: HashSet<&str> = open.iter().map(|stage| stage.name.template()).collect();
    let most = (MOST / wanted.len()).clamp(1, MOST_OF_ONE);
    // In the same order in every run.
    let mut instances: BTreeMap<&str, Vec<&StageName>> = BTreeMap::new();
    for stage in &manifest.stages {
        let template = stage.name.template();
        if wanted.contains(template) {
            instances.entry(template).or_default().push(&stage.name);
        }
    }
    let mut runs = Runs::default();
    for names in instances.into_values().take(MOST) {
        // From all over the matrix: neighbours are alike.
        let step = names.len().div_ceil(most).max(1);
        for name in names.into_iter().step_by(step) {
            if let Some(record) = facts.last(name) {
                runs.add(name, &record);
            }
        }
    }
    let expected = runs.expected();
    let known = open.iter().filter_map(|stage| Some((stage.name.clone(), expected.of(stage)?)));
    known.collect()
}

/// The seconds that these stages take together, as they share these places: each starts when those of them that it reads have ended,
/// and when there is enough for it. How long jobs wait for those of others is not known.
pub(crate) fn together(run_on: &Places<'_>, graph: &Graph, stages: &[(&Stage, f64)]) -> f64 {
    let places: HashMap<&StageName, usize> =
        stages.iter().enumerate().map(|(place, (stage, _))| (&stage.name, place)).collect();
    let readers = stages.iter().map(|(stage, _)| {
        let readers = graph.consumers(&stage.name).into_iter();
        readers.filter_map(|reader| places.get(reader).copied()).collect()
    });
    let weights = stages.iter().map(|(stage, seconds)| Weight {
        priority: stage.execution.priority.into(),
        seconds: Some(*seconds),
    });
    let needs: Vec<Needs> = stages.iter().map(|(stage, _)| run_on.needs(stage)).collect();
    let seconds: Vec<f64> = stages.iter().map(|(_, seconds)| *seconds).collect();
    let (weights, readers): (Vec<_>, Vec<Vec<usize>>) = (weights.collect(), readers.collect());
    run(Pools::new(run_on.depths(|_| true)), &weights, &readers, &needs, &seconds)
}

/// When the last stage of a run would end.
fn run(
    mut pools: Pools,
    weights: &[Weight],
    readers: &[Vec<usize>],
    needs: &[Needs],
    seconds: &[f64],
) -> f64 {
    let starts = order::order(weights, readers);
    let mut turns = vec![0; starts.len()];
    starts.iter().enumerate().for_each(|(turn, place)| turns[*place] = turn);
    let mut missing = vec![0_usize; starts.len()];
    readers.iter().flatten().for_each(|reader| missing[*reader] += 1);
    // As in a run: of those that take the same, the first one counts.
    let mut ready: HashMap<Needs, BTreeSet<usize>> = HashMap::new();
    for (place, needs) in needs.iter().enumerate().filter(|(place, _)| missing[*place] == 0) {
        ready.entry(needs.clone()).or_default().insert(turns[place]);
    }
    // In microseconds, which can be compared.
    let mut running: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut taken: HashMap<usize, Taken> = HashMap::new();
    let mut now = 0;
    loop {
        let mut firsts: Vec<(usize, &Needs)> =
            ready.iter().filter_map(|(needs, turns)| Some((*turns.first()?, needs))).collect();
        firsts.sort_unstable();
        let next = pools.first_to_start(firsts.iter().map(|(_, needs)| *needs));
        if let Some((turn, needs)) = next.map(|next| (firsts[next].0, firsts[next].1.clone())) {
            let place = starts[turn];
            taken.insert(place, pools.take(&needs));
            ready.entry(needs).or_default().remove(&turn);
            let end = now + (seconds[place].clamp(0.0, 1e11) * 1e6) as u64;
            running.push(Reverse((end, place)));
            continue;
        }
        let Some(Reverse((end, place))) = running.pop() else { return now as f64 / 1e6 };
        now = end;
        pools.give_back(taken.remove(&place).unwrap_or_default());
        for &reader in &readers[place] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.entry(needs[reader].clone()).or_default().insert(turns[reader]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::path::Path;

    use super::super::pools::{Depths, Pool};
    use super::super::share::Share;
    use super::*;
    use crate::gpus::Gpus;
    use crate::manifest::{self, RunLimits};

    fn takes(cores: u64, readers: &[Vec<usize>], stages: &[(u32, f64)]) -> f64 {
        let needs = |cores| Needs { cores, ..Needs::default() };
        let needs: Vec<_> = stages.iter().map(|(cores, _)| needs(*cores)).collect();
        let seconds: Vec<_> = stages.iter().map(|(_, seconds)| *seconds).collect();
        let weight = |seconds: &f64| Weight { priority: 0, seconds: Some(*seconds) };
        let weights: Vec<_> = seconds.iter().map(weight).collect();
        let pools = Pools::new(Depths::from([(Pool::Cores, cores)]));
        run(pools, &weights, readers, &needs, &seconds)
    }

    #[test]
    fn stages_that_share_a_machine_end_when_the_last_one_does() {
        let none = [vec![], vec![], vec![]];
        let chain = [vec![1], vec![2], vec![]];
        let three = [(1, 3.0), (1, 5.0), (1, 4.0)];
        assert_eq!(takes(1, &none, &three), 12.0);
        assert_eq!(takes(2, &none, &three), 7.0, "5, and beside it 4 and 3");
        assert_eq!(takes(9, &none, &three), 5.0);
        assert_eq!(takes(9, &chain, &three), 12.0);
        assert_eq!(takes(2, &none, &[(2, 3.0), (1, 5.0), (1, 4.0)]), 8.0);
        assert_eq!(takes(1, &[], &[]), 0.0);
    }

    #[test]
    fn what_an_executor_runs_takes_nothing_of_this_machine() {
        const STAGES: &str = "[experiment]
            name = 'four'
            [matrix]
            seed = [1, 2, 3, 4]
            [stages.data]
            kind = 'dataset'
            format = 'idx'
            path = 'images'
            [stages.simclr]
            kind = 'pretrain-simclr'
            data = 'data'
            seed = '${seed}'
            [executors.cluster]
            kind = 'slurm'
            ";
        let seconds = |more: &str, executor: Option<&str>| {
            let text = STAGES.to_owned() + more;
            let (manifest, graph) =
                manifest::parse(Path::new("test.toml"), &text, &[]).expect("a manifest");
            let share = Share::new(None, &RunLimits::default(), (2, None, Gpus::default()));
            let run_on = Places { share: &share, executors: &manifest.executors, executor };
            let stages = manifest.stages.iter().map(|stage| (stage, 10.0));
            together(&run_on, &graph, &stages.collect::<Vec<_>>())
        };
        assert_eq!(seconds("", None), 50.0, "each takes both cores");
        assert_eq!(seconds("", Some("cluster")), 20.0);
        assert_eq!(seconds("max-jobs = 2", Some("cluster")), 30.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Never longer than one after the other, and never shorter than the longest way or than the work that the cores can do.
        #[test]
        fn the_time_is_between_its_bounds(
            edges in proptest::collection::vec((0..9_usize, 0..9_usize), 0..20),
            stages in proptest::collection::vec((1..4_u32, 0.0..50.0_f64), 9),
            cores in 3..8_u64,
        ) {
            let mut readers = vec![Vec::new(); 9];
            for (from, to) in edges.into_iter().filter(|(from, to)| from < to) {
                readers[from].push(to);
            }
            let time = takes(cores, &readers, &stages);
            let sum: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
            let work: f64 = stages.iter().map(|(cores, seconds)| f64::from(*cores) * seconds).sum();
            let mut ways = vec![0.0_f64; 9];
            for place in (0..9).rev() {
                let after = readers[place].iter().map(|reader| ways[*reader]).fold(0.0, f64::max);
                ways[place] = stages[place].1 + after;
            }
            let longest = ways.into_iter().fold(0.0, f64::max);
            prop_assert!(time <= sum + 1e-3);
            prop_assert!(time + 1e-3 >= longest && time + 1e-3 >= work / cores as f64);
        }
    }
}
