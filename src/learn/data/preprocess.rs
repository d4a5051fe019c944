//! From the images of a data set to what a network sees: shape, part and scale, normalisation.
//!
//! Training decides it, `model.json` records it, and evaluation does the same. Images either keep their own
//! size, or every one becomes a square of the same side, from whatever size.

use anyhow::{bail, ensure};
use pipeline_stages::formats::{ImageShape, InputCrop, ModelInfo, Samples, Storage};
use pipeline_stages::kinds::Augmentation;
use rayon::prelude::*;
use tch::{Device, Tensor};

use super::augment::{FlipCrop, Normalisation, ResizeCrop, ResizedView, View, ViewSettings};
use super::image_store::{ImageStore, Use};
use crate::random::Stream;

/// The side of an input where the data set's images differ and nothing else is said.
pub const LARGE_SIDE: usize = 224;

/// The largest side that `image-size` can be.
const LARGEST_SIDE: usize = 4096;

/// How images become inputs of a network.
#[derive(Debug, Clone)]
pub struct Preprocess {
    /// The shape of an input.
    pub image: ImageShape,
    /// How images get that shape; `None` where they have it.
    pub crop: Option<InputCrop>,
    /// How pixels are scaled.
    pub normalisation: Normalisation,
    tables: Vec<[f32; 256]>,
}

impl Preprocess {
    /// For a training. An augmentation without a crop of its own uses `initial`, the crop of the encoder that the
    /// training starts from.
    ///
    /// # Errors
    /// When the augmentation does not fit the images.
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
    /// When its `model.json` is invalid.
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

    /// For contrastive pre-training: pixels are not scaled, and views have the shape of an input. `image_size` and encoded
    /// images make inputs squares.
    ///
    /// # Errors
    /// When the images are not squares and no size is given.
    pub fn for_views(samples: &Samples, image_size: Option<u32>) -> anyhow::Result<Self> {
        let normalisation = Normalisation::none(samples.image.channels);
        Self::for_training(samples, Augmentation::None, image_size, None, normalisation)
    }

    /// The images of these samples, where they become inputs. `note` as for [`ImageStore::new`].
    ///
    /// # Errors
    /// When inputs have the images' own size, and these have another.
    pub fn store(
        &self,
        samples: Samples,
        device: Device,
        note: impl FnOnce(String),
    ) -> anyhow::Result<ImageStore> {
        let used = if self.crop.is_some() { Use::Resized } else { Use::OwnSize };
        self.check(&samples)?;
        Ok(ImageStore::new(samples, used, device, note))
    }

    /// The same for images of which views are made.
    ///
    /// # Errors
    /// As [`Preprocess::store`].
    pub fn store_for_views(
        &self,
        samples: Samples,
        settings: ViewSettings,
        device: Device,
        note: impl FnOnce(String),
    ) -> anyhow::Result<ImageStore> {
        let resized = self.resizes(&samples, settings);
        let used = if resized { Use::Resized } else { Use::OwnSizeViews };
        self.check(&samples)?;
        Ok(ImageStore::new(samples, used, device, note))
    }

    fn check(&self, samples: &Samples) -> anyhow::Result<()> {
        if self.crop.is_some() {
            return Ok(());
        }
        let ImageShape { height, width, .. } = self.image;
        if samples.storage() == Storage::Encoded {
            bail!(
                "the model takes images of {height}x{width} pixels as they are, and those of this data set \
                 are encoded, of any size: train the model with 'image-size', or give it a data set of pixels"
            );
        }
        ensure!(
            samples.image == self.image,
            "the model takes images of {height}x{width} pixels as they are, and those of this data set have \
             {}x{}: train the model with 'image-size', or give it images of its size",
            samples.image.height,
            samples.image.width
        );
        Ok(())
    }

    /// Inputs, float \[B,C,H,W\], as for validation, tests and use: nothing is drawn.
    ///
    /// # Errors
    /// When an image cannot be read, or libtorch cannot make the tensor.
    pub fn plain(&self, images: &ImageStore, batch: &[u32]) -> anyhow::Result<Tensor> {
        let Some(crop) = self.crop else {
            return self.light(images, batch, |_| FlipCrop::default());
        };
        self.resized(images, batch, |_, shape| ResizeCrop::centre(shape, self.image.height, crop))
    }

