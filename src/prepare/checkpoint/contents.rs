//! The names in a checkpoint, and the value of each.
//!
//! Nested dictionaries have names with dots: `state_dict.conv1.weight`. Does not depend on what a name means to a
//! network.

use anyhow::{Context as _, anyhow, ensure};
use pipeline_stages::text::shortened;

use super::element::Values;
use super::file::{Body, CheckpointFile};
use super::tensor::{ElementSource, Tensor};
use crate::pickle::{Pickle, Value};

/// Deeper dictionaries are not read.
const DEEPEST: usize = 8;
/// Longer keys are cut in names: no tensor of a network has one.
const LONGEST_KEY: usize = 200;

/// The most bytes of all names and shapes: about 300 per name. Small files can refer to the same long key many times.
const MOST_NAME_BYTES: usize = 16 << 20;
/// How many attributes of an object are looked at: PyTorch's modules have theirs first.
const ATTRIBUTES: usize = 100;
/// The most values to look at per name: far more than any tensor has parts.
#[cfg(test)]
pub(super) const STEPS_PER_NAME: usize = 500;
const SAVE_STATE_DICT: &str = "save the state_dict() of the model instead";

/// The content of a checkpoint.
pub(crate) struct Contents<'c, 'file> {
    checkpoint: &'c CheckpointFile<'file>,
    pickle: Option<Pickle<'c>>,
}

/// A name and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'c> {
    /// The keys of the nested dictionaries, joined by dots.
    pub name: String,
    pub leaf: Leaf<'c>,
}

/// A value that is not a dictionary.
#[derive(Debug, Clone)]
pub(crate) enum Leaf<'c> {
    Tensor(Tensor<'c>),
    /// An invalid tensor, and why.
    Damaged(String),
    /// Anything else, described in words.
    Opaque(String),
}

impl<'file> CheckpointFile<'file> {
    /// The names in the file.
    pub(crate) fn contents(&self) -> anyhow::Result<Contents<'_, 'file>> {
        Ok(Contents { checkpoint: self, pickle: self.pickle()? })
    }
}

impl Contents<'_, '_> {
    /// All names, in the order of the file.
    ///
    /// # Errors
    /// When there are too many, or the file does not contain a dictionary.
    pub(crate) fn entries(&self) -> anyhow::Result<Vec<Entry<'_>>> {
        let mut entries = Vec::new();
        match (&self.pickle, &self.checkpoint.body) {
            (Some(pickle), _) => {
                let root = pickle.root();
                ensure!(
                    root.entries().is_some(),
                    "it contains {}, not a dictionary of tensors: {}",
                    root.describe(),
                    self.whole_model().unwrap_or_else(|| SAVE_STATE_DICT.to_owned())
                );
                let mut budget =
                    Budget { names: self.checkpoint.limits.entries, bytes: MOST_NAME_BYTES };
                walk(root, &mut Vec::new(), &mut budget, &mut entries)?;
            }
            (None, Body::Safetensors(tensors)) => {
                let mut views = tensors.tensors();
                views.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                for (name, view) in views {
                    let leaf = Tensor::of_view(&view).map_or_else(Leaf::Damaged, Leaf::Tensor);
                    entries.push(Entry { name, leaf });
                }
            }
            (None, Body::Pickled { .. }) => {}
        }
        Ok(entries)
    }

    /// A message if the pickle contains a whole model at any depth.
    pub(crate) fn whole_model(&self) -> Option<String> {
        let model = self.pickle.as_ref()?.objects().find(|object| is_module(*object))?;
        let entries = self.pickle.as_ref()?.root().entries();
        let entry = entries.and_then(|entries| entries.iter().find(|(_, value)| value.is(model)));
        let name = entry.and_then(|(key, _)| key.text()).map(shortened);
        let name = name.map_or_else(String::new, |name| format!(" under '{name}'"));
        Some(format!(
            "a whole model is pickled in it{name}, {}, which only Python with the model's own code can load: \
             {SAVE_STATE_DICT}",
            model.describe()
        ))
    }

    /// How much work was done to look at the values of the pickle.
    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.pickle.as_ref().map_or(0, Pickle::steps)
    }

    /// Checks that the work was proportional to the names, which are as many as are allowed at most.
    #[cfg(test)]
    pub(crate) fn assert_few_steps(&self) {
        assert!(self.steps() <= STEPS_PER_NAME * (1 + self.checkpoint.limits.entries));
    }

    /// Bytes that the pickle's values take.
    #[cfg(test)]
    pub(super) fn pickle_bytes(&self) -> usize {
        self.pickle.as_ref().map_or(0, Pickle::bytes)
    }

    /// The numbers of a tensor.
    ///
    /// # Errors
    /// When they are missing in the file, or damaged.
    pub(crate) fn values(&self, tensor: &Tensor<'_>) -> anyhow::Result<Values> {
        match &tensor.source {
            ElementSource::Storage(storage) => {
                let content = self.checkpoint.storage(storage)?;
                let bytes =
                    tensor.gathered(&content).context("the tensor is outside its storage")?;
                Ok(tensor.element.values(&bytes))
            }
            ElementSource::Bytes(bytes) => Ok(tensor.element.values(bytes)),
            ElementSource::Array(array) if array.is_float() => {
                let floats = array.floats().map_err(|problem| anyhow!(problem))?;
                Ok(Values::Floats(floats.into_iter().map(|float| float as f32).collect()))
            }
            ElementSource::Array(array) => {
                Ok(Values::Integers(array.integers().map_err(|problem| anyhow!(problem))?))
            }
        }
    }
}

