//! What a checkpoint holds of a training: tensors, each under a name of its own.

use anyhow::ensure;
use tch::Tensor;

use super::optimizer::NetworkOptimizer;
use crate::network::NetworkState;

/// Handles of all tensors that a step or an epoch changes.
///
/// They share their storage with those that a method works on. So what is in here is saved and restored as long as
/// it is changed in place, and never replaced.
#[derive(Debug, Default)]
pub struct StateTensors(Vec<(String, Tensor)>);

impl StateTensors {
    /// Adds a tensor.
    ///
    /// # Errors
    /// When another one has its name.
    pub(super) fn add(&mut self, name: String, tensor: &Tensor) -> anyhow::Result<()> {
        ensure!(
            self.0.iter().all(|(other, _)| *other != name),
            "a method has two tensors called '{name}': give each a name of its own"
        );
        self.0.push((name, tensor.shallow_clone()));
        Ok(())
    }

    /// Adds the tensors of a network, by the names that they have in it with this before them.
    ///
    /// # Errors
    /// As [`StateTensors::add`].
    pub(super) fn add_state(&mut self, before: &str, state: &NetworkState) -> anyhow::Result<()> {
        let mut tensors = state.tensors().iter();
        tensors.try_for_each(|named| self.add(format!("{before}{}", named.name), &named.tensor))
    }

    /// Adds the tensors of a network, as [`StateTensors::add_state`], and those of its optimizer.
    ///
    /// # Errors
    /// As [`StateTensors::add`].
    pub(super) fn add_learner(
        &mut self,
        before: &str,
        state: &NetworkState,
        optimizer: &NetworkOptimizer,
    ) -> anyhow::Result<()> {
        self.add_state(before, state)?;
        let mut tensors = optimizer.state_tensors().into_iter();
        tensors.try_for_each(|(name, tensor)| self.add(format!("{before}{name}"), tensor))
    }

    /// All of them, for a checkpoint.
    pub fn list(&self) -> Vec<(String, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.clone(), tensor)).collect()
    }
}
