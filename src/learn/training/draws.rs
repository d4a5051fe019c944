//! What names the random draws of augmentations: a sample that a method uses in several steps of an epoch, or in several sets of one, looks
//! different in each, and a resumed run draws the same. What an epoch of `sampling = "class-balanced"` has more than once looks alike, as
//! samples that are trained on are usually drawn by the epoch.

use anyhow::Context as _;

use super::training_loop::StepPosition;
use crate::data::batches::{SampleSet, StepSamples};
use crate::random::{Purpose, Stream};

/// Those of a set of samples, beside the sample and the view.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draws {
    purpose: Purpose,
    epoch: u32,
    /// The number of the first view.
    first_view: u32,
}

impl Draws {
    /// Those of an evaluation after these many steps.
    pub(super) fn of_validation(steps: u64) -> anyhow::Result<Self> {
        Self::new(Purpose::ValidationAugmentation, steps)
    }

    /// Those of the samples that a step trains on, and of the first of its other sets, in a run of which an epoch has usually these many
    /// steps.
    ///
    /// Samples that are not only trained on can come in many steps of an epoch, and so can those that are trained on where the
    /// method says so, and all where an epoch has more steps than is usual: streams of the step augment them, so that a sample
    /// that comes again looks different. It does too in another set of the same step.
    pub(super) fn of_step(
        at: StepPosition,
        steps_per_epoch: u64,
        samples: &StepSamples,
    ) -> anyhow::Result<[Self; 2]> {
        let is_usual = at.step_of_epoch < steps_per_epoch;
        let of_step = if is_usual {
            let usual = at.epoch * steps_per_epoch + at.step_of_epoch;
            Self::new(Purpose::OtherAugmentation, usual)?
        } else {
            Self::new(Purpose::FurtherStepAugmentation, at.steps_before)?
        };
        if is_usual && !samples.come_again {
            return Ok([Self::new(Purpose::Augmentation, at.epoch)?, of_step]);
        }
        Ok([of_step, of_step.after(&samples.train)])
    }

    fn new(purpose: Purpose, number: u64) -> anyhow::Result<Self> {
        let epoch = u32::try_from(number).context("the run has too many steps")?;
        Ok(Self { purpose, epoch, first_view: 0 })
    }

    /// Those of the next set of samples, after this one.
    pub(super) fn after(self, set: &SampleSet) -> Self {
        Self { first_view: self.first_view + set.views, ..self }
    }

    /// The draws for a view of a sample.
    pub(super) fn stream(self, seed: u64, sample: u32, view: u32) -> Stream {
        Stream::new(seed, self.purpose, self.epoch, sample).of_view(self.first_view + view)
    }
}
