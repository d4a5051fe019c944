//! The body of `unpack`.

use pipeline_stages::kinds::Unpack;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::Body;

impl Body for Unpack {
    fn run(&self, _context: &Context) -> anyhow::Result<Metrics> {
        anyhow::bail!("no body")
    }
}
