//! Which scheduler an executor has: the one list of them.

use super::command::CommandScheduler;
use super::scheduler::Scheduler;
use super::slurm::Slurm;
use crate::manifest::{ExecutorSettings, SchedulerSettings};

/// The scheduler of an executor.
pub(super) fn scheduler(settings: &ExecutorSettings) -> Box<dyn Scheduler> {
    match &settings.scheduler {
        SchedulerSettings::Command(templates) => Box::new(CommandScheduler(templates.clone())),
        SchedulerSettings::Slurm(settings) => Box::new(Slurm(settings.clone())),
    }
}

/// Whether its thread keeps to `max-jobs` of an executor by itself: what waits is in an array.
pub(crate) fn keeps_to_most(settings: &ExecutorSettings) -> bool {
    scheduler(settings).arrays().is_some()
}
