//! Images on a device, and how numbers get there.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{ImageShape, Samples};
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

/// Images that go to the device at once.
const UPLOADED_TOGETHER: usize = 8192;

/// The images of one part of a data set, where the network computes.
#[derive(Debug)]
pub struct DeviceImages {
    /// u8 [N,H,C,W]: with the channels between rows and columns, both passes of a resampling are plain
    /// batched products.
    pub(super) pixels: SharedTensor,
    /// The shape of every image.
    pub shape: ImageShape,
    count: usize,
    pub(super) device: Device,
}

impl DeviceImages {
    /// Copies all images to a device.
    ///
    /// # Errors
    /// When it has too little memory.
    pub fn upload(samples: &Samples, device: Device) -> anyhow::Result<Self> {
        let (shape, count) = (samples.image, samples.labels.len());
        let ImageShape { channels, height, width } = shape;
        let [channels, height, width] = [channels, height, width].map(|size| size as i64);
        let all = Tensor::f_empty([count as i64, height, channels, width], (Kind::Uint8, device))?;
        let images = samples.pixels().chunks(shape.bytes().max(1) * UPLOADED_TOGETHER);
        for (index, images) in images.enumerate() {
            let images = Tensor::f_from_slice(images)?.f_view([-1, channels, height, width])?;
            let images = images.f_to_device(device)?.f_permute([0, 2, 1, 3])?;
            let first = (index * UPLOADED_TOGETHER) as i64;
            let (count, ..) = images.size4()?;
            all.f_narrow(0, first, count)?.f_copy_(&images)?;
        }
        Ok(Self { pixels: SharedTensor::new(all), shape, count, device })
    }

    /// Fails on an index that no image has: a GPU could only abort.
    pub(super) fn check(&self, indices: &[u32]) -> anyhow::Result<()> {
        let wrong = indices.iter().find(|&&index| index as usize >= self.count);
        ensure!(wrong.is_none(), "there is no sample {}", wrong.copied().unwrap_or(0));
        Ok(())
    }
}

/// A tensor that several threads read; nobody changes it.
#[derive(Debug)]
pub(super) struct SharedTensor(Mutex<Tensor>);

impl SharedTensor {
    pub(super) fn new(tensor: Tensor) -> Self {
        Self(Mutex::new(tensor))
    }

    /// A handle of one's own to the same storage.
    pub(super) fn handle(&self) -> Tensor {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).shallow_clone()
    }
}

/// A tensor of these values, one dimension, on a device. Does not wait for a GPU: the copy starts from
/// page-locked memory and takes its turn.
///
/// # Errors
/// When libtorch cannot make it.
pub fn upload<T: Element>(values: &[T], device: Device) -> anyhow::Result<Tensor> {
    to_device(&Tensor::f_from_slice(values)?, device)
}

/// As [`upload`], of a tensor of any shape on the host.
///
/// # Errors
/// When libtorch cannot copy it.
pub fn to_device(tensor: &Tensor, device: Device) -> anyhow::Result<Tensor> {
    if device == Device::Cpu {
        return Ok(tensor.shallow_clone());
    }
    // Not `f_pin_memory`: it names the device, which libtorch warns about on every call.
    let locked = tensor.f_internal_pin_memory(device)?;
    locked.f_to_device_(device, tensor.f_kind()?, true, false).context("copying to the GPU")
}

/// 0, 1, ... along one dimension of `dimensions`, int64; 1 along the others.
pub(super) fn count_along(
    dimension: usize,
    dimensions: usize,
    count: usize,
    device: Device,
) -> anyhow::Result<Tensor> {
    let mut shape = vec![1; dimensions];
    if let Some(size) = shape.get_mut(dimension) {
        *size = count as i64;
    }
    Ok(Tensor::f_arange(count as i64, (Kind::Int64, device))?.f_view(shape.as_slice())?)
}
