//! How a run ended.

use std::collections::BTreeSet;
use std::time::Instant;

use super::following::BegunByJobs;
use super::run::Run;
use super::states::StageState;
use crate::events::Outcome;
use crate::stage_name::StageName;

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    /// Each stage that was asked for, or is needed by one, with how it ended.
    pub(crate) stages: Vec<(StageName, Outcome)>,
    /// Seconds from beginning to end.
    pub(crate) seconds: f64,
    /// Whether somebody asked the run to stop.
    pub(crate) stopped: bool,
    /// The stages that failed and whose log is gone: another stage with the same key ran after them.
    pub(crate) without_log: BTreeSet<StageName>,
}

impl Summary {
    /// Whether nothing failed or was stopped, and what is left goes on elsewhere.
    pub(crate) fn goes_on(&self) -> bool {
        let is_left = |outcome: &Outcome| matches!(outcome, Outcome::Left);
        let is_wrong =
            |outcome: &Outcome| matches!(outcome, Outcome::Failed { .. } | Outcome::Stopped);
        let outcomes = || self.stages.iter().map(|(_, outcome)| outcome);
        !self.stopped && outcomes().any(is_left) && !outcomes().any(is_wrong)
    }

    /// Whether all that was asked for is done.
    pub(crate) fn complete(&self) -> bool {
        self.stages.iter().all(|(_, outcome)| {
            matches!(outcome, Outcome::Fresh { .. } | Outcome::Remote { .. } | Outcome::Ran { .. })
        })
    }
}

impl Run<'_> {
    /// How every stage ended; those that never started are skipped now.
    pub(super) fn summary(&mut self, started: Instant) -> Summary {
        for (name, outcome) in self.without_place() {
            match outcome {
                Outcome::Left => self.end_left(&name, self.states.held_key(&name)),
                outcome => self.end(&name, outcome, None),
            }
        }
        let mut begun = BegunByJobs::default();
        for name in self.states.order().to_vec() {
            if let Some(StageState::Ended { .. }) = self.states.get(&name) {
                continue;
            }
            // It has begun, and waited for its next attempt.
            if let Some(StageState::Ready(_)) = self.states.get(&name)
                && self.attempts.contains_key(&name)
            {
                self.end(&name, Outcome::Stopped, None);
                continue;
            }
            if let Some(after) = self.begun_by_job(&name, &mut begun) {
                self.end(&name, Outcome::Following { after }, None);
                continue;
            }
            let inputs = self.graph.inputs(&name);
            let missing = inputs.into_iter().find(|input| self.result(input).is_none()).cloned();
            self.end(&name, Outcome::Skipped { because: missing }, None);
        }
        self.renew_links(true);
        let stages = self.states.iter().filter_map(|(name, state)| match state {
            StageState::Ended { outcome, .. } => Some((name.clone(), outcome.clone())),
            _ => None,
        });
        let without_log = self.ran_again.iter().flat_map(|(key, last)| {
            let failures = self.failures.get(key).into_iter().flatten();
            failures.map(|(name, _)| name).filter(move |name| *name != last).cloned()
        });
        // A cache that cannot be written has none.
        let unwritten =
            self.failures.iter().filter(|(key, _)| !self.cache.layout().log(key).exists());
        let unwritten =
            unwritten.flat_map(|(_, failures)| failures.iter().map(|(name, _)| name.clone()));
        Summary {
            stages: stages.collect(),
            seconds: started.elapsed().as_secs_f64(),
            stopped: self.stopping(),
            without_log: without_log.chain(unwritten).collect(),
        }
    }
}
