//! What instances of a stage have in common that ask a scheduler for the same, and go together.

use super::scheduler::cpus;
use crate::manifest::{Stage, Takes};

#[derive(PartialEq)]
pub(super) struct Alike {
    template: String,
    cpus: Option<u32>,
    takes: Takes,
    time: Option<u64>,
}

impl Alike {
    pub(super) fn of(stage: &Stage) -> Self {
        Self {
            template: stage.name.template().to_owned(),
            cpus: cpus(stage),
            takes: stage.execution.takes.clone(),
            time: stage.execution.time,
        }
    }
}
