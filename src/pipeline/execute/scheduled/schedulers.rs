//! Which scheduler an executor has: the one list of them.

use super::command::{self, CommandScheduler};
use super::scheduler::Scheduler;
use super::slurm::{self, Slurm};
use crate::manifest::{ExecutorSettings, SchedulerSettings};

/// The scheduler of an executor.
pub(super) fn scheduler(settings: &ExecutorSettings) -> Box<dyn Scheduler> {
    match &settings.scheduler {
        SchedulerSettings::Command(templates) => Box::new(CommandScheduler(templates.clone())),
        SchedulerSettings::Slurm(settings) => Box::new(Slurm(settings.clone())),
    }
}

/// How a person cancels jobs of an executor in a shell.
pub(crate) fn cancel_command(settings: &ExecutorSettings, ids: &[String]) -> String {
    match &settings.scheduler {
        SchedulerSettings::Command(templates) => command::cancel_command(templates, ids),
        SchedulerSettings::Slurm(_) => slurm::cancel_command(ids),
    }
}

/// Whether its thread keeps to `max-jobs` of an executor by itself: what waits is in an array.
pub(crate) fn keeps_to_most(settings: &ExecutorSettings) -> bool {
    scheduler(settings).arrays().is_some()
}
