//! One forward pass: with which values, which statistics, in which precision.
//!
//! Networks keep no values of their own, so the same network runs with its weights, with
//! the weights after a look-ahead step, or with dual numbers for forward-mode differentiation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Context as _;
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
    /// Of the batch, in dual numbers; nothing moves. Uses the [`ConvolutionOutputs`] of a pass with the same values.
    Derivative,
    /// Kept before; nothing moves.
    Evaluate,
}

/// What the convolutions of one pass returned, by the slot of their weight: the values are a third of the work of a pass in
/// dual numbers, and the graph of that pass holds them anyway.
#[derive(Debug, Clone, Default)]
pub struct ConvolutionOutputs(Rc<RefCell<BTreeMap<usize, Tensor>>>);

/// A forward pass through a network.
#[derive(Debug)]
pub struct Pass {
    values: Values,
    /// Which statistics batch norm uses.
    pub mode: Mode,
    precision: Precision,
    outputs: Option<ConvolutionOutputs>,
}

impl Pass {
    /// A pass with these values.
    pub fn new(values: Values, mode: Mode, precision: Precision) -> Self {
        Self { values, mode, precision, outputs: None }
    }

    /// The same pass with the outputs of convolutions: to be filled, or in [`Mode::Derivative`] to be read.
    pub fn with_outputs(self, outputs: ConvolutionOutputs) -> Self {
        Self { outputs: Some(outputs), ..self }
    }

    /// Writes what the convolution with this weight returned, where they are kept.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn keep(&self, weight: Slot, output: &Tensor) -> anyhow::Result<()> {
        if let Some(ConvolutionOutputs(outputs)) = &self.outputs {
            outputs.borrow_mut().insert(weight.0, output.f_detach()?);
        }
        Ok(())
    }

    /// What the convolution with this weight returned in the pass whose outputs were kept.
    ///
    /// # Errors
    /// When none is.
    pub fn kept(&self, weight: Slot) -> anyhow::Result<Tensor> {
        let ConvolutionOutputs(outputs) =
            self.outputs.as_ref().context("no outputs of a pass were kept")?;
        let output = outputs.borrow().get(&weight.0).map(Tensor::shallow_clone);
        output.context("the kept outputs are of another network")
    }

    /// The value of a tensor, as it is.
    pub fn value(&self, slot: Slot) -> &Tensor {
        &self.values[slot]
    }

    /// The value of a tensor, in the type of large products.
    ///
    /// # Errors
    /// When libtorch cannot convert it.
    pub fn factor(&self, slot: Slot) -> anyhow::Result<Tensor> {
        self.in_precision(&self.values[slot])
    }

    /// A tensor in the type of large products.
    ///
    /// # Errors
    /// When libtorch cannot convert it.
    pub fn in_precision(&self, tensor: &Tensor) -> anyhow::Result<Tensor> {
        Ok(match self.precision {
            Precision::F32 | Precision::Tf32 => tensor.shallow_clone(),
            Precision::Bf16 => tensor.f_to_kind(Kind::BFloat16)?,
        })
    }
}
