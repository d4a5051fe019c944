//! What a run does about stages that fail and may be tried again, and what it says about memory.

use std::cmp::Reverse;

use pipeline_stages::text::in_short;

use super::pools::GpuNeeds;
use super::run::Run;
use super::states::StageState;
use super::unseen;
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
        let Some(StageState::Running { .. }) = self.states.get(name) else { return false };
        let tried = self.attempts.get(name).copied().unwrap_or(1);
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
        let tried = self.attempts.entry(name.clone()).or_insert(1);
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

    /// What else there is to say of a stage that has failed: a variable that its program may miss, which attempt it was, and for want
    /// of memory, who had most of it.
    pub(super) fn about_failure(
        &self,
        name: &StageName,
        failing: Failing,
        lack: Lack,
        log: &[String],
    ) -> String {
        let is_set = |name: &str| std::env::var_os(name).is_some();
        let stage = self.manifest.stage(name);
        let mut more = stage.and_then(|stage| unseen::hint(stage, log, is_set)).unwrap_or_default();
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
        if let Some(tried) = self.attempts.get(name)
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

    /// The other stages whose programs run here, or of those, the ones on the same GPU.
    fn beside(&self, failed: &StageName, lack: Lack) -> Vec<&StageName> {
        let own = self.gpus(failed);
        let is_beside = |name: &StageName| match lack {
            Lack::PartOfGpu | Lack::WholeGpu => self.gpus(name).iter().any(|gpu| own.contains(gpu)),
            _ => true,
        };
        let running = self.states.iter().filter_map(|(name, state)| match state {
            StageState::Running { .. } if self.supervisor.has_processes(name) => Some(name),
            _ => None,
        });
        running.filter(|name| *name != failed && is_beside(name)).collect()
    }

    /// Which of the stages that run had the most of what ran out, in words.
    fn who_was_large(&self, failed: &StageName, lack: Lack, others: &[&StageName]) -> String {
        let had = [failed].into_iter().chain(others.iter().copied()).map(|name| {
            let before = self.facts.last(name).map(|record| record.usage);
            let (size, of) = match lack {
                Lack::Memory => match self.supervisor.memory(name) {
                    Some(seen) => (Some(seen), ""),
                    // Who has just begun may have had the most in its last run.
                    None => (before.and_then(|usage| usage.peak_memory), " in its last run"),
                },
                // How much each has of a GPU now is not known.
                _ => (before.and_then(|usage| usage.gpu_memory), " of a GPU in its last run"),
            };
            Had { name, size: size.unwrap_or(0), of }
        });
        let on_its_gpu = matches!(lack, Lack::PartOfGpu | Lack::WholeGpu);
        in_words(had.collect(), on_its_gpu)
    }
}

/// How much memory a stage had.
struct Had<'a> {
    name: &'a StageName,
    /// In bytes; 0 where it is not known.
    size: u64,
    /// Of what, and when.
    of: &'static str,
}

/// Who had the most, of the stage that failed and those that ran beside it, or `on_its_gpu`: `\nthe largest stage then was train, with
/// 12 GB; beside it ran evaluate`. The one that failed is the first.
fn in_words(mut had: Vec<Had<'_>>, on_its_gpu: bool) -> String {
    let Some(failed) = had.first().map(|had| had.name) else { return String::new() };
    // Stable: the one that failed is the first among equals.
    had.sort_by_key(|had| Reverse(had.size));
    let (largest, rest) = (&had[0], &had[1..]);
    let names = in_short(rest.iter().map(|had| had.name.as_str()), MOST_BESIDE);
    let beside = match (rest.is_empty(), on_its_gpu) {
        (true, true) => "nothing else of this run was on its GPU".to_owned(),
        (true, false) => "nothing ran beside it".to_owned(),
        (false, true) => format!("on the same GPU ran {names}"),
        (false, false) => format!("beside it ran {names}"),
    };
    let who = if largest.name == failed { "this one" } else { largest.name.as_str() };
    match largest.size {
        0 => format!("\n{beside}"),
        size => {
            let size = format::bytes(size);
            format!("\nthe largest stage then was {who}, with {size}{}; {beside}", largest.of)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_named_as_far_as_sizes_are_known() {
        let names: Vec<StageName> =
            ["failed", "other", "third"].map(|name| name.parse().expect("a name")).into();
        let said = |sizes: &[u64], on_its_gpu| {
            let had = names.iter().zip(sizes);
            let had = had.map(|(name, &size)| Had { name, size, of: " of a GPU in its last run" });
            in_words(had.collect(), on_its_gpu)
        };
        for (sizes, on_its_gpu, words) in [
            (&[0][..], false, "nothing ran beside it"),
            (&[0], true, "nothing else of this run was on its GPU"),
            (&[0, 0], false, "beside it ran other"),
            (&[0, 0, 0], true, "on the same GPU ran other, third"),
            (
                &[5_000_000_000, 5_000_000_000],
                true,
                "the largest stage then was this one, with 5.0 GB of a GPU in its last run; on the same GPU ran other",
            ),
            (
                &[0, 1, 8_000_000_000],
                true,
                "the largest stage then was third, with 8.0 GB of a GPU in its last run; on the same GPU ran other, failed",
            ),
        ] {
            assert_eq!(said(sizes, on_its_gpu), format!("\n{words}"));
        }
    }
}
