//! The names in a checkpoint, and what is behind each.
//!
//! Dictionaries within dictionaries give names with dots: `state_dict.conv1.weight`. What such a name
//! means to a network is not known here.

use anyhow::{Context as _, anyhow, ensure};

use super::element::Values;
use super::tensor::{Source, Tensor};
use super::{Body, Checkpoint};
use crate::pickle::{Pickle, Value};

/// Deeper dictionaries are opaque.
const DEEPEST: usize = 8;
/// Longer keys are cut in names: nothing that is looked for has one.
const LONGEST_KEY: usize = 200;

/// What is in a checkpoint.
pub(crate) struct Contents<'c, 'file> {
    checkpoint: &'c Checkpoint<'file>,
    pickle: Option<Pickle<'c>>,
}

/// A name and what is behind it.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'c> {
    /// The keys of the dictionaries on the way, joined by dots.
    pub name: String,
    pub leaf: Leaf<'c>,
}

/// What is no dictionary.
#[derive(Debug, Clone)]
pub(crate) enum Leaf<'c> {
    Tensor(Tensor<'c>),
    /// A tensor that makes no sense, and why.
    Damaged(String),
    /// Anything else, in words.
    Opaque(String),
}

impl<'c, 'file> Contents<'c, 'file> {
    pub(super) fn new(checkpoint: &'c Checkpoint<'file>, pickle: Option<Pickle<'c>>) -> Self {
        Self { checkpoint, pickle }
    }

    /// Every name, in the order of the file.
    ///
    /// # Errors
    /// When there are too many, or when what the file holds is no dictionary.
    pub(crate) fn entries(&self) -> anyhow::Result<Vec<Entry<'_>>> {
        let mut entries = Vec::new();
        match (&self.pickle, &self.checkpoint.body) {
            (Some(pickle), _) => {
                let root = pickle.root();
                ensure!(
                    root.entries().is_some(),
                    "it holds {}, not a dictionary of tensors: save the state_dict() of the model instead",
                    root.describe()
                );
                let mut budget = self.checkpoint.limits.entries;
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

    /// How much work it has been so far to look at what is in the pickle.
    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.pickle.as_ref().map_or(0, Pickle::steps)
    }

    /// The numbers of a tensor.
    ///
    /// # Errors
    /// When they are not in the file, or damaged.
    pub(crate) fn values(&self, tensor: &Tensor<'_>) -> anyhow::Result<Values> {
        match &tensor.source {
            Source::Storage(storage) => {
                let content = self.checkpoint.storage(storage)?;
                let bytes = tensor.gathered(&content).context("the tensor leaves its storage")?;
                Ok(tensor.element.values(&bytes))
            }
            Source::Bytes(bytes) => Ok(tensor.element.values(bytes)),
            Source::Array(array) if array.is_float() => {
                let floats = array.floats().map_err(|problem| anyhow!(problem))?;
                Ok(Values::Floats(floats.into_iter().map(|float| float as f32).collect()))
            }
            Source::Array(array) => {
                Ok(Values::Integers(array.integers().map_err(|problem| anyhow!(problem))?))
            }
        }
    }
}

/// Adds what is in a dictionary, and in those within it. What is reachable on many ways counts on each.
fn walk<'c>(
    value: Value<'c>,
    path: &mut Vec<String>,
    budget: &mut usize,
    entries: &mut Vec<Entry<'c>>,
) -> anyhow::Result<()> {
    let entries_here = value.entries().into_iter().flat_map(|entries| entries.iter());
    for (key, value) in entries_here {
        *budget = budget.checked_sub(1).context("it has too many names")?;
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
            None => Some(Leaf::Opaque(value.describe())),
        };
        match leaf {
            Some(leaf) => entries.push(Entry { name: path.join("."), leaf }),
            None => walk(value, path, budget, entries)?,
        }
        path.pop();
    }
    Ok(())
}
