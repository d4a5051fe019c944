//! Views for contrastive learning, a batch at a time: resampling as two batched products, colours by one
//! formula for all images.
//!
//! Every image has its jitter in an order of its own. Three of the four steps (and grey) are a blend
//! with numbers of the image's own, so one operation does a place of the order for all images. The hue is another
//! formula: images are sorted by its place, and each place moves the hue of one run of them.

use std::ops::Range;

use anyhow::ensure;
use pipeline_stages::formats::ImageShape;
use tch::{Device, Tensor};

use super::colour;
use super::device_images::{DeviceImages, upload};
use super::resample::ResampleTable;
use crate::data::augment::{Jitter, View};

/// The table of weights grows with the third power of the side: half a gigabyte for this one.
const LARGEST_SIDE: usize = 400;
/// Places in the order of the jitter.
const PLACES: usize = 4;
/// The blends of an image: one a place, and grey.
const BLENDS: usize = PLACES + 1;
/// The numbers of a blend: a factor, the share of the mean grey, the share of a pixel's grey.
const NOTHING: [f32; 3] = [1.0, 0.0, 0.0];

/// Images on a device, and what it takes to make views of them there.
#[derive(Debug)]
pub struct DeviceViews {
    images: DeviceImages,
    across: ResampleTable,
    down: ResampleTable,
}

impl DeviceViews {
    /// Prepares the views of these images.
    ///
    /// # Errors
    /// When the images are too large for the table of weights, or the device has too little memory.
    pub fn new(images: DeviceImages) -> anyhow::Result<Self> {
        let ImageShape { height, width, .. } = images.shape;
        ensure!(
            height.max(width) <= LARGEST_SIDE,
            "images of {height}x{width} pixels are too large"
        );
        let across = ResampleTable::new(images.shape.width, images.device)?;
        let down = ResampleTable::new(images.shape.height, images.device)?;
        Ok(Self { images, across, down })
    }

    /// The images.
    pub fn images(&self) -> &DeviceImages {
        &self.images
    }

    /// The images `indices`, each as the one of `views` at its place shows it: float [B,C,H,W] in
    /// [0, 1] with the channels innermost in memory, as [`View::render`] writes them up to rounding.
    ///
    /// # Errors
    /// When an index is out of range or libtorch fails.
    pub fn render(&self, indices: &[u32], views: &[View]) -> anyhow::Result<Tensor> {
        self.images.check(indices)?;
        ensure!(indices.len() == views.len(), "there are not as many views as images");
        let longest = views.iter().map(|view| view.jitter.len()).max().unwrap_or(0);
        ensure!(longest <= PLACES, "a jitter has {longest} steps, more than one of each kind");
        let plan = ColourPlan::of(views, self.images.shape.channels);
        let numbers = self.numbers(indices, views, &plan)?;
        let mut images = self.resampled(&numbers)?;
        let (blends, shifts) = plan.upload(self.images.device)?;
        for place in 0..BLENDS {
            images = colour::blend(&images, &blends.f_select(0, place as i64)?)?;
            if let Some(Range { start, end }) = plan.hues.get(place).filter(|run| !run.is_empty()) {
                let (start, length) = (*start as i64, (end - start) as i64);
                let mut run = images.f_narrow(0, start, length)?;
                run.f_copy_(&colour::shift_hue(&run, &shifts.f_narrow(0, start, length)?)?)?;
            }
        }
        let in_order = images.f_index_select(0, &numbers.f_select(0, 4)?)?;
        let channels_inside = in_order.f_permute([0, 1, 3, 2])?.f_contiguous()?;
        Ok(channels_inside.f_permute([0, 3, 1, 2])?)
    }

    /// int64 [5,B], in the plan's order: the sample, the places of its two matrices, whether it is flipped; and where
    /// in the plan's order each view of the batch is.
    fn numbers(
        &self,
        indices: &[u32],
        views: &[View],
        plan: &ColourPlan,
    ) -> anyhow::Result<Tensor> {
        let mut rows: [Vec<i64>; 5] = Default::default();
        rows[4] = vec![0; views.len()];
        for (place, &index) in plan.order.iter().enumerate() {
            let View { crop, flipped, .. } = &views[index];
            rows[0].push(i64::from(indices[index]));
            rows[1].push(self.across.place(crop.left, crop.width));
            rows[2].push(self.down.place(crop.top, crop.height));
            rows[3].push(i64::from(*flipped));
            rows[4][index] = place as i64;
        }
        Ok(upload(&rows.concat(), self.images.device)?.f_view([5, -1])?)
    }

