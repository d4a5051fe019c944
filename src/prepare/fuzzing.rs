//! What fuzzing needs beside the public interface: the readers of bytes from elsewhere, one call each. Only with the feature `fuzzing`.
//!
//! Stages read files; those readers that can be reached more directly are here by themselves.

use std::path::Path;

use pipeline_stages::PrepareStage;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::checkpoint::{CheckpointFile, CheckpointLimits, Leaf};
use crate::corrupt_labels::are_labels;
use crate::dataset::{self, are_lists, are_names};
use crate::pickle::{self, Array, Entries, Items, Value};
use crate::summarize::are_published;

/// The most numbers that are read of one tensor.
const MOST_NUMBERS: usize = 1 << 20;
/// The most values of a pickle that are looked at.
const MOST_VALUES: usize = 500;
/// How deep they can be nested.
const DEEPEST: usize = 8;

/// Runs the body of a stage.
///
/// # Errors
/// As the body does.
pub fn run(stage: &PrepareStage, context: &Context) -> anyhow::Result<Metrics> {
    crate::run(stage, context)
}

/// Reads a file of the logins of hosts; whether it has some.
pub fn read_netrc(bytes: &[u8]) -> bool {
    crate::credentials::parse(&String::from_utf8_lossy(bytes))
        .is_ok_and(|logins| !logins.is_empty())
}

/// Reads a text file as each list that it can be: names of classes, images with their labels, labels of samples, published values;
/// whether it is one of them.
pub fn read_list(path: &Path, text: &str) -> bool {
    let (images, labels) = text.split_once("\n\n").unwrap_or((text, ""));
    let lists = [are_names(path), are_lists(images, labels), are_labels(text), are_published(text)];
    lists.contains(&true)
}

/// Reads a pickle and looks at its values; whether it is one.
pub fn read_pickle(bytes: &[u8]) -> bool {
    look_at_pickle(bytes, &pickle::PickleLimits::default())
}

pub(crate) fn look_at_pickle(bytes: &[u8], limits: &pickle::PickleLimits) -> bool {
    let Ok(pickle) = pickle::read(bytes, limits) else { return false };
    assert!(pickle.length() <= bytes.len());
    look(pickle.root(), DEEPEST, &mut MOST_VALUES.clone());
    true
}

/// Calls every accessor of a value, down to a limited depth.
fn look(value: Value<'_>, depth: usize, budget: &mut usize) {
    if depth == 0 || *budget == 0 {
        return;
    }
    *budget -= 1;
    let _ = (value.is_none(), value.boolean(), value.integer(), value.wide_integer(), value.size());
    let _ = (value.float(), value.text(), value.bytes(), value.global(), value.describe());
    let _ = (value.get("key").map(Value::describe), value.persistent().map(Value::describe));
    let _ = (value.owned_text(), value.keys_in_short());
    if let Some(Ok(array)) = Array::of(value) {
        let _ = (array.integers(), array.floats(), array.unsigned_bytes());
    }
    let entries =
        value.entries().into_iter().flat_map(Entries::iter).flat_map(|(key, item)| [key, item]);
    let inside = value.items().into_iter().flat_map(Items::iter).chain(entries);
    let called = value.call().into_iter().flat_map(|call| [Some(call.arguments), call.state]);
    for inner in inside.chain(called.flatten()) {
        look(inner, depth - 1, budget);
    }
}

/// Opens a checkpoint, lists its names and reads its tensors; whether there was no error.
pub fn read_checkpoint(bytes: &[u8]) -> bool {
    read_tensors(bytes, &CheckpointLimits::default())
}

pub(crate) fn read_tensors(bytes: &[u8], limits: &CheckpointLimits) -> bool {
    let Ok(checkpoint) = CheckpointFile::open(bytes, limits) else { return false };
    let Ok(contents) = checkpoint.contents() else { return false };
    let entries = contents.entries();
    #[cfg(test)]
    contents.assert_few_steps();
    let Ok(entries) = entries else {
        let _ = contents.whole_model();
        return false;
    };
    let (mut sound, mut budget) = (true, MOST_NUMBERS);
    for entry in entries {
        let Leaf::Tensor(tensor) = &entry.leaf else { continue };
        // A stage reads each tensor once; here, many names can mean the same one.
        let Some(left) = budget.checked_sub(tensor.count()) else { continue };
        match contents.values(tensor) {
            // At most as many numbers as bytes, of which some may be compressed: no amplification.
            Ok(_) => budget = left,
            Err(_) => sound = false,
        }
    }
    sound
}

/// Checks that an image file is whole and decodes it; whether it can be used.
pub fn decode_image(bytes: &[u8]) -> bool {
    dataset::check_image(bytes).is_ok()
}
