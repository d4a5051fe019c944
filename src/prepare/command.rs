//! The body of `command`.

use pipeline_stages::kinds::Command;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::Body;

impl Body for Command {
    fn run(&self, _context: &Context) -> anyhow::Result<Metrics> {
        anyhow::bail!("no body")
    }
}
