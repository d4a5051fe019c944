//! Colour jitter and grey, with torchvision's definitions, on floats in [0, 1].
//!
//! An image is float [C,H,W] with one or three channels. An image of one channel has no saturation, no hue, and is grey.

/// One step of the jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// All values times the factor.
    Brightness(f32),
    /// Away from the mean grey of the image by the factor.
    Contrast(f32),
    /// Away from each pixel's grey by the factor.
    Saturation(f32),
    /// The hue moved by this part of the full circle.
    Hue(f32),
}

impl Jitter {
    /// Changes an image in place.
    pub fn apply(self, image: &mut [f32], channels: usize) {
        match self {
            Self::Brightness(factor) => {
                for value in image {
                    *value = (*value * factor).clamp(0.0, 1.0);
                }
            }
            Self::Contrast(factor) => {
                let pixels = image.len() / channels.max(1);
                let sum: f64 =
                    (0..pixels).map(|pixel| f64::from(grey_at(image, pixels, pixel))).sum();
                let mean = (sum / pixels.max(1) as f64) as f32;
                for value in image {
                    *value = (*value * factor + (1.0 - factor) * mean).clamp(0.0, 1.0);
                }
            }
            Self::Saturation(factor) => for_colours(image, channels, |colour| {
                let grey = grey_of(colour);
                colour.map(|value| (value * factor + (1.0 - factor) * grey).clamp(0.0, 1.0))
            }),
            Self::Hue(shift) => for_colours(image, channels, |colour| shift_hue(colour, shift)),
        }
    }
}

/// Makes an image grey.
pub fn make_grey(image: &mut [f32], channels: usize) {
    for_colours(image, channels, |colour| [grey_of(colour); 3]);
}

/// The parts of red, green and blue in a grey (ITU-R BT.601, with torchvision's digits).
pub(super) const GREY_PARTS: [f32; 3] = [0.2989, 0.587, 0.114];

fn grey_of([red, green, blue]: [f32; 3]) -> f32 {
    GREY_PARTS[0] * red + GREY_PARTS[1] * green + GREY_PARTS[2] * blue
}

fn grey_at(image: &[f32], pixels: usize, pixel: usize) -> f32 {
    match (image.get(pixel), image.get(pixels + pixel), image.get(2 * pixels + pixel)) {
        (Some(&red), Some(&green), Some(&blue)) => grey_of([red, green, blue]),
        (value, ..) => value.copied().unwrap_or(0.0),
    }
}

/// Changes every pixel of an image of three channels; leaves another one.
fn for_colours(image: &mut [f32], channels: usize, change: impl Fn([f32; 3]) -> [f32; 3]) {
    if channels != 3 {
        return;
    }
    let plane = image.len() / 3;
    let (reds, rest) = image.split_at_mut(plane);
    let (greens, blues) = rest.split_at_mut(plane);
    for ((red, green), blue) in reds.iter_mut().zip(greens).zip(blues) {
        [*red, *green, *blue] = change([*red, *green, *blue]);
    }
}

/// Through hue, saturation, value and back.
fn shift_hue([red, green, blue]: [f32; 3], shift: f32) -> [f32; 3] {
    let value = red.max(green).max(blue);
    let chroma = value - red.min(green).min(blue);
    if chroma <= 0.0 {
        return [red, green, blue];
    }
    // In sixths of the circle.
    let hue = if value == red {
        (green - blue) / chroma
    } else if value == green {
        2.0 + (blue - red) / chroma
    } else {
        4.0 + (red - green) / chroma
    };
    let hue = (hue + 6.0 * shift).rem_euclid(6.0);
    let channel = |offset: f32| {
        let position = (offset + hue).rem_euclid(6.0);
        value - chroma * position.min(4.0 - position).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn colour() -> impl Strategy<Value = [f32; 3]> {
        [0.0f32..=1.0, 0.0f32..=1.0, 0.0f32..=1.0]
    }

    fn close(found: &[f32], expected: &[f32]) -> bool {
        found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn a_third_of_the_circle_turns_red_to_green() {
        assert!(close(&shift_hue([1.0, 0.0, 0.0], 1.0 / 3.0), &[0.0, 1.0, 0.0]));
        assert!(close(&shift_hue([0.5, 0.25, 0.25], -1.0 / 3.0), &[0.25, 0.25, 0.5]));
    }

    #[test]
    fn contrast_zero_is_the_mean_grey() {
        let mut image = [0.2, 0.6];
        Jitter::Contrast(0.0).apply(&mut image, 1);
        assert!(close(&image, &[0.4, 0.4]));
    }

    #[test]
    fn one_channel_knows_only_brightness_and_contrast() {
        for step in [Jitter::Saturation(0.0), Jitter::Hue(0.3)] {
            let mut image = [0.2, 0.6];
            step.apply(&mut image, 1);
            assert_eq!(image, [0.2, 0.6]);
        }
    }

    proptest! {
        #[test]
        fn a_factor_of_one_changes_nothing(colour in colour()) {
            for step in [
                Jitter::Brightness(1.0), Jitter::Contrast(1.0), Jitter::Saturation(1.0), Jitter::Hue(0.0),
            ] {
                let mut image = colour;
                step.apply(&mut image, 3);
                prop_assert!(close(&image, &colour), "{step:?}: {image:?} from {colour:?}");
            }
        }

        #[test]
        fn values_stay_in_range(colour in colour(), factor in 0.0f32..2.0, shift in -0.5f32..0.5) {
            for step in [
                Jitter::Brightness(factor), Jitter::Contrast(factor),
                Jitter::Saturation(factor), Jitter::Hue(shift),
            ] {
                let mut image = colour;
                step.apply(&mut image, 3);
                prop_assert!(image.iter().all(|value| (-1e-6..=1.000_001).contains(value)));
            }
        }

        #[test]
        fn hue_there_and_back_is_the_identity(colour in colour(), shift in -0.5f32..0.5) {
            let there = shift_hue(colour, shift);
            prop_assert!(close(&shift_hue(there, -shift), &colour));
        }
    }
}
