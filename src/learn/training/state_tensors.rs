//! What a checkpoint holds of a training: tensors, each under a name of its own.

use tch::Tensor;

use super::optimizer::Optimizer;
use crate::network::State;

/// Handles of all tensors that a step or an epoch changes.
///
/// They share their storage with those that a method works on. So what is in here is saved and restored as long as
/// it is changed in place, and never replaced.
#[derive(Debug, Default)]
pub struct StateTensors(Vec<(String, Tensor)>);

impl StateTensors {
    /// Adds a tensor. No other one has its name.
    pub fn add(&mut self, name: impl Into<String>, tensor: &Tensor) {
        self.0.push((name.into(), tensor.shallow_clone()));
    }

    /// Adds the tensors of a network, by the names that they have in it with this before them.
    pub fn add_state(&mut self, before: &str, state: &State) {
        for named in state.tensors() {
            self.add(format!("{before}{}", named.name), &named.tensor);
        }
    }

    /// Adds the tensors of a network, as [`StateTensors::add_state`], and those of its optimizer.
    pub fn add_learner(&mut self, before: &str, state: &State, optimizer: &Optimizer) {
        self.add_state(before, state);
        for (name, tensor) in optimizer.state_tensors() {
            self.add(format!("{before}{name}"), tensor);
        }
    }

    /// All of them, for a checkpoint.
    pub fn list(&self) -> Vec<(String, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.clone(), tensor)).collect()
    }
}
