//! From the images of a data set to what a network sees: shape, part and scale, normalisation.
//!
//! Training says it, `model.json` keeps it, and evaluation does the same. Images either keep their own
//! size, or every one becomes a square of the same side, from whatever size.

use anyhow::{bail, ensure};
use pipeline_stages::formats::{ImageShape, InputCrop, ModelInfo, Samples, Storage};
use pipeline_stages::kinds::Augmentation;
use pipeline_stages::worker::Context;
use tch::{Device, Tensor};

use crate::augment::batched::DeviceImages;
use crate::augment::{Frame, Normalisation};
use crate::batches::{ImageSource, Images};
use crate::pictures::Pictures;
use crate::random::{Purpose, Stream};

/// The side of an input where the data set's images differ and nothing else is said.
pub const LARGE_SIDE: usize = 224;

/// The images of one part of a data set, and where they become inputs.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// The images.
    pub samples: &'a Samples,
    /// The same images where they lie on a GPU; [`Inputs::on_device`] brings them there.
    pub on_device: Option<&'a DeviceImages>,
    /// Where inputs go.
    pub device: Device,
}

/// The largest side that `image-size` can be.
const LARGEST_SIDE: usize = 4096;

/// How images become inputs of a network.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The shape of an input.
    pub image: ImageShape,
    /// How images get that shape; `None` where they have it.
    pub crop: Option<InputCrop>,
    /// How pixels are scaled.
    pub normalisation: Normalisation,
    tables: Vec<[f32; 256]>,
}

impl Inputs {
    /// As a training wants them. `initial` is how the inputs of the encoder that it starts from get their shape: what
    /// an augmentation without a crop of its own goes by.
    ///
    /// # Errors
    /// When the augmentation does not go with the images.
    pub fn for_training(
        samples: &Samples,
        augmentation: Augmentation,
        image_size: Option<u32>,
        initial: Option<InputCrop>,
        normalisation: Normalisation,
    ) -> anyhow::Result<Self> {
        let crop = match augmentation {
            Augmentation::RandomResizedCrop => Some(InputCrop::CropThenResize),
            Augmentation::ResizeCropFlip => Some(InputCrop::ResizeThenCrop),
            Augmentation::None | Augmentation::Flip | Augmentation::CropFlip => {
                let resized = image_size.is_some() || samples.storage() == Storage::Encoded;
                resized.then_some(initial.unwrap_or(InputCrop::CropThenResize))
            }
        };
        let mut image = samples.image;
        if crop.is_some() {
            ensure!(
                augmentation != Augmentation::CropFlip,
                "'crop-flip' moves small images by 4 pixels, and these are resized: \
                 set augmentation = \"random-resized-crop\" or \"resize-crop-flip\", or \"none\""
            );
            let side = input_side(samples, image_size)?;
            image = ImageShape { channels: image.channels, height: side, width: side };
        }
        Ok(Self { image, crop, tables: normalisation.tables(), normalisation })
    }

    /// As a model was trained.
    ///
    /// # Errors
    /// When its `model.json` makes no sense.
    pub fn of_model(info: &ModelInfo) -> anyhow::Result<Self> {
        let ImageShape { height, width, .. } = info.input;
        ensure!(
            info.input_crop.is_none() || (height == width && (1..=LARGEST_SIDE).contains(&height)),
            "the model crops its inputs to {height}x{width} pixels: its model.json is damaged"
        );
        let normalisation = Normalisation::of_model(info)?;
        let tables = normalisation.tables();
        Ok(Self { image: info.input, crop: info.input_crop, normalisation, tables })
    }

    /// The images on the device, where it is a GPU that can hold them and make them into inputs.
    pub fn on_device(
        &self,
        samples: &Samples,
        device: Device,
        context: &Context,
    ) -> Option<DeviceImages> {
        let pixels = self.crop.is_none() && samples.storage() == Storage::Pixels;
        pixels.then(|| DeviceImages::where_possible(samples, device, context)).flatten()
    }

    /// Inputs, float \[B,C,H,W\], as for validation, tests and use: nothing is drawn.
    ///
    /// # Errors
    /// When an image can't be read, or libtorch can't make the tensor.
    pub fn plain(&self, stored: Stored<'_>, batch: &[u32]) -> anyhow::Result<Tensor> {
        let Some(crop) = self.crop else {
            let nothing_drawn = |index| Stream::new(0, Purpose::Augmentation, 0, index);
            return self.of_own_size(stored, batch, Augmentation::None, nothing_drawn);
        };
        self.framed(stored, batch, |_, shape| Frame::centre(shape, self.image.height, crop))
    }

    /// Inputs, float \[B,C,H,W\], each augmented by the stream of its sample.
    ///
    /// # Errors
    /// As [`Inputs::plain`].
    pub fn augmented(
        &self,
        stored: Stored<'_>,
        batch: &[u32],
        augmentation: Augmentation,
        stream: impl Fn(u32) -> Stream + Sync,
    ) -> anyhow::Result<Tensor> {
        if self.crop.is_none() {
            return self.of_own_size(stored, batch, augmentation, stream);
        }
        self.framed(stored, batch, |index, shape| {
            Frame::draw(&mut stream(index), shape, self.image.height, augmentation)
        })
    }

    fn of_own_size(
        &self,
        stored: Stored<'_>,
        batch: &[u32],
        augmentation: Augmentation,
        stream: impl Fn(u32) -> Stream + Sync,
    ) -> anyhow::Result<Tensor> {
        let Stored { samples, on_device, device } = stored;
        if samples.storage() == Storage::Encoded {
            let ImageShape { height, width, .. } = self.image;
            bail!(
                "the model takes images of {height}x{width} pixels as they are, and those of this data set \
                 are encoded, of any size: train the model with 'image-size', or give it a data set of pixels"
            );
        }
        let source = match on_device {
            Some(images) => ImageSource::Device(images),
            None => ImageSource::Host(Images::of(samples), device),
        };
        source.light(batch, augmentation, stream, &self.tables)
    }

    fn framed(
        &self,
        stored: Stored<'_>,
        batch: &[u32],
        frame: impl Fn(u32, ImageShape) -> Frame + Sync,
    ) -> anyhow::Result<Tensor> {
        let pictures = Pictures::of(stored.samples);
        pictures.batch(batch, self.image, stored.device, |index, picture, out| {
            frame(index, picture.shape).render(&picture.pixels, picture.shape, out);
            self.normalisation.apply(out);
        })
    }

    /// Samples a step of an evaluation: fewer of large images, for the memory.
    pub fn evaluation_batch(&self) -> usize {
        const MOST: usize = 500;
        const MOST_PIXELS: usize = MOST * 64 * 64;
        (MOST_PIXELS / (self.image.height * self.image.width).max(1)).clamp(1, MOST)
    }
}

/// The side of square inputs.
///
/// # Errors
/// When nothing is said and the images are no squares.
pub fn input_side(samples: &Samples, image_size: Option<u32>) -> anyhow::Result<usize> {
    let ImageShape { height, width, .. } = samples.image;
    match image_size {
        Some(side) => Ok(side as usize),
        None if samples.storage() == Storage::Encoded => Ok(LARGE_SIDE),
        None => {
            ensure!(
                height == width,
                "the images of the data set have {height}x{width} pixels, and a network sees squares here: \
                 set image-size"
            );
            Ok(height)
        }
    }
}
