//! The body of `dataset`.

use pipeline_stages::kinds::Dataset;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::Body;

impl Body for Dataset {
    fn run(&self, _context: &Context) -> anyhow::Result<Metrics> {
        anyhow::bail!("no body")
    }
}
