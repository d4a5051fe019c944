//! Whether a run that somebody asks to stop waits for a scheduler to take a job.

use super::run::Run;
use super::scheduled::{PATIENCE, SUBMISSION_LIMIT};
use super::states::StageState;
use crate::events::Patience;

impl Run<'_> {
    /// For how long it waits, where a job of it is being submitted.
    pub(super) fn submission(&self) -> Option<Patience> {
        let is_submitted_now = self.states.iter().any(|(name, state)| {
            let StageState::Running { key, .. } = state else { return false };
            let stage = self.manifest.stage(name);
            stage.is_some_and(|stage| self.options.executor_of(stage).is_some())
                && self.cache.job(key).is_some_and(|job| !job.was_submitted())
                && self.cache.is_job_locked(key)
        });
        is_submitted_now
            .then(|| Patience { most: SUBMISSION_LIMIT.as_secs(), again: PATIENCE.as_secs() })
    }
}
