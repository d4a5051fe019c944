//! A batch of images as a Python pickle: a dictionary of `data`, a NumPy array u8 [N, C*H*W] or [N,C,H,W], and labels.
//!
//! The content of CIFAR's and ImageNet32's Python archives. Does not depend on either.

use std::path::Path;

use anyhow::anyhow;
use pipeline_stages::formats::ImageShape;

use super::array_shape::check_shape;
use super::source::{looks_like, read_whole};
use crate::pickle::{self, Array, PickleLimits, Value};

/// The largest published batch, one of ImageNet32, has 394 million bytes.
const MOST_BYTES: u64 = 1 << 30;

/// Images and their labels, in memory.
pub(super) struct PickledBatch<'file> {
    /// u8 [N,C,H,W].
    pub(super) pixels: &'file [u8],
    /// As in the file, one per image.
    pub(super) labels: Vec<i64>,
}

/// Reads a batch and passes it to `take`. The pixels are read in place if possible.
///
/// # Errors
/// When the file is cut off, damaged or holds something else; those of `take`.
pub(super) fn with_batch<T>(
    path: &Path,
    labels_key: &str,
    image: ImageShape,
    take: impl FnOnce(PickledBatch<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    with_dictionary(path, &["data", labels_key], |values| {
        let [data, labels] = values else { unreachable!("as many values as keys") };
        let wrong = |problem: String| anyhow!("{}: {problem}", path.display());
        let labels =
            integers(*labels).map_err(|problem| wrong(format!("'{labels_key}': {problem}")))?;
        let array = Array::of(*data).unwrap_or_else(|| Err(format!("found {}", data.describe())));
        let array = array.map_err(|problem| wrong(format!("'data': {problem}")))?;
        let pixels =
            array.unsigned_bytes().map_err(|problem| wrong(format!("'data': {problem}")))?;
        check_shape(&array.shape, labels.len(), image)
            .map_err(|problem| wrong(format!("'data' has {problem}")))?;
        take(PickledBatch { pixels: &pixels, labels })
    })
}

/// Reads a list of names.
pub(super) fn names(path: &Path, key: &str) -> anyhow::Result<Vec<String>> {
    with_dictionary(path, &[key], |values| {
        let items = values.first().and_then(|value| value.items());
        items
            .and_then(|items| items.iter().map(Value::owned_text).collect())
            .ok_or_else(|| anyhow!("{}: '{key}' is not a list of names", path.display()))
    })
}

/// Reads a dictionary and passes the values of these keys to `take`.
fn with_dictionary<T>(
    path: &Path,
    keys: &[&str],
    take: impl FnOnce(&[Value<'_>]) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let bytes = read_whole(path, MOST_BYTES)?;
    let pickle = pickle::read(&bytes, &PickleLimits::default())
        .map_err(|error| anyhow!("{}: {error}{}", path.display(), looks_like(&bytes)))?;
    let root = pickle.root();
    let value = |key: &&str| {
        root.get(key).ok_or_else(|| {
            anyhow!(
                "{}: expected a dictionary with '{key}', found {}",
                path.display(),
                described(root)
            )
        })
    };
    take(&keys.iter().map(value).collect::<anyhow::Result<Vec<_>>>()?)
}

fn described(root: Value<'_>) -> String {
    match root.keys_in_short() {
        Some(keys) => format!("one with {keys}"),
        None => root.describe(),
    }
}

/// A list of integers, or an array of them.
fn integers(value: Value<'_>) -> Result<Vec<i64>, String> {
    if let Some(array) = Array::of(value) {
        return array?.integers();
    }
    let items = value.items().ok_or_else(|| format!("found {}", value.describe()))?;
    let integer = |item: Value<'_>| {
        item.integer().ok_or_else(|| format!("expected integers, found {}", item.describe()))
    };
    items.iter().map(integer).collect()
}