    /// Inputs, float \[B,C,H,W\], each augmented by the stream of its sample.
    ///
    /// # Errors
    /// As [`Preprocess::plain`].
    pub fn augmented(
        &self,
        images: &ImageStore,
        batch: &[u32],
        augmentation: Augmentation,
        stream: impl Fn(u32) -> Stream + Sync,
    ) -> anyhow::Result<Tensor> {
        let Some(crop) = self.crop else {
            let draw = |index| FlipCrop::draw(augmentation, &mut stream(index));
            return self.light(images, batch, draw);
        };
        self.resized(images, batch, |index, shape| {
            ResizeCrop::draw(&mut stream(index), shape, self.image.height, augmentation, crop)
        })
    }

    /// A view for contrastive pre-training of every image, float \[B,C,H,W\] in \[0, 1\], drawn by the stream of its
    /// sample.
    ///
    /// # Errors
    /// As [`Preprocess::plain`].
    pub fn views(
        &self,
        images: &ImageStore,
        batch: &[u32],
        settings: ViewSettings,
        stream: impl Fn(u32) -> Stream + Sync,
    ) -> anyhow::Result<Tensor> {
        if self.resizes(images.samples(), settings) {
            return images.batch(batch, self.image, |index, image, out| {
                let view = ResizedView::draw(&mut stream(index), image.shape, settings);
                view.render(&image.pixels, image.shape, self.image, out);
            });
        }
        let draw = |index: u32| View::draw(&mut stream(index), self.image, settings);
        match images.views_on_device() {
            Some(on_device) => {
                let views: Vec<View> = batch.par_iter().map(|&index| draw(index)).collect();
                on_device.render(batch, &views)
            }
            None => images.batch(batch, self.image, |index, image, out| {
                draw(index).render(&image.pixels, image.shape, out);
            }),
        }
    }

    /// Whether views take more than the images' own pixels.
    fn resizes(&self, samples: &Samples, settings: ViewSettings) -> bool {
        self.image != samples.image || settings.blurs
    }

    fn light(
        &self,
        images: &ImageStore,
        batch: &[u32],
        change: impl Fn(u32) -> FlipCrop + Sync,
    ) -> anyhow::Result<Tensor> {
        match images.on_device() {
            Some(on_device) => {
                let changes: Vec<FlipCrop> = batch.iter().map(|&index| change(index)).collect();
                on_device.light(batch, &changes, &self.tables)
            }
            None => images.batch(batch, self.image, |index, image, out| {
                change(index).apply(&image.pixels, image.shape, &self.tables, out);
            }),
        }
    }

