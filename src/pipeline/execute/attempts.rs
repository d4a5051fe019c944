//! What a run does about stages that fail and may be tried again, and what it says about memory.

use std::cmp::Reverse;

use pipeline_stages::text::in_short;

use super::Run;
use super::pools::GpuNeeds;
use super::states::StageState;
use crate::events::RunEvent;
use crate::format;
use crate::manifest::{Failing, WHOLE_GPU};
use crate::plan::Facts;
use crate::stage_name::StageName;
use crate::worker::speaks_of_gpu_memory;

/// The most stages that a message about memory names.
const MOST_BESIDE: usize = 3;

/// What a stage that failed had too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    Nothing,
    /// Memory of the machine.
    Memory,
    /// Memory of a GPU, and nobody knows of which one.
    SomeGpu,
    /// Memory of a GPU that others may have used, too.
    PartOfGpu,
    /// Memory of a GPU that it had to itself.
    WholeGpu,
}

impl Run<'_> {
    /// How often a stage may be tried.
    fn attempts_of(&self, name: &StageName) -> u32 {
        self.manifest.stage(name).map_or(1, |stage| stage.execution.attempts.count)
    }

    /// What a stage that runs and has failed like this had too little of.
    pub(super) fn lack(
        &self,
        name: &StageName,
        failing: Failing,
        message: &str,
        log: &[String],
    ) -> Lack {
        // What runs elsewhere shares nothing with what runs here.
        let is_elsewhere = self.states.needs(name).executor.is_some();
        if failing != Failing::OutOfMemory || is_elsewhere {
            return Lack::Nothing;
        }
        let is_of_gpu = speaks_of_gpu_memory(message, log);
        match self.states.needs(name).gpus {
            _ if !is_of_gpu => Lack::Memory,
            _ if self.gpus(name).is_empty() => Lack::SomeGpu,
            GpuNeeds::Part(part) | GpuNeeds::This { part, .. } if part < WHOLE_GPU => {
                Lack::PartOfGpu
            }
            _ => Lack::WholeGpu,
        }
    }

    /// Whether there is another attempt for a stage that runs and has failed like this. None could have more of a GPU than all
    /// of it.
    pub(super) fn tries_again(&self, name: &StageName, failing: Failing, lack: Lack) -> bool {
        let Some(StageState::Running { key, .. }) = self.states.get(name) else { return false };
        let tried = self.attempts.get(key).copied().unwrap_or(1);
        let attempts = self.manifest.stage(name).map(|stage| &stage.execution.attempts);
        attempts.is_some_and(|attempts| attempts.on.contains(&failing) && tried < attempts.count)
            && lack != Lack::WholeGpu
            && self.starts_more()
    }

    /// Lets a stage start again, from its checkpoint where it has one. For want of memory, alone; of that of a GPU, with all of one.
    pub(super) fn try_again(
        &mut self,
        name: &StageName,
        lack: Lack,
        message: String,
        log: Vec<String>,
    ) {
        let Some(StageState::Running { key, .. }) = self.states.get(name) else { return };
        let tried = self.attempts.entry(*key).or_insert(1);
        *tried += 1;
        let (stage, attempt, of) = (name.clone(), *tried, self.attempts_of(name));
        let alone = matches!(lack, Lack::Memory | Lack::SomeGpu);
        let own_gpu = lack == Lack::PartOfGpu;
        self.report(RunEvent::Attempt { stage, attempt, of, why: message, log, alone, own_gpu });
        self.states.set(name, StageState::Waiting);
        if alone {
            self.states.run_alone(name);
        }
        if own_gpu {
            self.states.run_with_own_gpu(name);
        }
        // Before those that wait for what becomes of it: one of them would take its place. Unless an input is made again.
        if let Some(StageState::Unseen) = self.states.get(name) {
            self.look_at(name);
        }
    }

    /// What else there is to say of a stage that has failed: which attempt it was, and for want of memory, who had most of it.
    pub(super) fn about_failure(&self, name: &StageName, failing: Failing, lack: Lack) -> String {
        let mut more = String::new();
        if lack != Lack::Nothing {
            let others = self.beside(name, lack);
            more.push_str(&self.who_was_large(name, lack, &others));
            if self.attempts_of(name) == 1 && !others.is_empty() {
                let how = match lack {
                    Lack::PartOfGpu => "with a GPU of its own",
                    _ => "alone",
                };
                more.push_str(&format!(
                    "\nwith attempts = 2 in its execution, it would be tried again, {how}"
                ));
            }
        }
        if let Some(StageState::Running { key, .. }) = self.states.get(name)
            && let Some(tried) = self.attempts.get(key)
            && !self.tries_again(name, failing, lack)
        {
            more.push_str(&format!("\nthis was attempt {tried} of {}", self.attempts_of(name)));
        }
        more
    }

    /// The GPUs that a stage that runs was handed.
    fn gpus(&self, name: &StageName) -> &[u32] {
        self.states.taken(name).map_or(&[], |taken| &taken.gpus)
    }

    /// The other stages that run, or of those, the ones on the same GPU.
    fn beside(&self, failed: &StageName, lack: Lack) -> Vec<&StageName> {
        let own = self.gpus(failed);
        let is_beside = |name: &StageName| match lack {
            Lack::PartOfGpu | Lack::WholeGpu => self.gpus(name).iter().any(|gpu| own.contains(gpu)),
            _ => true,
        };
        let running = self.states.iter().filter_map(|(name, state)| match state {
            StageState::Running { .. } => Some(name),
            _ => None,
        });
        running.filter(|name| *name != failed && is_beside(name)).collect()
    }

    /// Which of the stages that run had the most memory, in words: `\nthe largest stage then was train, with 12 GB; beside it ran
    /// evaluate`. How much each had of a GPU is not known.
    fn who_was_large(&self, failed: &StageName, lack: Lack, others: &[&StageName]) -> String {
        let named = |names: &mut dyn Iterator<Item = &StageName>| {
            in_short(names.map(StageName::as_str), MOST_BESIDE)
        };
        let on_its_gpu = matches!(lack, Lack::PartOfGpu | Lack::WholeGpu);
        if lack != Lack::Memory {
            let names = named(&mut others.iter().copied());
            return match (others.is_empty(), on_its_gpu) {
                (true, true) => "\nnothing else of this run was on its GPU".to_owned(),
                (true, false) => "\nnothing ran beside it".to_owned(),
                (false, true) => format!("\non the same GPU ran {names}"),
                (false, false) => format!("\nbeside it ran {names}"),
            };
        }
        let sizes = [failed].into_iter().chain(others.iter().copied()).map(|name| {
            // Who has just begun may have had the most in its last run.
            let before = || self.facts.last(name).and_then(|record| record.usage.peak_memory);
            let seen = self.supervisor.memory(name);
            let when = if seen.is_some() { "" } else { " in its last run" };
            (seen.or_else(before).unwrap_or(0), name, when)
        });
        let mut sizes: Vec<(u64, &StageName, &str)> = sizes.collect();
        // Stable: the one that failed is the first among equals.
        sizes.sort_by_key(|(size, ..)| Reverse(*size));
        let Some(((size, largest, when), rest)) = sizes.split_first() else {
            return String::new();
        };
        let beside = match rest.is_empty() {
            true => "nothing ran beside it".to_owned(),
            false => format!("beside it ran {}", named(&mut rest.iter().map(|(_, name, _)| *name))),
        };
        let who = if *largest == failed { "this one" } else { largest.as_str() };
        match size {
            0 => format!("\n{beside}"),
            size => {
                let size = format::bytes(*size);
                format!("\nthe largest stage then was {who}, with {size}{when}; {beside}")
            }
        }
    }
}
