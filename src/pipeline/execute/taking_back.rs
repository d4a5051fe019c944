//! Results that are no longer those of their stages: these are looked at again.

use std::collections::HashMap;

use super::run::Run;
use super::states::StageState;
use crate::cache::{KnownResult, Withdrawn};
use crate::digest::Digest;
use crate::key;
use crate::stage_name::StageName;

impl Run<'_> {
    /// Takes the results back that no longer count since this artifact was damaged: their stages run again. So does the
    /// one that made it, in a run that continues.
    pub(super) fn take_back(&mut self, artifact: &Digest, withdrawn: &[Withdrawn]) {
        let is_needed = self.starts_more() && !self.cache.has_artifact(artifact);
        let is_lost = |state: &StageState| {
            state.result().is_some_and(|result| {
                is_needed && result.output.digest == *artifact
                    || withdrawn.iter().any(|other| other.record.key == result.key)
            })
        };
        let lost = self.states.iter().filter(|(_, state)| is_lost(state));
        for stage in lost.map(|(stage, _)| stage.clone()).collect::<Vec<_>>() {
            self.states.set(&stage, StageState::Waiting);
        }
    }

    /// Lets the stages run again that had read an earlier result of a stage, which was damaged.
    pub(super) fn take_back_readers(&mut self, name: &StageName) {
        let is_stale = |reader: &&&StageName| {
            self.result(reader).is_some_and(|result| !self.is_current(reader, result))
        };
        let readers = self.graph.consumers(name);
        let stale: Vec<_> = readers.iter().filter(is_stale).map(|&reader| reader.clone()).collect();
        for reader in stale {
            self.states.set(&reader, StageState::Waiting);
        }
    }

    /// Whether the inputs of a stage still have the results that its result was made from. By ports and bytes: another
    /// manifest, with other names, may have recorded it.
    pub(super) fn is_current(&self, name: &StageName, result: &KnownResult) -> bool {
        let Some(declaration) = self.manifest.stage(name) else { return true };
        let read = result.inputs.iter().map(|(port, digest)| (port.as_str(), *digest));
        let read: HashMap<&str, Digest> = read.collect();
        let inputs = key::inputs(declaration, |input| self.result(input).map(|made| made.key));
        inputs.iter().all(|input| {
            let now = input.from.first().and_then(|connection| self.result(&connection.from));
            read.get(input.port.as_str()).copied() == now.map(|now| now.output.digest)
        })
    }

    /// A forced stage may have made other bytes than before. Others with its key have these now, and not what they had.
    pub(super) fn give_to_same_key(&mut self, name: &StageName, made: &KnownResult) {
        let is_earlier = |result: &KnownResult| {
            result.key == made.key && result.output.digest != made.output.digest
        };
        let earlier = self
            .states
            .iter()
            .filter(|(other, state)| *other != name && state.result().is_some_and(is_earlier));
        for other in earlier.map(|(other, _)| other.clone()).collect::<Vec<_>>() {
            self.states.set(&other, StageState::Waiting);
        }
    }
}
