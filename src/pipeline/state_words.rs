//! The states of stages in words, the same in all commands.

use crate::activity::Activity;
use crate::instances::{instances_in_words, names_in_words};
use crate::plan::{Blocked, PlanState};

/// Why a stage is in its state; empty for a fresh one.
pub(crate) fn state_reason(state: &PlanState) -> String {
    match state {
        PlanState::Fresh(_) | PlanState::Remote(_) => String::new(),
        PlanState::Dirty { reason, .. } => reason.to_string(),
        PlanState::Waiting { on, reason, partial } => {
            let known = match (reason, partial) {
                (Some(reason), _) => format!("; {reason}"),
                (None, Some(_)) => "; its result is without what has failed".to_owned(),
                (None, None) => String::new(),
            };
            format!("on {}{known}", names_in_words(on))
        }
        PlanState::Blocked(Blocked { line, file, message, help, .. }) => {
            let place =
                file.as_ref().map_or(format!("line {line}"), |file| format!("{file}:{line}"));
            let help = if help.is_empty() { String::new() } else { format!("; {help}") };
            format!("{place}: {message}{help}")
        }
    }
}

/// What is shown of a stage: its plan, and what goes on beyond it. From the one that matters least to the one that matters most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ShownState {
    Fresh,
    Remote,
    Waiting,
    Dirty,
    Interrupted,
    Blocked,
    Failed,
    Queued,
    Running,
}

impl ShownState {
    /// All of them, in the order in which they are counted.
    pub(crate) const ALL: [Self; 9] = [
        Self::Running,
        Self::Queued,
        Self::Failed,
        Self::Interrupted,
        Self::Fresh,
        Self::Remote,
        Self::Dirty,
        Self::Waiting,
        Self::Blocked,
    ];

    /// The state in the plan alone.
    pub(crate) fn planned(state: &PlanState) -> Self {
        Self::of(state, None)
    }

    pub(crate) fn of(state: &PlanState, activity: Option<&Activity>) -> Self {
        match (activity, state) {
            (Some(Activity::Running(_)), _) => Self::Running,
            (Some(Activity::Queued(_)), _) => Self::Queued,
            (Some(Activity::Failed(_)), _) => Self::Failed,
            (Some(Activity::Interrupted(_)), _) => Self::Interrupted,
            (None, PlanState::Fresh(_)) => Self::Fresh,
            (None, PlanState::Remote(_)) => Self::Remote,
            (None, PlanState::Dirty { .. }) => Self::Dirty,
            (None, PlanState::Waiting { .. }) => Self::Waiting,
            (None, PlanState::Blocked(_)) => Self::Blocked,
        }
    }

    /// Its name, the same everywhere.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Remote => "remote",
            Self::Waiting => "waiting",
            Self::Dirty => "dirty",
            Self::Interrupted => "interrupted",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Queued => "queued",
            Self::Running => "running",
        }
    }

    /// What it looks like in a picture, so that colours alone carry nothing.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Fresh => "●",
            Self::Remote => "◍",
            Self::Waiting => "◌",
            Self::Dirty => "○",
            Self::Interrupted => "◐",
            Self::Blocked => "⊘",
            Self::Failed => "✕",
            Self::Queued => "◷",
            Self::Running => "▶",
        }
    }

    /// Its name after a number of stages: `95 to run`.
    pub(crate) fn counted(self) -> &'static str {
        if self == Self::Dirty { "to run" } else { self.name() }
    }

    /// How many of these there are: `140: 2 failed, 3 fresh, 95 to run, 40 waiting`.
    pub(crate) fn in_words(states: impl IntoIterator<Item = Self>) -> String {
        let states: Vec<Self> = states.into_iter().collect();
        instances_in_words(Self::ALL.map(|wanted| {
            let count = states.iter().filter(|state| **state == wanted).count();
            (count, wanted.counted())
        }))
    }
}