    fn resized(
        &self,
        images: &ImageStore,
        batch: &[u32],
        resize: impl Fn(u32, ImageShape) -> ResizeCrop + Sync,
    ) -> anyhow::Result<Tensor> {
        images.batch(batch, self.image, |index, image, out| {
            resize(index, image.shape).render(&image.pixels, image.shape, out);
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
/// When nothing is said and the images are not squares.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pipeline_stages::formats::{Part, SamplesWriter};
    use pipeline_stages::kinds::architecture::Architecture;

    use super::*;
    use crate::random::Purpose;

    const SIDE: usize = 7;
    /// Wide, tall and square, none of them the size of an input.
    const SHAPES: [(usize, usize); 3] = [(10, 14), (17, 9), (10, 10)];
    const DRAWS: u32 = 200;

    fn png(height: usize, width: usize) -> Vec<u8> {
        let pixels = (0..3 * height * width).map(|index| (index * 89 % 251) as u8).collect();
        let image = image::RgbImage::from_raw(width as u32, height as u32, pixels).unwrap();
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    }

    /// Images of every size as files, and square ones as pixels.
    fn samples(folder: &Path, storage: Storage) -> Samples {
        let square = ImageShape { channels: 3, height: 10, width: 10 };
        let mut writer = match storage {
            Storage::Encoded => SamplesWriter::encoded(folder, Part::Train).unwrap(),
            Storage::Pixels => SamplesWriter::pixels(folder, Part::Train, square).unwrap(),
        };
        for (height, width) in SHAPES {
            let image = match storage {
                Storage::Encoded => png(height, width),
                Storage::Pixels => (0..square.bytes()).map(|i| (i * 89 % 251) as u8).collect(),
            };
            writer.push(&image, 0).unwrap();
        }
        writer.finish().unwrap();
        Samples::open_any(folder, Part::Train).unwrap()
    }

    fn pixels(images: &Tensor) -> Vec<f32> {
        Vec::try_from(images.contiguous().flatten(0, -1)).unwrap()
    }

    /// A model as a training that saw these inputs writes it.
    fn model(architecture: Architecture, inputs: &Preprocess) -> ModelInfo {
        let model = ModelInfo {
            architecture: architecture.to_string(),
            input: inputs.image,
            input_crop: inputs.crop,
            input_mean: inputs.normalisation.mean.clone(),
            input_std: inputs.normalisation.std.clone(),
            ..ModelInfo::default()
        };
        serde_json::from_value(serde_json::to_value(model).unwrap()).unwrap()
    }

    /// The crop that a model should have, and with it training, validation, evaluation and a probe.
    fn expected(augmentation: Augmentation, initial: Option<InputCrop>) -> InputCrop {
        match augmentation {
            Augmentation::RandomResizedCrop => InputCrop::CropThenResize,
            Augmentation::ResizeCropFlip => InputCrop::ResizeThenCrop,
            _ => initial.unwrap_or(InputCrop::CropThenResize),
        }
    }

    #[test]
    fn a_model_has_one_crop_in_training_and_everywhere_else() {
        let crops = [
            None,
            Some(InputCrop::CropThenResize),
            Some(InputCrop::ResizeThenCrop),
            Some(InputCrop::ResizeThenCropBicubic),
        ];
        for storage in [Storage::Encoded, Storage::Pixels] {
            let folder = tempfile::tempdir().unwrap();
            let samples = samples(folder.path(), storage);
            let images = ImageStore::new(samples, Use::Resized, Device::Cpu, |_| ());
            for (augmentation, initial) in Augmentation::ALL
                .iter()
                .filter(|way| **way != Augmentation::CropFlip)
                .flat_map(|way| crops.map(|initial| (*way, initial)))
            {
                let what = format!("{augmentation} from {initial:?}, {storage:?}");
                let size = Some(SIDE as u32);
                let normalisation = Normalisation::imagenet();
                let inputs = Preprocess::for_training(
                    images.samples(),
                    augmentation,
                    size,
                    initial,
                    normalisation,
                );
                let inputs = inputs.unwrap();
                let crop = expected(augmentation, initial);
                assert_eq!(inputs.crop, Some(crop), "{what}");
                let plain = inputs.plain(&images, &[0, 1, 2]).unwrap();

                // Evaluation and probes read the model.
                for &architecture in Architecture::ALL {
                    let used = Preprocess::of_model(&model(architecture, &inputs)).unwrap();
                    let seen = used.plain(&images, &[0, 1, 2]).unwrap();
                    assert_eq!(pixels(&seen), pixels(&plain), "{what}");
                }

                // Training: the same square, its mirror image, or random crops of the same scale.
                let drawn = |epoch: u32, index: u32| {
                    let stream = |index| Stream::new(3, Purpose::Augmentation, epoch, index);
                    inputs.augmented(&images, &[index], augmentation, stream).unwrap()
                };
                for index in 0..3 {
                    let seen = plain.narrow(0, i64::from(index), 1);
                    let (seen, mirrored) = (pixels(&seen), pixels(&seen.flip([3])));
                    let mut draws = (0..DRAWS).map(|epoch| pixels(&drawn(epoch, index)));
                    match augmentation {
                        Augmentation::None => assert!(draws.all(|draw| draw == seen), "{what}"),
                        Augmentation::Flip => assert!(
                            draws.all(|draw| draw == seen || draw == mirrored),
                            "{what}, image {index}"
                        ),
                        // The centre is one of the few places of an image that is hardly larger.
                        Augmentation::ResizeCropFlip => {
                            assert!(draws.any(|draw| draw == seen), "{what}, image {index}");
                        }
                        Augmentation::RandomResizedCrop | Augmentation::CropFlip => {}
                    }
                }
            }
        }
    }

    #[test]
    fn images_of_another_size_than_the_model_takes_as_they_are_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let samples = samples(folder.path(), Storage::Pixels);
        let untouched = untouched(&samples);
        let image = ImageShape { channels: 3, height: 32, width: 32 };
        let other = Preprocess { image, ..untouched.clone() };
        let images = untouched.store(samples, Device::Cpu, |_| ()).unwrap();
        assert!(untouched.plain(&images, &[0]).is_ok());
        let samples = Samples::open_any(folder.path(), Part::Train).unwrap();
        let error = other.store(samples, Device::Cpu, |_| ()).err().unwrap().to_string();
        assert!(error.contains("32x32") && error.contains("10x10"), "{error}");
    }

    fn untouched(samples: &Samples) -> Preprocess {
        let none = Normalisation::none(3);
        Preprocess::for_training(samples, Augmentation::None, None, None, none).unwrap()
    }
}
