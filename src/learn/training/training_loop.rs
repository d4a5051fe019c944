//! The loop that every training shares: epochs and steps, checkpoints, being stopped, going on again.
//!
//! Batches are prepared ahead where a GPU computes, so that neither waits for the other. Does not depend on what is
//! trained: what a step does, and what has to outlive an interruption, is up to the [`Trainer`]. It writes the log of
//! a training: what it runs on, and a line for each epoch.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pipeline_stages::Kind;
use pipeline_stages::worker::{Context, Stopped};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::checkpoint::{Checkpoints, Due};
use super::epoch_log::{EpochLog, EpochValues};
use super::prefetch::prefetch;
use crate::data::batches::StepSamples;

/// Batches that are prepared ahead for a GPU.
pub const BATCHES_AHEAD: usize = 3;
/// Time between two reports of a run on a GPU: each one waits for it.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// How long a run is, in steps of epochs that have the usual number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLength {
    /// Steps of the whole run. It may end within an epoch.
    pub steps: u64,
    /// Steps of a pass over the samples: the usual number.
    pub steps_per_epoch: u64,
}

impl RunLength {
    /// This many passes over the samples.
    ///
    /// # Errors
    /// When the steps cannot be counted in 64 bits.
    pub fn of_epochs(epochs: u32, steps_per_epoch: u64) -> anyhow::Result<Self> {
        let steps = u64::from(epochs).checked_mul(steps_per_epoch);
        let steps = steps.context("this training is too long: set fewer epochs")?;
        Ok(Self { steps, steps_per_epoch })
    }

    /// Passes over the samples; the last one may be cut short.
    pub fn epochs(self) -> u64 {
        self.steps.div_ceil(self.steps_per_epoch.max(1))
    }
}

/// The place of a step within a run.
///
/// An epoch may have another number of steps than is usual. Schedules, evaluations and progress go by time, which passes
/// as much in every epoch: the usual number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPosition {
    /// Steps that were done before this one.
    pub steps_before: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The step within the epoch, from 0.
    pub step_of_epoch: u64,
    /// How many steps this epoch has.
    pub steps_of_epoch: u64,
    /// The length of the run.
    pub length: RunLength,
}

impl StepPosition {
    /// The first step of an epoch of this many steps.
    fn first(epoch: u64, steps_before: u64, steps_of_epoch: u64, length: RunLength) -> Self {
        Self { steps_before, epoch, step_of_epoch: 0, steps_of_epoch, length }
    }

    /// The step after this many others, where every epoch has the usual number of steps.
    pub fn usual(steps_before: u64, length: RunLength) -> Self {
        let steps_of_epoch = length.steps_per_epoch.max(1);
        let epoch = steps_before / steps_of_epoch;
        let step_of_epoch = steps_before % steps_of_epoch;
        Self { steps_before, epoch, step_of_epoch, steps_of_epoch, length }
    }

    /// The next step, in the same epoch.
    fn next(self) -> Self {
        let Self { steps_before, step_of_epoch, .. } = self;
        Self { steps_before: steps_before + 1, step_of_epoch: step_of_epoch + 1, ..self }
    }

    /// When the step begins.
    pub fn time(self) -> u64 {
        self.time_of(self.step_of_epoch)
    }

    /// When the step ends.
    pub fn end_time(self) -> u64 {
        self.time_of(self.step_of_epoch + 1)
    }

    fn time_of(self, steps: u64) -> u64 {
        let usual = self.length.steps_per_epoch;
        // In 128 bits, as the product of two numbers of steps.
        let within = u128::from(steps) * u128::from(usual) / u128::from(self.steps_of_epoch.max(1));
        self.epoch * usual + u64::try_from(within).unwrap_or(usual)
    }

    /// Whether this step is the last one of its epoch: all samples were seen, or the run is over.
    pub fn ends_epoch(self) -> bool {
        self.step_of_epoch + 1 >= self.steps_of_epoch || self.ends_run()
    }

    /// Whether this step is the last one of the run.
    pub fn ends_run(self) -> bool {
        self.end_time() >= self.length.steps
    }
}

/// Where batches come from. Depends on nothing that a step changes.
pub trait BatchSource: Sync {
    /// A prepared batch.
    type Batch: Send;

    /// Prepares the batch of one step.
    ///
    /// # Errors
    /// When a sample cannot be read, or libtorch cannot make its tensors.
    fn prepare(&self, at: StepPosition, samples: StepSamples) -> anyhow::Result<Self::Batch>;
}

/// A training.
pub trait Trainer {
    /// A prepared batch.
    type Batch: Send;
    /// The curves of the epochs so far: what has to outlive an interruption beside tensors.
    type Curves: Serialize + DeserializeOwned;

    /// Where it computes.
    fn device(&self) -> Device;

    /// Every tensor that a step changes, each under a name of its own.
    fn state_tensors(&self) -> Vec<(String, &Tensor)>;

