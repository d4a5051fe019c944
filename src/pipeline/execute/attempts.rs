//! What a run does about stages that fail and may be tried again, and what it says about memory.

use std::cmp::Reverse;

use pipeline_stages::text::in_short;

use super::Run;
use super::states::StageState;
use crate::events::RunEvent;
use crate::format;
use crate::manifest::Failing;
use crate::plan::Facts;
use crate::stage_name::StageName;

/// The most stages that a message about memory names.
const MOST_BESIDE: usize = 3;

impl Run<'_> {
    /// How often a stage may be tried.
    fn attempts_of(&self, name: &StageName) -> u32 {
        self.manifest.stage(name).map_or(1, |stage| stage.execution.attempts.count)
    }

    /// Whether there is another attempt for a stage that runs and has failed like this.
    pub(super) fn tries_again(&self, name: &StageName, failing: Failing) -> bool {
        let Some(StageState::Running { key, .. }) = self.states.get(name) else { return false };
        let tried = self.attempts.get(key).copied().unwrap_or(1);
        let attempts = self.manifest.stage(name).map(|stage| &stage.execution.attempts);
        attempts.is_some_and(|attempts| attempts.on.contains(&failing) && tried < attempts.count)
            && self.starts_more()
    }

    /// Lets a stage start again, from its checkpoint where it has one. For want of memory, alone.
    pub(super) fn try_again(&mut self, name: &StageName, failing: Failing, message: String) {
        let Some(StageState::Running { key, .. }) = self.states.get(name) else { return };
        let tried = self.attempts.entry(*key).or_insert(1);
        *tried += 1;
        let (stage, attempt, of) = (name.clone(), *tried, self.attempts_of(name));
        let alone = failing == Failing::OutOfMemory;
        self.report(RunEvent::Attempt { stage, attempt, of, why: message, alone });
        self.states.set(name, StageState::Waiting);
        if alone {
            self.states.run_alone(name);
        }
        // Before those that wait for what becomes of it: one of them would take its place. Unless an input is made again.
        if let Some(StageState::Unseen) = self.states.get(name) {
            self.look_at(name);
        }
    }

    /// What else there is to say of a stage that has failed: which attempt it was, and for want of memory, who had most of it.
    pub(super) fn about_failure(
        &self,
        name: &StageName,
        message: &str,
        failing: Failing,
    ) -> String {
        let mut more = String::new();
        if failing == Failing::OutOfMemory {
            more.push_str(&self.who_was_large(name, is_of_a_gpu(message)));
            if self.attempts_of(name) == 1 {
                more.push_str(
                    "\nwith attempts = 2 in its execution, it would be tried again, alone",
                );
            }
        }
        if let Some(StageState::Running { key, .. }) = self.states.get(name)
            && let Some(tried) = self.attempts.get(key)
            && !self.tries_again(name, failing)
        {
            more.push_str(&format!("\nthis was attempt {tried} of {}", self.attempts_of(name)));
        }
        more
    }

    /// Which of the stages that run had the most memory, or of those on the same GPU, in words: `\nthe largest stage then was
    /// train, with 12 GB; beside it ran evaluate`.
    fn who_was_large(&self, failed: &StageName, on_its_gpu: bool) -> String {
        let gpus = |name: &StageName| self.states.taken(name).map_or(&[][..], |taken| &taken.gpus);
        let own = gpus(failed);
        let shares = |name: &StageName| gpus(name).iter().any(|gpu| own.contains(gpu));
        let running = self.states.iter().filter_map(|(name, state)| match state {
            StageState::Running { .. } => Some(name),
            _ => None,
        });
        let running = running.filter(|name| !on_its_gpu || *name == failed || shares(name));
        let sizes = running.map(|name| {
            // Who has just begun may have had the most in its last run.
            let before = self.facts.last(name).map(|record| record.usage).unwrap_or_default();
            let size = match on_its_gpu {
                true => before.gpu_memory,
                false => self.supervisor.memory(name).max(before.peak_memory),
            };
            (size.unwrap_or(0), name)
        });
        let mut sizes: Vec<(u64, &StageName)> = sizes.collect();
        sizes.sort_by_key(|(size, name)| (Reverse(*size), *name != failed));
        let Some(((size, largest), others)) = sizes.split_first() else { return String::new() };
        let names = in_short(others.iter().map(|(_, name)| name.as_str()), MOST_BESIDE);
        let beside = match (others.is_empty(), on_its_gpu) {
            (true, true) => "nothing else was on its GPU".to_owned(),
            (true, false) => "nothing ran beside it".to_owned(),
            (false, true) => format!("on the same GPU ran {names}"),
            (false, false) => format!("beside it ran {names}"),
        };
        let who = if *largest == failed { "this one" } else { largest.as_str() };
        match size {
            0 => format!("\n{beside}"),
            size => {
                format!(
                    "\nthe largest stage then was {who}, with {}; {beside}",
                    format::bytes(*size)
                )
            }
        }
    }
}

/// Whether a message about memory is about that of a GPU.
fn is_of_a_gpu(message: &str) -> bool {
    ["CUDA", "CUBLAS", "CUDNN"].iter().any(|word| message.contains(word))
}
