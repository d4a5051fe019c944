//! A SimCLR view at another size than the image's, blurred half of the time as the paper does with
//! ImageNet's images (Chen et al., 2020, appendix A): a kernel of a tenth of the side, a standard deviation of 0.1 to 2 pixels.

use pipeline_stages::formats::ImageShape;

use super::blur::GaussianBlur;
use crate::data::augment::resample::{ResampleWeights, Resizing, resample};
use crate::data::augment::view::{Crop, View, ViewSettings};
use crate::random::Stream;

const BLUR_CHANCE: f64 = 0.5;
const BLUR_DEVIATION: (f64, f64) = (0.1, 2.0);

/// What is done to an image, all draws made.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizedView {
    view: View,
    /// The standard deviation of the blur, in pixels.
    blur: Option<f64>,
}

impl ResizedView {
    /// Draws a view of an image of this shape: what [`View::draw`] draws, then the blur.
    pub fn draw(stream: &mut Stream, shape: ImageShape, settings: ViewSettings) -> Self {
        let view = View::draw(stream, shape, settings);
        let blurred = settings.blurs && stream.chance(BLUR_CHANCE);
        let (low, high) = BLUR_DEVIATION;
        Self { view, blur: blurred.then(|| stream.uniform_in(low, high)) }
    }

    /// Writes the view of `pixels`, u8 \[C,H,W\] of the shape `image`, as floats in \[0, 1\] of the shape
    /// `size`, which has as many channels.
    pub fn render(&self, pixels: &[u8], image: ImageShape, size: ImageShape, out: &mut [f32]) {
        let Crop { top, left, height, width } = self.view.crop;
        let lines = |part, length| ResampleWeights::new(&Resizing::bicubic(part, length));
        let down = lines(top..top + height, size.height);
        let mut across = lines(left..left + width, size.width);
        if self.view.flipped {
            across.mirror();
        }
        let planes = pixels.chunks(image.height * image.width);
        for (source, target) in planes.zip(out.chunks_mut(size.height * size.width)) {
            resample(source, image.width, &across, &down, target);
        }
        self.view.recolour(out, size.channels);
        if let Some(deviation) = self.blur {
            let radius = size.height.min(size.width) / 10 / 2;
            GaussianBlur::new(radius, deviation).apply(out, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    const SETTINGS: ViewSettings =
        ViewSettings { crop_area_min: 0.08, jitter_strength: 0.5, blurs: false };

    fn stream(index: u32) -> Stream {
        Stream::new(0, Purpose::FirstView, 0, index)
    }

    #[test]
    fn at_the_images_own_size_without_blur_it_is_the_small_view() {
        let shape = ImageShape { channels: 3, height: 9, width: 12 };
        let pixels: Vec<u8> = (0..shape.bytes()).map(|value| (value * 7 % 256) as u8).collect();
        for index in 0..20 {
            let (mut expected, mut found) = (vec![0.0; pixels.len()], vec![0.0; pixels.len()]);
            View::draw(&mut stream(index), shape, SETTINGS).render(&pixels, shape, &mut expected);
            let view = ResizedView::draw(&mut stream(index), shape, SETTINGS);
            view.render(&pixels, shape, shape, &mut found);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "view {index}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn half_of_the_views_are_blurred_and_the_rest_of_the_draws_stay() {
        let shape = ImageShape { channels: 3, height: 80, width: 100 };
        let mut blurred = 0;
        for index in 0..1000 {
            let plain = ResizedView::draw(&mut stream(index), shape, SETTINGS);
            let view = ResizedView::draw(
                &mut stream(index),
                shape,
                ViewSettings { blurs: true, ..SETTINGS },
            );
            assert_eq!(view.view, plain.view);
            blurred += usize::from(view.blur.is_some());
            assert!(view.blur.is_none_or(|deviation| (0.1..2.0).contains(&deviation)));
        }
        assert!((430..570).contains(&blurred), "{blurred}");
    }
}
