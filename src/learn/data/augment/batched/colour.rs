//! Colour jitter and grey on a batch, float [B,H,C,W] in [0, 1]; see [`crate::data::augment::Jitter`].

use tch::{Kind, Tensor};

use crate::data::augment::colour::GREY_PARTS;

/// The dimension of the channels.
const CHANNELS: i64 = 2;

/// Every image times a factor, plus shares of its mean grey and of each pixel's own grey; clamped. Brightness,
/// contrast, saturation and grey are all of this form. `amounts` is float [3,B]: the factor and the two shares.
pub(super) fn blend(images: &Tensor, amounts: &Tensor) -> anyhow::Result<Tensor> {
    let amounts = amounts.f_view([3, -1, 1, 1, 1])?;
    let grey = grey(images)?;
    let mean = grey.f_mean_dim([1i64, 2, 3].as_slice(), true, Kind::Float)?;
    let base =
        mean.f_mul(&amounts.f_select(0, 1)?)?.f_add(&grey.f_mul(&amounts.f_select(0, 2)?)?)?;
    Ok(images.f_mul(&amounts.f_select(0, 0)?)?.f_add_(&base)?.f_clamp_(0.0, 1.0)?)
}

/// The grey of each pixel, float [B,H,1,W]; without three channels, their mean.
fn grey(images: &Tensor) -> anyhow::Result<Tensor> {
    if images.size().get(CHANNELS as usize) != Some(&3) {
        return Ok(images.f_mean_dim([CHANNELS].as_slice(), true, Kind::Float)?);
    }
    let part = |channel: usize| -> anyhow::Result<Tensor> {
        let plane = images.f_narrow(CHANNELS, channel as i64, 1)?;
        Ok(plane.f_mul_scalar(f64::from(GREY_PARTS[channel]))?)
    };
    Ok(part(0)?.f_add_(&part(1)?)?.f_add_(&part(2)?)?)
}

/// Moves the hue of every image by its `shifts`, float [B], in parts of the circle. Three channels.
pub(super) fn shift_hue(images: &Tensor, shifts: &Tensor) -> anyhow::Result<Tensor> {
    let [red, green, blue] = [0, 1, 2].map(|channel| images.f_narrow(CHANNELS, channel, 1));
    let (red, green, blue) = (red?, green?, blue?);
    let value = images.f_amax([CHANNELS].as_slice(), true)?;
    let chroma = value.f_sub(&images.f_amin([CHANNELS].as_slice(), true)?)?;
    // Where a colour is grey all differences are zero, and the divisor does not matter.
    let divisor = chroma.f_where_self(&chroma.f_gt(0.0)?, &chroma.f_ones_like()?)?;
    let sector = |one: &Tensor, other: &Tensor, first: f64| -> anyhow::Result<Tensor> {
        Ok(one.f_sub(other)?.f_div(&divisor)?.f_add_scalar(first)?)
    };
    let hue = sector(&blue, &red, 2.0)?
        .f_where_self(&green.f_eq_tensor(&value)?, &sector(&red, &green, 4.0)?)?;
    let hue = sector(&green, &blue, 0.0)?.f_where_self(&red.f_eq_tensor(&value)?, &hue)?;
    let hue = hue.f_add(&shifts.f_mul_scalar(6.0)?.f_view([-1, 1, 1, 1])?)?;

    let offsets = Tensor::f_arange_start_step(5.0, 0.0, -2.0, (Kind::Float, images.device()))?;
    let position = hue.f_add(&offsets.f_view([1, 1, 3, 1])?)?.f_remainder(6.0)?;
    let falling = position.f_rsub_scalar(4.0)?;
    let part = position.f_minimum(&falling)?.f_clamp_(0.0, 1.0)?;
    Ok(value.f_sub(&chroma.f_mul(&part)?)?)
}
