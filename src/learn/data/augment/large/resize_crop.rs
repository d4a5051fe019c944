//! Which part of an image the network sees, and at which scale.
//!
//! Three ways, with torchvision's geometry (its offsets round halves to the even number). A model has one of them:
//! that of its augmentation, else that of its initial encoder.
//!
//! | way | training | validation, test, use | filter |
//! |---|---|---|---|
//! | as SimCLR's encoders | `RandomResizedCrop`: area 0.08 to 1, aspect 3/4 to 4/3 | `CenterCrop` to 0.875 of the height and of the width, then `Resize` to a square | bicubic |
//! | as ImageNet's | `Resize` of the shorter side to 256/224 of the input, then `RandomCrop` | the same with `CenterCrop` | bilinear, the default of torchvision's `Resize` |
//! | as DINOv2's evaluation | | as ImageNet's | bicubic |
//!
//! Training without a random part has the centre crop of the model. All are antialiased.

use pipeline_stages::formats::{ImageShape, InputCrop};
use pipeline_stages::kinds::Augmentation;

use crate::data::augment::resample::{Filter, ResampleWeights, Resizing, resample};
use crate::data::augment::view::Crop;
use crate::random::Stream;

/// The smallest share of an image that a random resized crop covers.
const CROP_AREA_MIN: f64 = 0.08;

/// What is done to an image, all draws made.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizeCrop {
    /// The part of the image that is resized.
    part: Crop,
    /// The height and width that it gets.
    resized: [usize; 2],
    /// Rows above, and columns to the left, of the square that is kept of that.
    offset: [usize; 2],
    /// The side of that square.
    side: usize,
    flipped: bool,
    filter: Filter,
}

impl ResizeCrop {
    /// Draws how an image of this shape becomes a training input, a square of `side` pixels. `crop` is how the model's
    /// inputs are made outside training: what an augmentation without a crop of its own uses too.
    ///
    /// [`Augmentation::CropFlip`] is for small images: here it flips only.
    pub fn draw(
        stream: &mut Stream,
        shape: ImageShape,
        side: usize,
        augmentation: Augmentation,
        crop: InputCrop,
    ) -> Self {
        let mut resize = match augmentation {
            Augmentation::RandomResizedCrop => Self::resized_crop(stream, shape, side),
            Augmentation::ResizeCropFlip => {
                let whole = Self::centre(shape, side, InputCrop::ResizeThenCrop);
                let offset = whole.resized.map(|length| stream.below((length - side) as u32 + 1));
                Self { offset: offset.map(|offset| offset as usize), ..whole }
            }
            Augmentation::None | Augmentation::Flip | Augmentation::CropFlip => {
                Self::centre(shape, side, crop)
            }
        };
        resize.flipped = augmentation != Augmentation::None && stream.chance(0.5);
        resize
    }

    fn resized_crop(stream: &mut Stream, shape: ImageShape, side: usize) -> Self {
        let part = Crop::draw(stream, shape, CROP_AREA_MIN);
        Self::scaled(part, [side, side], [0, 0], side, Filter::Bicubic)
    }

    /// How an image of this shape becomes an input for validation or test.
    pub fn centre(shape: ImageShape, side: usize, crop: InputCrop) -> Self {
        let ImageShape { height, width, .. } = shape;
        match crop {
            InputCrop::CropThenResize => {
                let part = [height, width].map(|length| (length * 7 / 8).max(1));
                let (top, left) = (centred(height, part[0]), centred(width, part[1]));
                let part = Crop { top, left, height: part[0], width: part[1] };
                Self::scaled(part, [side, side], [0, 0], side, Filter::Bicubic)
            }
            InputCrop::ResizeThenCrop => Self::centre_of_resized(shape, side, Filter::Bilinear),
            InputCrop::ResizeThenCropBicubic => {
                Self::centre_of_resized(shape, side, Filter::Bicubic)
            }
        }
    }

