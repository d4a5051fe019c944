//! The states of stages in words, the same in all commands.

use crate::activity::Activity;
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

/// What a picture or a page shows of a stage: its plan, and what goes on beyond it. From the one that matters least to the one that
/// matters most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShownState {
    Fresh,
    Waiting,
    Dirty,
    Interrupted,
    Blocked,
    Failed,
    Running,
}

impl ShownState {
    /// All of them, in the order in which they are counted.
    pub(crate) const ALL: [Self; 7] = [
        Self::Running,
        Self::Failed,
        Self::Interrupted,
        Self::Fresh,
        Self::Dirty,
        Self::Waiting,
        Self::Blocked,
    ];

    pub(crate) fn of(state: &PlanState, activity: Option<&Activity>) -> Self {
        match (activity, state) {
            (Some(Activity::Running(_)), _) => Self::Running,
            (Some(Activity::Failed(_)), _) => Self::Failed,
            (Some(Activity::Interrupted(_)), _) => Self::Interrupted,
            (None, PlanState::Fresh(_)) => Self::Fresh,
            (None, PlanState::Dirty { .. }) => Self::Dirty,
            (None, PlanState::Waiting { .. }) => Self::Waiting,
            (None, PlanState::Blocked(_)) => Self::Blocked,
        }
    }

    /// Its name, as `status` shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Waiting => "waiting",
            Self::Dirty => "dirty",
            Self::Interrupted => "interrupted",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Running => "running",
        }
    }

    /// What it looks like in a picture, so that colours alone carry nothing.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Fresh => "●",
            Self::Waiting => "◌",
            Self::Dirty => "○",
            Self::Interrupted => "◐",
            Self::Blocked => "⊘",
            Self::Failed => "✕",
            Self::Running => "▶",
        }
    }

    /// How many of these there are: `140: 2 failed, 3 fresh, 95 to run, 40 waiting`.
    pub(crate) fn in_words(states: &[Self]) -> String {
        instances_in_words(Self::ALL.map(|wanted| {
            let count = states.iter().filter(|state| **state == wanted).count();
            (count, if wanted == Self::Dirty { "to run" } else { wanted.name() })
        }))
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