/// How much more can be listed.
struct Budget {
    names: usize,
    bytes: usize,
}

impl Entry<'_> {
    /// The memory that it takes in addition to a constant.
    fn bytes(&self) -> usize {
        let leaf = match &self.leaf {
            Leaf::Tensor(tensor) => 16 * tensor.shape.len(),
            Leaf::Damaged(words) | Leaf::Opaque(words) => words.len(),
        };
        self.name.len() + leaf
    }
}

/// Whether an object is a module of PyTorch, or of TorchScript: a model, or a layer of one.
fn is_module(object: Value<'_>) -> bool {
    let Some(call) = object.call() else { return false };
    let attributes = call.state.and_then(Value::entries);
    let mut attributes = attributes.into_iter().flat_map(|it| it.iter().take(ATTRIBUTES));
    call.module.starts_with("__torch__")
        || attributes.any(|(key, _)| matches!(key.text(), Some("_parameters" | "_modules")))
}

/// Adds the values of a dictionary and of nested ones. A value that is reachable by several paths counts for each.
fn walk<'c>(
    value: Value<'c>,
    path: &mut Vec<String>,
    budget: &mut Budget,
    entries: &mut Vec<Entry<'c>>,
) -> anyhow::Result<()> {
    let entries_here = value.entries().into_iter().flat_map(|entries| entries.iter());
    for (key, value) in entries_here {
        budget.names = budget.names.checked_sub(1).context("it has too many names")?;
        let key = match (key.text(), key.integer()) {
            (Some(text), _) => text.chars().take(LONGEST_KEY).collect(),
            (None, Some(integer)) => integer.to_string(),
            (None, None) => "?".to_owned(),
        };
        path.push(key);
        let leaf = match Tensor::of(value) {
            Some(Ok(tensor)) => Some(Leaf::Tensor(tensor)),
            Some(Err(problem)) => Some(Leaf::Damaged(problem)),
            None if path.len() < DEEPEST && value.entries().is_some_and(|it| !it.is_empty()) => {
                None
            }
            None if is_module(value) => {
                Some(Leaf::Opaque(format!("a whole model, {}", value.describe())))
            }
            None => Some(Leaf::Opaque(value.describe())),
        };
        match leaf {
            Some(leaf) => {
                let entry = Entry { name: path.join("."), leaf };
                let bytes = budget.bytes.checked_sub(entry.bytes());
                budget.bytes = bytes.context("its names and shapes take too much memory")?;
                entries.push(entry);
            }
            None => walk(value, path, budget, entries)?,
        }
        path.pop();
    }
    Ok(())
}
