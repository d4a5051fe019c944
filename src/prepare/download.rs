//! The body of `download`.

use pipeline_stages::kinds::Download;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::Body;

impl Body for Download {
    fn run(&self, _context: &Context) -> anyhow::Result<Metrics> {
        anyhow::bail!("no body")
    }
}
