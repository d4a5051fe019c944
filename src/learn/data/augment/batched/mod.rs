//! The augmentations of this folder as batched tensor operations, for images on a GPU.
//!
//! The draws are made on the host, from the same streams as for [`super::View`] and
//! [`super::FlipCrop`], and travel as two small tensors a batch; no operation is per image. What
//! comes out equals what the CPU's kernels write, up to rounding. It runs on any device, so that tests need no GPU.

mod colour;
mod device_images;
mod light;
mod resample;
mod views;

pub use device_images::{DeviceImages, to_device, upload};
pub use views::DeviceViews;

#[cfg(test)]
mod tests {
    use pipeline_stages::formats::{ImageShape, Part, Samples, write_samples};
    use pipeline_stages::kinds::Augmentation;
    use proptest::prelude::*;
    use tch::{Device, Tensor};

    use super::*;
    use crate::data::augment::{Crop, FlipCrop, Jitter, Normalisation, View, ViewSettings};
    use crate::random::{Purpose, Stream};

    const COUNT: usize = 12;

    fn samples(shape: ImageShape, seed: u64) -> Samples {
        let folder = tempfile::tempdir().unwrap();
        let mut stream = Stream::new(seed, Purpose::Augmentation, 0, 0);
        // Noise, a few greys and some flat images, for which a hue is not defined.
        let pixels: Vec<u8> = (0..COUNT * shape.bytes())
            .map(|index| match index / shape.bytes() {
                0 => 0,
                1 => 255,
                2 => (index * 7 % 256) as u8,
                _ => stream.below(256) as u8,
            })
            .collect();
        write_samples(folder.path(), Part::Train, shape, &pixels, &[0; COUNT]).unwrap();
        Samples::open(folder.path(), Part::Train).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.contiguous().flatten(0, -1)).unwrap()
    }

    /// What the kernel makes of images, each by the change at its place.
    fn by_kernel<T>(
        samples: &Samples,
        indices: &[u32],
        changes: &[T],
        render: impl Fn(&T, &[u8], &mut [f32]),
    ) -> Vec<f32> {
        let size = samples.image.bytes();
        let images = indices.iter().zip(changes).flat_map(|(&index, change)| {
            let mut out = vec![0.0; size];
            render(change, &samples.pixels()[index as usize * size..][..size], &mut out);
            out
        });
        images.collect()
    }

    /// Compares what the two ways make of the same views.
    fn compare_views(samples: &Samples, indices: &[u32], views: &[View]) {
        let shape = samples.image;
        let by_kernel = by_kernel(samples, indices, views, |view, pixels, out| {
            view.render(pixels, shape, out);
        });
        let images = DeviceImages::upload(samples, Device::Cpu).unwrap();
        let by_tensors = DeviceViews::new(images).unwrap().render(indices, views).unwrap();
        let by_tensors = values(&by_tensors);
        assert_eq!(by_kernel.len(), by_tensors.len());
        for (place, (kernel, tensors)) in by_kernel.iter().zip(&by_tensors).enumerate() {
            let view = &views[place / shape.bytes()];
            assert!((kernel - tensors).abs() < 1e-5, "[{place}] {kernel}, {tensors}: {view:?}");
        }
    }

    proptest! {
        // A case is 30 images.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn views_are_those_of_the_kernel(
            seed: u64, channels in 1usize..5, height in 1usize..40, width in 1usize..40,
        ) {
            let shape = ImageShape { channels, height, width };
            let samples = samples(shape, seed);
            let settings = ViewSettings { crop_area_min: 0.08, jitter_strength: 0.5, blurs: false };
            let indices: Vec<u32> = (0..30).map(|place| place * 7 % COUNT as u32).collect();
            let views: Vec<View> = (0..30)
                .map(|place| {
                    View::draw(&mut Stream::new(seed, Purpose::FirstView, 0, place), shape, settings)
                })
                .collect();
            compare_views(&samples, &indices, &views);
        }

        #[test]
        fn light_changes_are_those_of_the_kernel_to_the_bit(
            seed: u64, coloured: bool, height in 1usize..20, width in 1usize..20,
        ) {
            let channels = if coloured { 3 } else { 1 };
            let samples = samples(ImageShape { channels, height, width }, seed);
            let normalisation = Normalisation {
                mean: [0.4, 0.5, 0.3][..channels].to_vec(),
                std: [0.2, 0.3, 0.25][..channels].to_vec(),
            };
            let tables = normalisation.tables();
            let on_device = DeviceImages::upload(&samples, Device::Cpu).unwrap();
            let indices: Vec<u32> = (0..20).map(|place| place * 5 % COUNT as u32).collect();
            for augmentation in [Augmentation::None, Augmentation::Flip, Augmentation::CropFlip] {
                let draw = |index| {
                    let mut stream = Stream::new(seed, Purpose::Augmentation, 0, index);
                    FlipCrop::draw(augmentation, &mut stream)
                };
                let changes: Vec<FlipCrop> = indices.iter().map(|&index| draw(index)).collect();
                let by_kernel = by_kernel(&samples, &indices, &changes, |change, pixels, out| {
                    change.apply(pixels, samples.image, &tables, out);
                });
                let by_tensors = on_device.light(&indices, &changes, &tables).unwrap();
                prop_assert_eq!(by_kernel, values(&by_tensors));
            }
        }
    }

    #[test]
    fn every_step_at_every_place_and_every_edge() {
        let shape = ImageShape { channels: 3, height: 8, width: 6 };
        let samples = samples(shape, 3);
        let steps = [
            Jitter::Brightness(1.4),
            Jitter::Contrast(0.6),
            Jitter::Saturation(1.4),
            Jitter::Hue(-0.1),
            Jitter::Hue(0.5),
        ];
        let mut views = Vec::new();
        for turn in 0..steps.len() {
            for length in 0..4 {
                let mut jitter = steps.to_vec();
                jitter.rotate_left(turn);
                jitter.truncate(length);
                for (top, left, height, width) in [(0, 0, 8, 6), (7, 5, 1, 1), (2, 0, 3, 6)] {
                    let crop = Crop { top, left, height, width };
                    let flipped = turn % 2 == 0;
                    let hues = jitter.iter().filter(|step| matches!(step, Jitter::Hue(_)));
                    if hues.count() < 2 {
                        let jitter = jitter.clone();
                        views.push(View { crop, flipped, jitter, grey: length == 3 });
                    }
                }
            }
        }
        let indices: Vec<u32> = (0..views.len()).map(|view| (view % COUNT) as u32).collect();
        compare_views(&samples, &indices, &views);
    }

    #[test]
    fn a_missing_sample_is_an_error() {
        let samples = samples(ImageShape { channels: 1, height: 2, width: 2 }, 0);
        let images = DeviceImages::upload(&samples, Device::Cpu).unwrap();
        let error = images.light(&[COUNT as u32], &[FlipCrop::default()], &[[0.0; 256]]);
        assert!(error.unwrap_err().to_string().contains("no sample 12"));
    }
}
