//! What became of jobs that a scheduler was asked to end. Some may have ended by themselves before.

use std::collections::HashMap;

use super::scheduler::{JobState, Scheduler, Trouble};
use crate::deadline::Stop;

pub(super) struct Cancelled {
    trouble: Option<Trouble>,
    /// What the scheduler knows of them, where it did not end all.
    states: Option<HashMap<String, JobState>>,
}

impl Cancelled {
    /// Asks a scheduler to end jobs.
    pub(super) fn ask(scheduler: &dyn Scheduler, ids: &[String]) -> Self {
        let cancelled = if ids.is_empty() { Ok(()) } else { scheduler.cancel(ids) };
        let trouble = cancelled.err();
        let states = trouble.as_ref().and_then(|_| scheduler.states(ids, &Stop::default()).ok());
        // It may be away, where it names none of several.
        let states = states.filter(|states| !states.is_empty() || ids.len() == 1);
        Self { trouble, states }
    }

    /// Why one of them may go on.
    pub(super) fn trouble(&self, id: &str) -> Option<&Trouble> {
        let has_ended = |states: &HashMap<String, JobState>| {
            matches!(states.get(id), None | Some(JobState::Ended(_)))
        };
        self.trouble.as_ref().filter(|_| !self.states.as_ref().is_some_and(has_ended))
    }
}