    /// The curves of the epochs so far: what has to outlive an interruption beside tensors.
    fn curves(&self) -> &Self::Curves;

    /// Takes over the curves of an interrupted run, whose tensors are back already.
    fn resume(&mut self, curves: Self::Curves);

    /// Before an epoch, from 0. It calls `pause` between its parts with itself as it was before; after an interruption
    /// within it, it is called again.
    ///
    /// # Errors
    /// When libtorch fails, and those of `pause`.
    fn begin_epoch(
        &mut self,
        _epoch: u32,
        _pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        Ok(())
    }

    /// The samples of the steps of an epoch that has begun. The same when it is asked for again, within it.
    ///
    /// # Errors
    /// When they cannot be drawn.
    fn samples(&self, epoch: u32) -> anyhow::Result<Vec<StepSamples>>;

    /// One step.
    ///
    /// # Errors
    /// When libtorch fails, or training diverged.
    fn step(&mut self, batch: Self::Batch, at: StepPosition) -> anyhow::Result<()>;

    /// What follows on a step: an evaluation, the end of an epoch. It calls `pause` between its parts
    /// with itself as it was before; after an interruption it is called again.
    ///
    /// # Errors
    /// As [`Trainer::step`], and those of `pause`.
    fn after_step(
        &mut self,
        at: StepPosition,
        pause: &mut dyn FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()>;

    /// Reports how far it is. `at` is the step that was done last.
    ///
    /// # Errors
    /// When libtorch fails, or training diverged.
    fn report(&self, at: StepPosition) -> anyhow::Result<()>;

    /// What was measured in an epoch, counted from 0, for the log. `None` for one that is not over.
    fn epoch_values(&self, epoch: u64) -> Option<EpochValues>;

    /// Whether it ends before its length is reached.
    fn finished(&self) -> bool {
        false
    }

    /// Whether work that can be interrupted follows on the training, so that its end is worth a checkpoint.
    fn more_follows(&self) -> bool {
        false
    }
}

/// How far a run is: what the header of a checkpoint holds.
#[derive(Serialize, Deserialize)]
struct Reached<P> {
    place: Place,
    trainer: P,
}

/// How far a run is.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Place {
    /// The step that was done last.
    last: Option<StepPosition>,
    /// Whether all was done that follows on it.
    is_finished: bool,
    /// How many epochs have begun.
    begun: u64,
}

impl Place {
    /// The epoch that the next step is in.
    fn epoch(self) -> u64 {
        self.last.map_or(0, |last| last.epoch + u64::from(last.ends_epoch()))
    }

    /// The next step, in an epoch of this many steps.
    fn next_step(self, steps_of_epoch: u64, length: RunLength) -> StepPosition {
        match self.last {
            Some(last) if !last.ends_epoch() => last.next(),
            Some(last) => {
                StepPosition::first(last.epoch + 1, last.steps_before + 1, steps_of_epoch, length)
            }
            None => StepPosition::first(0, 0, steps_of_epoch, length),
        }
    }
}

/// Trains to the end of the length.
///
/// `parameters` distinguish the checkpoints of this run from those of others. The record says what it ran on, once that is
/// known: a resumed run keeps its threads.
///
/// # Errors
/// With [`Stopped`] after a checkpoint when asked to stop; else as the trainer's own.
pub fn run<T: Trainer>(
    trainer: &mut T,
    source: &impl BatchSource<Batch = T::Batch>,
    length: RunLength,
    context: &Context,
    parameters: &impl Kind,
) -> anyhow::Result<()> {
    ensure!(length.steps_per_epoch > 0, "there are no samples to train on");
    let mut checkpoints = Checkpoints::new(context, parameters, trainer.device());
    let reached = checkpoints.restore::<Reached<T::Curves>>(&trainer.state_tensors())?;
    let log = EpochLog::new(context, length.epochs());
    let mut run = Run { place: Place::default(), length, checkpoints, context, log };
    if let Some(reached) = reached {
        run.place = reached.place;
        trainer.resume(reached.trainer);
        // A log is of one process: what an earlier one wrote is repeated, as far as it is known.
        for (epoch, values) in (0..).map_while(|epoch| Some((epoch, trainer.epoch_values(epoch)?)))
        {
            run.log.earlier(epoch, &values);
        }
        let done = run.place.last.map_or(0, StepPosition::end_time);
        let continues = format!("continues after step {done} of {}", length.steps);
        context.log(&continues);
        context.note(continues);
    }
    if !run.place.is_finished {
        run.finish_step(trainer)?;
    }
    while !trainer.finished() && !run.place.last.is_some_and(StepPosition::ends_run) {
        run.epoch(trainer, source)?;
    }
    if trainer.more_follows() { run.save(trainer) } else { Ok(()) }
}

