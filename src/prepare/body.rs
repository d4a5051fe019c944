//! What the bodies of all stage kinds have in common.

use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

/// What a stage kind does: writes files to the output folder, and reports events.
pub(crate) trait Body {
    /// Does the work of one stage and returns its metrics.
    ///
    /// # Errors
    /// With a message for people: what is wrong, where, what to do. With
    /// [`Stopped`](pipeline_stages::worker::Stopped) when it was asked to stop.
    fn run(&self, context: &Context) -> anyhow::Result<Metrics>;
}
