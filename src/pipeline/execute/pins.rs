//! What a run uses stays, although somebody cleans the cache meanwhile: it is pinned before it is looked for.
//!
//! A run that does nothing uses nothing, and pins nothing. The first stage that starts lets the run pin what it has found by then,
//! and look again where something was removed meanwhile: that is made again.

use super::states::StageState;
use super::{JobSpec, Run};
use crate::cache::Pinned;
use crate::key::{KeyPart, StageKey};
use crate::stage_name::StageName;

impl Run<'_> {
    /// Pins what was found so far. What is gone by then waits to be looked at again.
    pub(super) fn pin_results(&mut self) -> anyhow::Result<()> {
        let results = self.states.iter().filter_map(|(_, state)| state.result());
        let pins = results
            .flat_map(|result| [Pinned::Key(result.key), Pinned::Artifact(result.output.digest)]);
        self.cache.pin(pins)?;
        if self.cache.generation() == self.generation {
            return Ok(());
        }
        let is_gone = |state: &StageState| {
            state.result().is_some_and(|result| {
                let now = self.cache.usable(&result.key);
                now.is_none_or(|now| now.output.digest != result.output.digest)
            })
        };
        let gone = self.states.iter().filter(|(_, state)| is_gone(state));
        for stage in gone.map(|(stage, _)| stage.clone()).collect::<Vec<StageName>>() {
            self.states.set(&stage, StageState::Waiting);
        }
        Ok(())
    }

    /// Pins the key that a stage has, before its result is looked for.
    pub(super) fn pin_key(&self, parts: &[KeyPart]) -> anyhow::Result<()> {
        match self.working {
            true => self.cache.pin([Pinned::Key(StageKey::of(parts))]),
            false => Ok(()),
        }
    }

    /// Pins the very artifacts that a stage reads: another run may give their keys other ones meanwhile.
    pub(super) fn pin_inputs(&self, spec: &JobSpec) -> anyhow::Result<()> {
        self.cache.pin(spec.inputs.iter().map(|(_, _, stored)| Pinned::Artifact(stored.digest)))
    }
}
