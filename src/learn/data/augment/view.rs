//! A SimCLR view of an image (Chen et al., 2020, appendix A, without blur as for small images):
//! a random resized crop, a flip, colour jitter, grey.

use pipeline_stages::formats::ImageShape;

use super::colour::Jitter;
use crate::random::Stream;

/// What the draws of views depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewSettings {
    /// The smallest share of the image that a crop covers; the largest is 1.
    pub crop_area_min: f64,
    /// 0.5 varies brightness, contrast and saturation by 0.4, hue by 0.1.
    pub jitter_strength: f64,
    /// Whether views are blurred, half of the time: [`super::ResizedView`] alone does it.
    pub blurs: bool,
}

const ASPECT_MAX: f64 = 4.0 / 3.0;
const CROP_TRIES: usize = 10;
const FLIP_CHANCE: f64 = 0.5;
const JITTER_CHANCE: f64 = 0.8;
const GREY_CHANCE: f64 = 0.2;

/// The part of an image that a view shows, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// Rows above it.
    pub top: usize,
    /// Columns to the left of it.
    pub left: usize,
    /// Its rows.
    pub height: usize,
    /// Its columns.
    pub width: usize,
}

/// What is done to an image, all draws made.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The part that is shown, at the size of the image.
    pub crop: Crop,
    /// Whether left and right are exchanged.
    pub flipped: bool,
    /// The steps of the colour jitter in their order, each kind at most once.
    pub jitter: Vec<Jitter>,
    /// Whether it is made grey, last.
    pub grey: bool,
}

impl View {
    /// Draws a view of an image of this shape.
    pub fn draw(stream: &mut Stream, shape: ImageShape, settings: ViewSettings) -> Self {
        let crop = Crop::draw(stream, shape, settings.crop_area_min);
        let flipped = stream.chance(FLIP_CHANCE);
        let jitter = if stream.chance(JITTER_CHANCE) {
            draw_jitter(stream, shape.channels, settings.jitter_strength)
        } else {
            Vec::new()
        };
        Self { crop, flipped, jitter, grey: stream.chance(GREY_CHANCE) }
    }
}

impl Crop {
    /// torchvision's RandomResizedCrop: area uniform, aspect log-uniform; after ten misfits the largest
    /// centre crop within the aspects.
    pub(super) fn draw(stream: &mut Stream, shape: ImageShape, area_min: f64) -> Self {
        let (height, width) = (shape.height as f64, shape.width as f64);
        for _ in 0..CROP_TRIES {
            let area = height * width * stream.uniform_in(area_min, 1.0);
            let aspect = stream.uniform_in(-ASPECT_MAX.ln(), ASPECT_MAX.ln()).exp();
            let crop_width = (area * aspect).sqrt().round() as usize;
            let crop_height = (area / aspect).sqrt().round() as usize;
            if (1..=shape.width).contains(&crop_width) && (1..=shape.height).contains(&crop_height)
            {
                let mut place = |free: usize| stream.below(free as u32 + 1) as usize;
                let (top, left) =
                    (place(shape.height - crop_height), place(shape.width - crop_width));
                return Self { top, left, height: crop_height, width: crop_width };
            }
        }
        let crop_width = width.min(height * ASPECT_MAX).round() as usize;
        let crop_height = height.min(width * ASPECT_MAX).round() as usize;
        let (top, left) = ((shape.height - crop_height) / 2, (shape.width - crop_width) / 2);
        Self { top, left, height: crop_height, width: crop_width }
    }
}

/// The steps in their random order: without three channels only brightness and contrast.
fn draw_jitter(stream: &mut Stream, channels: usize, strength: f64) -> Vec<Jitter> {
    let spread = 0.8 * strength;
    let mut factor = || stream.uniform_in((1.0 - spread).max(0.0), 1.0 + spread) as f32;
    let mut steps = vec![Jitter::Brightness(factor()), Jitter::Contrast(factor())];
    if channels == 3 {
        steps.push(Jitter::Saturation(factor()));
        steps.push(Jitter::Hue(stream.uniform_in(-0.2 * strength, 0.2 * strength) as f32));
    }
    stream.shuffle(&mut steps);
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Purpose;

    const SETTINGS: ViewSettings =
        ViewSettings { crop_area_min: 0.08, jitter_strength: 0.5, blurs: false };

    fn shape(channels: usize, height: usize, width: usize) -> ImageShape {
        ImageShape { channels, height, width }
    }

    #[test]
    fn the_whole_image_unchanged_is_the_image() {
        let shape = shape(3, 4, 4);
        let pixels: Vec<u8> = (0..48).map(|value| value * 5).collect();
        let crop = Crop { top: 0, left: 0, height: 4, width: 4 };
        let view = View { crop, flipped: false, jitter: Vec::new(), grey: false };
        let mut out = vec![0.0; 48];
        view.render(&pixels, shape, &mut out);
        for (value, pixel) in out.iter().zip(&pixels) {
            assert!((value - f32::from(*pixel) / 255.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_flip_mirrors_every_row() {
        let shape = shape(1, 3, 5);
        let pixels: Vec<u8> = (0..15).map(|value| value * 17).collect();
        let crop = Crop { top: 1, left: 2, height: 2, width: 3 };
        let mut outs = [false, true].map(|flipped| {
            let mut out = vec![0.0; 15];
            View { crop, flipped, jitter: Vec::new(), grey: false }
                .render(&pixels, shape, &mut out);
            out
        });
        for row in outs[1].chunks_mut(5) {
            row.reverse();
        }
        assert_eq!(outs[0], outs[1]);
    }

    #[test]
    fn crops_have_the_areas_that_were_asked_for() {
        let shape = shape(1, 100, 100);
        let areas: Vec<f64> = (0..2000)
            .map(|index| {
                let mut stream = Stream::new(0, Purpose::FirstView, 0, index);
                let crop = Crop::draw(&mut stream, shape, 0.08);
                (crop.height * crop.width) as f64 / 10_000.0
            })
            .collect();
        let mean = areas.iter().sum::<f64>() / areas.len() as f64;
        assert!(areas.iter().all(|area| (0.07..=1.0).contains(area)));
        // Below (0.08 + 1) / 2: large crops with an aspect do not fit and are drawn again.
        assert!((0.46..0.54).contains(&mean), "{mean}");
    }

    proptest! {
        #[test]
        fn a_view_of_anything_is_in_range(
            seed: u64, coloured: bool, height in 1usize..40, width in 1usize..40, area in 0.0f64..=1.0,
        ) {
            let shape = shape(if coloured { 3 } else { 1 }, height, width);
            let mut stream = Stream::new(seed, Purpose::FirstView, 0, 0);
            let pixels: Vec<u8> = (0..shape.bytes()).map(|_| stream.below(256) as u8).collect();
            let settings = ViewSettings { crop_area_min: area, ..SETTINGS };
            let view = View::draw(&mut stream, shape, settings);
            let mut out = vec![f32::NAN; shape.bytes()];
            view.render(&pixels, shape, &mut out);
            prop_assert!(out.iter().all(|value| (-1e-6..=1.000_001).contains(value)));
        }
    }
}
