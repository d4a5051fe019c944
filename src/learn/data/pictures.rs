//! The images of a data set as pixels of any size: decoded where they are stored encoded, else in place.
//!
//! For what resizes images; [`crate::data::batches::Images`] serves small ones that keep their size.

use std::borrow::Cow;

use anyhow::Context as _;
use pipeline_stages::formats::{ImageShape, Samples, Storage};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::data::augment::batched::to_device;
use crate::data::batches::floats_of;
use crate::data::decode::decode;

/// One image.
pub struct Picture<'a> {
    /// Its own shape.
    pub shape: ImageShape,
    /// u8 \[C,H,W\].
    pub pixels: Cow<'a, [u8]>,
}

/// The images of one part of a data set.
#[derive(Clone, Copy)]
pub struct Pictures<'a> {
    samples: &'a Samples,
}

impl<'a> Pictures<'a> {
    /// Those of these samples.
    pub fn of(samples: &'a Samples) -> Self {
        Self { samples }
    }

    /// One image.
    ///
    /// # Errors
    /// When there is none of this index, or it cannot be decoded.
    pub fn get(&self, index: u32) -> anyhow::Result<Picture<'a>> {
        let missing = || format!("there is no sample {index}");
        match self.samples.storage() {
            Storage::Pixels => {
                let shape = self.samples.image;
                let start = index as usize * shape.bytes();
                let pixels = self.samples.pixels().get(start..start + shape.bytes());
                Ok(Picture { shape, pixels: Cow::Borrowed(pixels.with_context(missing)?) })
            }
            Storage::Encoded => {
                let file = self.samples.encoded(index as usize).with_context(missing)?;
                let (shape, pixels) = decode(file).with_context(|| {
                    format!(
                        "image {index} (counted from 0) of the data set cannot be decoded: fix or \
                         remove its file, and make the data set again"
                    )
                })?;
                Ok(Picture { shape, pixels: Cow::Owned(pixels) })
            }
        }
    }

    /// A float tensor \[B,C,H,W\] of the shape `shape` per image, prepared by all threads. `transform`
    /// is given the index, the image and the place for the result, float \[C,H,W\].
    ///
    /// # Errors
    /// As [`Pictures::get`], or when libtorch cannot make the tensor.
    pub fn batch(
        &self,
        indices: &[u32],
        shape: ImageShape,
        device: Device,
        transform: impl Fn(u32, &Picture<'_>, &mut [f32]) + Sync,
    ) -> anyhow::Result<Tensor> {
        let ImageShape { channels, height, width } = shape;
        let sizes = [indices.len(), channels, height, width].map(|size| size as i64);
        let mut batch = Tensor::f_zeros(sizes, (Kind::Float, Device::Cpu))?;
        let places = floats_of(&mut batch).par_chunks_mut(shape.bytes().max(1));
        places.zip(indices).try_for_each(|(place, &index)| {
            transform(index, &self.get(index)?, place);
            anyhow::Ok(())
        })?;
        to_device(&batch, device)
    }
}
