//! Batches of images as tensors, prepared by many threads, and the order of samples in an epoch.
//!
//! Knows no augmentation: what is done to an image is a function that it is given.

use pipeline_stages::formats::{ImageShape, Samples};
use rayon::prelude::*;
use tch::{Device, Tensor};

use crate::random::{Purpose, Stream};

/// Images u8 [N,C,H,W], in place.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    pixels: &'a [u8],
    /// The shape of every image.
    pub shape: ImageShape,
}

impl<'a> Images<'a> {
    /// The images of one part of a data set.
    pub fn of(samples: &'a Samples) -> Self {
        Self { pixels: samples.pixels(), shape: samples.image }
    }

    /// A float tensor [B,C,H,W] of the images `indices`, each through `transform`, which is given
    /// the index, the pixels u8 [C,H,W] and the place for the result, float [C,H,W].
    ///
    /// # Errors
    /// When an index is out of range or libtorch can't make the tensor.
    pub fn batch(
        &self,
        indices: &[u32],
        device: Device,
        transform: impl Fn(u32, &[u8], &mut [f32]) + Sync,
    ) -> anyhow::Result<Tensor> {
        let size = self.shape.bytes();
        let mut values = vec![0f32; indices.len() * size];
        values.par_chunks_mut(size.max(1)).zip(indices).try_for_each(|(place, &index)| {
            let start = index as usize * size;
            let pixels = self.pixels.get(start..start + size);
            let pixels = pixels.ok_or_else(|| anyhow::anyhow!("there is no sample {index}"))?;
            transform(index, pixels, place);
            anyhow::Ok(())
        })?;
        let ImageShape { channels, height, width } = self.shape;
        let shape = [indices.len(), channels, height, width].map(|size| size as i64);
        Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?.f_to_device(device)?)
    }
}

/// The samples of an epoch in its random order.
pub fn shuffled(samples: &[u32], seed: u64, epoch: u32) -> Vec<u32> {
    let mut order = samples.to_vec();
    Stream::new(seed, Purpose::SampleOrder, epoch, 0).shuffle(&mut order);
    order
}
