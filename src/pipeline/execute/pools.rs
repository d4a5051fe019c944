//! What running stages take of the machine, and what is left: named pools with depths.
//!
//! Pure. Does not depend on what the stages are.

use std::collections::BTreeMap;

use crate::manifest::WHOLE_GPU;

/// What there is an amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pool {
    /// Stages at once.
    Jobs,
    Cores,
    /// In bytes.
    Memory,
    /// A GPU, by its number, in parts of [`WHOLE_GPU`].
    Gpu(u32),
    /// Jobs of an executor at once, by its place among them.
    Executor(u32),
    /// What the user counts, by its place among all that is counted.
    Resource(u32),
}

impl Pool {
    fn is_of_this_machine(&self) -> bool {
        !matches!(self, Self::Executor(_) | Self::Resource(_))
    }
}

/// How much each pool has. One that is not named here does not end.
pub(crate) type Depths = BTreeMap<Pool, u64>;

/// What a stage takes while it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Needs {
    pub(crate) cores: u32,
    /// In bytes.
    pub(crate) memory: u64,
    pub(crate) gpus: GpuNeeds,
    /// Whether nothing else may run beside it.
    pub(crate) alone: bool,
    /// The executor that runs it, which leaves this machine to others.
    pub(crate) executor: Option<u32>,
    /// How much of which resources that the user counts, wherever it runs.
    pub(crate) resources: Vec<(u32, u32)>,
}

/// What a stage takes of GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) enum GpuNeeds {
    #[default]
    None,
    /// This part of whichever GPU has it.
    Part(u32),
    /// This many whole GPUs.
    Whole(u32),
    /// A part of the GPU of this number.
    This { number: u32, part: u32 },
}

impl GpuNeeds {
    /// A whole GPU where this is a part of one.
    pub(crate) fn whole(self) -> Self {
        match self {
            Self::Part(_) => Self::Whole(1),
            Self::This { number, .. } => Self::This { number, part: WHOLE_GPU },
            Self::None | Self::Whole(_) => self,
        }
    }
}

/// What a stage that runs has taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    amounts: Vec<(Pool, u64)>,
    /// The numbers of the GPUs that it may use.
    pub(crate) gpus: Vec<u32>,
}

/// What a stage waits for first, and what it leaves to others meanwhile.
struct Wait {
    pool: Pool,
    leaves: Depths,
}

/// The pools of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pools {
    depths: Depths,
    left: Depths,
}

impl Pools {
    pub(crate) fn new(depths: Depths) -> Self {
        Self { left: depths.clone(), depths }
    }

