//! The images of one part of a data set, wherever they are.
//!
//! They are pixels in the memory of the host, encoded files there, or pixels on a GPU. Which of these is decided once, when
//! a store is made. Does not depend on labels or on what is done to an image.

use std::borrow::Cow;

use anyhow::Context as _;
use pipeline_stages::formats::{ImageShape, Samples, Storage};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::augment::batched::{DeviceImages, DeviceViews, to_device};
use super::decode::decode;

/// Images of their own size that one thread prepares one after the other.
const TOGETHER: usize = 4;

/// The images, and where batches of them go.
pub struct ImageStore {
    samples: Samples,
    place: Place,
    device: Device,
}

/// Where images are prepared.
enum Place {
    /// In the memory of the host, by the threads of the CPU.
    Host,
    /// On a GPU, which prepares them itself.
    Device(DeviceImages),
    /// The same, with what it takes to make views.
    DeviceWithViews(DeviceViews),
}

/// One image in the memory of the host.
pub struct Image<'a> {
    /// Its own shape.
    pub shape: ImageShape,
    /// u8 \[C,H,W\].
    pub pixels: Cow<'a, [u8]>,
}

/// What the images are used for: it decides whether a GPU can prepare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Inputs of the images' own size, lightly changed.
    OwnSize,
    /// Views of the images' own size.
    OwnSizeViews,
    /// Inputs or views of another size.
    Resized,
}

impl ImageStore {
    /// The images of these samples. `note` takes what people should know: where a GPU cannot prepare the images, the CPU
    /// does.
    pub fn new(samples: Samples, used: Use, device: Device, note: impl FnOnce(String)) -> Self {
        let possible = device != Device::Cpu && samples.storage() == Storage::Pixels;
        let images = || DeviceImages::upload(&samples, device);
        let place = match used {
            Use::OwnSize if possible => images().map(Place::Device),
            Use::OwnSizeViews if possible => {
                images().and_then(DeviceViews::new).map(Place::DeviceWithViews)
            }
            _ => Ok(Place::Host),
        };
        let place = place.unwrap_or_else(|error| {
            note(format!("the CPU augments the images, as the GPU cannot: {error:#}"));
            Place::Host
        });
        Self { samples, place, device }
    }

    /// The samples.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// The images on a GPU, where it prepares them itself.
    pub(super) fn on_device(&self) -> Option<&DeviceImages> {
        match &self.place {
            Place::Host => None,
            Place::Device(images) => Some(images),
            Place::DeviceWithViews(views) => Some(views.images()),
        }
    }

    /// The images on a GPU, where it makes views of them itself.
    pub(super) fn views_on_device(&self) -> Option<&DeviceViews> {
        match &self.place {
            Place::DeviceWithViews(views) => Some(views),
            Place::Host | Place::Device(_) => None,
        }
    }

    /// One image in the memory of the host.
    ///
    /// # Errors
    /// When there is none of this index, or it cannot be decoded.
    pub fn image(&self, index: u32) -> anyhow::Result<Image<'_>> {
        let missing = || format!("there is no sample {index}");
        match self.samples.storage() {
            Storage::Pixels => {
                let shape = self.samples.image;
                let start = index as usize * shape.bytes();
                let pixels = self.samples.pixels().get(start..start + shape.bytes());
                Ok(Image { shape, pixels: Cow::Borrowed(pixels.with_context(missing)?) })
            }
            Storage::Encoded => {
                let file = self.samples.encoded(index as usize).with_context(missing)?;
                let (shape, pixels) = decode(file).with_context(|| {
                    format!(
                        "image {index} (counted from 0) of the data set cannot be decoded: fix or \
                         remove its file, and make the data set again"
                    )
                })?;
                Ok(Image { shape, pixels: Cow::Owned(pixels) })
            }
        }
    }

    /// A float tensor \[B,C,H,W\] of the shape `shape` per image, on the device of the store, prepared by all threads of the CPU.
    /// `transform` is given the index, the image and the place for the result, float \[C,H,W\].
    ///
    /// # Errors
    /// As [`ImageStore::image`], or when libtorch cannot make the tensor.
    pub fn batch(
        &self,
        indices: &[u32],
        shape: ImageShape,
        transform: impl Fn(u32, &Image<'_>, &mut [f32]) + Sync,
    ) -> anyhow::Result<Tensor> {
        let ImageShape { channels, height, width } = shape;
        let sizes = [indices.len(), channels, height, width].map(|size| size as i64);
        let mut batch = Tensor::f_zeros(sizes, (Kind::Float, Device::Cpu))?;
        let light = self.samples.storage() == Storage::Pixels && self.samples.image == shape;
        let places = floats_of(&mut batch).par_chunks_mut(shape.bytes().max(1));
        let places = places.with_min_len(if light { TOGETHER } else { 1 });
        places.zip(indices).try_for_each(|(place, &index)| {
            transform(index, &self.image(index)?, place);
            anyhow::Ok(())
        })?;
        to_device(&batch, self.device)
    }
}

/// The values of a fresh tensor, to be filled.
fn floats_of(tensor: &mut Tensor) -> &mut [f32] {
    assert!(
        tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "only floats in row-major order on the host are a slice"
    );
    // SAFETY: the tensor holds as many floats from there on, one after the other, and lives as long as the
    // slice, which borrows it mutably. It was just made, so nobody else has a handle to its storage.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}
