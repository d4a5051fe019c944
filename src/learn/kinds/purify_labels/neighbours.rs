//! The nearest neighbours of every sample among the others, by the cosine of their features.

use tch::{Device, Tensor};

use crate::training::loss::unit_rows;

/// Bytes of a block of cosines.
const BLOCK_BYTES: i64 = 256 << 20;

/// Of every sample its nearest others, nearest first.
#[derive(Debug)]
pub struct Neighbours {
    /// Sample after sample.
    samples: Vec<u32>,
    /// How many each has.
    each: usize,
}

impl Neighbours {
    /// The `k` nearest others of every sample; all others, where there are fewer. `features` are float [n,F], with at least
    /// two samples. `between` is called before every block, with how many samples are done.
    ///
    /// Memory: one block of cosines, the features once more, and 4 k bytes a sample.
    ///
    /// # Errors
    /// When libtorch fails, or `between` does.
    pub fn find(
        features: &Tensor,
        k: u64,
        mut between: impl FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let unit = unit_rows(features)?;
        let transposed = unit.f_transpose(0, 1)?;
        let (all, _) = unit.size2()?;
        let k = i64::try_from(k).unwrap_or(i64::MAX).min(all - 1);
        let rows = (BLOCK_BYTES / (4 * all)).max(1);
        let mut samples = Vec::with_capacity(usize::try_from(k * all)?);
        let mut done = 0;
        while done < all {
            between(u64::try_from(done)?)?;
            let block = unit.f_narrow(0, done, rows.min(all - done))?;
            let cosines = block.f_mm(&transposed)?;
            // Nobody is a neighbour of itself.
            let _ = cosines.f_diagonal(done, 0, 1)?.f_fill_(f64::NEG_INFINITY)?;
            let (_, nearest) = cosines.f_topk(k, 1, true, true)?;
            let nearest = nearest.f_to_device(Device::Cpu)?.f_contiguous()?.f_flatten(0, 1)?;
            samples.extend(Vec::<i64>::try_from(nearest)?.into_iter().map(|sample| sample as u32));
            done += rows;
        }
        Ok(Self { samples, each: usize::try_from(k)? })
    }

    /// Those of every sample, in the order of the samples.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.samples.chunks(self.each)
    }
}
