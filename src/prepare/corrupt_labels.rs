//! The body of `corrupt-labels`.

use pipeline_stages::kinds::CorruptLabels;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::Body;

impl Body for CorruptLabels {
    fn run(&self, _context: &Context) -> anyhow::Result<Metrics> {
        anyhow::bail!("no body")
    }
}