    /// The crops at the size of the images, float [B,H,C,W].
    fn resampled(&self, numbers: &Tensor) -> anyhow::Result<Tensor> {
        let ImageShape { channels, height, width } = self.images.shape;
        let [channels, height, width] = [channels, height, width].map(|size| size as i64);
        let [samples, across, down, flipped] = [0, 1, 2, 3].map(|row| numbers.f_select(0, row));
        let (samples, flipped) = (samples?, flipped?);
        let across = self.across.matrices(&across?, &flipped)?;
        let down = self.down.matrices(&down?, &flipped.f_zeros_like()?)?;
        let pixels = self.images.pixels.handle().f_index_select(0, &samples)?;
        let pixels = pixels.f_to_kind(tch::Kind::Float)?;
        let narrowed = pixels
            .f_view([-1, height * channels, width])?
            .f_bmm(&across.f_transpose(1, 2)?)?
            .f_view([-1, height, channels * width])?;
        let resized = down.f_bmm(&narrowed)?.f_view([-1, height, channels, width])?;
        Ok(resized.f_div_scalar(255.0)?.f_clamp_(0.0, 1.0)?)
    }
}

/// What happens to the colours of a batch.
struct ColourPlan {
    /// The views, sorted by where in its order each has the hue; those without one last.
    order: Vec<usize>,
    /// Per place, the run within the order whose hue moves there.
    hues: [Range<usize>; PLACES],
    /// [BLENDS, 3, B], in the order.
    blends: Vec<f32>,
    /// [B], in the order; zero without a hue.
    shifts: Vec<f32>,
}

impl ColourPlan {
    fn of(views: &[View], channels: usize) -> Self {
        let coloured = channels == 3;
        let hue_place = |index: &usize| {
            let is_hue = |step: &Jitter| coloured && matches!(step, Jitter::Hue(_));
            views[*index].jitter.iter().position(is_hue).unwrap_or(PLACES)
        };
        let mut order: Vec<usize> = (0..views.len()).collect();
        order.sort_by_key(hue_place);
        let hues = std::array::from_fn(|place| {
            let begin = order.partition_point(|index| hue_place(index) < place);
            begin..order.partition_point(|index| hue_place(index) <= place)
        });
        let count = views.len();
        let mut blends = vec![0f32; BLENDS * 3 * count];
        let mut shifts = vec![0f32; count];
        for (column, &index) in order.iter().enumerate() {
            let View { jitter, grey, .. } = &views[index];
            for place in 0..BLENDS {
                let amounts = match jitter.get(place).filter(|_| place < PLACES) {
                    Some(step) => amounts_of(*step, coloured),
                    None if place == PLACES && *grey => {
                        amounts_of(Jitter::Saturation(0.0), coloured)
                    }
                    None => NOTHING,
                };
                for (row, amount) in amounts.into_iter().enumerate() {
                    blends[(place * 3 + row) * count + column] = amount;
                }
            }
            for step in jitter {
                if let Jitter::Hue(shift) = step {
                    shifts[column] = *shift;
                }
            }
        }
        Self { order, hues, blends, shifts }
    }

    /// The blends, float [BLENDS,3,B], and the shifts, float [B], on a device.
    fn upload(&self, device: Device) -> anyhow::Result<(Tensor, Tensor)> {
        let (count, all) =
            (self.shifts.len() as i64, [self.blends.as_slice(), &self.shifts].concat());
        let all = upload(&all, device)?.f_view([-1, count])?;
        let rows = (BLENDS * 3) as i64;
        let blends = all.f_narrow(0, 0, rows)?.f_view([BLENDS as i64, 3, count])?;
        Ok((blends, all.f_select(0, rows)?))
    }
}

fn amounts_of(step: Jitter, coloured: bool) -> [f32; 3] {
    match step {
        Jitter::Brightness(factor) => [factor, 0.0, 0.0],
        Jitter::Contrast(factor) => [factor, 1.0 - factor, 0.0],
        Jitter::Saturation(factor) if coloured => [factor, 0.0, 1.0 - factor],
        Jitter::Saturation(_) | Jitter::Hue(_) => NOTHING,
    }
}
