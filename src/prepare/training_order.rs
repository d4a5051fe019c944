//! Which samples of a data set train, in which order: those of the port `split`, or all.

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::SplitIndices;
use pipeline_stages::worker::Context;

/// The indices of the samples, each at most once. Without a split: all of `samples` but the last `validation`.
///
/// # Errors
/// When the split is of another data set.
pub(crate) fn read(
    context: &Context,
    samples: usize,
    validation: usize,
) -> anyhow::Result<Vec<usize>> {
    let Some(split) = context.optional_input("split") else {
        return Ok((0..samples.saturating_sub(validation)).collect());
    };
    let mut seen = vec![false; samples];
    let check = |index: i64| {
        let slot = usize::try_from(index).ok().filter(|&index| index < samples).with_context(|| {
            format!("the split names sample {index}, but the data set has {samples}: it is a split of another data set")
        })?;
        ensure!(!seen[slot], "the split names sample {index} twice");
        seen[slot] = true;
        Ok(slot)
    };
    SplitIndices::read(&split.path)?.train.into_iter().map(check).collect()
}