    fn centre_of_resized(shape: ImageShape, side: usize, filter: Filter) -> Self {
        let ImageShape { height, width, .. } = shape;
        let shorter = height.min(width);
        let resized_shorter = (side * 256 + 112) / 224;
        let resized = [height, width].map(|length| resized_shorter * length / shorter.max(1));
        let offset = resized.map(|length| centred(length, side));
        let part = Crop { top: 0, left: 0, height, width };
        Self::scaled(part, resized, offset, side, filter)
    }

    fn scaled(
        part: Crop,
        resized: [usize; 2],
        offset: [usize; 2],
        side: usize,
        filter: Filter,
    ) -> Self {
        Self { part, resized, offset, side, flipped: false, filter }
    }

    /// Writes what the network sees of `pixels`, u8 \[C,H,W\] of this shape, as floats \[C,side,side\] in
    /// \[0, 1\].
    pub fn render(&self, pixels: &[u8], shape: ImageShape, out: &mut [f32]) {
        let Crop { top, left, height, width } = self.part;
        let lines = |part: std::ops::Range<usize>, axis: usize| {
            let kept = self.offset[axis]..self.offset[axis] + self.side;
            ResampleWeights::new(&Resizing {
                filter: self.filter,
                part,
                length: self.resized[axis],
                kept,
            })
        };
        let (down, mut across) = (lines(top..top + height, 0), lines(left..left + width, 1));
        if self.flipped {
            across.mirror();
        }
        let planes = pixels.chunks(shape.height * shape.width);
        for (source, target) in planes.zip(out.chunks_mut(self.side * self.side)) {
            resample(source, shape.width, &across, &down, target);
        }
    }
}

