//! Where the whole body of a job runs: its claim, its worker and its commit.
//!
//! The seam for jobs on other machines. Does not depend on the graph, or on what else runs.

use super::handle::Handle;
use super::job::{JobEnd, JobEvent};
use super::spec::JobSpec;

/// What a job reports.
pub(crate) enum JobReport {
    /// Something on its way.
    Event(JobEvent),
    End(JobEnd),
}

/// Runs jobs.
pub(crate) trait Executor {
    /// Starts a job.
    fn start(&self, spec: JobSpec) -> anyhow::Result<Box<dyn Handle<JobReport>>>;
}
