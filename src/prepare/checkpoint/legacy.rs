//! PyTorch's format before 1.6: the pickles of a magic number, a version, properties of the machine, the
//! object and the list of its storages; then, in the order of that list, each storage's count of
//! elements (64 bits) and its bytes.
//!
//! Source: `_legacy_save` and `_legacy_load` in `torch/serialization.py`.

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};

use super::tensor::Storage;
use crate::pickle::{self, Pickle};

/// The content of the first pickle.
pub(super) const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The content of the second pickle.
const VERSION: i64 = 1001;

/// The storages by their keys.
pub(super) struct Storages<'file>(HashMap<String, &'file [u8]>);

impl<'file> Storages<'file> {
    /// The bytes of a storage.
    pub(super) fn get(&self, key: &str) -> anyhow::Result<&'file [u8]> {
        self.0
            .get(key)
            .copied()
            .with_context(|| format!("the file has no storage '{}'", key.escape_debug()))
    }
}

/// The bytes of the object's pickle, and the storages. `start`: where the magic number ends.
///
/// # Errors
/// When a part is missing or damaged, or was written by a big-endian machine.
pub(super) fn locate<'file>(
    bytes: &'file [u8],
    start: usize,
    limits: &pickle::PickleLimits,
) -> anyhow::Result<(&'file [u8], Storages<'file>)> {
    let mut rest = bytes.get(start..).unwrap_or_default();
    let version = next(&mut rest, "version", limits)?.root().integer();
    let version = version.context("its version is not a number")?;
    ensure!(version == VERSION, "its version is {version}, not {VERSION}");
    let system = next(&mut rest, "properties of its machine", limits)?;
    if system.root().get("little_endian").and_then(|little| little.boolean()) == Some(false) {
        bail!("it was written on a big-endian machine: load it in Python and save it again");
    }
    let object_bytes = rest;
    let object = next(&mut rest, "object", limits)?;
    let keys = next(&mut rest, "list of storages", limits)?;
    let mut sizes = HashMap::new();
    for value in object.outside() {
        // An invalid storage is an error when a tensor uses it.
        if let Ok(storage) = Storage::of(value) {
            sizes.insert(storage.key, storage.element.size());
        }
    }
    let mut storages = HashMap::new();
    for key in keys.root().items().context("its list of storages is not a list")?.iter() {
        let key = key.text().context("the key of a storage is not text")?;
        let shown = key.escape_debug();
        let size = sizes.get(key);
        let size = *size.with_context(|| format!("the type of storage '{shown}' is missing"))?;
        let cut_off = || format!("the file is cut off in storage '{shown}'");
        let (count, behind) = rest.split_first_chunk::<8>().with_context(cut_off)?;
        let length = usize::try_from(i64::from_le_bytes(*count)).ok();
        let length = length.and_then(|count| count.checked_mul(size));
        let split = length.and_then(|length| behind.split_at_checked(length));
        let (content, behind) = split.with_context(cut_off)?;
        storages.insert(key.to_owned(), content);
        rest = behind;
    }
    let length = object_bytes.len().min(object.length());
    Ok((object_bytes.get(..length).unwrap_or_default(), Storages(storages)))
}

/// Reads a pickle and skips it.
fn next<'file>(
    rest: &mut &'file [u8],
    what: &str,
    limits: &pickle::PickleLimits,
) -> anyhow::Result<Pickle<'file>> {
    let pickle = pickle::read(rest, limits).with_context(|| format!("cannot read its {what}"))?;
    *rest = rest.get(pickle.length()..).unwrap_or_default();
    Ok(pickle)
}