/// Where the centre of this length begins: half of what is left over, rounded to the even number.
fn centred(whole: usize, length: usize) -> usize {
    let free = whole.saturating_sub(length);
    let half = free / 2;
    half + (free & half & 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Purpose;

    fn shape(channels: usize, height: usize, width: usize) -> ImageShape {
        ImageShape { channels, height, width }
    }

    fn stream(index: u32) -> Stream {
        Stream::new(0, Purpose::Augmentation, 0, index)
    }

    #[test]
    fn halves_round_to_the_even_number() {
        let offsets = [10, 11, 12, 13, 14, 15, 17].map(|whole| centred(whole, 10));
        assert_eq!(offsets, [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn every_offset_of_the_random_crop_occurs_and_half_are_flipped() {
        let mut offsets = std::collections::BTreeSet::new();
        let mut flips = 0;
        for index in 0..2000 {
            let way = Augmentation::ResizeCropFlip;
            let crop = InputCrop::ResizeThenCrop;
            let resize = ResizeCrop::draw(&mut stream(index), shape(3, 32, 40), 28, way, crop);
            assert_eq!(resize.resized, [32, 40]);
            offsets.insert(resize.offset);
            flips += u32::from(resize.flipped);
        }
        assert_eq!(offsets.len(), 5 * 13);
        assert!((900..1100).contains(&flips), "{flips}");
    }

    #[test]
    fn a_flip_mirrors_every_row() {
        let pixels: Vec<u8> = (0..100).map(|value| (value * 37 % 256) as u8).collect();
        let resize = ResizeCrop::centre(shape(1, 10, 10), 7, InputCrop::ResizeThenCrop);
        let render = |flipped| {
            let mut out = vec![0.0; 49];
            ResizeCrop { flipped, ..resize.clone() }.render(&pixels, shape(1, 10, 10), &mut out);
            out
        };
        let mut flipped = render(true);
        flipped.chunks_mut(7).for_each(<[f32]>::reverse);
        assert_eq!(flipped, render(false));
    }

    /// The images and numbers of `tests/reference/large_images/make_vectors.py`.
    mod torchvision {
        use std::path::Path;

        use serde_json::Value;

        use super::*;
        use crate::data::decode::decode;

        const FOLDER: &str =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/large_images");

        fn cases() -> Vec<Value> {
            let text = std::fs::read(Path::new(FOLDER).join("vectors.json")).unwrap();
            let mut vectors: Value = serde_json::from_slice(&text).unwrap();
            serde_json::from_value(vectors["frames"].take()).unwrap()
        }

        fn numbers(value: &Value) -> Vec<usize> {
            serde_json::from_value(value.clone()).unwrap()
        }

        #[track_caller]
        fn assert_renders(resize: &ResizeCrop, case: &Value, expected: &Value, what: &str) {
            let name = case["image"].as_str().unwrap();
            let (shape, pixels) =
                decode(&std::fs::read(Path::new(FOLDER).join(name)).unwrap()).unwrap();
            let plane = resize.side * resize.side;
            let mut out = vec![f32::NAN; 3 * plane];
            resize.render(&pixels, shape, &mut out);
            let mut found: Vec<f32> = out.iter().copied().step_by(37).collect();
            found.extend(out.last());
            found.extend(
                out.chunks(plane).map(|plane| plane.iter().sum::<f32>() / plane.len() as f32),
            );
            let list = |key: &str| expected[key].as_array().unwrap().clone();
            let expected = [list("values"), list("means")].concat();
            assert_eq!(found.len(), expected.len(), "{what} of {name}");
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let expected = expected.as_f64().unwrap();
                let difference = (f64::from(*found) - expected).abs();
                assert!(difference < 2e-5, "{what} of {name}, {index}: {found} for {expected}");
            }
        }

        #[test]
        fn frames_are_those_of_torchvision() {
            for case in cases() {
                let [height, width] = numbers(&case["shape"])[..] else { panic!("two numbers") };
                let side = case["side"].as_u64().unwrap() as usize;
                let shape = shape(3, height, width);
                for (key, crop) in [
                    ("crop_then_resize", InputCrop::CropThenResize),
                    ("resize_then_crop", InputCrop::ResizeThenCrop),
                    ("resize_then_crop_bicubic", InputCrop::ResizeThenCropBicubic),
                ] {
                    assert_renders(&ResizeCrop::centre(shape, side, crop), &case, &case[key], key);
                }
                let offset = numbers(&case["random_crop"]["offset"]).try_into().unwrap();
                let whole = ResizeCrop::centre(shape, side, InputCrop::ResizeThenCrop);
                let resize = ResizeCrop { offset, flipped: true, ..whole };
                assert_renders(&resize, &case, &case["random_crop"]["flipped"], "a random crop");

                let [top, left, height, width] = numbers(&case["resized_crop"]["box"])[..] else {
                    panic!("four numbers")
                };
                let part = Crop { top, left, height, width };
                let resize = ResizeCrop::scaled(part, [side, side], [0, 0], side, Filter::Bicubic);
                let resize = ResizeCrop { flipped: true, ..resize };
                assert_renders(&resize, &case, &case["resized_crop"]["flipped"], "a resized crop");
            }
        }
    }

    proptest! {
        #[test]
        fn any_image_becomes_a_square_in_range(
            index: u32, height in 1usize..60, width in 1usize..60, side in 1usize..40, way in 0usize..5,
            bicubic: bool,
        ) {
            let shape = shape(3, height, width);
            let mut stream = stream(index);
            let pixels: Vec<u8> = (0..shape.bytes()).map(|_| stream.below(256) as u8).collect();
            let crop = if bicubic { InputCrop::CropThenResize } else { InputCrop::ResizeThenCrop };
            let resize = ResizeCrop::draw(&mut stream, shape, side, Augmentation::ALL[way], crop);
            let mut out = vec![f32::NAN; 3 * side * side];
            resize.render(&pixels, shape, &mut out);
            prop_assert!(out.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }

    #[test]
    fn a_very_long_image_takes_no_memory_for_what_is_cut_off() {
        let shape = shape(1, 1, 60_000);
        let resize = ResizeCrop::centre(shape, 224, InputCrop::ResizeThenCrop);
        let mut out = vec![f32::NAN; 224 * 224];
        resize.render(&vec![255; 60_000], shape, &mut out);
        assert!(out.iter().all(|value| (value - 1.0).abs() < 1e-5));
    }
}
