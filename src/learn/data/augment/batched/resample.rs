//! Per image a matrix that resamples one dimension, all gathered from one table.

use tch::{Device, Kind, Tensor};

use super::device_images::{SharedTensor, count_along};
use super::light::mirrored;
use crate::data::augment::{ResampleWeights, Resizing};

/// The matrices that make `size` outputs from any part of a line of `size` inputs.
///
/// float [size + 1, size, 2 size]: by the length of the part, the output and the input, with the part
/// beginning in the middle of a row. A window of `size` into a row is then the row of a matrix whose part begins
/// anywhere.
#[derive(Debug)]
pub(super) struct ResampleTable {
    weights: SharedTensor,
    size: usize,
    device: Device,
}

impl ResampleTable {
    pub(super) fn new(size: usize, device: Device) -> anyhow::Result<Self> {
        let mut weights = vec![0f32; (size + 1) * size * 2 * size];
        let rows = weights.chunks_mut(2 * size.max(1));
        let mut rows = rows.skip(size);
        for length in 1..=size {
            let resampling = ResampleWeights::new(&Resizing::bicubic(0..length, size));
            for ((first, of_output), row) in resampling.outputs().zip(&mut rows) {
                row[size + first..][..of_output.len()].copy_from_slice(of_output);
            }
        }
        let weights = Tensor::f_from_slice(&weights)?.f_to_device(device)?;
        Ok(Self { weights: SharedTensor::new(weights), size, device })
    }

    /// Where in the table the matrix of a part begins.
    pub(super) fn place(&self, start: usize, length: usize) -> i64 {
        (length * self.size * 2 * self.size + self.size - start) as i64
    }

    /// The matrices at these places, float [B, outputs, inputs]; upside down where `flipped` is one. Both
    /// are int64 [B].
    pub(super) fn matrices(&self, places: &Tensor, flipped: &Tensor) -> anyhow::Result<Tensor> {
        let outputs = count_along(1, 3, self.size, self.device)?;
        let row = mirrored(&outputs, &flipped.f_view([-1, 1, 1])?, self.size)?;
        let index = row
            .f_mul_scalar(2 * self.size as i64)?
            .f_add(&places.f_view([-1, 1, 1])?)?
            .f_add(&count_along(2, 3, self.size, self.device)?)?;
        let matrices = self.weights.handle().f_take(&index)?;
        debug_assert_eq!(matrices.kind(), Kind::Float);
        Ok(matrices)
    }
}
