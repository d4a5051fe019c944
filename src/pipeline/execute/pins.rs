//! What a run uses stays, although somebody cleans the cache meanwhile: it is pinned before it is looked for.
//!
//! A run that does nothing uses nothing, and pins nothing. The first stage that starts lets the run pin what it has found by then,
//! and look again where something was removed meanwhile: that is made again.

use super::run::Run;
use super::spec::JobSpec;
use super::states::StageState;
use crate::cache::Pinned;
use crate::events::RunEvent;
use crate::key::{KeyPart, StageKey};
use crate::stage_name::StageName;

impl Run<'_> {
    /// Pins these before something is done for a stage, and says whom that waits for. Returns whether they stay: not where somebody asks
    /// the run to stop meanwhile.
    fn pin(
        &mut self,
        stage: &StageName,
        what: impl IntoIterator<Item = Pinned>,
    ) -> anyhow::Result<bool> {
        let was_stopping = self.stopping();
        let is_pinned = self.cache.pin_while(what, &mut |text| {
            if let Some(text) = text {
                let (stage, text) = (stage.clone(), text.to_owned());
                self.reporter.event(&RunEvent::Note { stage, text });
            }
            self.supervisor.waits_on(self.reporter)
        });
        if self.stopping() && !was_stopping {
            self.report_stopping();
        }
        is_pinned
    }

    /// Pins what was found so far, before the first stage starts. What is gone by then waits to be looked at again.
    pub(super) fn pin_results(&mut self, first: &StageName) -> anyhow::Result<()> {
        let results = self.states.iter().filter_map(|(_, state)| state.result());
        let pins = results
            .flat_map(|result| [Pinned::Key(result.key), Pinned::Artifact(result.output.digest)]);
        let pins: Vec<Pinned> = pins.collect();
        self.pin(first, pins)?;
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

    /// Pins the key that a stage has, before its result is looked for. Returns whether it stays.
    pub(super) fn pin_key(&mut self, stage: &StageName, parts: &[KeyPart]) -> anyhow::Result<bool> {
        if !self.working {
            return Ok(true);
        }
        self.pin(stage, [Pinned::Key(StageKey::of(parts))])
    }

    /// Pins the very artifacts that a stage reads: another run may give their keys other ones meanwhile. Returns whether they stay.
    pub(super) fn pin_inputs(&mut self, spec: &JobSpec) -> anyhow::Result<bool> {
        let inputs = spec.inputs.iter().map(|(_, _, stored)| Pinned::Artifact(stored.digest));
        self.pin(&spec.declaration.name, inputs)
    }
}
