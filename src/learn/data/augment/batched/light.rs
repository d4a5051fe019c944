//! The light augmentations of supervised training, for a whole batch by two gathers.

use tch::{Device, Tensor};

use super::device_images::{DeviceImages, count_along, upload};
use crate::data::augment::FlipCrop;

impl DeviceImages {
    /// The images `indices`, each changed as the one of `changes` at its place, float [B,C,H,W] with the channels
    /// innermost in memory. `tables` as for [`crate::data::augment::FlipCrop::apply`].
    ///
    /// # Errors
    /// When an index is out of range or libtorch fails.
    pub fn light(
        &self,
        indices: &[u32],
        changes: &[FlipCrop],
        tables: &[[f32; 256]],
    ) -> anyhow::Result<Tensor> {
        self.check(indices)?;
        let (height, channels, width) = (self.shape.height, self.shape.channels, self.shape.width);
        let mut numbers: Vec<i64> = indices.iter().map(|&index| i64::from(index)).collect();
        numbers.extend(changes.iter().map(|change| change.down));
        numbers.extend(changes.iter().map(|change| change.right));
        numbers.extend(changes.iter().map(|change| i64::from(change.flipped)));
        // Per number one row; every image has a place [B,1,1,1] (as [B,H,W,C] will be).
        let numbers = upload(&numbers, self.device)?.f_view([4, -1, 1, 1, 1])?;
        let [sample, down, right, flipped] = [0, 1, 2, 3].map(|row| numbers.f_select(0, row));
        let [sample, down, right, flipped] = [sample?, down?, right?, flipped?];

        let rows = count_along(1, 4, height, self.device)?.f_add(&down)?;
        let columns = mirrored(&count_along(2, 4, width, self.device)?, &flipped, width)?;
        let columns = folded(&columns.f_add(&right)?, width)?;
        let of_channel = count_along(3, 4, channels, self.device)?;
        let place = sample
            .f_mul_scalar((height * channels * width) as i64)?
            .f_add(&folded(&rows, height)?.f_mul_scalar((channels * width) as i64)?)?
            .f_add(&columns)?
            .f_add(&of_channel.f_mul_scalar(width as i64)?)?;
        let bytes = self.pixels.handle().f_take(&place)?.f_to_kind(tch::Kind::Int64)?;
        let entry = bytes.f_add(&of_channel.f_mul_scalar(256)?)?;
        let values = lookup(tables, self.device)?.f_take(&entry)?;
        Ok(values.f_permute([0, 3, 1, 2])?)
    }
}

fn lookup(tables: &[[f32; 256]], device: Device) -> anyhow::Result<Tensor> {
    upload(tables.as_flattened(), device)
}

/// `index`, or counted from the other end where `flipped` is one.
pub(super) fn mirrored(index: &Tensor, flipped: &Tensor, size: usize) -> anyhow::Result<Tensor> {
    let way = index.f_mul_scalar(-2)?.f_add_scalar(size as i64 - 1)?;
    Ok(flipped.f_mul(&way)?.f_add(index)?)
}

/// The index within 0..`size` that a padding by reflection shows at `index`.
fn folded(index: &Tensor, size: usize) -> anyhow::Result<Tensor> {
    let last = size as i64 - 1;
    let within = index.f_remainder((2 * last).max(1))?;
    Ok(within.f_sub_scalar(last)?.f_abs()?.f_rsub_scalar(last)?)
}
