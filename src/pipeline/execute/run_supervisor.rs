//! What a run and the one that follows it have in common.

use super::executor::JobReport;
use super::supervisor::Supervisor;

/// What a run hears of its stages, and of who asks it to stop. One serves a run and the one that follows it, so that no
/// request between them is lost.
pub(crate) struct RunSupervisor(pub(super) Supervisor<JobReport>);

impl RunSupervisor {
    pub(crate) fn new() -> Self {
        Self(Supervisor::new())
    }

    /// The last run has ended. Returns whether somebody has asked it to stop.
    pub(crate) fn has_stopped(self) -> bool {
        self.0.has_stopped()
    }
}
