//! The log of a training: a line for each epoch, that people read and `awk` can cut.
//!
//! ```text
//! epoch  3/20  train-loss 1.253  train-accuracy 0.5512  validation-accuracy 0.6120  2007 images/s  2.2 s
//! ```
//!
//! The names are those of the curves. The images are those of all sets of a step; their views are not counted. Times are in the
//! log alone: nothing of it is in an artifact.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use pipeline_stages::worker::Context;

/// Measured values, each with its name in the curves.
pub type EpochValues = Vec<(&'static str, f64)>;

/// The lines of one training.
pub struct EpochLog<'a> {
    context: &'a Context,
    epochs: u64,
    /// When this process began the epoch, or its part of it.
    began: Instant,
    /// How many images it has seen since.
    images: u64,
}

impl<'a> EpochLog<'a> {
    /// The log of a training of this many epochs.
    pub fn new(context: &'a Context, epochs: u64) -> Self {
        Self { context, epochs, began: Instant::now(), images: 0 }
    }

    /// An epoch begins, or the rest of one.
    pub fn begin(&mut self) {
        (self.began, self.images) = (Instant::now(), 0);
    }

    /// A step was done with this many images.
    pub fn saw(&mut self, images: usize) {
        self.images += images as u64;
    }

    /// An epoch is over: its number, from 0, and what was measured in it.
    pub fn end(&self, epoch: u64, values: &[(&str, f64)]) {
        let took = (self.images > 0).then(|| (self.images, self.began.elapsed()));
        self.context.log(&line(epoch, self.epochs, values, took));
    }

    /// An epoch that an earlier process trained: nothing is known of its speed.
    pub fn earlier(&self, epoch: u64, values: &[(&str, f64)]) {
        self.context.log(&line(epoch, self.epochs, values, None));
    }
}

/// A line, with how many images were seen in which time, where that is known.
fn line(epoch: u64, epochs: u64, values: &[(&str, f64)], took: Option<(u64, Duration)>) -> String {
    let width = epochs.to_string().len();
    let mut line = format!("epoch {:>width$}/{epochs}", epoch + 1);
    for (name, value) in values {
        let _ = write!(line, "  {name} {}", number(*value));
    }
    if let Some((images, time)) = took {
        let seconds = time.as_secs_f64();
        // A step that takes no measurable time has no speed.
        if seconds > 0.0 {
            let _ = write!(line, "  {:.0} images/s", images as f64 / seconds);
        }
        let _ = write!(line, "  {seconds:.1} s");
    }
    line
}

/// Four significant digits, in a form that every program reads.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-3..1e5).contains(&magnitude) {
        let digits = if magnitude < 1.0 { 0 } else { magnitude.log10().floor() as usize };
        let decimals = if magnitude < 1.0 { 4 } else { 3usize.saturating_sub(digits) };
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_epoch_its_values_its_speed_and_its_time() {
        let values = [("train-loss", 1.25321), ("train-accuracy", 0.5512), ("meta-loss", 2e-7)];
        let took = Some((4500, Duration::from_millis(2242)));
        assert_eq!(
            line(2, 120, &values, took),
            "epoch   3/120  train-loss 1.253  train-accuracy 0.5512  meta-loss 2.000e-7  2007 images/s  2.2 s"
        );
        assert_eq!(line(119, 120, &values[..1], None), "epoch 120/120  train-loss 1.253");
        assert_eq!(line(0, 1, &[], Some((1, Duration::ZERO))), "epoch 1/1  0.0 s");
    }

    #[test]
    fn numbers_keep_four_digits() {
        for (value, text) in [
            (0.0, "0.0000"),
            (0.87312, "0.8731"),
            (1.0, "1.000"),
            (12.3456, "12.35"),
            (-4210.56, "-4211"),
            (123456.0, "1.235e5"),
            (0.00012, "1.200e-4"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