/// Where a run is, and its checkpoints.
struct Run<'a> {
    place: Place,
    length: RunLength,
    checkpoints: Checkpoints<'a>,
    context: &'a Context,
    log: EpochLog<'a>,
}

impl Run<'_> {
    /// The rest of the epoch that the run is in.
    fn epoch<T: Trainer>(
        &mut self,
        trainer: &mut T,
        source: &impl BatchSource<Batch = T::Batch>,
    ) -> anyhow::Result<()> {
        let epoch = u32::try_from(self.place.epoch())?;
        if self.place.begun <= u64::from(epoch) {
            trainer.begin_epoch(epoch, &mut |trainer| self.pause(trainer))?;
            self.place.begun = u64::from(epoch) + 1;
        }
        let samples = trainer.samples(epoch)?;
        ensure!(!samples.is_empty(), "epoch {} has no samples to train on", epoch + 1);
        let first = self.place.next_step(samples.len() as u64, self.length);
        ensure!(
            first.steps_of_epoch == samples.len() as u64,
            "epoch {} has another number of steps than when it was interrupted",
            epoch + 1
        );
        let begin = usize::try_from(first.step_of_epoch)?;
        let rest = samples.into_iter().skip(begin);
        let steps = std::iter::successors(Some(first), |at| (!at.ends_epoch()).then(|| at.next()));
        let prepared = steps.zip(rest).map(|(at, samples)| {
            let images = samples.images();
            Ok::<_, anyhow::Error>((at, images, source.prepare(at, samples)?))
        });
        self.log.begin();
        let on_gpu = trainer.device() != Device::Cpu;
        let mut reported = Instant::now();
        prefetch(if on_gpu { BATCHES_AHEAD } else { 0 }, prepared, |batches| {
            for batch in batches {
                self.pause(trainer)?;
                let (at, images, batch) = batch?;
                trainer.step(batch, at)?;
                (self.place.last, self.place.is_finished) = (Some(at), false);
                self.log.saw(images);
                if !on_gpu || at.ends_run() || reported.elapsed() >= REPORT_INTERVAL {
                    trainer.report(at)?;
                    reported = Instant::now();
                }
                self.finish_step(trainer)?;
                if trainer.finished() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// What follows on the last step.
    fn finish_step(&mut self, trainer: &mut impl Trainer) -> anyhow::Result<()> {
        let Some(last) = self.place.last else { return Ok(()) };
        trainer.after_step(last, &mut |trainer| self.pause(trainer))?;
        self.place.is_finished = true;
        if (last.ends_epoch() || trainer.finished())
            && let Some(values) = trainer.epoch_values(last.epoch)
        {
            self.log.end(last.epoch, &values);
        }
        Ok(())
    }

    /// Between two pieces of work: writes a checkpoint when it is time, and leaves when asked to.
    fn pause(&mut self, trainer: &impl Trainer) -> anyhow::Result<()> {
        let due = self.checkpoints.due();
        if due != Due::Nothing {
            match self.save(trainer) {
                // The work so far is worth more than what a checkpoint may save later.
                Err(error) if due == Due::Checkpoint => {
                    self.context.note(format!("the training continues without it: {error:#}"));
                }
                saved => saved?,
            }
        }
        if due == Due::Stop {
            return Err(Stopped.into());
        }
        Ok(())
    }

    fn save(&mut self, trainer: &impl Trainer) -> anyhow::Result<()> {
        let reached = Reached { place: self.place, trainer: trainer.curves() };
        self.checkpoints.save(&reached, &trainer.state_tensors())
    }
}

/// Fails when a loss says that training diverged.
///
/// # Errors
/// With what to try.
pub fn check_finite(loss: f64, at: StepPosition, learning_rate: f64) -> anyhow::Result<()> {
    ensure!(
        loss.is_finite(),
        "the loss is {loss} at epoch {}, step {}: training diverged; \
         try a smaller learning-rate (it is {learning_rate}) or a longer warmup",
        at.epoch + 1,
        at.step_of_epoch + 1,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_as_much_in_every_epoch() {
        let length = RunLength { steps: 20, steps_per_epoch: 10 };
        let times = |epoch, steps_of_epoch| -> Vec<u64> {
            let first = StepPosition::first(epoch, 0, steps_of_epoch, length);
            let steps =
                std::iter::successors(Some(first), |at| (!at.ends_epoch()).then(|| at.next()));
            steps.map(StepPosition::end_time).collect()
        };
        assert_eq!(times(0, 10), (1..=10).collect::<Vec<_>>());
        assert_eq!(times(0, 4), [2, 5, 7, 10]);
        assert_eq!(times(1, 1), [20]);
        assert_eq!(times(1, 20).len(), 20);
        for step in 0..20 {
            let at = StepPosition::usual(step, length);
            assert_eq!((at.time(), at.end_time()), (step, step + 1));
            assert_eq!((at.ends_epoch(), at.ends_run()), (step % 10 == 9, step == 19));
        }
    }
}
