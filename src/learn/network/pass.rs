//! One forward pass: with which values, which statistics, in which precision.
//!
//! Networks keep no values of their own, so the same network runs with its weights, with
//! the weights after a look-ahead step, or with dual numbers for forward-mode differentiation.

use pipeline_stages::kinds::precision::Precision;
use tch::{Kind, Tensor};

use super::state::{Slot, Values};

/// Which statistics batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Of the batch; running statistics move.
    Train,
    /// Of the batch; nothing moves.
    LookAhead,
    /// Kept before; nothing moves.
    Evaluate,
}

/// A forward pass through a network.
#[derive(Debug)]
pub struct Pass {
    values: Values,
    /// Which statistics batch norm uses.
    pub mode: Mode,
    precision: Precision,
}

impl Pass {
    /// A pass with these values.
    pub fn new(values: Values, mode: Mode, precision: Precision) -> Self {
        Self { values, mode, precision }
    }

    /// The value of a tensor, as it is.
    pub fn value(&self, slot: Slot) -> &Tensor {
        &self.values[slot]
    }

    /// The value of a tensor, in the type of large products.
    ///
    /// # Errors
    /// When libtorch can't convert it.
    pub fn factor(&self, slot: Slot) -> anyhow::Result<Tensor> {
        self.in_precision(&self.values[slot])
    }

    /// A tensor in the type of large products.
    ///
    /// # Errors
    /// When libtorch can't convert it.
    pub fn in_precision(&self, tensor: &Tensor) -> anyhow::Result<Tensor> {
        Ok(match self.precision {
            Precision::F32 => tensor.shallow_clone(),
            Precision::Bf16 => tensor.f_to_kind(Kind::BFloat16)?,
        })
    }
}
