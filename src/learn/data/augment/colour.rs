//! Colour jitter and grey, with torchvision's definitions, on floats in [0, 1].
//!
//! An image is float [C,H,W]. One that does not have three channels has no saturation and no hue, and is never made grey; the mean grey
//! of its contrast is that of all its values.

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
    #[inline(always)]
    pub fn apply(self, image: &mut [f32], channels: usize) {
        match self {
            Self::Brightness(factor) => {
                for value in image {
                    *value = (*value * factor).clamp(0.0, 1.0);
                }
            }
            Self::Contrast(factor) => {
                let base = (1.0 - factor) * mean_grey(image, channels);
                for value in image {
                    *value = (*value * factor + base).clamp(0.0, 1.0);
                }
            }
            Self::Saturation(factor) => for_colours(image, channels, |colour| {
                let base = (1.0 - factor) * grey_of(colour);
                colour.map(|value| (value * factor + base).clamp(0.0, 1.0))
            }),
            Self::Hue(shift) => {
                // In sixths of the circle, from 0 to 6.
                let shift = (6.0 * shift).rem_euclid(6.0);
                for_colours(image, channels, |colour| shift_hue(colour, shift));
            }
        }
    }
}

/// Makes an image grey.
#[inline(always)]
pub fn make_grey(image: &mut [f32], channels: usize) {
    for_colours(image, channels, |colour| [grey_of(colour); 3]);
}

/// The parts of red, green and blue in a grey (ITU-R BT.601, with torchvision's digits).
pub(super) const GREY_PARTS: [f32; 3] = [0.2989, 0.587, 0.114];

#[inline(always)]
fn grey_of([red, green, blue]: [f32; 3]) -> f32 {
    GREY_PARTS[0] * red + GREY_PARTS[1] * green + GREY_PARTS[2] * blue
}

/// The mean of the grey of all pixels.
#[inline(always)]
fn mean_grey(image: &[f32], channels: usize) -> f32 {
    /// Sums that are kept side by side, so that they can be added to at once.
    const LANES: usize = 8;
    let count = if channels == 3 { image.len() / 3 } else { image.len() };
    let (first, rest) = image.split_at(count);
    let mut sums = [0f64; LANES];
    if channels == 3 {
        let (second, third) = rest.split_at(count);
        let greys = first.chunks(LANES).zip(second.chunks(LANES)).zip(third.chunks(LANES));
        for ((reds, greens), blues) in greys {
            let colours = reds.iter().zip(greens).zip(blues);
            for (sum, ((&red, &green), &blue)) in sums.iter_mut().zip(colours) {
                *sum += f64::from(grey_of([red, green, blue]));
            }
        }
    } else {
        for values in first.chunks(LANES) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value);
            }
        }
    }
    (sums.iter().sum::<f64>() / count.max(1) as f64) as f32
}

/// Changes every pixel of an image of three channels; leaves another one.
#[inline(always)]
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

/// Through hue, saturation, value and back; `shift` is in sixths of the circle, from 0 to 6. Without a branch, so
/// that many pixels go through it at once.
#[inline(always)]
fn shift_hue([red, green, blue]: [f32; 3], shift: f32) -> [f32; 3] {
    let value = larger(red, larger(green, blue));
    let chroma = value - smaller(red, smaller(green, blue));
    // A grey has no hue: all differences are zero, and the divisor does not matter.
    let divisor = if chroma > 0.0 { chroma } else { 1.0 };
    let after_red = (green - blue) / divisor;
    let after_green = 2.0 + (blue - red) / divisor;
    let after_blue = 4.0 + (red - green) / divisor;
    let hue = if value == green { after_green } else { after_blue };
    let hue = if value == red { after_red } else { hue };
    let hue = hue + shift;
    let hue = if hue < 0.0 { hue + 6.0 } else { hue };
    let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
    let channel = |offset: f32| {
        let position = offset + hue;
        let position = if position >= 6.0 { position - 6.0 } else { position };
        let part = smaller(larger(smaller(position, 4.0 - position), 0.0), 1.0);
        value - chroma * part
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

// One instruction each: `f32::max` and `f32::min` have to care for NaN.

#[inline(always)]
fn larger(one: f32, other: f32) -> f32 {
    if one > other { one } else { other }
}

#[inline(always)]
fn smaller(one: f32, other: f32) -> f32 {
    if one < other { one } else { other }
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
        assert!(close(&shift_hue([1.0, 0.0, 0.0], 2.0), &[0.0, 1.0, 0.0]));
        assert!(close(&shift_hue([0.5, 0.25, 0.25], 4.0), &[0.25, 0.25, 0.5]));
    }

    #[test]
    fn contrast_zero_is_the_mean_grey() {
        let mut image = [0.2, 0.6];
        Jitter::Contrast(0.0).apply(&mut image, 1);
        assert!(close(&image, &[0.4, 0.4]));
    }

    #[test]
    fn other_channels_than_three_know_only_brightness_and_contrast() {
        for channels in [1, 2, 4] {
            let unchanged = [0.2, 0.6, 0.4, 0.8];
            for step in [Jitter::Saturation(0.0), Jitter::Hue(0.3)] {
                let mut image = unchanged;
                step.apply(&mut image, channels);
                assert_eq!(image, unchanged);
            }
            let mut image = unchanged;
            make_grey(&mut image, channels);
            assert_eq!(image, unchanged);
            Jitter::Contrast(0.0).apply(&mut image, channels);
            assert!(close(&image, &[0.5; 4]), "all channels count: {image:?}");
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
            let mut image = colour;
            Jitter::Hue(shift).apply(&mut image, 3);
            Jitter::Hue(-shift).apply(&mut image, 3);
            prop_assert!(close(&image, &colour));
        }
    }
}
