//! The states of stages in words, the same in all commands.

use crate::instances::{instances_in_words, names_in_words};
use crate::plan::{Blocked, PlanState};
use crate::stage_name::StageName;

/// The name of a state, the same everywhere.
pub(crate) fn state_name(state: &PlanState) -> &'static str {
    match state {
        PlanState::Fresh(_) => "fresh",
        PlanState::Dirty { .. } => "dirty",
        PlanState::Waiting { .. } => "waiting",
        PlanState::Blocked(_) => "blocked",
    }
}

/// Why a stage is in its state; empty for a fresh one.
pub(crate) fn state_reason(state: &PlanState) -> String {
    match state {
        PlanState::Fresh(_) => String::new(),
        PlanState::Dirty { reason, .. } => reason.to_string(),
        PlanState::Waiting { on, reason, partial } => {
            let known = match (reason, partial) {
                (Some(reason), _) => format!("; {reason}"),
                (None, Some(_)) => "; its result is without what has failed".to_owned(),
                (None, None) => String::new(),
            };
            format!("on {}{known}", names_in_words(on))
        }
        PlanState::Blocked(Blocked { line, file, message }) => match file {
            None => format!("line {line}: {message}"),
            Some(file) => format!("{file}:{line}: {message}"),
        },
    }
}

/// The state that many instances have together: that of the one that has the furthest to go.
pub(crate) fn together<'p>(instances: &[(&StageName, &'p PlanState)]) -> Option<&'p PlanState> {
    let rank = |state: &PlanState| match state {
        PlanState::Fresh(_) => 0,
        PlanState::Waiting { .. } => 1,
        PlanState::Dirty { .. } => 2,
        PlanState::Blocked(_) => 3,
    };
    instances.iter().map(|(_, state)| *state).max_by_key(|state| rank(state))
}

/// What a state looks like in a picture, so that colours alone carry nothing.
pub(crate) fn symbol(state: &PlanState) -> &'static str {
    match state {
        PlanState::Fresh(_) => "●",
        PlanState::Dirty { .. } => "○",
        PlanState::Waiting { .. } => "◌",
        PlanState::Blocked(_) => "⊘",
    }
}

/// How many instances of a stage are in which state: `140: 3 fresh, 97 to run, 40 waiting`.
pub(crate) fn states_in_words(instances: &[(&StageName, &PlanState)]) -> String {
    let count = |wanted: fn(&PlanState) -> bool| {
        instances.iter().filter(|(_, state)| wanted(state)).count()
    };
    instances_in_words([
        (count(|state| matches!(state, PlanState::Fresh(_))), "fresh"),
        (count(|state| matches!(state, PlanState::Dirty { .. })), "to run"),
        (count(|state| matches!(state, PlanState::Waiting { .. })), "waiting"),
        (count(|state| matches!(state, PlanState::Blocked(_))), "blocked"),
    ])
}
