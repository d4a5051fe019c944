//! How much of a data set is read, on how many threads, and how far that is.

use anyhow::Context as _;
use pipeline_stages::formats::Part;
use pipeline_stages::kinds::Dataset;
use pipeline_stages::message::{Progress, Unit};
use pipeline_stages::worker::Context;

/// Reports how many images are done.
pub(super) fn report_images(context: &Context, done: usize, total: Option<usize>) {
    context.progress(Progress {
        done: done as u64,
        total: total.map(|total| total as u64),
        unit: Unit::Images,
        phase: None,
    });
}

/// As many threads as the stage may use.
pub(super) fn thread_pool(context: &Context) -> anyhow::Result<rayon::ThreadPool> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = context.execution.threads {
        pool = pool.num_threads(threads as usize);
    }
    pool.build().context("cannot start threads")
}

/// The most samples of a part to take.
pub(super) fn sample_limit(stage: &Dataset, part: Part) -> usize {
    let limit = match part {
        Part::Train => stage.train_limit,
        Part::Test => stage.test_limit,
    };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