    /// The first of these that can start now. Whoever waits keeps its place: of the pools that it waits for, nobody behind it
    /// takes anything, or a large one would wait for as long as there are small ones. Nor what it has found of others before.
    pub(crate) fn first_to_start<'n>(
        &self,
        waiting: impl Iterator<Item = &'n Needs>,
    ) -> Option<usize> {
        self.wait_for(waiting).position(|pool| pool.is_none())
    }

    /// What each of these waits for first, by itself or as it is kept for one before it. `None` where it can start.
    pub(crate) fn wait_for<'n>(
        &self,
        waiting: impl Iterator<Item = &'n Needs>,
    ) -> impl Iterator<Item = Option<Pool>> {
        let mut left = self.left.clone();
        waiting.map(move |needs| {
            let Wait { pool, leaves } = self.find(&left, needs).err()?;
            left.extend(leaves);
            Some(pool)
        })
    }

    /// Takes what a stage needs, as far as it is there.
    pub(crate) fn take(&mut self, needs: &Needs) -> Taken {
        let mut taken = self.find(&self.left, needs).or_else(|_| self.find(&self.depths, needs));
        if let Ok(taken) = &mut taken {
            for (pool, amount) in &mut taken.amounts {
                let left = self.left.entry(*pool).or_default();
                *amount = (*amount).min(*left);
                *left -= *amount;
            }
        }
        taken.unwrap_or_default()
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, taken: Taken) {
        for (pool, amount) in taken.amounts {
            self.left.entry(pool).and_modify(|left| *left += amount);
        }
    }

    /// What a stage would take, if this is left; or what it leaves to others while it waits. It waits for what the user counts, then
    /// for a GPU, then for the rest. What it has found stays there for it, or those behind it could take one thing after the other for
    /// ever; what it has not come to, they may take. Whoever needs more than there can ever be needs all of it.
    fn find(&self, left: &Depths, needs: &Needs) -> Result<Taken, Wait> {
        let there_is = |(pool, amount): (Pool, u64)| {
            let amount = amount.min(*self.depths.get(&pool)?);
            (amount > 0).then_some((pool, amount))
        };
        let lacks = |(pool, amount): &(Pool, u64)| left.get(pool).is_none_or(|left| left < amount);
        // It keeps nothing behind the last one that it lacks.
        let wait = |amounts: &[(Pool, u64)]| -> Option<Wait> {
            let (pool, _) = *amounts.iter().find(|one| lacks(one))?;
            let last = amounts.iter().rposition(lacks)?;
            let left = |pool: &Pool| left.get(pool).copied().unwrap_or(0);
            let kept = amounts[..=last].iter();
            let leaves = kept.map(|(pool, amount)| (*pool, left(pool).saturating_sub(*amount)));
            Some(Wait { pool, leaves: leaves.collect() })
        };
        let counted = needs.resources.iter();
        let counted = counted.map(|(number, amount)| (Pool::Resource(*number), (*amount).into()));
        let mut amounts: Vec<(Pool, u64)> = counted.filter_map(there_is).collect();
        if let Some(wait) = wait(&amounts) {
            return Err(wait);
        }
        let gpus = self.gpus(left, needs.gpus);
        match (needs.executor, needs.alone, &gpus) {
            (Some(number), ..) => amounts.extend(there_is((Pool::Executor(number), 1))),
            (None, true, _) => {
                let all = self.depths.iter().map(|(pool, depth)| (*pool, *depth));
                amounts.extend(all.filter(|(pool, _)| pool.is_of_this_machine()));
            }
            (None, false, Err(lacking)) => {
                amounts.extend(lacking.iter().map(|pool| (*pool, u64::MAX)));
            }
            (None, false, Ok(gpus)) => {
                let part = match needs.gpus {
                    GpuNeeds::Part(part) | GpuNeeds::This { part, .. } => part,
                    GpuNeeds::None | GpuNeeds::Whole(_) => WHOLE_GPU,
                };
                let wanted = gpus.iter().map(|number| (Pool::Gpu(*number), u64::from(part)));
                let wanted = wanted.chain([
                    (Pool::Memory, needs.memory),
                    (Pool::Cores, u64::from(needs.cores)),
                    (Pool::Jobs, 1),
                ]);
                amounts.extend(wanted.filter_map(there_is));
            }
        }
        match wait(&amounts) {
            None => Ok(Taken { amounts, gpus: gpus.unwrap_or_default() }),
            Some(wait) => Err(wait),
        }
    }

    /// The GPUs that a stage would get; or those that it waits for.
    fn gpus(&self, left: &Depths, needs: GpuNeeds) -> Result<Vec<u32>, Vec<Pool>> {
        let has = |number: u32, part: u32| {
            left.get(&Pool::Gpu(number)).is_some_and(|left| *left >= part.into())
        };
        let all = || {
            self.depths.keys().filter_map(|pool| match pool {
                Pool::Gpu(number) => Some(*number),
                _ => None,
            })
        };
        let found = match needs {
            GpuNeeds::None => return Ok(Vec::new()),
            GpuNeeds::This { number, part } if self.depths.contains_key(&Pool::Gpu(number)) => {
                if has(number, part) {
                    Ok(vec![number])
                } else {
                    Err(vec![Pool::Gpu(number)])
                }
            }
            // Nobody knows of it here.
            GpuNeeds::This { .. } => return Ok(Vec::new()),
            // What is shared already, so that others stay whole.
            GpuNeeds::Part(part) => {
                let fitting = all().filter(|number| has(*number, part));
                let fullest = fitting.min_by_key(|number| left.get(&Pool::Gpu(*number)).copied());
                fullest.map(|number| vec![number]).ok_or_else(Vec::new)
            }
            GpuNeeds::Whole(count) => {
                let wanted = (count as usize).min(all().count());
                let free = all().filter(|number| has(*number, WHOLE_GPU)).take(wanted);
                let free: Vec<u32> = free.collect();
                if free.len() == wanted { Ok(free) } else { Err(Vec::new()) }
            }
        };
        if all().next().is_none() {
            return Ok(Vec::new());
        }
        found.map_err(|pools: Vec<Pool>| match pools.is_empty() {
            true => all().map(Pool::Gpu).collect(),
            false => pools,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needs(cores: u32) -> Needs {
        Needs { cores, ..Needs::default() }
    }

    fn on(gpus: GpuNeeds) -> Needs {
        Needs { gpus, ..Needs::default() }
    }

    fn depths(cores: u64, gpus: u32) -> Depths {
        let gpus = (0..gpus).map(|number| (Pool::Gpu(number), WHOLE_GPU.into()));
        let counted = [(Pool::Resource(0), 1), (Pool::Resource(1), 3)];
        let counted = counted.into_iter().chain([(Pool::Memory, 100)]);
        gpus.chain(counted).chain([(Pool::Cores, cores), (Pool::Jobs, 8)]).collect()
    }

    fn counted(resources: &[(u32, u32)]) -> Needs {
        Needs { resources: resources.to_vec(), ..needs(1) }
    }

    fn first(pools: &Pools, waiting: &[Needs]) -> Option<usize> {
        pools.first_to_start(waiting.iter())
    }

    #[test]
    fn whoever_waits_keeps_its_place() {
        let mut pools = Pools::new(depths(4, 1));
        let running = pools.take(&needs(2));
        // The first needs four cores; two are left, and nobody behind it gets one.
        assert_eq!(first(&pools, &[needs(4), needs(1)]), None);
        assert_eq!(first(&pools, &[needs(4), needs(0)]), Some(1), "a stage without a core");
        // It does not wait for memory, so others may take that.
        assert_eq!(first(&pools, &[needs(2), needs(1)]), Some(0));
        pools.give_back(running);
        assert_eq!(first(&pools, &[needs(4), needs(1)]), Some(0));
        // A training that waits for the GPU does not hold cores up.
        let training = Needs { cores: 3, ..on(GpuNeeds::Whole(1)) };
        pools.take(&training);
        assert_eq!(first(&pools, &[training.clone(), training.clone(), needs(1)]), Some(2));
        assert_eq!(first(&pools, &[training, on(GpuNeeds::Part(1))]), None);
    }

    #[test]
    fn whoever_waits_for_memory_keeps_its_gpu_and_its_place_for_cores() {
        let mut pools = Pools::new(depths(4, 1));
        pools.take(&Needs { memory: 60, ..needs(2) });
        let waits = Needs { memory: 50, cores: 4, ..on(GpuNeeds::Part(600)) };
        let small = |part| on(GpuNeeds::Part(part));
        assert_eq!(first(&pools, &[waits.clone(), on(GpuNeeds::Whole(1)), small(500)]), None);
        assert_eq!(first(&pools, &[waits.clone(), small(400)]), Some(1), "what is left of the GPU");
        assert_eq!(first(&pools, &[waits.clone(), needs(1)]), None, "it waits for cores, too");
        assert_eq!(first(&pools, &[waits.clone(), Needs { memory: 1, ..needs(0) }]), None);
    }

    #[test]
    fn what_was_found_is_kept_and_what_comes_later_is_not_waited_for_yet() {
        let mut pools = Pools::new(depths(4, 1));
        let licence = Needs { cores: 0, ..counted(&[(0, 1)]) };
        let waits = Needs { memory: 50, cores: 4, resources: vec![(0, 1)], ..Needs::default() };
        let waits = Needs { gpus: GpuNeeds::Whole(1), ..waits };
        let of_licence = pools.take(&licence);
        let on_gpu = pools.take(&on(GpuNeeds::Part(500)));
        let cores = pools.take(&needs(2));
        let passes = |pools: &Pools, other: Needs| first(pools, &[waits.clone(), other]).is_some();
        let memory = |memory| Needs { memory, ..needs(0) };
        // It waits for the licence: whoever does not take one goes past it.
        for other in [on(GpuNeeds::Part(500)), needs(2), memory(100)] {
            assert!(passes(&pools, other));
        }
        assert!(!passes(&pools, licence.clone()));
        // For the GPU, and the licence is its own.
        pools.give_back(of_licence);
        for (other, does) in
            [(licence.clone(), false), (on(GpuNeeds::Part(1)), false), (needs(2), true)]
        {
            assert_eq!(passes(&pools, other), does);
        }
        // For the cores, and half of the memory is its own, too.
        pools.give_back(on_gpu);
        for (other, does) in [
            (licence, false),
            (on(GpuNeeds::Part(1)), false),
            (needs(1), false),
            (memory(51), false),
            (memory(50), true),
        ] {
            assert_eq!(passes(&pools, other), does);
        }
        pools.give_back(cores);
        assert_eq!(first(&pools, &[waits]), Some(0));
    }

    #[test]
    fn jobs_of_an_executor_take_nothing_of_this_machine() {
        let mut depths = depths(1, 0);
        depths.insert(Pool::Executor(0), 2);
        let mut pools = Pools::new(depths);
        let elsewhere = |number| Needs { executor: Some(number), ..needs(4) };
        let jobs = [0; 2].map(|number| pools.take(&elsewhere(number)));
        assert_eq!(first(&pools, &[elsewhere(0), needs(1)]), Some(1), "two are the most");
        assert_eq!(first(&pools, &[elsewhere(1)]), Some(0), "of this one there is no most");
        let alone = Needs { alone: true, ..needs(1) };
        assert_eq!(first(&pools, std::slice::from_ref(&alone)), Some(0), "nothing else runs here");
        pools.take(&alone);
        jobs.into_iter().for_each(|job| pools.give_back(job));
        assert_eq!(first(&pools, &[needs(1), elsewhere(0)]), Some(1));
    }

    #[test]
    fn what_the_user_counts_is_taken_wherever_a_stage_runs() {
        let mut depths = depths(4, 0);
        depths.insert(Pool::Executor(0), 9);
        let mut pools = Pools::new(depths);
        let job = pools.take(&Needs { executor: Some(0), ..counted(&[(0, 1), (1, 2)]) });
        let (one, two) = (counted(&[(0, 1)]), counted(&[(1, 2)]));
        assert_eq!(first(&pools, &[one.clone(), needs(4)]), Some(1), "it takes no core meanwhile");
        assert_eq!(first(&pools, &[counted(&[(1, 1)])]), Some(0), "one is left");
        let waiting = [two, counted(&[(1, 1)]), Needs { executor: Some(0), ..one.clone() }];
        let pools_of: Vec<_> = pools.wait_for(waiting.iter()).collect();
        let expected = [1, 1, 0].map(|number| Some(Pool::Resource(number)));
        assert_eq!(pools_of, expected, "the second one leaves what there is to the first");
        let elsewhere = Needs { executor: Some(0), ..one };
        assert_eq!(first(&pools, &[elsewhere]), None);
        // Whoever runs alone here leaves what jobs have, unless it takes of that itself.
        let alone = |resources: &[(u32, u32)]| Needs { alone: true, ..counted(resources) };
        assert_eq!(first(&pools, &[alone(&[])]), Some(0));
        // It takes the machine when that is there as well, and nobody takes either from it meanwhile.
        assert_eq!(first(&pools, &[alone(&[(0, 1)]), needs(1)]), Some(1));
        let beside = pools.take(&needs(1));
        pools.give_back(job);
        assert_eq!(first(&pools, &[alone(&[(0, 1)]), needs(1)]), None);
        assert_eq!(first(&pools, &[alone(&[(0, 1)]), counted(&[(0, 1)])]), None);
        let job = Needs { executor: Some(0), ..counted(&[(0, 1)]) };
        assert_eq!(first(&pools, &[alone(&[(0, 1)]), job]), None);
        pools.give_back(beside);
        let taken = pools.take(&alone(&[(0, 1)]));
        let elsewhere =
            |resources: &[(u32, u32)]| Needs { executor: Some(0), ..counted(resources) };
        assert_eq!(first(&pools, &[elsewhere(&[(0, 1)]), elsewhere(&[(1, 3)])]), Some(1));
        pools.give_back(taken);
        assert_eq!(pools.left, pools.depths);
    }

    #[test]
    fn gpus_are_handed_out_by_number() {
        let mut pools = Pools::new(depths(9, 3));
        let mut take = |gpus| pools.take(&on(gpus)).gpus;
        assert_eq!(take(GpuNeeds::Part(250)), [0]);
        assert_eq!(take(GpuNeeds::Whole(1)), [1]);
        assert_eq!(take(GpuNeeds::Part(250)), [0], "what is shared already");
        assert_eq!(take(GpuNeeds::This { number: 0, part: 500 }), [0]);
        assert_eq!(take(GpuNeeds::Part(1)), [2]);
        assert_eq!(take(GpuNeeds::None), [0; 0]);
        let waiting = [on(GpuNeeds::This { number: 1, part: 1 }), on(GpuNeeds::Part(900))];
        assert_eq!(first(&pools, &waiting), Some(1), "the other GPU");
        // Of a GPU that nobody knows of here, nothing is taken.
        assert_eq!(pools.take(&on(GpuNeeds::This { number: 7, part: 1000 })).gpus, [0; 0]);
        assert_eq!(Pools::new(depths(1, 0)).take(&on(GpuNeeds::Whole(2))).gpus, [0; 0]);
    }

    #[test]
    fn more_than_there_can_be_is_all_of_it_and_alone_is_everything() {
        let mut pools = Pools::new(depths(4, 2));
        let alone = Needs { alone: true, ..on(GpuNeeds::Whole(1)) };
        let one = pools.take(&needs(1));
        assert_eq!(
            first(&pools, &[needs(64), alone.clone(), needs(1), on(GpuNeeds::Part(1))]),
            None
        );
        pools.give_back(one);
        assert_eq!(first(&pools, &[needs(64)]), Some(0));
        let taken = pools.take(&alone);
        assert_eq!(taken.gpus, [0], "it uses one");
        assert_eq!(first(&pools, &[needs(0)]), None, "and no other stage may begin");
        pools.give_back(taken);
        assert_eq!(pools.left, pools.depths);
    }

    fn any_needs() -> impl Strategy<Value = Needs> {
        let gpus = prop_oneof![
            Just(GpuNeeds::None),
            (1..=WHOLE_GPU).prop_map(GpuNeeds::Part),
            (1..3_u32).prop_map(GpuNeeds::Whole),
            (0..4_u32, 1..=WHOLE_GPU).prop_map(|(number, part)| GpuNeeds::This { number, part }),
        ];
        let resource = prop_oneof![Just(None), (1..5_u32).prop_map(Some)];
        let resources = [resource.clone(), resource].prop_map(|[one, other]| {
            let amounts = [(0, one), (1, other)].into_iter();
            amounts.filter_map(|(number, amount)| Some((number, amount?))).collect()
        });
        (0..6_u32, 0..150_u64, gpus, proptest::bool::weighted(0.1), resources).prop_map(
            |(cores, memory, gpus, alone, resources)| Needs {
                cores,
                memory,
                gpus,
                alone,
                executor: None,
                resources,
            },
        )
    }

    /// How long whoever runs in a property takes at most.
    const LONGEST: usize = 3;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whoever runs already, and whatever comes behind without end: those that wait start, each once all that ran has ended a few
        /// times, for each thing that it waits for once.
        #[test]
        fn whoever_waits_starts_in_finite_time(
            gpus in 0..3_u32,
            mut waiting in proptest::collection::vec(any_needs(), 1..4),
            behind in proptest::collection::vec((any_needs(), 1..=LONGEST), 1..20),
        ) {
            // Two resources, GPUs, memory, cores and places.
            const THINGS: usize = 6;
            const BEGINS: usize = 2 * LONGEST;
            let last = BEGINS + waiting.len() * (THINGS * LONGEST + 1);
            let mut pools = Pools::new(depths(4, gpus));
            let mut running: Vec<(usize, Taken)> = Vec::new();
            for time in 0..=last {
                for (_, taken) in running.extract_if(.., |(end, _)| *end <= time) {
                    pools.give_back(taken);
                }
                loop {
                    let waits = if time < BEGINS { 0 } else { waiting.len() };
                    let (later, sooner) = behind.split_at(time % behind.len());
                    let others = || sooner.iter().chain(later);
                    let all = waiting[..waits].iter().chain(others().map(|(needs, _)| needs));
                    let Some(place) = pools.first_to_start(all) else { break };
                    let (needs, takes) = match place.checked_sub(waits) {
                        None => (waiting.remove(place), LONGEST),
                        Some(place) => others().nth(place).cloned().expect("one of them"),
                    };
                    running.push((time + takes, pools.take(&needs)));
                }
            }
            prop_assert!(waiting.is_empty(), "{waiting:?}");
        }

        /// Against a model that adds up: no pool is overdrawn, everything is given back, a stage gets as many GPUs as it
        /// needs, and whatever waits can start once nothing runs.
        #[test]
        fn nothing_is_taken_twice(
            gpus in 0..3_u32,
            events in proptest::collection::vec((any_needs(), any::<bool>()), 1..40),
        ) {
            let mut pools = Pools::new(depths(4, gpus));
            let mut running: Vec<(Needs, Taken)> = Vec::new();
            for (needs, ends) in events {
                if pools.first_to_start(std::iter::once(&needs)).is_some() {
                    let taken = pools.take(&needs);
                    let expected = match needs.gpus {
                        GpuNeeds::None => 0,
                        GpuNeeds::Part(_) => gpus.min(1),
                        GpuNeeds::Whole(count) => count.min(gpus),
                        GpuNeeds::This { number, .. } => u32::from(number < gpus),
                    };
                    prop_assert_eq!(taken.gpus.len() as u32, expected);
                    running.push((needs, taken));
                }
                let alone = running.iter().filter(|(needs, _)| needs.alone).count();
                prop_assert!(alone == 0 || running.len() == 1);
                let cores: u32 = running.iter().map(|(needs, _)| needs.cores.min(4)).sum();
                prop_assert!(alone > 0 || cores <= 4 && running.len() <= 8);
                let memory: u64 = running.iter().map(|(needs, _)| needs.memory.min(100)).sum();
                prop_assert!(alone > 0 || memory <= 100);
                for (number, depth) in [(0, 1), (1, 3)] {
                    let all = running.iter().flat_map(|(needs, _)| &needs.resources);
                    let all = all.filter(|(other, _)| *other == number);
                    prop_assert!(all.map(|(_, amount)| *amount.min(&depth)).sum::<u32>() <= depth);
                }
                for number in 0..gpus {
                    let parts = running.iter().filter(|(_, taken)| taken.gpus.contains(&number));
                    let parts = parts.map(|(needs, _)| match needs.gpus {
                        GpuNeeds::Part(part) | GpuNeeds::This { part, .. } => part,
                        _ => WHOLE_GPU,
                    });
                    prop_assert!(parts.sum::<u32>() <= WHOLE_GPU);
                }
                if ends && !running.is_empty() {
                    pools.give_back(running.remove(0).1);
                }
            }
            running.into_iter().for_each(|(_, taken)| pools.give_back(taken));
            prop_assert_eq!(&pools.left, &pools.depths);
            let alone = Needs { alone: true, ..on(GpuNeeds::Whole(9)) };
            for needs in [needs(99), alone, counted(&[(0, 9), (1, 9)])] {
                prop_assert_eq!(first(&pools, &[needs]), Some(0));
            }
        }
    }
}
