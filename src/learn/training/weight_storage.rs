//! All trained tensors of a network one after the other, with their gradients and what an optimizer keeps of them, each in its memory
//! order. So a step is a few operations over long runs, not a few per parameter: on a GPU starting an operation takes longer than
//! moving a bias.

use std::borrow::Borrow;
use std::ops::Range;

use anyhow::Context as _;
use tch::{Kind, Tensor};

/// Every parameter begins at a multiple of this many elements: kernels for wide loads want 64 bytes, or 32 in bf16.
const ALIGNMENT: i64 = 16;

/// The parameters, in one dimension.
#[derive(Debug)]
pub(super) struct WeightStorage {
    /// The parameters themselves.
    pub(super) values: Tensor,
    /// Their gradients.
    pub(super) gradients: Tensor,
    /// What is kept of them, zero at the beginning.
    pub(super) kept: Vec<Tensor>,
    /// Zeros, of which there are some between two parameters.
    filler: Tensor,
    rounded: Option<Rounded>,
}

/// A storage in bf16, for a network that computes in it: all weights are rounded in one operation instead of one each, and
/// their gradients converted in one.
#[derive(Debug)]
struct Rounded {
    values: Tensor,
    filler: Tensor,
}

impl WeightStorage {
    /// Copies of tensors, and as many numbers for each of `kept`.
    pub(super) fn of(tensors: &[&Tensor], kept: usize) -> anyhow::Result<Self> {
        let first = tensors.first().context("there is nothing to train")?;
        let filler = Tensor::f_zeros([ALIGNMENT], (first.f_kind()?, first.device()))?;
        let values = Tensor::f_cat(&lines(tensors, &filler)?, 0)?;
        let zeros = || values.f_zeros_like();
        let kept = (0..kept).map(|_| zeros()).collect::<Result<_, _>>()?;
        Ok(Self { gradients: zeros()?, kept, filler, rounded: None, values })
    }

    /// Has the values in bf16 too, from now on. Returns these.
    pub(super) fn add_rounded(&mut self) -> anyhow::Result<&Tensor> {
        let [values, filler] =
            [&self.values, &self.filler].map(|tensor| tensor.f_to_kind(Kind::BFloat16));
        Ok(&self.rounded.insert(Rounded { values: values?, filler: filler? }).values)
    }

    /// Rounds the values as they are now. Returns whether there are any in bf16.
    pub(super) fn round(&self) -> anyhow::Result<bool> {
        let Some(rounded) = &self.rounded else { return Ok(false) };
        tch::no_grad(|| rounded.values.shallow_clone().f_copy_(&self.values))?;
        Ok(true)
    }

    /// Gathers the gradients of neighbours, all of one type, which span these elements. Those in bf16 are converted together:
    /// gathering into another type is an operation for each on a GPU.
    pub(super) fn gather(&self, elements: &Range<i64>, gradients: &[Tensor]) -> anyhow::Result<()> {
        let mut place = part(&self.gradients, elements)?;
        let is_bf16 = gradients.iter().all(|one| matches!(one.f_kind(), Ok(Kind::BFloat16)));
        match &self.rounded {
            Some(Rounded { filler, .. }) if is_bf16 => {
                place.f_copy_(&Tensor::f_cat(&lines(gradients, filler)?, 0)?)?;
            }
            _ => {
                let _ = Tensor::f_cat_out(&place, &lines(gradients, &self.filler)?, 0)?;
            }
        }
        Ok(())
    }
}

/// Where the next parameter begins after this many elements.
pub(super) fn aligned(elements: i64) -> i64 {
    (elements + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// Some elements of a tensor of the storage.
pub(super) fn part(flat: &Tensor, elements: &Range<i64>) -> anyhow::Result<Tensor> {
    Ok(flat.f_narrow(0, elements.start, elements.end - elements.start)?)
}

/// The elements of a parameter in its shape: the inverse of [`in_memory_order`], without copying.
pub(super) fn view(flat: &Tensor, elements: &Range<i64>, shape: &[i64]) -> anyhow::Result<Tensor> {
    let line = part(flat, elements)?;
    Ok(match *shape {
        [outputs, inputs, height, width] => {
            line.f_view([outputs, height, width, inputs])?.f_permute([0, 3, 1, 2])?
        }
        _ => line.f_view(shape)?,
    })
}

/// The elements of tensors one after the other, with zeros between them where the next one has to be aligned.
fn lines(tensors: &[impl Borrow<Tensor>], filler: &Tensor) -> anyhow::Result<Vec<Tensor>> {
    let mut lines = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let line = in_memory_order(tensor.borrow())?;
        let length = line.numel() as i64;
        lines.push(line);
        if aligned(length) > length {
            lines.push(filler.f_narrow(0, 0, aligned(length) - length)?);
        }
    }
    Ok(lines)
}

/// The elements in one line. Weights of convolutions have their input channels innermost in memory, as
/// the fast kernels want them; all else is in row-major order. A copy only where the tensor is not laid out so.
fn in_memory_order(tensor: &Tensor) -> anyhow::Result<Tensor> {
    let tensor = tensor.f_detach()?;
    let tensor = if tensor.dim() == 4 { tensor.f_permute([0, 2, 3, 1])? } else { tensor };
    Ok(tensor.f_reshape([-1])?)
}
