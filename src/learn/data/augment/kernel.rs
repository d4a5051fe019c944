//! A view of an image, made by one thread: bytes in, floats out.
//!
//! Every loop runs over neighbouring floats without a branch, so that the compiler makes vector code of it; the kernel
//! exists twice, for AVX2 and for whatever the target has at least. Both do the same operations in the same order, and
//! none fuses a product with a sum: the processor decides how fast a view is made, not what is in it.

use std::cell::RefCell;

use pipeline_stages::formats::ImageShape;

use super::colour::make_grey;
use super::resample::WeightsCache;
use super::view::{Crop, View};

/// Floats that are worked on together: what a vector register holds, once or several times.
const LANES: usize = 8;

/// What a thread keeps between two views, so that none allocates.
#[derive(Default)]
struct Scratch {
    across: WeightsCache,
    down: WeightsCache,
    /// [columns of the crop, channels, rows of the crop]: the crop as floats, turned.
    turned: Vec<f32>,
    /// [columns of the view, channels, rows of the crop].
    narrowed: Vec<f32>,
    /// [rows of the crop, channels, columns of the view].
    upright: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl View {
    /// Writes the view of `pixels`, u8 [C,H,W], as floats in [0, 1] of the same shape.
    pub fn render(&self, pixels: &[u8], shape: ImageShape, out: &mut [f32]) {
        render(self, pixels, shape, out);
    }

    /// Only the jitter and the grey, of an image that has its size already: float [C,H,W] in [0, 1].
    pub fn recolour(&self, image: &mut [f32], channels: usize) {
        recolour(self, image, channels);
    }
}

fn render(view: &View, pixels: &[u8], shape: ImageShape, out: &mut [f32]) {
    SCRATCH.with_borrow_mut(|scratch| {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { render_by_avx2(view, pixels, shape, out, scratch) };
        }
        render_with(view, pixels, shape, out, scratch);
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn render_by_avx2(
    view: &View,
    pixels: &[u8],
    shape: ImageShape,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    render_with(view, pixels, shape, out, scratch);
}

#[inline(always)]
fn render_with(
    view: &View,
    pixels: &[u8],
    shape: ImageShape,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    resize(view.crop, view.flipped, pixels, shape, out, scratch);
    recolour_with(view, out, shape.channels);
}

fn recolour(view: &View, image: &mut [f32], channels: usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { recolour_by_avx2(view, image, channels) };
    }
    recolour_with(view, image, channels);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn recolour_by_avx2(view: &View, image: &mut [f32], channels: usize) {
    recolour_with(view, image, channels);
}

#[inline(always)]
fn recolour_with(view: &View, image: &mut [f32], channels: usize) {
    for step in &view.jitter {
        step.apply(image, channels);
    }
    if view.grey {
        make_grey(image, channels);
    }
}

/// The crop at the size of the image: first along the rows, then along the columns, each pass with the other
/// dimension (and the channels) innermost in memory. What the cubic kernel overshoots is clamped.
#[inline(always)]
fn resize(
    crop: Crop,
    flipped: bool,
    pixels: &[u8],
    shape: ImageShape,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let ImageShape { channels, height, width } = shape;
    let Scratch { across, down, turned, narrowed, upright } = scratch;
    let (across, down) = (across.of(crop.width, width), down.of(crop.height, height));
    // Lines are filled up to whole groups of lanes; what is in the rest is never read as a result.
    let (column_size, row_size) =
        (crop.height.next_multiple_of(LANES), width.next_multiple_of(LANES));
    let (column, row) = (channels * column_size, channels * row_size);

    turned.resize(crop.width * column, 0.0);
    turn(crop, pixels, shape, column_size, turned);

    narrowed.resize(width * column, 0.0);
    for (output, (first, weights)) in across.outputs().enumerate() {
        let output = if flipped { width - 1 - output } else { output };
        let target = &mut narrowed[output * column..][..column];
        weighted_sum(&turned[first * column..], column, weights, target);
    }

    upright.resize(crop.height * row, 0.0);
    for channel in 0..channels {
        for y in 0..crop.height {
            let source = &narrowed[channel * column_size + y..];
            let target = &mut upright[y * row + channel * row_size..][..width];
            for (value, column) in target.iter_mut().zip(source.chunks(column)) {
                *value = column[0];
            }
        }
    }

    // The turned crop has been used: its place holds one row of the result.
    turned.resize(row.max(turned.len()), 0.0);
    let line = &mut turned[..row];
    for (y, (first, weights)) in down.outputs().enumerate() {
        weighted_sum(&upright[first * row..], row, weights, line);
        for (channel, values) in line.chunks(row_size).enumerate() {
            let target = &mut out[(channel * height + y) * width..][..width];
            for (target, value) in target.iter_mut().zip(values) {
                *target = (value / 255.0).clamp(0.0, 1.0);
            }
        }
    }
}

/// The crop as floats [columns, channels, rows].
#[inline(always)]
fn turn(crop: Crop, pixels: &[u8], shape: ImageShape, column_size: usize, turned: &mut [f32]) {
    let ImageShape { channels, height, width } = shape;
    for channel in 0..channels {
        for y in 0..crop.height {
            let source = &pixels[(channel * height + crop.top + y) * width + crop.left..];
            let columns = turned.chunks_mut(channels * column_size);
            for (column, &pixel) in columns.zip(&source[..crop.width]) {
                column[channel * column_size + y] = f32::from(pixel);
            }
        }
    }
}

/// `target` becomes the sum of as many lines as there are weights, each `stride` after the one before, times
/// their weights; in their order. The length of `target` is a multiple of [`LANES`].
#[inline(always)]
fn weighted_sum(lines: &[f32], stride: usize, weights: &[f32], target: &mut [f32]) {
    for (group, target) in target.chunks_exact_mut(LANES).enumerate() {
        let mut sum = [0f32; LANES];
        for (line, weight) in lines[group * LANES..].chunks(stride).zip(weights) {
            for (sum, value) in sum.iter_mut().zip(&line[..LANES]) {
                *sum += value * weight;
            }
        }
        target.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::augment::{ResampleWeights, Resizing, ViewSettings};
    use crate::random::{Purpose, Stream};

    fn image(shape: ImageShape, seed: u64) -> Vec<u8> {
        let mut stream = Stream::new(seed, Purpose::Augmentation, 0, 0);
        (0..shape.bytes()).map(|_| stream.below(256) as u8).collect()
    }

    /// The weights of every input, by output: a plain matrix.
    fn matrix(start: usize, length: usize, size: usize, flipped: bool) -> Vec<Vec<f64>> {
        let mut weights = ResampleWeights::new(&Resizing::bicubic(start..start + length, size));
        if flipped {
            weights.mirror();
        }
        let row = |(first, weights): (usize, &[f32])| {
            let mut row = vec![0.0; size];
            for (place, weight) in row[first..].iter_mut().zip(weights) {
                *place = f64::from(*weight);
            }
            row
        };
        weights.outputs().map(row).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_crop_is_the_product_with_two_matrices(
            seed: u64, coloured: bool, height in 1usize..20, width in 1usize..40,
        ) {
            let shape = ImageShape { channels: if coloured { 3 } else { 1 }, height, width };
            let pixels = image(shape, seed);
            let settings = ViewSettings { crop_area_min: 0.08, jitter_strength: 0.0, blurs: false };
            let mut stream = Stream::new(seed, Purpose::FirstView, 0, 0);
            let view = View::draw(&mut stream, shape, settings);
            let view = View { jitter: Vec::new(), grey: false, ..view };
            let mut out = vec![f32::NAN; shape.bytes()];
            render(&view, &pixels, shape, &mut out);
            let across = matrix(view.crop.left, view.crop.width, width, view.flipped);
            let down = matrix(view.crop.top, view.crop.height, height, false);
            for (index, found) in out.iter().enumerate() {
                let (channel, y, x) =
                    (index / (height * width), index / width % height, index % width);
                let plane = &pixels[channel * height * width..];
                let sum: f64 = (0..height * width)
                    .map(|pixel| {
                        let weight = down[y][pixel / width] * across[x][pixel % width];
                        weight * f64::from(plane[pixel])
                    })
                    .sum();
                let expected = (sum / 255.0).clamp(0.0, 1.0);
                prop_assert!((f64::from(*found) - expected).abs() < 2e-6, "{index}");
            }
        }

        /// On a processor with AVX2 this compares the two kernels.
        #[test]
        fn the_processor_does_not_change_a_bit(
            seed: u64, coloured: bool, height in 1usize..20, width in 1usize..40,
        ) {
            let shape = ImageShape { channels: if coloured { 3 } else { 1 }, height, width };
            let pixels = image(shape, seed);
            let settings = ViewSettings { crop_area_min: 0.08, jitter_strength: 0.5, blurs: false };
            let view = View::draw(&mut Stream::new(seed, Purpose::FirstView, 0, 0), shape, settings);
            let mut outs = [vec![f32::NAN; shape.bytes()], vec![f32::NAN; shape.bytes()]];
            render(&view, &pixels, shape, &mut outs[0]);
            render_with(&view, &pixels, shape, &mut outs[1], &mut Scratch::default());
            let bits = |out: &[f32]| out.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&outs[0]), bits(&outs[1]));
        }
    }
}
